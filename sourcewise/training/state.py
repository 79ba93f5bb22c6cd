"""Everything a run needs to go on exactly as if it had never stopped, saved whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from sourcewise.errors import RequestError


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write plain tensors, numbers and texts; a kill at any moment leaves the old file or the new one.

    Raises RequestError where the disk is full or the folder cannot be written.
    """
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch wraps a failed write into a RuntimeError
        part.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or f"is the disk full? {str(error).splitlines()[0][:120]}"
        raise RequestError(f"{path}: cannot be written ({reason}); the state before is kept") from None


def load_state(path: Path) -> dict[str, Any] | None:
    """What `save_state` wrote; None where nothing was saved yet. Raises RequestError for a damaged file."""
    if not path.is_file():
        return None
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise RequestError(f"{path}: damaged ({reason}); train again with --overwrite") from None


def random_states() -> dict[str, Any]:
    """The random states that training draws from: torch's on the CPU and on every GPU.

    Orders and augmentation are functions of (seed, epoch, example) and keep no state.
    """
    states: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_random_states(states: dict[str, Any]) -> None:
    """Set the random states back."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])
