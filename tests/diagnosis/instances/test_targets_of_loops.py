"""Targets and masks in loops of one's own: what is read first, what ends them, what counts, what is seen too early."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.diagnosis.instances.loops import Gru, Loop, Transformer, found
from tests.integrations.loops import EOS, PAD

Batch = tuple[Tensor, Tensor]


def run(change: dict[str, Any], monkeypatch: pytest.MonkeyPatch, kind: type[Loop] = Transformer) -> Any:
    for name, value in change.items():
        monkeypatch.setattr(kind, name, value)
    return kind().run()


def without_end(self: Loop, src: Tensor, tgt: Tensor) -> Batch:
    return src, tgt.masked_fill(tgt == EOS, PAD)


def cut(self: Loop, src: Tensor, tgt: Tensor) -> Batch:
    return src, tgt[:, :6]


def padded(self: Loop, src: Tensor, tgt: Tensor) -> Batch:
    return src, torch.nn.functional.pad(tgt, (0, 6), value=PAD)


def inverted(self: Any, src: Tensor) -> Tensor:
    return src != PAD


def bare(self: Any, src: Tensor) -> None:
    return None


def unshifted(self: Any, tgt: Tensor) -> Batch:
    return tgt[:, 1:], tgt[:, 1:]


def backwards(self: Any, width: int) -> Tensor:
    return torch.tril(torch.ones(width, width, dtype=torch.bool), -1)


def shows_one(self: Any, width: int) -> Tensor:
    return torch.triu(torch.ones(width, width, dtype=torch.bool), 2)


def wider(self: Any, src: Tensor, tgt: Tensor) -> Batch:
    return torch.nn.functional.pad(src, (0, 2), value=PAD), tgt


@pytest.mark.parametrize(
    ("change", "code", "level"),
    [
        ({"begin": False}, "WIR010", "error"),
        ({"batch": without_end}, "WIR009", "error"),
        ({"batch": cut}, "WIR009", "warning"),
        ({"ignored": -100}, "WIR008", "error"),
        ({"ignored": -100, "batch": padded}, "WIR008", "error"),
        ({"batch": wider, "padding": inverted}, "WIR005", "error"),
        ({"padding": bare}, "WIR005", "warning"),
        ({"cut": unshifted}, "WIR007", "error"),
        ({"later": bare}, "WIR006", "error"),
        ({"later": backwards}, "WIR006", "error"),
        ({"later": shows_one}, "WIR006", "error"),
    ],
)
def test_the_cause_is_first(change: dict[str, Any], code: str, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(run(change, monkeypatch))[0] == (code, level)


@pytest.mark.parametrize(
    ("change", "code"),
    [({"ignored": -100}, "WIR008"), ({"ignored": -100, "batch": padded}, "WIR008"), ({"batch": without_end}, "WIR009")],
)
def test_in_a_gru(change: dict[str, Any], code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert code in [each for each, _ in found(run(change, monkeypatch, Gru))[:3]]
