"""Early stopping: patience in evaluations, what counts as better, what a resumed run does."""

from __future__ import annotations

from pathlib import Path

import pytest

import sourcewise
from sourcewise.config import Recipe
from sourcewise.errors import Notice, RequestError
from sourcewise.runtime.ranks import Ranks
from sourcewise.training.checkpoints import Checkpoints
from sourcewise.training.state import Progress
from tests.training.recipes import recipe

SLOW = {"train__learning_rate": 0.0, "train__evaluate_every": 2, "train__steps": 40, "train__schedule": "constant"}


class Standing:
    """What `Checkpoints` asks of a learner and a setup."""

    def __init__(self, asked: Recipe) -> None:
        self.recipe, self.at, self.ranks = asked, Progress(), Ranks()


@pytest.mark.parametrize(
    ("figures", "least", "waited"),
    [
        ([(10.0, 3.0), (11.0, 3.0), (12.0, 3.0)], 0.0, [0, 0, 0]),
        ([(10.0, 3.0), (9.0, 2.0), (9.0, 1.0), (10.5, 4.0)], 0.0, [0, 1, 2, 0]),
        ([(0.0, 3.0), (0.0, 2.0), (0.0, 2.0)], 0.0, [0, 0, 1]),  # the loss decides between equals
        ([(10.0, 3.0), (10.4, 3.0), (10.8, 3.0), (11.2, 3.0)], 1.0, [0, 1, 2, 0]),  # small steps add up
        ([(0.0, 3.0), (0.0, 1.0)], 0.5, [0, 1]),
        ([(None, 3.0), (None, 2.0), (1.0, 5.0)], 0.0, [0, 0, 0]),
    ],
)
def test_only_evaluations_that_are_better_count(
    figures: list[tuple[float | None, float]], least: float, waited: list[int], tmp_path: Path
) -> None:
    standing = Standing(recipe(tmp_path, train__patience=2, train__min_delta=least))
    checkpoints = Checkpoints(standing, None, standing)  # type: ignore[arg-type]
    checkpoints.write = lambda folder: None  # type: ignore[method-assign]
    checkpoints.run = type("Run", (), {"best": None})()  # type: ignore[assignment]
    for (bleu, loss), count in zip(figures, waited, strict=True):
        checkpoints.consider({"bleu": bleu, "loss": loss})
        assert standing.at.waited == count
        assert checkpoints.patience_ended == (count >= 2)


def test_a_training_ends_when_nothing_gets_better_and_goes_on_when_it_may(tmp_path: Path) -> None:
    asked = recipe(tmp_path, train__patience=3, **SLOW)
    with pytest.warns(Notice, match=r"ended at step 8 of 40: no better bleu in 3 evaluations \(train\.patience\)"):
        run = sourcewise.train(asked)
    lines = run.metrics()
    assert lines[-1]["kind"] == "ended" and lines[-1]["step"] == 8
    assert [line["step"] for line in lines if line["kind"] == "evaluation"] == [2, 4, 6, 8]
    assert [line["step"] for line in lines if line.get("best")] == [2]
    assert run.evaluation is not None and run.best.is_dir()
    with pytest.warns(Notice, match="ended at step 8 of 40"):
        sourcewise.train(asked, resume=True)
    assert [line["kind"] for line in run.metrics()].count("ended") == 1
    with pytest.warns(Notice, match="ended at step 12 of 40"):
        sourcewise.train(asked, {"train.patience": 5}, resume=True)
    with pytest.raises(RequestError, match=r"train\.patience: the run has 5; it can only be more"):
        sourcewise.train(asked, {"train.patience": 2}, resume=True)


def test_patience_needs_something_to_evaluate(tmp_path: Path) -> None:
    asked = recipe(tmp_path, train__patience=1)
    asked = asked.model_copy(update={"data": asked.data.model_copy(update={"valid": None})})
    with pytest.raises(RequestError, match=r"train\.patience: nothing is evaluated .* name it in data\.valid"):
        sourcewise.train(asked)


def test_a_finished_run_goes_on_for_more_steps(tmp_path: Path) -> None:
    asked = recipe(tmp_path, train__steps=8)
    sourcewise.train(asked)
    with pytest.warns(UserWarning, match=r"train\.steps: 16 instead of 8; the learning rate goes on as if"):
        run = sourcewise.train(asked, {"train.steps": 16}, resume=True)
    assert [line["step"] for line in run.metrics() if line["kind"] == "evaluation"] == [8, 16]
