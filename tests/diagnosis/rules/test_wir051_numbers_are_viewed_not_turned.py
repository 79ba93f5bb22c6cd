"""WIR051: numbers are viewed, not turned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sourcewise.diagnosis.measures.scrambled import is_permuted, is_scrambled, scrambled_in
from sourcewise.diagnosis.observed import Moves, Observed
from sourcewise.diagnosis.rules import look
from sourcewise.diagnosis.wiring import Wiring
from tests.integrations.test_transformers import watched
from tests.integrations.trainings import bart, trainer


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ((16, 7, 32), (16, 4, 7, 8)),  # heads
        ((16, 7, 32), (64, 7, 8)),
        ((16, 4, 7, 8), (16, 7, 32)),
        ((2, 4, 7, 10), (2, 7, 40)),  # channels and bands
        ((16, 7, 32), (16, 32, 7)),
        ((3, 512, 14, 14), (3, 196, 512)),
    ],
)
def test_shapes_that_scramble(given: tuple[int, ...], made: tuple[int, ...]) -> None:
    assert is_scrambled(given, made)


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ((16, 7, 32), (16, 7, 4, 8)),
        ((16, 7, 4, 8), (16, 7, 32)),
        ((16, 7, 32), (112, 32)),
        ((112, 32), (16, 7, 32)),
        ((7, 16, 32), (7, 64, 8)),  # heads beside rows, time first
        ((16, 8, 32), (16, 4, 64)),  # two frames side by side
        ((2, 16, 32), (2, 1, 16, 32)),
        ((6, 16, 32), (3, 2, 16, 32)),
        ((3, 512, 14, 14), (3, 512, 196)),
        ((5, 1, 7), (5, 7)),
        ((), (1,)),
    ],
)
def test_shapes_that_split_and_merge(given: tuple[int, ...], made: tuple[int, ...]) -> None:
    assert not is_scrambled(given, made) and not is_permuted(given, made)


def seen(given: Tensor, *shape: int, wider: Tensor | None = None, more: tuple[int, ...] = ()) -> str:
    runs = [lambda: given.view(*shape), lambda: wider.view(*more)] if wider is not None else [lambda: given.view(shape)]
    return scrambled_in([nn.Linear(2, 2)], *runs)


def test_sizes_that_are_multiples_are_told_by_a_wider_pass() -> None:
    assert seen(torch.randn(2, 8, 32), 2, 32, 8) == ""
    assert "(2, 9, 32)" in seen(torch.randn(2, 8, 32), 2, 32, 8, wider=torch.randn(2, 9, 32), more=(2, 32, 9))
    frames = torch.randn(2, 16, 8)  # two side by side are (8, 16)
    assert seen(frames, 2, 8, 16, wider=torch.randn(2, 18, 8), more=(2, 9, 16)) == ""


def test_a_wider_pass_may_fail_and_the_first_may_not() -> None:
    def fails() -> None:
        raise RuntimeError

    assert scrambled_in([], lambda: torch.randn(2, 8, 32).view(2, 32, 8), fails) == ""
    with pytest.raises(RuntimeError):
        scrambled_in([], fails)


def test_what_is_viewed_on_purpose() -> None:
    weight = nn.Linear(7, 12)
    scores = nn.functional.pad(torch.randn(2, 4, 6, 7), (1, 0))  # relative positions are shifted so
    assert scrambled_in([weight], lambda: weight.weight.view(7, 12)) == ""
    assert scrambled_in([], lambda: scores.view(2, 4, 8, 6)) == ""
    assert scrambled_in([], lambda: torch.randn(2, 1, 5).expand(2, 7, 5).reshape(2, 5, 7)) == ""
    assert scrambled_in([], lambda: nn.MultiheadAttention(8, 2)(*[torch.randn(7, 3, 8)] * 3)) == ""


def test_the_finding_names_the_line() -> None:
    (said,) = look(
        Wiring(observed=Observed(moves=Moves(scrambled="a.py:3 views (2, 3) as (3, 2)"))), codes="WIR051"
    ).findings
    assert said.level == "error" and said.evidence.startswith("a.py:3 views")
    assert look(Wiring(observed=Observed()), codes="WIR051").findings == []


class Cross(nn.Module):
    """Cross-attention of one's own in a BART."""

    def __init__(self, inner: Any, right: bool) -> None:
        super().__init__()
        self.inner, self.right = inner, right

    def cut(self, x: Tensor) -> Tensor:
        size = len(x), self.inner.num_heads, x.shape[1], self.inner.head_dim
        return x.reshape(size) if not self.right else x.view(size[0], size[2], size[1], size[3]).transpose(1, 2)

    def forward(self, hidden_states: Tensor, key_value_states: Any = None, **rest: Any) -> Any:
        q = self.cut(self.inner.q_proj(hidden_states))
        k, v = (self.cut(of(key_value_states)) for of in (self.inner.k_proj, self.inner.v_proj))
        context = (torch.softmax(q @ k.transpose(-1, -2) / 4, -1) @ v).transpose(1, 2).flatten(2)
        return self.inner.out_proj(context), None


@pytest.mark.parametrize("right", [True, False])
def test_a_layer_of_ones_own_in_a_model_of_transformers(right: bool, tmp_path: Path) -> None:
    model = bart()
    for layer in model.model.decoder.layers:
        layer.encoder_attn = Cross(layer.encoder_attn, right)
    callback = watched(made := trainer(tmp_path, model, steps=8, eval_strategy="no"))
    made.train()
    assert ("WIR051" in {each.code for each in callback.diagnosis.findings}) is not right
