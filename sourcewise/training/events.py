"""The log of a training, metrics.jsonl: what may happen, a line an event, written and read here and nowhere else.

Events are typed where they are made. They are read back as plain mappings: a run of an older version, or another
program's, may lack what a class here has, and what is judged or drawn is whatever is there.
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
TAIL = 4000  # bytes at the end of the file that hold its last line
Line = dict[str, Any]


def _spread() -> Any:
    """A field whose names and values are keys of the line themselves."""
    return field(default_factory=dict, metadata={"spread": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened at a step."""

    kind: ClassVar[str]
    step: int

    def line(self) -> Line:
        """As it stands in the file: its kind and its fields in order. None is left out, NaN and infinity are null."""
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
    """A training begins: how long it is to be, of what, and on which machine."""

    kind: ClassVar[str] = "start"
    step: int = 0
    steps: int
    parameters: int | None = None
    target_entropy: float | None = None  # nats a target token for whoever knows the tokens' frequencies alone
    machine: Mapping[str, str] = _spread()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Event):
    """Optimizer steps: means since the line before, unless said otherwise."""

    kind: ClassVar[str] = "train"
    epoch: float | None = None
    loss: float  # nats a target token
    learning_rate: float | None = None  # of this step
    gradient_norm: float | None = None  # of this step, before clipping
    largest_norm: float | None = None  # since the line before
    clipped: float | None = None  # share of the steps since then
    gradient_norms: Mapping[str, float] | None = None  # of this step, by part of the network
    update_ratios: Mapping[str, float] | None = None  # how far this step moved each part, in its own size
    tokens_per_s: float | None = None
    seconds: float | None = None  # of optimizer steps since the training began
    reference_share: float | None = None  # of what the decoder was fed, where it is fed its own predictions, too


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated(Event):
    """The validation examples were generated: the figures of metrics.json."""

    kind: ClassVar[str] = "evaluation"
    epoch: float | None = None
    averaged: int | None = None  # evaluations whose weights were averaged for this one
    metrics: Mapping[str, Any] = _spread()
    best: bool | None = None  # True: these weights are the best checkpoint now


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(Event):
    """Values that are not finite ended the training."""

    kind: ClassVar[str] = "stopped"
    loss: float | None = None
    gradient_norm: float | None = None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WentOn(Event):
    """Values were not finite, and another program's training went on, whatever they harmed: the first such step."""

    kind: ClassVar[str] = "not_finite"
    grave: bool  # whether it did harm
    times: int = 1
    loss: float | None = None
    gradient_norm: float | None = None
    weights: str  # which are not finite, in words; likewise the next two
    gradients: str
    moments: str
    unlabelled: int  # rows of its batch without a label to learn from
    cure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched(Event):
    """The doctor looks on: whether it looked before the first step, and what it could not check there."""

    kind: ClassVar[str] = "watch"
    step: int = 0
    preflight: bool
    not_checked: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Event):
    """The doctor found something: a finding's own keys."""

    kind: ClassVar[str] = "finding"
    finding: Mapping[str, str] = _spread()


class Listener(Protocol):
    """Someone who is told how a training goes: a progress bar, the report."""

    def started(self, run: Run, step: int, total: int) -> None:
        """Training starts (or goes on) at `step` of `total`."""

    def stepped(self, step: int, line: Line | None) -> None:
        """A step is done; `line` is the new line of metrics.jsonl, every `log_every` steps."""

    def evaluated(self, line: Line) -> None:
        """An evaluation is done and everything about it is on disk."""

    def stopped(self, run: Run, finished: bool) -> None:
        """Training ended, or was interrupted and saved."""


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Add a line to the file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(as_text([line]))


def as_text(lines: Iterable[Mapping[str, Any]]) -> str:
    """Lines as they stand in the file."""
    return "".join(json.dumps(line) + "\n" for line in lines)


def read_lines(path: Path, *, strict: bool = False) -> list[Line]:
    """The lines of a metrics.jsonl; none where there is no file.

    One that is cut (a run killed, or writing just now) is left out, and one that is damaged, too; `strict` raises
    RequestError for that, with its number.
    """
    if not path.is_file():
        return []
    lines = []
    for number, text in enumerate(
        path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True), start=1
    ):
        if (line := _parsed(text)) is not None:
            lines.append(line)
        elif strict and text.endswith("\n"):  # a kill, or whoever writes just now, cuts the last
            raise RequestError(f"{path}:{number}: damaged: not a line that a run writes; take it out")
    return lines


def last_line(path: Path) -> Line | None:
    """The last whole line of a file that may be long, and written just now; None: there is none."""
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
    """The lines of these events, in order."""
    kinds = [event.kind for event in events]
    return [line for line in lines if line.get("kind") in kinds]


def started(lines: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The line with which a training began; empty where it is not there."""
    return next(iter(of(lines, Started)), {})
