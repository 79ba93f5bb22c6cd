"""All faults of the exam, by name."""

from __future__ import annotations

from planted import faults_data, faults_stranger, faults_training, faults_wiring
from planted.fault import Fault

_ALL = (*faults_data.FAULTS, *faults_wiring.FAULTS, *faults_training.FAULTS, *faults_stranger.FAULTS)
FAULTS: dict[str, Fault] = {fault.name: fault for fault in _ALL}
assert len(FAULTS) == len(_ALL), "two faults have one name"
