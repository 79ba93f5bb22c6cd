"""Unknown labels, features out of step, two kinds of targets, rows of another source, half precision, low rates."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sourcewise.data.batches import IGNORED
from sourcewise.data.mixtures import EncodedMixture
from sourcewise.diagnosis.course import Course
from sourcewise.diagnosis.outputs import Outputs
from sourcewise.diagnosis.pairs import Ids, Pairs
from sourcewise.diagnosis.plan import Plan
from sourcewise.diagnosis.rules import look
from sourcewise.evaluation.results import Evaluation, Row
from sourcewise.integrations.collated import Collated, Speaker
from sourcewise.integrations.finite import half_of
from sourcewise.integrations.passing import First

ENGLISH = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
FRENCH = ["zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"]
GERMAN = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]
WORDS = [
    "<pad>",
    "</s>",
    "<unk>",
    *dict.fromkeys([*ENGLISH, *FRENCH, *GERMAN, *(w.title() for w in ENGLISH)]),
    "in",
    "en",
]


class Words(Speaker):
    """Words of a fixed list."""

    def __init__(self) -> None:
        super().__init__(None, SimpleNamespace(pad_id=0, eos_id=1))  # type: ignore[arg-type]

    def decode(self, ids: Any) -> str:
        return " ".join(WORDS[int(i)] for i in ids if int(i) > 1)


def batch(rows: list[tuple[str, str]]) -> dict[str, torch.Tensor]:
    sides = [[[*map(WORDS.index, text.split()), 1] for text in side] for side in zip(*rows, strict=True)]
    made = []
    for side, fill in zip(sides, (0, IGNORED), strict=True):
        width = max(map(len, side))
        made.append(torch.tensor([ids + [fill] * (width - len(ids)) for ids in side]))
    return {"input_ids": made[0], "attention_mask": (made[0] != 0).long(), "labels": made[1]}


def numbers(target: Any, source: Any = None, count: int = 400, seed: int = 0) -> list[tuple[str, str]]:
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        digits = [draw.randrange(10) for _ in range(draw.randrange(3, 6))]
        said = " ".join(GERMAN[d] for d in digits)
        rows.append((said if source is None else f"{source(i)} {said}", target(i, digits)))
    return rows


def codes(rows: list[tuple[str, str]], which: str, ids: Ids | None = None) -> list[tuple[str, str]]:
    pairs = Pairs(Collated([batch(rows)], Words(), "data", counted=True), ids=ids or Ids())
    return [(each.code, each.level) for each in look(pairs, codes=which).findings]


def two(i: int, digits: list[int]) -> str:
    return " ".join((ENGLISH, FRENCH)[i % 2][d] for d in digits)


@pytest.mark.parametrize(
    "target",
    [
        two,
        lambda i, digits: f"en {two(i, digits)}",  # one code for both
        lambda i, digits: " ".join((ENGLISH, FRENCH)[i % 4 == 0][d] for d in digits),
        lambda i, digits: " ".join(w.title() if i % 3 else w for w in (ENGLISH[d] for d in digits)),
    ],
)
def test_two_kinds_that_nothing_tells_apart(target: Any) -> None:
    assert codes(numbers(target), "DAT026") == [("DAT026", "warning")]


@pytest.mark.parametrize("pair", [(GERMAN, FRENCH), (FRENCH, GERMAN), (ENGLISH, GERMAN)])
@pytest.mark.parametrize("told", ["", "source", "begins"])
def test_tasks_of_a_mixture_that_nothing_tells_apart(pair: Any, told: str) -> None:
    parts = []
    for i, words in enumerate(pair):
        rows = numbers(lambda _, digits, words=words: " ".join(words[d] for d in digits), None)
        rows = [(f"{('in', 'en')[i]} {source}" if told == "source" else source, target) for source, target in rows]
        parts.append(Collated([batch(rows)], Words(), f"set {i}", counted=True))
        if told == "begins":
            parts[-1].begins = [[900 + i]] * len(parts[-1])
    found = look(Pairs(EncodedMixture(parts)), codes="DAT026").findings
    assert [each.level for each in found] == ([] if told else ["warning"])
    assert told or "2 sets together" in found[0].evidence


@pytest.mark.parametrize(
    ("target", "source"),
    [
        (lambda i, digits: " ".join(ENGLISH[d] for d in digits), None),
        (two, lambda i: ("in", "en")[i % 2]),  # the source tells
        (lambda i, digits: f"{('in', 'en')[i % 2]} {two(i, digits)}", None),  # the first label tells
        (lambda i, digits: " ".join(w.title() if not i % 20 else w for w in (ENGLISH[d] for d in digits)), None),
    ],
)
def test_one_kind_or_one_that_is_told(target: Any, source: Any) -> None:
    assert codes(numbers(target, source), "DAT026") == []


@pytest.mark.parametrize(
    ("share", "words", "level"),
    [(0.8, False, "error"), (0.1, False, "warning"), (0.0, False, ""), (0.8, True, "error"), (0.1, True, "")],
)
def test_unknown_labels(share: float, words: bool, level: str) -> None:
    draw = random.Random(1)
    lost = lambda i, digits: " ".join("<unk>" if draw.random() < share else ENGLISH[d] for d in digits)  # noqa: E731
    ids = Ids((1,), None, unknown=2, whole_words=words)
    assert codes(numbers(lost), "DAT006", ids) == ([("DAT006", level)] if level else [])


@pytest.mark.parametrize("name", ["inputs_embeds", "input_features", "bands first"])
@pytest.mark.parametrize("shift", [0, 1])
def test_features_are_held_against_their_labels(name: str, shift: int) -> None:
    draw = np.random.default_rng(0)
    signs = draw.normal(size=(10, 5, 80)).astype(np.float32)
    rows = [draw.integers(0, 10, draw.integers(2, 5)).tolist() for _ in range(300)]
    matrices = [np.concatenate([signs[d] for d in row]) for row in rows]
    table = np.zeros((len(rows), 20, 80), dtype=np.float32)
    for i, matrix in enumerate(matrices):
        table[i, : len(matrix)] = matrix + 0.1 * draw.normal(size=matrix.shape)
    labels = batch([("null", " ".join(ENGLISH[d] for d in rows[i - shift])) for i in range(len(rows))])["labels"]
    given = torch.tensor(table)
    first = First(300, slim=True, bands=80 if name == "bands first" else None)
    turned = given.transpose(1, 2) if name == "bands first" else given
    first.add({"input_features" if name != "inputs_embeds" else name: turned, "labels": labels})
    pairs = Pairs(Collated(first.batches, Words(), "data", counted=True), ids=Ids())
    assert [each.code for each in look(pairs, codes="DAT003").findings] == ["DAT003"] * shift


def outputs(wrong: float, seed: int = 0, gain: float = 3.0) -> list[str]:
    draw = np.random.default_rng(seed)
    rows = []
    for i in range(96):
        bad = i < wrong * 96
        own = draw.uniform(3, 5) if bad else draw.exponential(0.1)
        other = own + (draw.normal(0, 0.2) if bad else draw.uniform(0.5, 1.5) * gain)
        rows.append(Row(str(i), "", "a b", "a b", True, 4 * own, 4 * other, 4))
    return [each.code for each in look(Outputs(Evaluation({}, rows)), codes="OUT015").findings]


@pytest.mark.parametrize("wrong", [0.1, 0.2, 0.3])
def test_scattered_rows_of_another_source(wrong: float) -> None:
    assert outputs(wrong) == ["OUT015"]
    assert outputs(0.0, int(10 * wrong)) == []
    assert outputs(wrong, gain=0.1) == []  # a model that hardly reads tells nothing of pairs


def test_half_precision_is_named() -> None:
    model = torch.nn.Linear(4, 4)
    assert half_of(model) == "" and "autocast" in half_of(model, True)
    plan = Plan(steps=10, half=half_of(model.half()))
    lines = [{"kind": "start", "steps": 10}, {"kind": "stopped", "step": 3, "loss": None, "why": "is not finite"}]
    (said,) = look(Course.read(lines, plan), codes="TRN001").findings
    assert "half precision (fp16)" in said.evidence and "bf16" in said.cure
    (said,) = look(Course.read(lines, Plan(steps=10)), codes="TRN001").findings
    assert "fp16" not in said.evidence


@pytest.mark.parametrize(
    ("ratio", "losses", "level"),
    [(1e-5, (4.0, 3.9), "warning"), (5e-4, (4.0, 3.0), "warning"), (5e-3, (4.0, 3.0), ""), (1e-5, (0.3, 0.29), "")],
)
def test_a_low_rate_of_a_loaded_model(ratio: float, losses: tuple[float, float], level: str) -> None:
    steps = range(10, 121, 10)
    falling = np.linspace(*losses, len(steps))
    lines = [
        {"kind": "train", "step": s, "loss": x, "learning_rate": 1e-5, "update_ratios": {"encoder": ratio}}
        for s, x in zip(steps, falling, strict=True)
    ]
    course = Course.read([{"kind": "start", "steps": 120}, *lines], Plan(steps=120, fresh=False))
    assert [each.level for each in look(course, codes="TRN009").findings] == ([level] if level else [])
