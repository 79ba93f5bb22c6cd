"""Trainings that collapse or end early, outputs that are cut or named otherwise, tables whose rows are moved."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sourcewise.data.batches import Batch
from sourcewise.diagnosis.course import Course
from sourcewise.diagnosis.moved import Moved
from sourcewise.diagnosis.outputs import Outputs
from sourcewise.diagnosis.plan import Plan
from sourcewise.diagnosis.rules import look
from sourcewise.evaluation.results import Evaluation, Row

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def course(norms: Any, losses: Any, **more: Any) -> list[tuple[str, str]]:
    """Findings of a training of 20 lines, with a norm of the decoder's gradient at each, and a loss."""
    steps = range(10, 201, 10)
    lines = [
        {
            "kind": "train",
            "step": step,
            "loss": losses(i),
            "learning_rate": 5e-3,
            "gradient_norms": {"encoder": norms(i), "decoder": 1.0},
            "update_ratios": {"encoder": 0.02, "decoder": 0.02},
        }
        for i, step in enumerate(steps)
    ]
    start = {"kind": "start", "steps": 200, "target_entropy": 2.3}
    found = look(Course.read([start, *lines], Plan(steps=200, fresh=True)), codes="TRN009")
    return [(each.code, each.level) for each in found.findings]


@pytest.mark.parametrize(
    "norms", [lambda i: 0.5 if i < 3 else 1e-8, lambda i: 0.5 * 10.0**-i, lambda i: 1e-5 if i > 9 else 2]
)
def test_a_training_that_collapsed(norms: Any) -> None:
    assert course(norms, lambda i: 2.35) == [("TRN009", "error")]
    assert course(norms, lambda i: 2.3 * 0.8**i) == []  # it has learned all there is


@pytest.mark.parametrize("norms", [lambda i: 0.5, lambda i: 0.5 * 0.9**i, lambda i: 0.01 + 0.2 * i])
def test_a_training_that_did_not(norms: Any) -> None:
    assert course(norms, lambda i: 2.35) == []


@pytest.mark.parametrize(
    ("bits", "steps", "level"), [((0.05, 0.3), 200, "warning"), ((2.0, 3.9), 200, "note"), ((0.05, 0.3), 60, "note")]
)
def test_a_training_that_ended_before_it_read(bits: tuple[float, float], steps: int, level: str) -> None:
    lines: list[dict[str, Any]] = [{"kind": "start", "steps": steps}]
    for step, each in zip((steps // 2, steps), bits, strict=True):
        lines.append({"kind": "train", "step": step, "loss": 2.0})
        interval = [each - 0.02, each + 0.02]
        lines.append(
            {"kind": "evaluation", "step": step, "loss": 2.0, "source_bits": each, "source_bits_ci95": interval}
        )
    found = look(Course.read(lines, Plan(steps=steps, fresh=True)), codes="TRN014").findings
    assert [each.level for each in found] == [level]


def outputs(change: Any, lengths: tuple[int, int] = (4, 9), seed: int = 0) -> list[str]:
    draw, rows = random.Random(seed), []
    for i in range(60):
        reference = [draw.choice(NUMBERS) for _ in range(draw.randint(*lengths))]
        rows.append(Row(str(i), "", " ".join(reference), " ".join(change(reference, draw))))
    return [each.code for each in look(Outputs(Evaluation({}, rows)), codes="OUT016 OUT017").findings]


@pytest.mark.parametrize("longest", [1, 3, 5])
def test_outputs_that_are_cut(longest: int) -> None:
    assert outputs(lambda words, draw: words[:longest]) == ["OUT016"]
    noisy = lambda words, draw: [w if draw.random() < 0.8 else "ten" for w in words[:longest]]  # noqa: E731
    assert outputs(noisy) == ["OUT016"]


@pytest.mark.parametrize(
    "change",
    [
        lambda words, draw: words,
        lambda words, draw: words[: draw.randint(1, len(words))],  # each of its own length
        lambda words, draw: ["one"] * 3,  # a model that says one thing
        lambda words, draw: words[:9],
    ],
)
def test_outputs_that_are_not_cut(change: Any) -> None:
    assert outputs(change) == []
    assert outputs(lambda words, draw: words[:4], (4, 4)) == []  # all references are as long


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_words_under_other_names(seed: int) -> None:
    other = NUMBERS[seed:] + NUMBERS[:seed]
    random.Random(seed).shuffle(other)
    names = dict(zip(NUMBERS, other, strict=True))
    if sum(a == b for a, b in names.items()) < 3:
        assert outputs(lambda words, draw: [names[w] for w in words]) == ["OUT017"]
    noisy = lambda words, draw: [names[w] if draw.random() < 0.9 else draw.choice(NUMBERS) for w in words]  # noqa: E731
    assert outputs(noisy, (2, 4)) == ["OUT017"]


@pytest.mark.parametrize(
    "change",
    [
        lambda words, draw: words,
        lambda words, draw: [draw.choice(NUMBERS) for _ in words],
        lambda words, draw: ["one" for _ in words],
        lambda words, draw: [w.upper() for w in words],  # another convention: words that no reference has
        lambda words, draw: [f"{w}x" for w in words],  # the source's language
    ],
)
def test_words_under_their_own_names(change: Any) -> None:
    assert outputs(change) == []


class Copies(nn.Module):
    """Says at each place the token that stands there in its source, by tables of positions and of tokens."""

    vocabulary, pad_id, eos_id, start_id, positions = 12, 0, 1, 2, 16
    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.encoder_positions = nn.Parameter(8 * torch.eye(16))
        self.decoder_positions = nn.Parameter(torch.eye(16))
        self.embedding = nn.Parameter(torch.eye(12))
        self.generator = nn.Parameter(12 * torch.eye(12))

    def encode(self, source: Any) -> Any:
        return self.embedding[source.tokens]

    def decode(self, tokens: Tensor, memory: Tensor, cache: Any = None) -> Tensor:
        time, places = tokens.shape[1], memory.shape[1]
        weights = torch.softmax(self.decoder_positions[:time] @ self.encoder_positions[:places].T, -1)
        return weights @ memory @ self.generator.T


class Letters:
    """A set whose targets are its sources."""

    def __init__(self, count: int = 40) -> None:
        draw = np.random.default_rng(0)
        self.rows = [draw.integers(3, 12, draw.integers(6, 9)).tolist() for _ in range(count)]
        self.source_lengths = self.target_lengths = np.array([len(row) for row in self.rows])

    def batch(self, places: Any) -> Batch:
        some = [self.rows[i] for i in places]
        width = max(map(len, some))
        tokens = torch.tensor([row + [0] * (width - len(row)) for row in some])
        source: Any = SimpleNamespace(tokens=tokens, to=lambda device: source)
        return Batch(source, tokens.masked_fill(tokens == 0, -100), list(places))


def moved(change: Any, monkeypatch: pytest.MonkeyPatch, *, trained: bool = True) -> list[str]:
    def token_nats(network: Any, memory: Any, labels: Tensor) -> Tensor:
        logits = network.decode(labels, memory)
        return nn.functional.cross_entropy(logits.transpose(1, 2), labels.clamp(min=0), reduction="none")

    monkeypatch.setattr("sourcewise.diagnosis.moved.token_nats", token_nats)
    network: Any = Copies()
    with torch.no_grad():
        change(network)
    found = look(Moved(network, Letters(), trained), codes="SRC006").findings  # type: ignore[arg-type]
    return [each.evidence for each in found]


@pytest.mark.parametrize("table", ["encoder_positions", "decoder_positions", "embedding", "generator"])
@pytest.mark.parametrize("step", [1, 2, -1])
def test_rows_that_are_moved(table: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(network: Any) -> None:
        getattr(network, table).data = getattr(network, table).data.roll(step, 0)

    (evidence,) = moved(change, monkeypatch)
    assert "rows of" in evidence and ("positions" in evidence) == ("positions" in table)
    assert moved(change, monkeypatch, trained=False) == []


def test_rows_that_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert moved(lambda network: None, monkeypatch) == []
    torch.manual_seed(0)
    assert moved(lambda network: network.embedding.data.normal_(), monkeypatch) == []
    assert not math.isnan(0.0)
