"""A finished training of a comparison: figures, rows, costs."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sourcewise.comparison.counts import counts
from sourcewise.comparison.plan import Planned
from sourcewise.config import Recipe
from sourcewise.errors import RequestError
from sourcewise.evaluation.results import METRICS_FILE, Evaluation, Row, without_nan
from sourcewise.evaluation.verdict import Verdict, judge
from sourcewise.metrics.measure import resampled
from sourcewise.runtime.files import write_atomically
from sourcewise.training.events import Line, Step, of, started
from sourcewise.training.resuming import flat
from sourcewise.training.run import Run

NATS_FILE = "nats.json"
NATS = ("tokens", "nats", "nats_shuffled")
# Options that do not change the trained weights.
WITHOUT_EFFECT = (
    *("name", "output", "license", "train.threads", "train.device", "train.log_every", "train.preflight"),
    *("train.shard", "train.timeout", "train.checkpointing", "train.compile"),
)
State = Literal["new", "interrupted", "finished", "other"]


def state_of(planned: Planned) -> State:
    """State of a training by its folder; `other`: the folder holds a run of another recipe."""
    run = Run(planned.folder)
    if not (planned.folder / "recipe.yaml").is_file():
        return "new"
    if changed_key(planned, run.recipe) is not None:
        return "other"
    there = all((planned.folder / name).is_file() for name in (METRICS_FILE, NATS_FILE))
    return "finished" if there else "interrupted"


def changed_key(planned: Planned, kept: Recipe) -> str | None:
    """The first key whose value differs from the plan, with both values; None if the recipes train the same."""
    wanted, has = (flat(recipe.model_dump()) for recipe in (planned.recipe, kept))
    for key in dict.fromkeys([*wanted, *has]):
        if key not in WITHOUT_EFFECT and wanted.get(key) != has.get(key):
            return f"{key} {has.get(key)}, now {wanted.get(key)}"
    return None


def write_nats(run: Run) -> None:
    """Write nats.json, the nats of each row with and without its source; written last, it marks a finished training."""
    assert run.evaluation is not None
    columns = {name: [getattr(row, name) for row in run.evaluation.rows] for name in NATS}
    write_atomically(run.folder / NATS_FILE, json.dumps(without_nan(columns)) + "\n")


@dataclass
class Finished:
    """A finished training, as read from its run folder."""

    planned: Planned
    metrics: dict[str, Any]
    rows: list[Row]
    lines: list[Line]  # of metrics.jsonl

    @classmethod
    def read(cls, planned: Planned) -> Finished:
        """Read the run folder of a training. Raises RequestError for a damaged file."""
        evaluation = Evaluation.from_folder(planned.folder)
        rows = _with_nats(evaluation.rows, planned.folder / NATS_FILE)
        return cls(planned, evaluation.metrics, rows, Run(planned.folder).metrics())

    @property
    def examples(self) -> list[tuple[str, str]]:
        """(id, reference) of the evaluated examples; trainings with equal ones are compared by a paired bootstrap."""
        return [(row.id, row.reference) for row in self.rows]

    @property
    def parameters(self) -> int:
        """Number of parameters of the network."""
        return int(started(self.lines).get("parameters", 0))

    @property
    def device(self) -> str:
        """Device of the training, with its number of threads."""
        return str(started(self.lines).get("device", ""))

    @property
    def tokens_per_s(self) -> float:
        """Trained source and target tokens (or frames) per second: the median over log lines."""
        return statistics.median([line["tokens_per_s"] for line in self._steps] or [math.nan])

    @property
    def minutes(self) -> float:
        """Minutes of optimizer steps, without evaluations."""
        return float(self._steps[-1]["seconds"]) / 60 if self._steps else math.nan

    @cached_property
    def verdict(self) -> Verdict:
        """The verdict on the evaluation."""
        return judge(self.metrics, [r.reference for r in self.rows], [r.output for r in self.rows])

    @cached_property
    def resampled(self) -> dict[str, np.ndarray]:
        """Figure → (resamples,): values over examples drawn with replacement, the same draws for every training."""
        return resampled(counts(self.rows, self.planned.recipe.measuring))

    @property
    def _steps(self) -> Sequence[Mapping[str, Any]]:
        return of(self.lines, Step)


def _with_nats(rows: list[Row], path: Path) -> list[Row]:
    """Rows of translations.tsv with their nats from nats.json. Raises RequestError if the files do not match."""
    try:
        columns = json.loads(path.read_text(encoding="utf-8"))
        told = zip(*([math.nan if v is None else v for v in columns[name]] for name in NATS), strict=True)
        return [
            replace(row, tokens=int(tokens), nats=float(nats), nats_shuffled=float(shuffled))
            for row, (tokens, nats, shuffled) in zip(rows, told, strict=True)
        ]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RequestError(f"{path}: damaged ({error}); delete it, and compare again") from None
