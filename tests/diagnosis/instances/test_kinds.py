"""Some of all instances: the cause is first, and nothing is found in healthy ones; `scripts/instances.py` runs all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.diagnosis.instances.kinds import Instance, every, healthy, is_first


def named(instance: Instance) -> str:
    return f"{instance.kind}, {instance.host}, {instance.name}"


@pytest.mark.parametrize("instance", every()[::21], ids=named)
def test_the_cause_is_first(instance: Instance, tmp_path: Path) -> None:
    diagnosis = instance.run(tmp_path)
    assert is_first(instance, diagnosis), [each.code for each in diagnosis.findings]


@pytest.mark.parametrize("instance", list(healthy())[::12], ids=named)
def test_nothing_is_found_in_healthy_ones(instance: Instance, tmp_path: Path) -> None:
    assert [each.code for each in instance.run(tmp_path).findings if each.level != "note"] == []


def test_instances_are_many_and_of_their_own() -> None:
    assert len(every()) >= 120 and len(list(healthy())) >= 40
    assert len({named(each) for each in every()}) == len(every())
    assert {each.host for each in every()} == {"gru", "transformer", "accelerate", "t5", "bart"}
