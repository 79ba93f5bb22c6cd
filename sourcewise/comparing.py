"""The door to comparisons: plans them, trains what is not trained yet, keeps the table up to date."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sourcewise.api import prepare, train
from sourcewise.comparison.finished import Finished, State
from sourcewise.comparison.plan import Comparison, Planned, load_comparison
from sourcewise.comparison.runs import run_all, settle
from sourcewise.comparison.table import Table
from sourcewise.errors import RequestError
from sourcewise.reporting.comparison import write_table
from sourcewise.reporting.comparison_progress import ComparisonProgress
from sourcewise.training.run import Run, locked
from sourcewise.training.trainer import Interrupted


def compare(
    recipe: str | Path, overrides: dict[str, Any] | None = None, *, jobs: int = 1, overwrite: bool = False
) -> Table:
    """Train every variant of a recipe with every seed, `jobs` at a time, and hold them against each other.

    What is trained already is taken as it is, what was interrupted goes on; with `overwrite`, runs that another recipe
    made are made anew. Every variant is checked before the first one is trained. The table is written to the
    comparison's folder as Markdown, HTML, CSV and JSON whenever a training ends. Raises RequestError that names the
    variant and the key, and Interrupted after a Ctrl-C when all that were running have saved.
    """
    comparison = load_comparison(recipe, overrides)
    states = settle(comparison, overwrite=overwrite)
    progress = ComparisonProgress(comparison, states)
    try:
        with locked(comparison.folder):
            to_do = [each for each in comparison.planned if states[each.name] != "finished"]
            for planned in _first_of_each(to_do):
                progress.checking(planned)
                _check(planned)
            return _train_and_tell(comparison, [_threaded(each, jobs) for each in to_do], states, jobs, progress)
    except KeyboardInterrupt:
        raise Interrupted("stopped, what was running is saved; go on with the same command") from None


def listing(
    recipe: str | Path, overrides: dict[str, Any] | None = None, *, overwrite: bool = False
) -> tuple[Comparison, dict[str, State]]:
    """What `compare` would train, and the state of each training; nothing is trained, or written."""
    comparison = load_comparison(recipe, overrides)
    return comparison, settle(comparison, overwrite=overwrite)


def _train_and_tell(
    comparison: Comparison, to_do: Sequence[Planned], states: dict[str, State], jobs: int, progress: ComparisonProgress
) -> Table:
    finished = [Finished.read(each) for each in comparison.planned if states[each.name] == "finished"]
    failed: dict[str, str] = {}
    with progress:
        for planned, error in run_all(to_do, states, train, jobs, comparison.folder, progress):
            if error is None:
                finished.append(Finished.read(planned))
            else:
                failed[planned.name] = error
            progress.ended(planned, error)
            write_table(Table.of(comparison, finished, failed))
    table = Table.of(comparison, finished, failed)
    write_table(table)
    return table


def _first_of_each(planned: Sequence[Planned]) -> list[Planned]:
    """One training of each variant."""
    return list({each.variant: each for each in reversed(planned)}.values())[::-1]


def _check(planned: Planned) -> None:
    """Open everything that a training needs, as `train` does. Raises RequestError that names the variant."""
    try:
        _, test = prepare(planned.recipe, Run(planned.folder))
    except RequestError as error:
        raise RequestError(f"variant {planned.variant}: {error}") from None
    if not test:
        raise RequestError("data.test: missing; a comparison measures on data.test, or data.valid: name one")


def _threaded(planned: Planned, jobs: int) -> Planned:
    """With its share of the cores, where several are trained at a time."""
    if jobs == 1 or planned.recipe.train.threads:
        return planned
    threads = max(1, (os.cpu_count() or 1) // jobs)
    options = planned.recipe.train.model_copy(update={"threads": threads})
    return Planned(planned.variant, planned.seed, planned.recipe.model_copy(update={"train": options}))
