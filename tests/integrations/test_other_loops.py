"""The doctor in loops as other people write them: healthy ones have notes alone, and source bits; faults come first."""

from __future__ import annotations

import pytest
import torch

from tests.integrations.others import HEALTHY, ILL


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_loop(name: str) -> None:
    torch.manual_seed(0)
    doctor, held_out = HEALTHY[name]()
    figures = doctor.evaluate(held_out)
    found = doctor.diagnosis
    assert [(each.code, each.evidence) for each in found.findings if each.level != "note"] == []
    assert not [line for line in found.not_checked if "Error: " in line]
    assert figures["source_bits"] > -0.05 and figures["examples"] > 10, found.not_checked
    assert figures["loss"] == pytest.approx(doctor.recorder.course.losses[-1], abs=0.6)  # the same nats


@pytest.mark.parametrize("name", ILL)
def test_a_fault_is_named_first(name: str) -> None:
    torch.manual_seed(0)
    code, loop = ILL[name]
    doctor, held_out = loop()
    doctor.evaluate(held_out)
    first = doctor.diagnosis.findings[0]
    assert (first.code, first.level) == (code, "error"), first
    assert not [line for line in doctor.diagnosis.not_checked if "Error: " in line]
