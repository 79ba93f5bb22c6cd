"""The figures of a mixture's tasks: each by its own metric, the mean of these, and the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sourcewise.config import DataConfig, GenerationConfig
from sourcewise.data.encoding import Encoded
from sourcewise.data.examples import Dataset, Example
from sourcewise.data.mixtures import encode_sets
from sourcewise.data.open import open_sets
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.evaluation.evaluate import evaluate_encoded
from sourcewise.evaluation.results import Row
from sourcewise.evaluation.source_bits import SourceBits, partners, source_bits
from sourcewise.evaluation.tasks import any_reference, set_figures, task_figures
from sourcewise.metrics.counting import rouge_l
from tests.model.networks import VOCABULARY, network

TOKENIZER = Tokenizer.train(["a b c d e f"] * 3, VOCABULARY)


def mixture(folder: Path, *tasks: dict[str, object], rows: int = 4) -> Encoded:
    """Sets of `rows` examples, as a validation mixture."""
    sets = []
    for number, task in enumerate(tasks):
        path = folder / f"t{number}.tsv"
        lines = [f"{'a b c d e f'[: 2 * i + 1]}\t{'c d e'[: 2 * number + 1]}\n" for i in range(rows)]
        path.write_text("source\ttarget\n" + "".join(lines))
        sets.append({"pairs": str(path), **task})
    data = DataConfig.model_validate({"valid": sets if len(sets) > 1 else sets[0]})
    return encode_sets(open_sets(data, "valid"), TOKENIZER, data)


def outcome(encoded: Encoded, outputs: list[str]) -> tuple[list[Row], SourceBits]:
    rows = [Row(e.id, e.source, e.target, o) for e, o in zip(encoded.dataset, outputs, strict=True)]
    size = len(rows)
    return rows, SourceBits(np.arange(size, dtype=float), np.full(size, float(size)), np.ones(size))


def test_each_task_by_its_own_metric_and_their_mean(tmp_path: Path) -> None:
    encoded = mixture(tmp_path, {"name": "first", "metric": "exact_match_pct"}, {"metric": "wer"}, rows=4)
    rows, bits = outcome(encoded, ["c", "c", "c", "d", "c d", "c d", "c", "e"])
    found = task_figures(encoded, rows, bits)
    first, second = found["tasks"]["first"], found["tasks"]["t1"]
    assert (first["metric"], first["exact_match_pct"], first["examples"]) == ("exact_match_pct", 75.0, 4)
    assert (second["metric"], second["wer"]) == ("wer", pytest.approx((0 + 0 + 1 + 2) / 8))
    assert found["tasks_mean"] == pytest.approx((75 + 100 * (1 - 3 / 8)) / 2)
    assert first["loss"] == pytest.approx((0 + 1 + 2 + 3) / 4) and second["loss"] == pytest.approx((4 + 5 + 6 + 7) / 4)
    assert "rouge_l" not in first


def test_a_set_alone_has_no_tasks_but_its_own_metric_if_it_has_one(tmp_path: Path) -> None:
    plain = mixture(tmp_path, {})
    assert task_figures(plain, *outcome(plain, ["c"] * 4)) == {}
    judged = mixture(tmp_path, {"metric": "rouge_l"})
    found = task_figures(judged, *outcome(judged, ["c", "c", "d", "d"]))
    assert found.pop("rouge_l_signature").startswith("nrefs:1|stem:no|")
    assert found == {"tasks_mean": 50.0, "rouge_l": 50.0}


def test_the_whole_is_measured_beside_the_tasks(tmp_path: Path) -> None:
    encoded = mixture(tmp_path, {}, {"metric": "rouge_l"})
    torch.manual_seed(0)
    evaluation = evaluate_encoded(network(), TOKENIZER, encoded, GenerationConfig(beams=1, max_new_tokens=5))
    metrics = evaluation.metrics
    assert metrics["examples"] == 8 and [r.id for r in evaluation.rows][3:5] == ["t0:4", "t1:1"]
    assert set(metrics["tasks"]) == {"t0", "t1"} and 0 <= metrics["tasks"]["t1"]["rouge_l"] <= 100
    tokens = [metrics["tasks"][t]["target_tokens"] for t in ("t0", "t1")]
    losses = [metrics["tasks"][t]["loss"] for t in ("t0", "t1")]
    assert metrics["loss"] == pytest.approx(np.dot(losses, tokens) / sum(tokens))


def test_any_reference_of_the_same_source_is_right() -> None:
    rows = [Row("1", "hi", "hello", "hey"), Row("2", "hi", "hey", "hey "), Row("3", "bye", "hey", "hello")]
    assert any_reference(rows) == {"exact_any_pct": pytest.approx(200 / 3)}
    assert any_reference(rows[1:]) == {}  # no source has two


def test_prompts_beside_features_are_no_sources(tmp_path: Path) -> None:
    examples = [Example(str(i), text, "sign: ", frames=2) for i, text in enumerate(("c", "d"))]
    encoded = Encoded(Dataset(examples, dims=2, read=lambda i: np.full((2, 2), i, np.float32)), TOKENIZER, DataConfig())
    rows, bits = outcome(encoded, ["c", "c"])
    assert "exact_any_pct" not in set_figures(encoded, rows, bits)
    assert "exact_any_pct" in set_figures(mixture(tmp_path, {}), rows, bits)


def test_partners_are_of_one_task(tmp_path: Path) -> None:
    encoded = mixture(tmp_path, {"prefix": "a "}, {"prefix": "b "})
    found = partners(encoded)
    assert all((i < 4) == (j < 4) for i, j in enumerate(found)) and (found >= 0).all()
    alone = [partners(part) for part in encoded.parts]
    assert found.tolist() == [*alone[0], *(alone[1] + 4)]
    torch.manual_seed(0)
    made = network()
    whole, first = source_bits(made, encoded), source_bits(made, encoded.parts[0])
    assert whole.shuffled[:4] == pytest.approx(first.shuffled, abs=1e-4)


def test_rouge_l_is_that_of_rouge_score() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    references = ["The cat sat on the mat.", "A dog, 3 cats & one_bird", "nothing alike", ""]
    outputs = ["the cat is on a mat", "a DOG; 3 birds and one bird", "no", "x"]
    theirs = [RougeScorer(["rougeL"]).score(r, o)["rougeL"].fmeasure for r, o in zip(references, outputs, strict=True)]
    assert rouge_l(references, outputs) == pytest.approx(100 * np.mean(theirs))
    assert rouge_l(["кошка спит"], ["кошка ест"]) == pytest.approx(50)  # rouge-score alone knows a to z
    assert rouge_l(["猫睡觉"], ["猫吃饭"]) == pytest.approx(100 / 3)
