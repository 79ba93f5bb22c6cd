"""Shares of an evaluation: what all of them find together is what one process finds, to the byte."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sourcewise
from sourcewise.cli import main
from sourcewise.evaluation.evaluate import lay_out
from sourcewise.evaluation.shared import found_in, put_together
from sourcewise.evaluation.source_bits import source_bits
from sourcewise.generation.generate import generate
from tests.commands import Models
from tests.training.recipes import pairs_file
from tests.training.test_ranks import saved
from tests.training.worlds import text, torchrun


@pytest.mark.parametrize("world", [1, 3, 50])
@pytest.mark.parametrize("options", [{"beams": 1}, {"beams": 3}, {"sample": True, "seed": 3}, {"mbr": "chrf"}], ids=str)
def test_shares_give_what_one_process_finds(
    world: int, options: dict[str, Any], models: Models, tmp_path: Path
) -> None:
    model = sourcewise.load(models.text)
    encoded = lay_out(model, pairs_file(tmp_path, "test.tsv", 40, 7))
    asked = model.options(max_new_tokens=5, batch_tokens=64, **options)
    whole = generate(model.network, encoded, asked)
    parts = [found_in(model.network, encoded, asked, (k, world)) for k in range(world)]
    found = put_together(parts, encoded, asked)
    assert [each.ids for each in found.hypotheses] == [each.ids for each in whole]
    bits = source_bits(model.network, encoded)
    assert np.array_equal(found.bits.nats, bits.nats)
    assert np.array_equal(found.bits.shuffled, bits.shuffled, equal_nan=True)
    assert sum(len(part.hypotheses) for part in parts) == 40


def test_an_example_without_another_source_stays_unknown(models: Models, tmp_path: Path) -> None:
    (tmp_path / "one.tsv").write_text("source\ttarget\nba do\tone two\n")
    model = sourcewise.load(models.text)
    encoded = lay_out(model, tmp_path / "one.tsv")
    asked = model.options(max_new_tokens=5)
    found = put_together([found_in(model.network, encoded, asked, (k, 2)) for k in range(2)], encoded, asked)
    assert math.isnan(found.bits.bits) and len(found.hypotheses) == 1


def figures(folder: Path) -> dict[str, Any]:
    return {**json.loads((folder / "metrics.json").read_text()), "seconds": 0}


@pytest.mark.slow
def test_evaluate_by_three_processes(models: Models, tmp_path: Path) -> None:
    data = pairs_file(tmp_path, "test.tsv", 100, 7)
    words = ["evaluate", str(models.text), str(data), "--sample", "--seed", "3"]
    assert main([*words, "-o", str(tmp_path / "one")]) == 0
    done = torchrun(3, "sourcewise", *words, "-o", tmp_path / "three", "--require", "bleu>=0")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("source bits") == 1 or done.stdout.count("BLEU") >= 1
    assert figures(tmp_path / "one") == figures(tmp_path / "three")
    ours, theirs = ((tmp_path / name / "translations.tsv").read_bytes() for name in ("one", "three"))
    assert ours == theirs


@pytest.mark.slow
def test_the_final_evaluation_is_by_all_processes(tmp_path: Path) -> None:
    """A run that two processes have trained, evaluated again by one, has the same files."""
    path = saved(text(tmp_path, name="two"), tmp_path)
    assert torchrun(2, "sourcewise", "train", path).returncode == 0
    run = tmp_path / "runs" / "two"
    by_two = {name: (run / name).read_bytes() for name in ("translations.tsv", "traces.json")}, figures(run)
    done = torchrun(1, "sourcewise", "train", run, "--resume")
    assert done.returncode == 0, done.stderr[-2000:]
    by_one = {name: (run / name).read_bytes() for name in ("translations.tsv", "traces.json")}, figures(run)
    assert by_one == by_two
