"""Kinds of which people tell, the sixth time: rates that stay in their warm-up or are far too small, and states that
do not go from step to step; and healthy neighbours."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

import sourcewise
from sourcewise.diagnosis.answer import Diagnosis
from sourcewise.integrations.loop.states import standing_state
from sourcewise.integrations.loop.watching import Watching
from tests.diagnosis.instances.loops import Gru, Loop, found
from tests.diagnosis.instances.test_other_kinds_of_loops import first, schedules, trained
from tests.integrations.loops import SIZE, Apart, batches, words

# ── a schedule that is longer than the training ───────────────────────────────────────────────────────────────────────

EPOCHS, BATCHES = 3, 20


def lit(folder: Path, scheduled: Callable[[Any], Any], interval: str = "step", accumulate: int = 1) -> Diagnosis:
    """A training of Lightning's: 3 epochs of 20 batches."""
    pytest.importorskip("lightning")
    import lightning.pytorch as lightning

    from sourcewise.integrations.lightning import SourcewiseCallback

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            parts = Apart()
            self.encoder, self.decoder = parts.encoder, parts.decoder

        def training_step(self, batch: Any, place: int) -> Any:
            memory, state = self.encoder(batch[0])
            said = self.decoder(memory, state, batch[1][:, 1:])[0]
            return nn.functional.cross_entropy(said.flatten(0, 1), batch[1][:, 1:].flatten(), ignore_index=0)

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
            schedule = {"scheduler": scheduled(optimizer), "interval": interval}
            return {"optimizer": optimizer, "lr_scheduler": schedule}

    torch.manual_seed(0)
    callback = SourcewiseCallback()
    trainer = lightning.Trainer(
        default_root_dir=folder,
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accumulate_grad_batches=accumulate,
        callbacks=[callback],
    )
    known = list(batches(words(16 * BATCHES), begin=Gru.begin))
    trainer.fit(Module(), DataLoader(known, batch_size=None))  # type: ignore[arg-type]
    return callback.diagnosis


def one_cycle(steps: int) -> Callable[[Any], Any]:
    return lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)


def warm_then_falling(warmup: int) -> Callable[[Any], Any]:
    def made(optimizer: Any) -> Any:
        rises = lr_scheduler.LinearLR(optimizer, 0.01, total_iters=warmup)
        return lr_scheduler.SequentialLR(optimizer, [rises, lr_scheduler.CosineAnnealingLR(optimizer, 50)], [warmup])

    return made


LIT = [
    (one_cycle(16 * EPOCHS * BATCHES), "step", 1, "warning"),  # examples for batches
    (one_cycle(100 * EPOCHS * BATCHES), "step", 1, "error"),
    (one_cycle(EPOCHS * BATCHES), "epoch", 1, "warning"),  # steps, stepped with every epoch
    (one_cycle(EPOCHS * BATCHES), "step", 10, "warning"),  # batches that are accumulated
    (warm_then_falling(1000), "step", 1, "error"),
    (lambda o: lr_scheduler.LinearLR(o, 0.01, total_iters=180), "step", 1, "warning"),
    (one_cycle(EPOCHS * BATCHES), "step", 1, None),
    (one_cycle(EPOCHS), "epoch", 1, None),
    (warm_then_falling(10), "step", 1, None),
    (lambda o: lr_scheduler.StepLR(o, 2), "epoch", 1, None),
    (lambda o: lr_scheduler.LinearLR(o, 1.0, 0.1, total_iters=180), "step", 1, None),
]


@pytest.mark.parametrize(("scheduled", "interval", "accumulate", "level"), LIT)
def test_a_schedule_for_more_steps_in_lightning(
    scheduled: Any, interval: str, accumulate: int, level: str | None, tmp_path: Path
) -> None:
    diagnosis = lit(tmp_path, scheduled, interval, accumulate)
    assert {each.code: each.level for each in diagnosis.findings}.get("WIR041") == level
    assert level is None or diagnosis.findings[0].code == "WIR041"
    assert not [line for line in diagnosis.not_checked if "schedule" in line]


@pytest.mark.parametrize(
    ("made", "steps", "level"),
    [
        (one_cycle(20000), 100, "error"),
        (one_cycle(2000), 100, "warning"),
        (lambda o: lr_scheduler.LambdaLR(o, lambda at: min(1.0, (at + 1) / 400)), 100, "warning"),
        (one_cycle(2000), 0, None),  # nobody knows the end
        (one_cycle(2000), 1000, None),  # it is on its way
        (one_cycle(100), 100, None),
        (lambda o: lr_scheduler.LambdaLR(o, lambda at: min(1.0, (at + 1) / 20)), 100, None),
    ],
)
def test_a_schedule_for_more_steps_in_a_loop(made: Any, steps: int, level: str | None) -> None:
    loop = Gru()
    step = schedules(loop, made)
    doctor = sourcewise.doctor(loop.modules, loop.optimizers, steps=steps)
    for src, tgt in list(batches(words(1600), begin=loop.begin)):
        read, labels = loop.cut(tgt)
        loss = loop.loss(loop.logits(src, read), labels)
        loop.update(loss)
        doctor.step(loss, (src, tgt))
        step()
    assert dict(found(doctor)).get("WIR041") == level


# ── a rate that is far too small ──────────────────────────────────────────────────────────────────────────────────────


def factors(made: Callable[[int], float], rate: float) -> Gru:
    loop: Any = Gru(lambda p: [torch.optim.Adam(p, lr=rate)])
    loop.step = schedules(loop, lambda o: lr_scheduler.LambdaLR(o, made))
    return loop  # type: ignore[no-any-return]


def noam(at: int) -> float:
    return float(0.05 * min((at + 1) ** -0.5, (at + 1) * 40**-1.5))


@pytest.mark.parametrize(
    ("made", "rate", "ill"),
    [
        (noam, 1e-3, True),  # a rate times a rate
        (lambda at: 3e-3 * min(1.0, (at + 1) / 20), 3e-3, True),
        (lambda at: 1.0, 1e-6, True),
        (noam, 1.0, False),
        (lambda at: min(1.0, (at + 1) / 200_000), 3e-3, False),  # on its way up
        (lambda at: 1.0, 1e-3, False),
    ],
)
def test_a_rate_that_moves_nothing(made: Any, rate: float, ill: bool) -> None:
    loop: Any = factors(made, rate)
    doctor = trained(loop, 230, behind=lambda at: loop.step())
    codes = dict(found(doctor))
    assert (codes.get("TRN009") == "error") == ill
    assert not ill or doctor.diagnosis.findings[0].code == "TRN009"
    assert ill or made(0) < 1e-4 or not codes


# ── a state that does not go from step to step ────────────────────────────────────────────────────────────────────────


class Stepwise(nn.Module):
    """A decoder that calls what is recurrent once a step; `forgets` says what it forgets."""

    def __init__(self, kind: str, forgets: str) -> None:
        super().__init__()
        self.kind, self.forgets = kind, forgets
        self.source, self.target = nn.Embedding(SIZE, 32), nn.Embedding(SIZE, 32)
        self.encoder = nn.GRU(32, 32, batch_first=True)
        cells: dict[str, Callable[[], nn.Module]] = {
            "LSTMCell": lambda: nn.LSTMCell(64, 32),
            "GRUCell": lambda: nn.GRUCell(64, 32),
            "GRU": lambda: nn.GRU(64, 32, batch_first=True),
            "LSTM": lambda: nn.LSTM(64, 32),
        }
        self.cell, self.out = cells[kind](), nn.Linear(64, SIZE)

    def step(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        if self.kind == "GRUCell":
            state = self.cell(x, state)
            return state, state
        if self.kind == "LSTMCell":
            state = self.cell(x, state)
            return state[0], state
        if self.kind == "GRU":
            out, state = self.cell(x[:, None], state)
            return out[:, 0], state
        out, state = self.cell(x[None], hx=state)
        return out[0], state

    def forward(self, src: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        memory, last = self.encoder(self.source(src))
        flat = last[0] if "Cell" in self.kind else last
        begin = (flat, torch.zeros_like(flat)) if "LSTM" in self.kind else flat
        state, said = begin, []
        context = memory.mean(1)
        for word in self.target(read).unbind(1):
            out, after = self.step(torch.cat((word, context), 1), None if self.forgets == "none" else state)
            said.append(self.out(torch.cat((out, context), 1)))
            if self.forgets == "cell":
                state = (after[0], begin[1])
            elif self.forgets != "all":
                state = after
        return torch.stack(said, 1)


class Steps(Loop):
    def __init__(self, kind: str, forgets: str) -> None:
        self.how = kind, forgets
        super().__init__()

    def made(self) -> Any:
        return Stepwise(*self.how)

    def logits(self, src: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        return self.modules(src, read)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "forgets", "level"),
    [
        ("LSTMCell", "all", "error"),
        ("GRUCell", "all", "error"),
        ("GRUCell", "none", "error"),
        ("GRU", "all", "error"),
        ("LSTM", "all", "error"),
        ("LSTM", "none", "error"),
        ("LSTMCell", "cell", "warning"),
        ("LSTMCell", "", None),
        ("GRUCell", "", None),
        ("GRU", "", None),
        ("LSTM", "", None),
    ],
)
def test_a_state_that_does_not_go_on(kind: str, forgets: str, level: str | None) -> None:
    doctor = trained(Steps(kind, forgets), 14)
    codes = dict(found(doctor))
    assert codes.get("WIR028") == level
    if level is None:
        assert not codes
    else:
        (said,) = [each for each in doctor.diagnosis.findings if each.code == "WIR028"]
        assert f"({kind})" in said.evidence and "from step to step" in said.evidence
        assert ("cell state, zeros" in said.evidence) == (forgets == "cell")
    assert level != "error" or first(doctor) == "WIR028"


def test_a_layer_that_reads_all_at_once_begins_anew() -> None:
    """An encoder called for several texts begins each without a state, rightly."""

    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.words = nn.GRU(8, 8, batch_first=True), nn.Embedding(9, 8)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.stack([self.encoder(self.words(ids[:, at : at + 3]))[1][0] for at in range(0, 9, 3)])

    module = Several()
    watching = Watching([("several", module)], lambda what: contextlib.nullcontext())
    watching.start()
    module(torch.randint(9, (4, 9)))
    assert len(watching.recurrent) == 3 and standing_state(watching.recurrent) is None
