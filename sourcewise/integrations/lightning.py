"""The doctor in a training of Lightning's.

    from sourcewise.integrations.lightning import SourcewiseCallback

    trainer = Trainer(callbacks=[SourcewiseCallback()])

It needs the extra `sourcewise[lightning]`. Findings are printed when they are new, and are in `diagnosis`; figures of
each validation are logged as `sourcewise_source_bits` and the like, wherever the trainer logs.
"""

from __future__ import annotations

from typing import Any

from sourcewise.diagnosis.answer import Diagnosis
from sourcewise.errors import RequestError
from sourcewise.integrations.loop import LoopDoctor, doctor
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
