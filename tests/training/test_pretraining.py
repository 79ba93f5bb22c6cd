"""Pre-training on plain text: ten steps of each objective, resumed exactly, mixed with pairs, fine-tuned from."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import sourcewise
from sourcewise.config import Recipe
from sourcewise.errors import RequestError
from sourcewise.training.learner import Learner, Taken
from sourcewise.training.loop import Interrupted
from tests.training.recipes import pairs_file, recipe

LIMITS = {"max_source": 32, "max_target": 32}


def denoising(folder: Path, kind: str, **changes: Any) -> Recipe:
    """Ten steps on both columns of the toy language, as plain text."""
    text = {"source": "source", "target": "target", "denoise": kind}
    data = {
        "train": {"text": str(pairs_file(folder, "text.tsv", 200)), **text},
        "valid": {"text": str(pairs_file(folder, "more.tsv", 60, 1)), **text},
        "vocabulary": 64,
        **LIMITS,
    }
    options = {"train__steps": 10, "train__evaluate_every": 5, "train__best": "loss", "train__log_every": 1}
    return recipe(folder, **{"data": data, **options, **changes})


@pytest.mark.parametrize("kind", ["span", "ul2"])
def test_ten_steps(tmp_path: Path, kind: str) -> None:
    run = sourcewise.train(denoising(tmp_path, kind, train__batch_tokens=1024, train__learning_rate=1e-2))
    losses = [line["loss"] for line in run.metrics() if line["kind"] == "train"]
    assert len(losses) == 10 and all(map(math.isfinite, losses)) and losses[-1] < 0.8 * losses[0]
    assert run.evaluation is not None and run.evaluation.metrics["source_bits"] is not None
    rows = run.evaluation.rows
    assert all(row.source and row.reference and "<extra_id_" not in row.reference for row in rows)
    assert len({row.source for row in rows}) == len(rows)
    model = sourcewise.load(run.folder)
    assert len(model.tokenizer.sentinels) == 100
    text = tmp_path / "more.txt"
    text.write_text("ba do ki lu\n" * 40)
    assert sourcewise.evaluate(model, str(text)).metrics["examples"] >= 3  # a .txt is read as the run's own text was


@pytest.mark.parametrize("kind", ["span", "ul2"])
def test_interrupted_in_a_later_epoch_and_resumed_the_weights_are_the_same(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"train__batch_tokens": 512, "train__steps": 22, "train__evaluate_every": 22}
    whole = sourcewise.train(denoising(tmp_path, kind, name="whole", **options))
    assert whole.metrics()[-1]["epoch"] > 2
    learn = Learner.learn

    def interrupt(self: Learner, batches: list[Any]) -> Taken:
        if self.at.step in (7, 15):  # in the first epoch, and in a later one
            os.kill(os.getpid(), signal.SIGTERM)
        return learn(self, batches)

    monkeypatch.setattr(Learner, "learn", interrupt)
    made = denoising(tmp_path, kind, name="cut", **options)
    with pytest.raises(Interrupted):
        sourcewise.train(made)
    folder = tmp_path / "runs" / "cut"
    with pytest.raises(Interrupted):
        sourcewise.train(folder, resume=True)
    cut = sourcewise.train(folder, resume=True)
    first, second = (load_file(run.last / "model.safetensors") for run in (whole, cut))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_pairs_beside_plain_text(tmp_path: Path) -> None:
    made = denoising(tmp_path, "span")
    pairs = {"pairs": str(pairs_file(tmp_path)), "name": "words", "prefix": "translate: "}
    text = {**made.data.train.model_dump(exclude_none=True), "name": "spans"}  # type: ignore[union-attr]
    tree = made.model_dump()
    tree["data"] = {"train": [pairs, text], "valid": {**pairs, "limit": 20}, "vocabulary": 64, **LIMITS}
    run = sourcewise.train(Recipe.model_validate(tree))
    losses = [line["loss"] for line in run.metrics() if line["kind"] == "train"]
    assert len(losses) == 10 and losses[-1] < losses[0]
    assert len(sourcewise.load(run.folder).tokenizer.sentinels) == 100


def test_fine_tuning_takes_the_weights_and_the_tokenizer(tmp_path: Path) -> None:
    first = sourcewise.train(denoising(tmp_path, "span", name="first"))
    pairs = {"train": {"pairs": str(pairs_file(tmp_path)), "limit": 100}, "valid": {"builtin": "dates", "limit": 4}}
    second = sourcewise.train(
        recipe(tmp_path, name="second", data=pairs, model__weights=str(first.folder), train__steps=1)
    )
    tokenizers = [sourcewise.load(run.folder).tokenizer for run in (first, second)]
    assert tokenizers[0].encode("ba <extra_id_0> no") == tokenizers[1].encode("ba <extra_id_0> no")
    assert len(tokenizers[1].sentinels) == 100
    before, after = (load_file(run.last / "model.safetensors") for run in (first, second))
    assert all((before[name] - after[name]).abs().max() < 0.1 for name in before)  # one small step away


def test_a_tokenizer_without_sentinels_is_refused(tmp_path: Path) -> None:
    supervised = sourcewise.train(recipe(tmp_path, name="supervised", train__steps=1))
    with pytest.raises(RequestError, match=r"text.tsv: 2 spans are dropped .* the tokenizer has no sentinels"):
        sourcewise.train(denoising(tmp_path, "span", name="next", model__weights=str(supervised.folder)))
    assert not (tmp_path / "runs" / "next").exists()
