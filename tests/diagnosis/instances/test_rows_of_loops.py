"""Rows of loops that read each other, or are padded otherwise at an evaluation; each beside its healthy twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.diagnosis.instances.loops import Gru, Loop, Transformer, adam, found
from tests.integrations.loops import PAD, Apart, batches

STEPS = 14


class Around(nn.Module):
    """An encoder, and what becomes of its memory (batch, time, dims)."""

    def __init__(self, inner: nn.Module, after: Callable[[Tensor], Tensor], *held: nn.Module) -> None:
        super().__init__()
        self.inner, self.after, self.held = inner, after, nn.ModuleList(held)

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        memory, state = self.inner(source)
        return self.after(memory), state


def after(*held: nn.Module, change: Callable[..., Tensor]) -> Loop:
    loop = Gru()
    encoder = Around(loop.modules[0], lambda memory: change(memory, *held), *held)
    loop.modules = (encoder, loop.modules[1])
    loop.optimizers = adam(loop.parameters())
    return loop


def batch_as_time(*, first: bool) -> Loop:
    """The encoder's GRU is given (batch, time, dims) and takes it for (time, batch, dims)."""
    loop = Gru()
    encoder = loop.modules[0]
    encoder.gru.batch_first = first

    def forward(source: Tensor) -> tuple[Tensor, Tensor]:
        memory, _ = encoder.gru(encoder.embedding(source))
        return memory, memory[:, -1:].transpose(0, 1).contiguous()

    encoder.forward = forward
    return loop


def transformer_of_batch_first_ids(*, first: bool) -> Loop:
    """(batch, time) ids given to an nn.Transformer that reads (time, batch)."""
    loop: Any = Transformer()
    inner = loop.modules

    def forward(src: Tensor, read: Tensor) -> Tensor:
        sides = inner.src_tok_emb(src) * 5.7, inner.tgt_tok_emb(read) * 5.7
        if not first:
            return inner.generator(inner.transformer(*sides))  # type: ignore[no-any-return]
        turned = (inner.positional_encoding(side.transpose(0, 1)) for side in sides)
        later = loop.later(read.shape[1])
        return inner.generator(inner.transformer(*turned, tgt_mask=later)).transpose(0, 1)  # type: ignore[no-any-return]

    inner.forward = forward
    loop.logits = inner
    return loop  # type: ignore[no-any-return]


def attention(memory: Tensor, *, axis: int) -> Tensor:
    return torch.softmax(memory, axis) * memory.shape[axis]


def viewed(memory: Tensor) -> Tensor:
    """Axes that are to change places, and are viewed otherwise."""
    return memory.reshape(memory.shape[1], len(memory), -1).transpose(0, 1)


MIXED: dict[str, Callable[[], Loop]] = {
    "gru": lambda: batch_as_time(first=False),
    "transformer": lambda: transformer_of_batch_first_ids(first=False),
    "softmax": lambda: after(change=lambda memory: attention(memory, axis=0)),
    "mean": lambda: after(change=lambda memory: memory - memory.mean(0, keepdim=True)),
    "view": lambda: after(change=viewed),
    "norm": lambda: after(
        nn.BatchNorm1d(32, track_running_stats=False),
        change=lambda memory, norm: norm(memory.transpose(1, 2)).transpose(1, 2),
    ),
}
APART: dict[str, Callable[[], Loop]] = {
    "gru": lambda: batch_as_time(first=True),
    "transformer": lambda: transformer_of_batch_first_ids(first=True),
    "softmax": lambda: after(change=lambda memory: attention(memory, axis=1)),
    "norm": lambda: after(nn.BatchNorm1d(32), change=lambda memory, norm: norm(memory.transpose(1, 2)).transpose(1, 2)),
}
NAMED = {"gru": "batch_first=False", "transformer": "batch_first=False", "norm": "BatchNorm1d"}


@pytest.mark.parametrize("name", MIXED)
def test_rows_that_read_each_other(name: str) -> None:
    loop = MIXED[name]()
    loop.steps = STEPS
    doctor = loop.run()
    assert found(doctor)[0] == ("WIR032", "error")
    assert NAMED.get(name, "") in doctor.diagnosis.findings[0].evidence


@pytest.mark.parametrize("name", APART)
def test_rows_that_do_not(name: str) -> None:
    loop = APART[name]()
    loop.steps = STEPS
    assert "WIR032" not in dict(found(loop.run()))


def on_the_left(table: Tensor) -> Tensor:
    """Ids (batch, time) with their padding on the left."""
    return torch.stack([torch.cat((row[row == PAD], row[row != PAD])) for row in table])


@pytest.mark.parametrize("kind", [Gru, Transformer])
@pytest.mark.parametrize(
    ("train", "evaluation", "codes"), [(0, 1, ["WIR033"]), (1, 0, ["WIR033"]), (1, 1, []), (0, 0, [])]
)
def test_sides(kind: type[Loop], train: int, evaluation: int, codes: list[str]) -> None:
    loop = kind()
    loop.steps = STEPS
    if train:
        loop.batch = lambda src, tgt: (on_the_left(src), tgt)  # type: ignore[method-assign]
    doctor = loop.run()
    rest = list(batches(Apart().pairs[-96:]))
    doctor.evaluate([(on_the_left(src) if evaluation else src, tgt) for src, tgt in rest])
    assert [code for code, _ in found(doctor) if code == "WIR033"] == codes
