"""DAT003 under the callback: classic exercises as ids pass, shuffled ones are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from tests.integrations.test_transformers import codes, watched
from tests.integrations.trainings import EOS, tokenizer, trainer


@pytest.mark.parametrize("task", [sorted, lambda word: word[::-1], lambda word: word])
def test_classic_exercises_are_no_fault(task: Any, tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(2)
    words = torch.randint(4, 9, (400, 7), generator=draw).tolist()
    exercise = [{"input_ids": [*word, EOS], "labels": [*task(word), EOS]} for word in words]
    made = trainer(tmp_path, steps=13, eval_strategy="no", train=exercise, processing=tokenizer())
    callback = watched(made)
    made.train()
    assert "DAT003" not in codes(callback)
    assert not any("DAT003" in words for words in callback.diagnosis.not_checked)
    wrong = [{**row, "labels": exercise[i - 7]["labels"]} for i, row in enumerate(exercise)]
    shuffled = trainer(tmp_path, steps=13, eval_strategy="no", train=wrong, processing=tokenizer())
    callback = watched(shuffled)
    shuffled.train()
    assert codes(callback)[0] == "DAT003"
