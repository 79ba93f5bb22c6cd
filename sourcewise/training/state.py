"""The state for an exact resume of a run, saved atomically."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import torch

from sourcewise.errors import RequestError
from sourcewise.runtime.files import write_atomically

PAIRS = ("best", "patient")  # fields that JSON keeps as lists
PROGRESS = "progress.json"  # in the folder of a sharded state


@dataclass
class Progress:
    """Progress of a training: all counters of its state, beside weights and moments."""

    step: int = 0
    per_pass: int = 1  # of a stream: windows of one pass, each of which `epoch` counts
    epoch: int = 0
    position: int = 0  # trained batches of this epoch
    epoch_batches: int = 1  # of this epoch
    parts: int = 0  # of each batch, to which random draws belong; 0: not known, of an older version
    base: str = ""  # digest of the frozen weights that another folder keeps; "": none, or of an older version
    best: tuple[float, float] | None = None  # of the best checkpoint: lower is better
    patient: tuple[float, float] | None = None  # of the last evaluation that counted as better for train.patience
    waited: int = 0  # evaluations since then
    snapshots: list[str] = field(default_factory=list)  # files of weights to average at the end
    seconds: float = 0.0  # of all steps
    logged_at: float = 0.0  # `seconds` at the last log line; all fields below count from there
    step_logged: int = 0  # `step` at the last log line
    nats: float = 0.0
    targets: int = 0
    tokens: int = 0  # of sources and targets
    clipped: int = 0  # steps whose gradient was clipped
    largest_norm: float = 0.0  # of a gradient, before clipping

    @classmethod
    def of(cls, state: dict[str, Any]) -> Self:
        """The progress in a saved state; what an older version did not save is as at the start."""
        known = {each.name: state[each.name] for each in fields(cls) if each.name in state}
        pairs: dict[str, Any] = {name: tuple(value) for name, value in known.items() if name in PAIRS and value}
        return cls(**known | pairs)

    @property
    def epochs(self) -> float:
        """Number of trained epochs, with a fraction."""
        return (self.epoch + min(1.0, self.position / self.epoch_batches)) / self.per_pass

    def logged(self) -> None:
        """Reset the counts after a log line."""
        self.nats, self.targets, self.tokens, self.logged_at = 0.0, 0, 0, self.seconds
        self.step_logged, self.clipped, self.largest_norm = self.step, 0, 0.0


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write plain tensors, numbers and texts atomically: a kill leaves the old file or the new one.

    Raises RequestError if the disk is full or the folder cannot be written.
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
        reason = getattr(error, "strerror", None) or f"is the disk full? {str(error).splitlines()[0][:120]}"
        raise RequestError(f"{path}: cannot be written ({reason}); the state before is kept") from None
    finally:
        part.unlink(missing_ok=True)


def shards_of(state: Path) -> Path | None:
    """The folder of the current sharded state beside state.pt; None: there is none."""
    try:
        name = state.with_name("current").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    folder = state.with_name(name)
    return folder if name.startswith("step-") and name == folder.name and folder.is_dir() else None


def is_saved(state: Path) -> bool:
    """Whether there is a state, in one file or in shards."""
    return state.is_file() or shards_of(state) is not None


def make_current(at: Progress, steps: dict[str, float], new: Path, state: Path) -> None:
    """Finish the folder of a sharded state, which becomes the current one, and delete those before it."""
    write_atomically(new / PROGRESS, json.dumps({**vars(at), "steps": steps}))
    write_atomically(state.with_name("current"), new.name + "\n")
    state.unlink(missing_ok=True)
    _delete_shards(state, but=new)


def _delete_shards(state: Path, but: Path | None = None) -> None:
    for folder in state.parent.glob("step-*"):
        if folder != but:
            shutil.rmtree(folder, ignore_errors=True)


def load_progress(folder: Path) -> dict[str, Any]:
    """Progress and AdamW's steps of a sharded state. Raises RequestError for a damaged file."""
    try:
        return dict(json.loads((folder / PROGRESS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise RequestError(f"{folder / PROGRESS}: damaged or missing; train again with --overwrite") from None


def save_progress(at: Progress, optimizer: dict[str, Any], path: Path) -> None:
    """Write the complete state of a run; `optimizer` is the optimizer's state. Raises RequestError as `save_state`."""
    save_state({**vars(at), "optimizer": optimizer}, path)
    if (current := path.with_name("current")).is_file():  # of a training in shards before
        current.unlink()
        _delete_shards(path)


def load_state(path: Path) -> dict[str, Any] | None:
    """Read a saved state; None if there is none yet. Raises RequestError for a damaged file."""
    if not path.is_file():
        return None
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise RequestError(f"{path}: damaged ({reason}); train again with --overwrite") from None
