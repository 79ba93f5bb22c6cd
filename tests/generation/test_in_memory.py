"""A Hugging Face model in memory and a list of pairs are taken wherever a name and a file are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sourcewise
from sourcewise.errors import RequestError
from tests.integrations.trainings import bart, t5, tokenizer

PAIRS = [("a b c", "c d e"), ("b c", "d e"), ("f g a", "h i c"), ("d", "f"), ("e a", "g c"), ("c c", "e e")] * 2


@pytest.mark.parametrize("made", [t5, bart])
def test_it_is_evaluated_as_its_folder_is(made: Any, tmp_path: Path) -> None:
    model = made()
    model.save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    mine = sourcewise.evaluate(model, PAIRS, tokenizer=tokenizer(), max_source=16)
    theirs = sourcewise.evaluate(tmp_path, PAIRS, max_source=16)
    for key in ("loss", "source_bits", "target_tokens", "examples"):
        assert mine.metrics.get(key) == pytest.approx(theirs.metrics.get(key)), key
    assert mine.outputs == theirs.outputs and model.training
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_it_is_diagnosed_and_traced() -> None:
    found = sourcewise.diagnose(t5(), PAIRS, tokenizer=tokenizer())
    assert any("T5ForConditionalGeneration is no run folder" in line for line in found.not_checked)
    assert sourcewise.trace(t5(), ["a b c", "b c"], tokenizer=tokenizer(), max_new_tokens=4).steps


@pytest.mark.parametrize(
    ("model", "data", "options", "said"),
    [
        (nn.Linear(2, 2), PAIRS, {"tokenizer": None}, "Linear is none of Hugging Face's models"),
        ("t5", PAIRS, {"tokenizer": None}, "T5ForConditionalGeneration in memory needs that of Hugging Face"),
        ("t5", [("a", "b"), ("c",)], {}, "number 1 is no pair"),
        ("t5", [("a", "b"), ("c", 3)], {}, "number 1 is no pair"),
        ("a folder", PAIRS, {}, "goes with a model in memory"),
    ],
    ids=["a module", "no tokenizer", "half a pair", "a number", "a name"],
)
def test_what_is_wrong_is_told(model: Any, data: Any, options: Any, said: str) -> None:
    chosen = t5() if model == "t5" else model
    with pytest.raises(RequestError, match=said):
        sourcewise.evaluate(chosen, data, **{"tokenizer": tokenizer(), **options})
