"""All instances of faults, and the healthy trainings beside them: what `scripts/instances.py` counts."""

from __future__ import annotations

from sourcewise.diagnosis.answer import Diagnosis
from tests.diagnosis.instances.healthy import healthy
from tests.diagnosis.instances.instance import Instance
from tests.diagnosis.instances.kinds_of_loops import loops
from tests.diagnosis.instances.kinds_of_trainers import trainers

__all__ = ["Instance", "every", "healthy", "is_first"]


def every() -> list[Instance]:
    """All faults."""
    return [*loops(), *trainers()]


def is_first(instance: Instance, diagnosis: Diagnosis) -> bool:
    """Whether the first error or warning names what is wrong."""
    grave = [each.code for each in diagnosis.findings if each.level != "note"]
    return bool(grave) and grave[0] in instance.codes.split()
