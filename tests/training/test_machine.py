"""What a run notes of its making."""

from __future__ import annotations

import importlib.metadata

import torch

from sourcewise.training.machine import machine


def test_versions_and_hardware_are_told() -> None:
    told = machine(torch.device("cpu"))
    assert told["torch"] == torch.__version__ and told["sourcewise"] == importlib.metadata.version("sourcewise")
    assert told["device"].startswith("cpu (") and "thread" in told["device"] and "cores" in told["machine"]
    assert all(isinstance(value, str) and value for value in told.values())
