"""Modules of somebody's own in a Seq2SeqTrainer: the doctor for loops looks at their wiring."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.integrations.test_transformers import codes, watched
from tests.integrations.trainings import PAD, SIZE, t5, trainer

WIDTH, HEADS = 32, 4


class Own(nn.Module):
    """A GRU over each side and attention with heads by hand; `configured`, it says that it has an encoder."""

    def __init__(self, fault: str = "", *, configured: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fault = fault
        if configured:
            self.config = t5().config
        self.source, self.target = nn.Embedding(SIZE, WIDTH), nn.Embedding(SIZE, WIDTH)
        self.encoder, self.decoder = nn.GRU(WIDTH, WIDTH, batch_first=True), nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.key, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(2 * WIDTH, SIZE)

    def cut(self, x: Tensor) -> Tensor:
        if self.fault == "viewed":
            return x.reshape(len(x), HEADS, -1, WIDTH // HEADS)
        return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)

    def forward(self, input_ids: Tensor, labels: Tensor, attention_mask: Any = None) -> dict[str, Tensor]:
        memory, state = self.encoder(self.source(input_ids))
        read = F.pad(labels.masked_fill(labels < 0, PAD), (1, 0))[:, :-1]
        said, _ = self.decoder(self.target(read), state)
        if self.fault == "unread":
            memory, state = torch.zeros_like(memory), torch.zeros_like(state)
            said, _ = self.decoder(self.target(read), state)
        q, k = self.cut(said), self.cut(self.key(memory))
        context = (torch.softmax(q @ k.transpose(-1, -2) / 3, -1) @ k).transpose(1, 2).flatten(2)
        logits = self.out(torch.cat((said, context), -1))
        if self.fault == "softmax":
            logits = torch.softmax(logits, -1)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return {"loss": -loss if self.fault == "sign" else loss, "logits": logits}


def run(folder: Path, model: nn.Module, **options: Any) -> Any:
    made = trainer(folder, model, steps=24, eval_strategy="no", label_names=["labels"], **options)
    callback = watched(made)
    made.train()
    return callback


@pytest.mark.parametrize("configured", [True, False])
@pytest.mark.parametrize(
    ("fault", "code"), [("viewed", "WIR051"), ("unread", "WIR028"), ("softmax", "WIR027"), ("sign", "WIR027")]
)
def test_the_wiring_of_a_module_of_ones_own(fault: str, code: str, configured: bool, tmp_path: Path) -> None:
    callback = run(tmp_path, Own(fault, configured=configured))
    assert callback.diagnosis.findings[0].code == code
    assert not [words for words in callback.diagnosis.not_checked if "no encoder-decoder" in words]


@pytest.mark.parametrize("configured", [True, False])
@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_healthy_module_is_not_ill(configured: bool, accumulated: int, tmp_path: Path) -> None:
    callback = run(tmp_path, Own(configured=configured), gradient_accumulation_steps=accumulated)
    assert codes(callback) == codes(callback, "warning") == []
    assert not [words for words in callback.diagnosis.not_checked if "Error: " in words]


@pytest.mark.parametrize("configured", [True, False])
def test_its_evaluations_have_source_bits(configured: bool, tmp_path: Path) -> None:
    made = trainer(tmp_path, Own(configured=configured), steps=24, label_names=["labels"])
    callback = watched(made)
    made.train()
    assert not [words for words in callback.diagnosis.not_checked if "Error: " in words]
    assert [line for line in made.state.log_history if "sourcewise_source_bits" in line]


def test_losses_are_the_same(tmp_path: Path) -> None:
    def losses(watch: Callable[[Any], Any]) -> list[float]:
        made = trainer(tmp_path, Own(), steps=24, eval_strategy="no", label_names=["labels"])
        watch(made)
        made.train()
        return [line["loss"] for line in made.state.log_history if "loss" in line]

    assert losses(watched) == losses(lambda made: None)
