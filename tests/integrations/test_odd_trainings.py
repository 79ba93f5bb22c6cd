"""The callback in trainings of all kinds: none is ended, changed or cut short by it, and what it cannot see is said."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("accelerate", reason="transformers' Trainer needs it")
pytest.importorskip("transformers")

from sourcewise.integrations.passing import Spread
from sourcewise.integrations.transformers import SourcewiseCallback
from sourcewise.integrations.untouched import untouched
from tests.integrations.odd import (
    STEPS,
    TRAININGS,
    Restless,
    made,
    masked,
    prompted,
    second,
    without_labels,
)
from tests.integrations.trainings import bart, rows, shuffled, t5


def trained(folder: Path, name: str, callback: Any) -> tuple[dict[str, Any], Any]:
    """All that a training leaves behind, and the callback that was in it, if any."""
    torch.manual_seed(1), np.random.seed(1), random.seed(1)  # noqa: NPY002
    built, counted = TRAININGS[name][0](folder)
    watching = callback(built) if callback else None
    if watching is not None:
        built.add_callback(watching)
    built.train()
    history = [line for line in built.state.log_history if not any(key.startswith("sourcewise") for key in line)]
    losses = [{key: line[key] for key in ("loss", "grad_norm", "eval_loss", "step") if key in line} for line in history]
    left = {
        "losses": losses,
        "step": built.state.global_step,
        "counted": counted(),
        "drawn": (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()),  # noqa: NPY002
        "weights": [p.detach().clone() for p in built.model.parameters()],
        "modes": [module.training for module in built.model.modules()],
        "hooks": [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in built.model.modules()],
        "learning": [p.requires_grad for p in built.model.parameters()],
        "settings": built.model.generation_config.to_dict(),
        "config": str(built.model.config.to_dict()),
    }
    return left, watching


def same(left: dict[str, Any], right: dict[str, Any]) -> None:
    for name in left:
        if name == "weights":
            assert all(torch.equal(*pair) for pair in zip(left[name], right[name], strict=True))
        else:
            assert left[name] == right[name], name


SLOW = {"compiled": pytest.mark.slow}
NAMES = [pytest.param(name, marks=SLOW.get(name, ())) for name in TRAININGS]


@pytest.mark.parametrize("name", NAMES)
def test_a_training_is_the_same_with_the_callback(name: str, tmp_path: Path) -> None:
    alone, _ = trained(tmp_path, name, None)
    watched, callback = trained(tmp_path, name, SourcewiseCallback)
    same(alone, watched)
    assert watched["step"] == STEPS and watched["losses"]
    missing = callback.diagnosis.not_checked
    words = TRAININGS[name][1]
    assert any(words in line for line in missing)
    if not words:  # then all of it could be looked at
        assert not callback.told.problems or name == "one row a batch"
        assert "wiring" in callback.doctor.pieces and "data" in callback.doctor.pieces
    assert [f for f in callback.diagnosis.findings if f.level == "error"] == []


@pytest.mark.parametrize("name", ["one-pass data", "lists", "a model with a memory", "compute_loss_func"])
def test_without_the_trainer_too(name: str, tmp_path: Path) -> None:
    alone, _ = trained(tmp_path, name, None)
    watched, _ = trained(tmp_path, name, lambda built: SourcewiseCallback())
    same(alone, watched)


def test_without_the_trainer_labels_that_never_reach_the_model_are_asked_for(tmp_path: Path) -> None:
    built, _ = TRAININGS["compute_loss_func"][0](tmp_path)
    callback = SourcewiseCallback()
    built.add_callback(callback)
    built.train()
    told = [line for line in callback.diagnosis.not_checked if line.startswith("the wiring: ")]
    assert told == [
        "the wiring: the model was called without labels; hand the trainer over: SourcewiseCallback(trainer)"
    ]


@pytest.mark.parametrize("make", [t5, bart])
def test_labels_masked_inside_do_not_count(make: Any, tmp_path: Path) -> None:
    """Source bits and the loss are those of the labels that count, as the model itself has them."""
    built, _ = made(tmp_path, make(), collator=masked(second), valid=rows(64, 1), per_device_eval_batch_size=64)
    callback = SourcewiseCallback(built)
    built.add_callback(callback)
    built.train()
    (line,) = callback.doctor.recorder.course.evaluations
    (loss,) = [entry["eval_loss"] for entry in built.state.log_history if "eval_loss" in entry]
    assert line["loss"] == pytest.approx(loss, rel=1e-4)
    assert line["target_tokens"] == sum(len(row["labels"]) - 1 for row in rows(64, 1))


def test_a_prompt_counts_for_nothing_and_is_read(tmp_path: Path) -> None:
    built, _ = made(tmp_path, collator=prompted, valid=rows(64, 1), per_device_eval_batch_size=64)
    callback = SourcewiseCallback(built)
    built.add_callback(callback)
    built.train()
    (line,) = callback.doctor.recorder.course.evaluations
    (loss,) = [entry["eval_loss"] for entry in built.state.log_history if "eval_loss" in entry]
    assert line["loss"] == pytest.approx(loss, rel=1e-4)
    assert line["target_tokens"] == sum(len(row["labels"]) for row in rows(64, 1))


def test_each_evaluation_set_is_looked_at_by_its_name(tmp_path: Path) -> None:
    sets = {"a": rows(64, 1), "b": [{"input_ids": row["input_ids"]} for row in rows(32, 2)]}
    built, _ = made(tmp_path, valid=sets, collator=without_labels, predict_with_generate=True, generation_max_length=8)
    built.compute_metrics = lambda prediction: {}
    callback = SourcewiseCallback(built)
    built.add_callback(callback)
    built.train()
    assert any("sourcewise_a_source_bits" in line for line in built.state.log_history)
    assert any(line.startswith("the evaluation of b: its batches") for line in callback.diagnosis.not_checked)
    found = [finding for finding in callback.diagnosis.findings if finding.code.startswith("OUT")]
    assert found and all(finding.evidence.startswith("a: ") for finding in found)


class Broken(type(t5())):  # type: ignore[misc]
    """Whose encoder cannot be asked for alone."""

    raised: Any = RuntimeError

    def get_encoder(self, *given: Any, **named: Any) -> Any:
        raise self.raised("not by itself")


def test_a_look_that_fails_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    built, _ = made(tmp_path, Broken(t5().config), eval_steps=2)
    callback = SourcewiseCallback(built)
    built.add_callback(callback)
    built.train()
    assert built.state.global_step == STEPS
    told = [line for line in capsys.readouterr().err.splitlines() if "not checked" in line]
    assert len(told) == 1 and "the wiring: RuntimeError: not by itself" in told[0]
    assert any("source_bits" in line for entry in built.state.log_history for line in entry)  # by the model's own call


def test_an_interrupt_is_none_of_ours(tmp_path: Path) -> None:
    class Interrupted(Broken):
        raised = KeyboardInterrupt

    built, _ = made(tmp_path, Interrupted(t5().config))
    built.add_callback(SourcewiseCallback(built))
    with pytest.raises(KeyboardInterrupt):
        built.train()
    assert all(module.training for module in built.model.modules())


def test_an_evaluation_alone_and_one_at_the_start(tmp_path: Path) -> None:
    built, _ = made(tmp_path, eval_on_start=True)
    callback = SourcewiseCallback(built)
    built.add_callback(callback)
    assert "eval_sourcewise_source_bits" in built.evaluate()
    built.train()
    assert not callback.told.problems and "wiring" in callback.doctor.pieces
    assert len([line for line in built.state.log_history if "sourcewise_source_bits" in line]) == 2
    built.predict(rows(32))
    assert not callback.doctor.kept.kept


def test_examples_of_an_evaluation_are_spread_over_all_of_it() -> None:
    for size, count in ((32, 40), (1, 700), (500, 3), (7, 2)):
        some = Spread(96)
        for i in range(count):
            some.add({"labels": torch.arange(i * size, (i + 1) * size)[:, None], "name": "x"})
        taken = torch.cat([batch["labels"][:, 0] for batch in some.batches()])
        total = size * count
        assert len(taken) == min(96, total) == len(set(taken.tolist()))
        assert taken.min() < total / 8 and taken.max() >= total * 0.7


def test_nothing_but_the_model_s_own_has_changed() -> None:
    model = Restless(t5().config)
    state = model.draw.get_state()
    kept = {**vars(model)}
    with untouched(model):
        model.draw.seed(), model.seen.add_(1), random.random(), np.random.rand()  # noqa: NPY002
        model.calls, model.other = 9, 1
        model.register_buffer("more", torch.ones(1))
        assert not model.training
    assert vars(model) == kept and model.training and float(model.seen) == 0
    assert torch.equal(model.draw.get_state(), state) and "more" not in dict(model.named_buffers())


def test_pairs_that_do_not_belong_together_are_found_when_they_have_passed(tmp_path: Path) -> None:
    built, _ = made(tmp_path, steps=20, train=shuffled(), eval_strategy="no")  # 600 rows, an epoch of 19 steps
    callback = SourcewiseCallback(built)
    built.add_callback(callback)
    built.train()
    assert callback.diagnosis.cause == "DAT003"
    (step,) = {line["step"] for line in built.state.log_history if line.get("sourcewise_DAT003")}
    assert step == 19
