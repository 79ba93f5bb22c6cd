"""A training that comes upon NaN or infinity ends at that step, says where it is, and leaves what was saved before."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sourcewise
from sourcewise.api import prepare
from sourcewise.diagnosis.course import Course
from sourcewise.diagnosis.rules import look
from sourcewise.errors import NotFinite
from sourcewise.training.learner import Learner, Taken
from sourcewise.training.run import Run
from tests.training.recipes import feature_recipe, recipe


def weight_of(learner: Learner, name: str) -> torch.Tensor:
    return dict(learner.optimizer.exact())[name]


def spoil(name: str, value: float, at: int = -1) -> Callable[[Learner], None]:
    """Put a value into a master weight, and into the network."""

    def change(learner: Learner) -> None:
        weight_of(learner, name).detach().view(-1)[at] = value
        learner.optimizer.publish()

    return change


def stopped(made: Any, monkeypatch: pytest.MonkeyPatch, step: int, change: Callable[[Learner], None]) -> str:
    """Train, with something changed before the step after `step`; gives the one line that ends it."""
    learn = Learner.learn

    def changed(self: Learner, batches: Any) -> Taken:
        if self.at.step == step:
            change(self)
        return learn(self, batches)

    with monkeypatch.context() as patch, pytest.raises(NotFinite) as told:
        patch.setattr(Learner, "learn", changed)
        sourcewise.train(made)
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.mark.pages
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("body.embedding.weight", math.nan),
        ("body.encoder.0.attention_norm.weight", math.inf),
        ("body.decoder.0.cross.kv.weight", -math.inf),
    ],
)
def test_a_weight_is_named_with_the_step(name: str, value: float, tmp_path: Path, monkeypatch: Any) -> None:
    made = recipe(tmp_path, train__evaluate_every=4, train__steps=12, train__log_every=1)
    said = stopped(made, monkeypatch, 6, spoil(name, value, 0))
    assert said.startswith("step 7: ") and f"a weight is not finite, {name}: 1 of" in said and "state is kept" in said
    folder = tmp_path / "runs" / "tiny"
    for checkpoint in ("best", "last"):
        assert sourcewise.load(folder / "checkpoints" / checkpoint).generate("ba do")
    diagnosis = sourcewise.diagnose(folder)
    codes = {finding.code: finding for finding in diagnosis.findings}
    assert name in codes["TRN001"].evidence and codes["TRN001"].level == "error"
    assert not {"TRN003", "TRN013", "TRN014"} & set(codes)
    assert "A higher rate" not in " ".join(finding.cure for finding in diagnosis.findings if finding.code == "TRN009")
    assert diagnosis.cause is not None and f"Start with {diagnosis.cause}" in (folder / "report.html").read_text()
    if value == -math.inf:
        resumed = sourcewise.train(folder, resume=True)
        assert resumed.evaluation is not None and resumed.metrics()[-1]["step"] == 12


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_no_loss_meets_reaches_no_checkpoint(value: float, tmp_path: Path, monkeypatch: Any) -> None:
    made = recipe(tmp_path, model__tied=False, data__vocabulary=40, train__evaluate_every=4, train__steps=8)
    unused = spoil("body.embedding.weight", value, 3)  # of the padding, which only padded places read
    said = stopped(made, monkeypatch, 5, unused)
    assert "body.embedding.weight: 1 of" in said and said.startswith(("step 6: ", "step 8: "))
    assert sourcewise.load(tmp_path / "runs" / "tiny" / "checkpoints" / "last").generate("ba do")


@pytest.mark.parametrize("saved", [{"train__save_every": 6}, {"train__evaluate_every": 6}])
def test_what_an_update_spoils_is_not_saved(saved: dict[str, int], tmp_path: Path, monkeypatch: Any) -> None:
    made = recipe(tmp_path, train__steps=12, **{"train__evaluate_every": 3, **saved})
    learn = Learner.learn

    def spoiling(self: Learner, batches: Any) -> Taken:
        found = learn(self, batches)
        if self.at.step == 6:
            spoil("body.decoder_norm.weight", math.nan)(self)
        return found

    monkeypatch.setattr(Learner, "learn", spoiling)
    with pytest.raises(NotFinite, match=r"step 6: its update left weights .*body\.decoder_norm\.weight: 1 of 32"):
        sourcewise.train(made)


@pytest.mark.parametrize(("value", "said"), [(math.nan, "is nan"), (math.inf, "is inf")])
def test_features_are_named_by_file_and_frame(value: float, said: str, tmp_path: Path) -> None:
    training = prepare(feature_recipe(tmp_path), Run(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    dataset = training.setup.train.dataset
    read = dataset.read
    assert read is not None

    def spoiled(index: int) -> np.ndarray:
        matrix = read(index)
        if index % 4 == 3:
            matrix[2, 1] = value
        return matrix

    training.setup.train.dataset = replace(dataset, read=spoiled)
    with pytest.raises(NotFinite) as told:
        training.fit()
    named = re.search(r"a feature is not finite, .*?(\S+): frame 2, dimension 1 (.*?) \(", str(told.value))
    assert named and named[2] == said
    assert named[1] in {example.id for example in dataset.examples[3::4]}


def test_features_that_are_far_too_large_are_named_beside_what_overflows(tmp_path: Path) -> None:
    training = prepare(feature_recipe(tmp_path, train__clip=0.0), Run(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    dataset = training.setup.train.dataset
    read = dataset.read
    assert read is not None
    training.setup.train.dataset = replace(dataset, read=lambda index: read(index) * (1e38 if index % 4 == 3 else 1))
    with pytest.raises(NotFinite, match=r"its largest feature is .*: frame \d+, dimension \d+ is"):
        training.fit()


def test_a_training_that_overflows_names_the_part(tmp_path: Path) -> None:
    made = recipe(tmp_path, train__learning_rate=1e36, train__clip=0.0, train__warmup_steps=1, train__precision="bf16")
    with pytest.raises(NotFinite, match=r"step \d+: .*(first in body\.|a gradient is not finite, body\.)"):
        sourcewise.train(made)
    evidence = next(f.evidence for f in sourcewise.diagnose(tmp_path / "runs" / "tiny").findings if f.code == "TRN001")
    assert "body." in evidence


def line(step: int, **figures: Any) -> dict[str, Any]:
    common = {"kind": "train", "step": step, "loss": 4.0, "learning_rate": 1e-6, "gradient_norm": 1.0}
    return common | {"update_ratios": {"encoder": 1e-6, "decoder": 1e-6}} | figures


@pytest.mark.parametrize("steps", [4, 60, 400])
def test_a_course_that_stopped_is_not_told_to_go_faster(steps: int) -> None:
    lines = [{"kind": "start", "step": 0, "steps": steps}, *(line(step) for step in range(1, steps))]
    lines.append({"kind": "stopped", "step": steps, "loss": None, "gradient_norm": None})
    found = look(Course.read(lines)).findings
    assert [finding.code for finding in found] == ["TRN001"]


def test_steps_that_were_too_large_stand_above_it() -> None:
    lines = [line(step, update_ratios={"decoder": 2.0}, learning_rate=1.0) for step in range(1, 20)]
    lines.append({"kind": "stopped", "step": 20, "loss": None, "gradient_norm": None})
    found = {finding.code: finding for finding in look(Course.read(lines)).findings}
    assert set(found) == {"TRN001", "TRN009"} and "higher" not in found["TRN009"].cure
