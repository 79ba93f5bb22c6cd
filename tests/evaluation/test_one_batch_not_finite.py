"""Weights and logits that are NaN or infinite give no source bits: the error says what, and where."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sourcewise
from sourcewise.errors import NotFinite
from tests.evaluation.test_one_batch import collated, t5


class Loop(nn.Module):
    """A plain model of somebody's loop, with a weight that is NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(9, 4), nn.Linear(4, 9)
        self.out.bias.data[2] = math.nan

    def forward(self, src: Tensor, trg: Tensor) -> Tensor:
        out: Tensor = self.out(self.embedding(trg) + self.embedding(src).mean(1, keepdim=True))
        return out


def changed(change: Callable[[Tensor], Tensor]) -> Any:
    model = t5().eval()
    return lambda batch: change(model(**batch).logits)


def test_a_weight_is_named() -> None:
    model = t5()
    model.get_parameter("encoder.final_layer_norm.weight").data[3] = math.nan
    with pytest.raises(NotFinite, match=r"encoder\.final_layer_norm\.weight: 1 of 24 values"):
        sourcewise.source_bits(model, collated())
    pair = torch.arange(12).view(4, 3) % 9, torch.arange(16).view(4, 4) % 9
    with pytest.raises(NotFinite, match=r"Loop: out\.bias: 1 of 9 values"):
        sourcewise.source_bits(Loop(), pair)


@pytest.mark.parametrize(
    ("dimension", "place", "value", "said"),
    [
        (0, 2, math.nan, "example 2, token 0"),
        (1, 1, math.inf, "example 0, token 1"),
        (2, 1, -math.inf, "has the probability 0"),
    ],
)
def test_logits_are_placed(dimension: int, place: int, value: float, said: str) -> None:
    model = changed(lambda x: x.index_fill(dimension, torch.tensor([place]), value))
    with pytest.raises(NotFinite, match=said):
        sourcewise.source_bits(model, collated())


def test_a_barred_word_that_nobody_says_is_no_fault() -> None:
    bits = sourcewise.source_bits(changed(lambda x: x.index_fill(2, torch.tensor([2]), -math.inf)), collated())
    assert math.isfinite(bits.bits) and math.isfinite(bits.loss)
