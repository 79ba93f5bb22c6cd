"""The doctor in a training of Lightning's.

    from sourcewise.integrations.lightning import SourcewiseCallback

    trainer = Trainer(callbacks=[SourcewiseCallback()])

It needs the extra `sourcewise[lightning]`. Findings are printed when they are new, and are in `diagnosis`; figures of
each validation are logged as `sourcewise_source_bits` and the like, wherever the trainer logs.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from sourcewise.diagnosis.answer import Diagnosis
from sourcewise.diagnosis.plan import Reached
from sourcewise.errors import RequestError
from sourcewise.integrations.loop import LoopDoctor, doctor
from sourcewise.integrations.rates import reached
from sourcewise.integrations.telling import PREFIX

try:
    from lightning.pytorch import Callback
except ImportError:
    raise RequestError("Lightning is not installed: pip install 'sourcewise[lightning]'") from None

SHOWN = ("source_bits", "loss_shuffled", "unique_pct")


class SourcewiseCallback(Callback):
    """Looks at a LightningModule's training. `options` are those of `sourcewise.doctor`, such as `source` and `pad`."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.doctor: LoopDoctor | None = None

    @property
    def diagnosis(self) -> Diagnosis:
        """What is known so far: findings ranked, the cause first, and what could not be checked."""
        return Diagnosis([]) if self.doctor is None else self.doctor.diagnosis

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """The training begins. Raises RequestError for options that are none."""
        steps = int(trainer.estimated_stepping_batches) if trainer.max_steps > 0 else 0
        self.doctor = doctor(pl_module, list(trainer.optimizers), **{"steps": steps, **self.options})
        with self.doctor.guard("the schedule of the learning rate"):
            self.doctor.plan = replace(self.doctor.plan, reached=_reached(trainer, pl_module))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A batch was trained on."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if self.doctor is not None:
            self.doctor.step(loss, batch)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Source bits of the validation set, or of each of several."""
        if self.doctor is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        loaders = trainer.val_dataloaders
        several = loaders if isinstance(loaders, (list, tuple)) else [loaders]
        for place, loader in enumerate(several):
            figures = self.doctor.evaluate(loader, f"set {place}" if len(several) > 1 else "")
            shown = {f"{PREFIX}{key}": float(figures[key]) for key in SHOWN if figures.get(key) is not None}
            if shown and len(several) == 1:
                pl_module.log_dict(shown, rank_zero_only=True)


def _reached(trainer: Any, module: Any) -> Reached | None:
    """How far the rate comes in the steps that are planned; None where these, or the schedule's, are not known."""
    steps = trainer.estimated_stepping_batches
    if not module.automatic_optimization or not trainer.lr_scheduler_configs or not 0 < steps < math.inf:
        return None
    told = trainer.lr_scheduler_configs[0]
    turns = float(steps)
    if told.interval == "epoch":
        if not 0 < trainer.num_training_batches < math.inf:
            return None
        turns = math.ceil(steps * trainer.accumulate_grad_batches / trainer.num_training_batches)
    return reached(told.scheduler.optimizer, told.scheduler, int(steps), max(1, int(turns // told.frequency)))
