"""Losses, gradients and weights that are not finite in a Trainer: one error, which names the step and the tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("accelerate", reason="transformers' Trainer needs it")
transformers = pytest.importorskip("transformers")

from sourcewise.integrations.finite import Steps  # noqa: E402
from sourcewise.integrations.transformers import SourcewiseCallback  # noqa: E402
from tests.integrations.odd import IGNORED, bert2bert, made  # noqa: E402
from tests.integrations.trainings import SIZE, Row, bart, collate, rows, t5  # noqa: E402

NAN = float("nan")


class Writes(transformers.TrainerCallback):
    """Writes a value into a tensor after a step."""

    def __init__(self, name: str, step: int, value: float = NAN) -> None:
        self.name, self.step, self.value = name, step, value

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **given: Any) -> None:
        if state.global_step == self.step:
            model.get_parameter(self.name).data[0] = self.value


def ill(built: Any, *others: Any, alone: bool = False) -> tuple[Any, list[Any]]:
    """The callback of a training that was let run, and its errors."""
    callback = SourcewiseCallback(None if alone else built)
    built.add_callback(callback)
    for other in others:
        built.add_callback(other)
    built.train()
    findings = callback.diagnosis.findings
    assert not {"TRN009", "TRN013", "TRN002", "TRN003"} & {finding.code for finding in findings}
    assert not [finding for finding in findings if finding.code.startswith(("OUT", "SRC"))]
    return callback, [finding for finding in findings if finding.level == "error"]


WEIGHTS: list[tuple[Callable[[], Any], str, float, dict[str, Any]]] = [
    (t5, "shared.weight", NAN, {"logging_steps": 1}),
    (t5, "decoder.block.0.layer.0.SelfAttention.q.weight", NAN, {"logging_steps": 10}),
    (bart, "model.decoder.layers.0.fc1.weight", NAN, {"logging_nan_inf_filter": False, "logging_steps": 2}),
    (bert2bert, "encoder.encoder.layer.0.output.dense.weight", NAN, {"label_smoothing_factor": 0.0}),
    (t5, "encoder.final_layer_norm.weight", float("inf"), {"gradient_accumulation_steps": 2}),
]


@pytest.mark.parametrize(("model", "name", "value", "options"), WEIGHTS)
@pytest.mark.parametrize("alone", [False, True])
def test_a_weight(model: Any, name: str, value: float, options: Any, alone: bool, tmp_path: Path) -> None:
    built, _ = made(tmp_path, model(), steps=12, **options)
    callback, errors = ill(built, Writes(name, 5, value), alone=alone)
    (error,) = errors
    assert error.code == "TRN001" and "at step 6 " in error.evidence
    assert f"not finite are the weights {name} (1 of" in error.evidence
    told = next(line for line in built.state.log_history if "sourcewise_findings" in line)
    assert any("the weights are not finite" in line for line in callback.diagnosis.not_checked)
    assert told["step"] <= 6


def test_a_gradient(tmp_path: Path) -> None:
    built, _ = made(tmp_path, steps=8)

    def spoil(gradient: Tensor) -> Tensor:
        return gradient * NAN if built.state.global_step == 3 else gradient

    callback = SourcewiseCallback(built)
    built.model.get_parameter("encoder.block.0.layer.0.SelfAttention.k.weight").register_hook(spoil)
    built.add_callback(callback)
    built.train()
    (error,) = [finding for finding in callback.diagnosis.findings if finding.level == "error"]
    assert error.code == "TRN001" and "at step 4 the loss is " in error.evidence
    assert "the norm of its gradient is not finite; not finite are the gradients " in error.evidence


def empty_from(first: int, last: int) -> Callable[[list[Row]], dict[str, Tensor]]:
    """A collator of some of whose batches no label counts."""
    count = [0]

    def collator(chosen: list[Row]) -> dict[str, Tensor]:
        batch = collate(chosen)
        count[0] += 1
        return batch | {"labels": torch.full_like(batch["labels"], IGNORED)} if first <= count[0] <= last else batch

    return collator


@pytest.mark.parametrize("model", [t5, bart])
@pytest.mark.parametrize("filtered", [True, False])
def test_a_batch_of_which_no_label_counts(model: Any, filtered: bool, tmp_path: Path) -> None:
    options = {"logging_nan_inf_filter": filtered, "eval_strategy": "no", "logging_steps": 1}
    built, _ = made(tmp_path, model(), steps=12, collator=empty_from(5, 6), **options)
    callback, errors = ill_softly(built)
    (error,) = errors
    assert error.code == "TRN001" and "at step 5 the loss is not finite" in error.evidence
    assert "of the 32 rows of its batch no label counts: all are -100; 2 such steps so far" in error.evidence
    assert error.cure.startswith("Leave out examples whose labels are all -100")
    # It goes on, and so does its judge, where the Trainer's own mean is not lost with the first.
    steps = [line["step"] for line in callback.doctor.recorder.course.train]
    assert steps == ([1, 2, 3, 4, 7, 8, 9, 10, 11, 12] if filtered else [1, 2, 3, 4])


def ill_softly(built: Any) -> tuple[Any, list[Any]]:
    callback = SourcewiseCallback(built)
    built.add_callback(callback)
    built.train()
    return callback, [finding for finding in callback.diagnosis.findings if finding.level == "error"]


def test_weights_of_the_last_step(tmp_path: Path) -> None:
    built, _ = made(tmp_path, steps=6, eval_strategy="no")
    _, (error,) = ill(built, Writes("shared.weight", 6))
    assert error.code == "TRN001" and "at step 6 not finite are the weights shared.weight (1 of" in error.evidence


def test_weights_from_the_first_step_on_are_named_before_it(tmp_path: Path) -> None:
    model = t5()
    model.get_parameter("encoder.final_layer_norm.weight").data[3] = NAN
    built, _ = made(tmp_path, model)
    _, (error,) = ill(built)
    assert error.code == "WIR001" and "encoder.final_layer_norm.weight (1 of 26 tensors)" in error.evidence


def test_a_model_that_is_only_evaluated(tmp_path: Path) -> None:
    built, _ = made(tmp_path)
    callback = SourcewiseCallback(built)
    built.add_callback(callback)
    built.model.shared.weight.data[0] = NAN
    built.evaluate()
    (error,) = callback.diagnosis.findings
    assert error.code == "TRN001" and "shared.weight" in error.evidence


def test_a_rate_far_too_high_is_not_too_low(tmp_path: Path) -> None:
    built, _ = made(tmp_path, steps=30, learning_rate=1e12, logging_steps=5)
    callback, errors = ill_softly(built)
    assert errors[0].code == "WIR014" and "TRN001" in [error.code for error in errors]
    assert not any("higher rate" in finding.cure for finding in callback.diagnosis.findings)


def test_what_fp16_leaves_out_is_not_counted() -> None:
    steps, model = Steps(), torch.nn.Linear(2, 2)
    model.weight.grad = torch.full((2, 2), float("inf"))
    steps.gradients(3, model)
    steps.forget(3)
    assert steps.asked() == []
    steps.gradients(4, model)
    steps.loss(4, torch.tensor(2.0), torch.ones(1, 1))
    (found,) = steps.asked()
    assert (found.step, found.loss, found.harmless) == (4, 2.0, False)


class Spoils(transformers.TrainerCallback):
    """Writes a value into what the optimizer keeps of the first weight."""

    def __init__(self, name: str, step: int, value: float) -> None:
        self.name, self.step, self.value = name, step, value

    def on_step_end(self, args: Any, state: Any, control: Any, optimizer: Any = None, **given: Any) -> None:
        if state.global_step == self.step:
            next(iter(optimizer.state.values()))[self.name].view(-1)[0] = self.value


@pytest.mark.parametrize(
    ("name", "step", "value"), [("exp_avg_sq", 6, NAN), ("exp_avg_sq", 3, float("inf")), ("exp_avg", 6, NAN)]
)
def test_a_moment_that_no_weight_shows_yet(name: str, step: int, value: float, tmp_path: Path) -> None:
    built, _ = made(tmp_path, steps=6)
    callback = SourcewiseCallback(built)
    built.add_callback(callback)
    built.add_callback(Spoils(name, step, value))
    built.train()
    (error,) = [finding for finding in callback.diagnosis.findings if finding.code == "TRN001"]
    assert error.level == "error" and "at step 6 not finite are the moments " in error.evidence
    assert f"{name} of shared.weight (1 of 78 tensors)" in error.evidence and "such steps" not in error.evidence


class Scaled(transformers.T5ForConditionalGeneration):
    """Has a buffer in its loss, and may give other logits at evaluation."""

    worst = 1.0

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.register_buffer("scale", torch.ones(3))
        self.register_buffer(
            "seen", torch.tensor([float("inf"), -float("inf")]), persistent=False
        )  # least and most, so far

    def forward(self, *given: Any, **named: Any) -> Any:
        out = super().forward(*given, **named)
        if not self.training:
            out.logits = out.logits.index_fill(1, torch.tensor([0]), self.worst) if self.worst != 1.0 else out.logits
        if out.loss is not None:
            out.loss = out.loss * self.scale.mean()
        return out


def scaled() -> Any:
    model = Scaled(t5().config)
    model.load_state_dict(t5().state_dict(), strict=False)
    return model


def test_a_buffer(tmp_path: Path) -> None:
    class Buffer(Writes):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **given: Any) -> None:
            if state.global_step == self.step:
                model.scale[1] = NAN

    built, _ = made(tmp_path, scaled(), steps=6)
    _, (error,) = ill(built, Buffer("scale", 3))
    assert error.code == "TRN001" and "not finite are the weights scale (1 of 28 tensors)" in error.evidence


def vectors(spoiled: Callable[[list[Row]], bool], value: float) -> Callable[[list[Row]], dict[str, Tensor]]:
    """A collator of features, some of whose batches hold a value at one place."""
    table = torch.randn(SIZE, 48, generator=torch.Generator().manual_seed(0))

    def collator(chosen: list[Row]) -> dict[str, Tensor]:
        batch = collate(chosen)
        read = table[batch.pop("input_ids")]
        if spoiled(chosen):
            read[0, 0, 3] = value
        return batch | {"inputs_embeds": read}

    return collator


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_sources_of_the_first_batch_are_named(value: float, tmp_path: Path) -> None:
    built, _ = made(tmp_path, collator=vectors(lambda chosen: True, value), eval_strategy="no")
    callback, (error,) = ill_softly(built)
    assert error.code == callback.diagnosis.cause == "WIR001"
    assert "sources of the first batches, inputs_embeds: 1 of" in error.evidence


@pytest.mark.parametrize("value", [NAN, -float("inf")])
def test_sources_of_an_evaluation_are_an_error_that_names_them(value: float, tmp_path: Path) -> None:
    first = rows(64, seed=1)[0]["input_ids"]
    collator = vectors(lambda chosen: chosen[0]["input_ids"] == first, value)
    built, _ = made(tmp_path, collator=collator, steps=4)
    callback, errors = ill_softly(built)
    (error,) = [each for each in errors if each.code == "WIR001"]
    assert "not finite are sources of the evaluation, inputs_embeds: 1 of" in error.evidence
    assert "[0, 0, 3]" in error.evidence and callback.doctor.recorder.course.train


def test_logits_that_are_not_finite_at_evaluation_alone(tmp_path: Path) -> None:
    model = scaled()
    built, _ = made(tmp_path, model, steps=4)

    class Worst(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            model.worst = NAN

    callback = SourcewiseCallback(built)
    built.add_callback(callback)
    built.add_callback(Worst())
    built.train()
    (error,) = [finding for finding in callback.diagnosis.findings if finding.level == "error"]
    assert error.code == "WIR001" and "at an evaluation the logits" in error.evidence
    assert "although all weights are" in error.evidence and callback.doctor.recorder.course.finished
