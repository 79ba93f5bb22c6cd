"""The log of a training, metrics.jsonl, with one line per event; only this module writes and reads it.

Events are written from typed classes, but read as plain mappings, since runs of older versions, or of other programs,
may lack some fields; rules and charts use whatever exists.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from sourcewise.errors import RequestError
from sourcewise.evaluation.results import without_nan

if TYPE_CHECKING:
    from sourcewise.training.run import Run

LINES_FILE = "metrics.jsonl"
TAIL = 4000  # bytes at the end of the file that contain its last line
Line = dict[str, Any]


def _spread() -> Any:
    """A field whose names and values become keys of the line."""
    return field(default_factory=dict, metadata={"spread": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event at a step."""

    kind: ClassVar[str]
    step: int

    def line(self) -> Line:
        """The line of the file: kind and fields in order, without None; NaN and infinity become null."""
        found: Line = {"kind": self.kind}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.metadata.get("spread"):
                found |= value
            elif value is not None:
                found[each.name] = value
        return dict(without_nan(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Event):
    """The start of a training: its length, its network and the machine."""

    kind: ClassVar[str] = "start"
    step: int = 0
    steps: int
    parameters: int | None = None
    trainable: int | None = None  # parameters that learn, if not all do
    target_entropy: float | None = None  # nats per target token of a model that knows only token frequencies
    machine: Mapping[str, str] = _spread()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Event):
    """Optimizer steps: means since the previous line, unless stated otherwise."""

    kind: ClassVar[str] = "train"
    epoch: float | None = None
    loss: float  # nats per target token
    learning_rate: float | None = None  # of this step
    gradient_norm: float | None = None  # of this step, before clipping
    largest_norm: float | None = None  # since the previous line
    clipped: float | None = None  # share of the steps since then
    gradient_norms: Mapping[str, float] | None = None  # of this step, by part of the network
    update_ratios: Mapping[str, float] | None = None  # relative size of this step's update, by part
    tokens_per_s: float | None = None
    seconds: float | None = None  # of optimizer steps since the training began
    peak_mb: float | None = None  # most memory of the process, or of the accelerator, in MiB
    reference_share: float | None = None  # share of reference tokens among decoder inputs, with scheduled sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated(Event):
    """An evaluation on the validation examples, with the figures of metrics.json."""

    kind: ClassVar[str] = "evaluation"
    epoch: float | None = None
    averaged: int | None = None  # number of averaged snapshots
    metrics: Mapping[str, Any] = _spread()
    best: bool | None = None  # True: these weights became the best checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(Event):
    """The end of a training at a value that is not finite."""

    kind: ClassVar[str] = "stopped"
    loss: float | None = None
    gradient_norm: float | None = None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(Event):
    """The end of a training before its last step, by train.patience."""

    kind: ClassVar[str] = "ended"
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WentOn(Event):
    """The first step with values that are not finite in a training of another program, which continued."""

    kind: ClassVar[str] = "not_finite"
    grave: bool  # whether weights were damaged
    times: int = 1
    loss: float | None = None
    gradient_norm: float | None = None
    weights: str  # names of those that are not finite, in words; likewise the next two fields
    gradients: str
    moments: str
    unlabelled: int  # rows of the batch without a label
    cure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched(Event):
    """Whether a training was checked before the first step, and the checks that were not possible."""

    kind: ClassVar[str] = "watch"
    step: int = 0
    preflight: bool
    not_checked: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Event):
    """A finding during the training, with the finding's keys."""

    kind: ClassVar[str] = "finding"
    finding: Mapping[str, str] = _spread()


class Listener(Protocol):
    """An observer of a training, such as a progress bar or the report."""

    def started(self, run: Run, step: int, total: int) -> None:
        """Training starts, or is resumed, at `step` of `total`."""

    def stepped(self, step: int, line: Line | None) -> None:
        """A step is finished; `line` is the new line of metrics.jsonl, every `log_every` steps."""

    def evaluated(self, line: Line) -> None:
        """An evaluation is finished, with all its files on disk."""

    def stopped(self, run: Run, finished: bool) -> None:
        """Training ended, or was interrupted and saved."""


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Append a line to the file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(as_text([line]))


def as_text(lines: Iterable[Mapping[str, Any]]) -> str:
    """Lines as the text of the file."""
    return "".join(json.dumps(line) + "\n" for line in lines)


def read_lines(path: Path, *, strict: bool = False) -> list[Line]:
    """The lines of a metrics.jsonl; empty without a file.

    Truncated lines (of a killed or writing run) and damaged ones are left out; with `strict`, a damaged one raises
    RequestError with its number.
    """
    if not path.is_file():
        return []
    lines = []
    for number, text in enumerate(
        path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True), start=1
    ):
        if (line := _parsed(text)) is not None:
            lines.append(line)
        elif strict and text.endswith("\n"):  # a kill, or a writing process, truncates the last line
            raise RequestError(f"{path}:{number}: damaged: not a line that a run writes; take it out")
    return lines


def last_line(path: Path) -> Line | None:
    """The last complete line of a file, which may be long and is being written; None without lines."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            texts = file.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    return next((line for text in reversed(texts) if (line := _parsed(text)) is not None), None)


def _parsed(text: str) -> Line | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def of(lines: Iterable[Mapping[str, Any]], *events: type[Event]) -> list[Mapping[str, Any]]:
    """The lines of these kinds of events, in order."""
    kinds = [event.kind for event in events]
    return [line for line in lines if line.get("kind") in kinds]


def started(lines: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The start line of a training; empty if it is missing."""
    return next(iter(of(lines, Started)), {})
