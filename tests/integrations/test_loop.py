"""The doctor in plain training loops: six faults of tutorials in two of them, named first; healthy ones are healthy."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
import torch
from torch import nn

import sourcewise
from sourcewise.errors import RequestError
from sourcewise.integrations.loop import LoopDoctor
from tests.integrations.loops import PAD, SIZE, Apart, OfTransformer, batches, words

STEPS = 60
FAULTS = {
    "zeros": "WIR026",
    "softmax": "WIR027",
    "state": "WIR028",
    "unoptimised": "WIR003",
    "one letter": "DAT005",
    "vanishing": "WIR013",
}
KINDS = (Apart, OfTransformer)


def watched(training: Any, count: int = STEPS, **options: Any) -> LoopDoctor:
    doctor = sourcewise.doctor(training.modules, training.optimizers, **options)
    training.run(count, doctor.step)
    return doctor


def serious(doctor: LoopDoctor) -> list[tuple[str, str]]:
    return [(each.code, each.level) for each in doctor.diagnosis.findings if each.level != "note"]


def failed(doctor: LoopDoctor) -> list[str]:
    """What went wrong inside, which nobody foresaw."""
    return [line for line in doctor.diagnosis.not_checked if "Error: " in line]


@pytest.mark.parametrize("adam", [True, False], ids=["Adam", "SGD"])
@pytest.mark.parametrize("kind", KINDS, ids=["GRU", "Transformer"])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_cause_is_named_first(fault: str, kind: type, adam: bool) -> None:
    doctor = watched(kind(fault, adam))
    first = doctor.diagnosis.findings[0]
    assert (first.code, first.level) == (FAULTS[fault], "error"), first
    assert doctor.diagnosis.cause == FAULTS[fault] and not failed(doctor)
    assert "--" not in first.cure and "Seq2Seq" not in first.cure  # in words of PyTorch


@pytest.mark.parametrize("adam", [True, False], ids=["Adam", "SGD"])
@pytest.mark.parametrize("kind", KINDS, ids=["GRU", "Transformer"])
def test_a_healthy_loop_is_healthy(kind: type, adam: bool) -> None:
    doctor = watched(kind("", adam))
    assert doctor.diagnosis.verdict == "healthy" and not serious(doctor) and not failed(doctor)


@pytest.mark.parametrize("kind", KINDS, ids=["GRU", "Transformer"])
def test_losses_are_the_same_to_the_last_digit(kind: type) -> None:
    alone, other = kind(), kind()
    torch.manual_seed(1)  # of dropout
    losses = alone.run(25)
    doctor = sourcewise.doctor(other.modules, other.optimizers, every=3)
    held_out = list(batches(words(64, 9), begin=kind is not Apart, time_first=kind is not Apart))

    def step(loss: Any, batch: Any) -> None:
        doctor.step(loss, batch)
        if doctor.history.global_step % 10 == 0:
            doctor.evaluate(held_out)

    torch.manual_seed(1)
    assert losses == other.run(25, step)
    kept, left = (
        list(each.modules.parameters()) if isinstance(each.modules, nn.Module) else [] for each in (alone, other)
    )
    assert all(torch.equal(a, b) for a, b in zip(kept, left, strict=True))


@pytest.mark.parametrize("kind", KINDS, ids=["GRU", "Transformer"])
def test_it_says_in_one_line_how_it_reads_batches_and_measures_source_bits(
    kind: type, capsys: pytest.CaptureFixture[str]
) -> None:
    time_first = kind is OfTransformer
    doctor = watched(kind(), 100)
    lines = [line for line in capsys.readouterr().err.splitlines() if "understood" in line]
    assert len(lines) == 1 and "padding is 0, not counted" in lines[0]
    assert ("(time, batch)" if time_first else "(batch, time)") in lines[0]
    assert ("cross-entropy" if time_first else "log-probabilities, given to NLLLoss") in lines[0]
    figures = doctor.evaluate(batches(words(96, 5), begin=time_first, time_first=time_first))
    assert figures["source_bits"] > 1 and figures["examples"] == 96
    assert figures["loss"] < figures["loss_shuffled"] and not failed(doctor)


def test_source_bits_are_those_of_the_modules_called_by_hand() -> None:
    training = Apart()
    doctor = watched(training, 30)
    held_out = list(batches(words(16, 5), begin=False))
    (source, target) = held_out[0]
    with torch.no_grad():
        said, _, _ = training.decoder(*training.encoder(source), target)
        nats = training.criterion(said.reshape(-1, SIZE), target.reshape(-1))
    assert doctor.evaluate(held_out)["loss"] == pytest.approx(float(nats), rel=1e-5)


def test_weights_modes_and_random_states_are_as_before_after_an_evaluation() -> None:
    training = OfTransformer()
    doctor = watched(training, 5)
    before = copy.deepcopy(training.modules.state_dict()), torch.get_rng_state()
    modes = [module.training for module in training.modules.modules()]
    doctor.evaluate(batches(words(32, 5), time_first=True))
    assert torch.equal(before[1], torch.get_rng_state())
    assert all(
        torch.equal(a, b) for a, b in zip(before[0].values(), training.modules.state_dict().values(), strict=True)
    )
    assert modes == [module.training for module in training.modules.modules()]


def test_nothing_of_it_is_copied_or_saved_with_a_model(tmp_path: Any) -> None:
    training = OfTransformer()
    doctor = sourcewise.doctor(training.modules, training.optimizers)  # the next step is watched
    twin = copy.deepcopy(training.modules)
    torch.save(training.modules, tmp_path / "model.pt")
    assert not [
        x
        for m in twin.modules()
        for x in m._forward_hooks.values()
        if getattr(x, "called", 0) == doctor.watching._after
    ]
    training.run(2, doctor.step)
    assert not [m for m in training.modules.modules() if m._forward_hooks]  # the third is not


@pytest.mark.parametrize("loss", ["a word", None, float("nan"), torch.ones(3)])
def test_an_odd_loss_ends_nothing(loss: Any) -> None:
    training = Apart()
    doctor = sourcewise.doctor(training.modules, training.optimizers)
    training.run(12, lambda _, batch: doctor.step(loss, batch))
    assert isinstance(doctor.diagnosis.not_checked, list)


@pytest.mark.parametrize(
    "batch",
    [None, "text", 3, {}, [[1, 2], [3]], {"a": object()}],
    ids=["none", "text", "number", "empty", "lists", "object"],
)
def test_an_odd_batch_ends_nothing(batch: Any) -> None:
    training = Apart("unoptimised")
    doctor = sourcewise.doctor(training.modules, training.optimizers)
    training.run(12, lambda loss, _: doctor.step(loss, batch))
    assert doctor.diagnosis.cause == "WIR003"


def test_an_exception_inside_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*given: Any) -> Any:
        raise KeyError("nobody thought of this")

    monkeypatch.setattr("sourcewise.integrations.loop.training.weights_of", breaks)
    training = Apart()
    doctor = watched(training, 12)
    assert any("KeyError: 'nobody thought of this'" in line for line in doctor.diagnosis.not_checked)
    assert len(training.run(3)) == 3


def test_an_evaluation_that_cannot_be_made_is_a_note() -> None:
    doctor = watched(Apart(), 3)
    assert doctor.evaluate([("a", "b")]) == {} and any("evaluation" in line for line in doctor.diagnosis.not_checked)
    assert sourcewise.doctor(nn.Linear(2, 2)).evaluate([]) == {}


def test_without_an_optimizer_it_says_so() -> None:
    training = Apart()
    doctor = sourcewise.doctor(training.modules)
    training.run(12, doctor.step)
    assert not serious(doctor) and any("no optimizer was given" in line for line in doctor.diagnosis.not_checked)


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ("model", {}, "torch module"),
        ((nn.Linear(2, 2), 3), {}, "torch module"),
        (nn.Linear(2, 2), {"optimizer": 3}, "no torch.optim.Optimizer"),
        (nn.Linear(2, 2), {"every": 0}, "every is 0"),
        (nn.Linear(2, 2), {"examples": 1}, "examples is 1"),
    ],
)
def test_what_a_user_can_get_wrong_is_told(given: Any, options: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        sourcewise.doctor(given, **options)


def test_weights_that_are_not_finite_are_named_before_the_first_step() -> None:
    training = Apart()
    with torch.no_grad():
        training.encoder.gru.weight_hh_l0[0, 0] = float("nan")
    found = sourcewise.doctor(training.modules, training.optimizers).diagnosis
    assert found.cause == "WIR001" and "gru.weight_hh_l0" in found.findings[0].evidence


def test_a_loss_that_is_not_finite_is_told_with_its_step() -> None:
    training = Apart()
    doctor = sourcewise.doctor(training.modules, training.optimizers, every=5)
    steps = iter(range(1, 30))

    def step(loss: Any, batch: Any) -> None:
        if next(steps) == 7:
            with torch.no_grad():
                training.encoder.gru.weight_hh_l0.fill_(float("inf"))
        doctor.step(loss, batch)

    training.run(20, step)
    assert doctor.diagnosis.cause == "TRN001" and "step 8" in doctor.diagnosis.findings[0].evidence


def test_outputs_are_judged_where_the_loop_can_generate() -> None:
    training = Apart()

    def same(batch: Any) -> list[list[int]]:
        return [[5, 6, 7, 2]] * len(batch[0])

    doctor = watched(training, 30, generate=same, steps=30)
    figures = doctor.evaluate(batches(words(96, 5), begin=False))
    assert figures["unique_pct"] < 2 and "OUT001" in [each.code for each in doctor.diagnosis.findings]


def test_a_step_that_is_not_watched_costs_next_to_nothing() -> None:
    training = OfTransformer()
    doctor = sourcewise.doctor(training.modules, training.optimizers, every=10_000)
    start = time.process_time()
    training.run(40)
    alone = (time.process_time() - start) / 40
    training.run(8, doctor.step)  # those that are watched at first
    doctor.passed.kept = [{}] * 400  # enough batches have passed
    loss, batch = torch.ones(()), next(batches(words(16)))
    start = time.process_time()
    for _ in range(200):
        doctor.step(loss, batch)
    assert (time.process_time() - start) / 200 < 0.03 * alone


def test_padding_is_what_the_loss_leaves_out() -> None:
    doctor = watched(OfTransformer(), 3)
    assert doctor.understood is not None and doctor.understood.pad == PAD and doctor.understood.hides_pad
