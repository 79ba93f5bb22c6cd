"""Settings that leave little to learn from are told before training; those in use are left alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from sourcewise.diagnosis import ours
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.ours import planned
from sourcewise.diagnosis.rules import look
from sourcewise.training.setup import TrainingSetup
from tests.diagnosis.test_wiring import DIGITS, prepared, wiring_findings


def check(training: TrainingSetup) -> list[Finding]:
    return list(look(*ours.before(training), codes="DAT018 WIR020").findings)


def check_pairing(training: TrainingSetup) -> list[Finding]:
    return list(look(*ours.before(training), codes="DAT003").findings)


def found(**changes: Any) -> list[tuple[str, str]]:
    return [(f.code, f.level) for f in check(prepared(**changes))]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"train__text_noise": {"drop": 0.95}}, [("DAT018", "error")]),
        ({"train__text_noise": {"drop": 0.5, "mask": 0.6}}, [("DAT018", "warning")]),
        ({"train__text_noise": {"drop": 0.1, "mask": 0.3, "swap": 0.1}}, []),
        (DIGITS | {"train__augment": {"noise": 50.0}}, [("DAT018", "error")]),
        (DIGITS | {"train__augment": {"time_masks": 30, "time_width": 30}}, [("DAT018", "error")]),
        (DIGITS | {"train__augment": {"noise": 1.7}}, [("DAT018", "warning")]),
        (DIGITS | {"train__augment": {"time_masks": 2, "frequency_masks": 1, "frequency_width": 2, "noise": 0.3}}, []),
        ({"train__label_smoothing": 0.95}, [("WIR020", "warning")]),
        ({"train__word_dropout": 0.95}, [("WIR020", "warning")]),
        ({"model__attention_dropout": 0.99}, [("WIR020", "warning")]),
        ({"train__contrastive": 50.0}, [("WIR020", "warning")]),
        ({"train__beta1": 0.9999}, [("WIR020", "warning")]),
        ({"train__beta1": 0.9999, "train__steps": 50}, []),
        ({"train__beta1": 0.9, "train__steps": 100}, []),
        ({"train__beta1": 0.95, "train__steps": 100}, []),
        ({"train__label_smoothing": 0.2, "train__word_dropout": 0.5, "model__attention_dropout": 0.3}, []),
    ],
)
def test_what_leaves_little_to_learn_from(changes: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert found(**changes) == expected


def test_the_evidence_names_option_and_value() -> None:
    (finding,) = check(prepared(train__beta1=0.999, train__label_smoothing=0.6))
    assert "train.label_smoothing 0.6" in finding.evidence and "remembers 1,000 steps of 300" in finding.evidence


@pytest.mark.parametrize(("part", "level"), [("bridge", "error"), ("decoder", "warning")])
def test_a_part_whose_epoch_never_comes_is_frozen(part: str, level: str) -> None:
    def grave(**changes: Any) -> list[Finding]:
        return [f for f in wiring_findings(prepared(**DIGITS, **changes)) if f.level != "note"]

    (finding,) = grave(**{f"train__unfreeze__{part}": 1e6})
    assert (finding.code, finding.level) == ("WIR003", level) and part in finding.evidence
    assert grave(**{f"train__unfreeze__{part}": 1.0}) == []


def test_the_epochs_that_are_planned() -> None:
    by_steps = prepared(train__steps=300, train__batch_size=10)
    assert planned(by_steps.recipe, by_steps.train) == (300, pytest.approx(300 / 6))
    by_epochs = prepared(train__steps=None, train__epochs=4, train__batch_size=10, train__accumulate=2)
    assert planned(by_epochs.recipe, by_epochs.train) == (12, 4.0)


def test_a_validation_set_out_of_step_is_a_warning() -> None:
    valid = prepared(data__train={"builtin": "dates", "split": "valid", "limit": 300}).train
    training = replace(prepared(data__train={"builtin": "dates", "limit": 400}), valid=valid)
    assert check_pairing(training) == []
    order = [(7 * i + 3) % len(valid) for i in range(len(valid))]
    wrong = copy.copy(valid)
    examples = [replace(valid.dataset[i], target=valid.dataset[j].target) for i, j in enumerate(order)]
    wrong.dataset = replace(valid.dataset, examples=examples)
    wrong.targets, wrong.target_lengths = [valid.targets[i] for i in order], valid.target_lengths[order]
    (finding,) = check_pairing(replace(training, valid=wrong))
    assert (finding.code, finding.level) == ("DAT003", "warning")
