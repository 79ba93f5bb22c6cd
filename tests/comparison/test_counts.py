"""Figures from sums over examples are those of metrics.json."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sourcewise.comparison.counts import Counts, counts
from sourcewise.config import EvaluationConfig
from sourcewise.evaluation.results import Row
from sourcewise.metrics.outputs import output_metrics

WORDS = st.lists(st.sampled_from(["ein", "Mann", "geht", "die", "Straße", "hinunter", "."]), max_size=9)
TEXT = WORDS.map(" ".join)


def over_all(each: Counts) -> float:
    return float(each.figure(each.of.sum(0)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXT.filter(bool), TEXT), min_size=1, max_size=6))
def test_whole_figures_are_those_of_the_evaluation(pairs: list[tuple[str, str]]) -> None:
    rows = [Row(str(i), "", reference, output) for i, (reference, output) in enumerate(pairs)]
    metrics = output_metrics([r.reference for r in rows], [r.output for r in rows], [True] * len(rows))
    found = counts(rows)
    assert set(found) == {"bleu", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "chrf", "wer", "cer", "exact_match_pct"}
    for name, each in found.items():
        assert over_all(each) == pytest.approx(metrics[name], abs=1e-9), name


def test_figures_are_counted_as_the_recipe_says() -> None:
    measuring = EvaluationConfig(metrics=["ter"], bleu_tokenize="char", lowercase=True)
    rows = [Row("0", "", "a cat sat here", "A cat sits", others=("a Cat sits",)), Row("1", "", "dogs ran off", "cats")]
    found = counts(rows, measuring)
    references, outputs = [r.references for r in rows], [r.output for r in rows]
    metrics = output_metrics(references, outputs, [True, True], measuring.counting, measuring.metrics)
    assert metrics["exact_match_pct"] == 50 and "tok:char" in metrics["bleu_signature"]
    for name, each in found.items():
        assert over_all(each) == pytest.approx(metrics[name], abs=1e-9), name


def test_many_sums_at_once_are_each_its_own() -> None:
    texts = ("a b c d e", "f g h i", "a c e g i k")
    rows = [Row(str(i), "", text, text[:-2] + " x") for i, text in enumerate(texts)]
    for each in counts(rows).values():
        drawn = np.array([[3, 0, 0], [0, 1, 2]]) @ each.of
        assert each.figure(drawn).tolist() == [float(each.figure(drawn[0])), float(each.figure(drawn[1]))]


def test_source_bits_and_loss_are_by_token() -> None:
    rows = [Row("0", "", "a", "a", nats=1.0, nats_shuffled=1.0 + math.log(2) * 6, tokens=2)]
    rows.append(Row("1", "", "b", "b", nats=2.0, nats_shuffled=math.nan, tokens=4))  # no other source
    found = counts(rows)
    assert over_all(found["source_bits"]) == pytest.approx(3.0)
    assert over_all(found["loss"]) == pytest.approx(0.5)
