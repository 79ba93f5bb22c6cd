"""Reads the files of a run folder for its report; any of them may be missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sourcewise.errors import RequestError
from sourcewise.evaluation.results import (
    METRICS_FILE,
    TRANSLATIONS_FILE,
    Evaluation,
    Row,
    read_translations,
)
from sourcewise.evaluation.shown import Shown, read_shown
from sourcewise.training.events import LINES_FILE, Evaluated, Line, of, read_lines

RECIPE_FILE = "recipe.yaml"


@dataclass(slots=True)
class RunFiles:
    """Contents of a run folder so far; missing parts are empty."""

    folder: Path
    recipe_text: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    final: bool = False  # metrics come from metrics.json, not from the last evaluation line

    @property
    def name(self) -> str:
        """Name of the run."""
        return str(self.recipe.get("name") or self.folder.resolve().name)

    @property
    def evaluation(self) -> Evaluation:
        """Figures and rows; either may be empty."""
        return Evaluation(self.metrics, self.rows)

    @property
    def measured_on(self) -> str:
        """The evaluated set in words; empty if the recipe names none."""
        data = self.recipe.get("data")
        if not isinstance(data, dict):
            return ""
        return "the test set" if self.final and data.get("test") else "the validation set" if data.get("valid") else ""


def read_run(folder: Path) -> RunFiles:
    """Read a run folder.

    Raises RequestError for a missing folder, one with nothing to report, a broken metrics.json, translations.tsv or
    traces.json.
    """
    if not folder.is_dir():
        raise RequestError(f"{folder}: no such run folder")
    found = [name for name in (RECIPE_FILE, LINES_FILE, METRICS_FILE) if (folder / name).is_file()]
    if not found:
        raise RequestError(f"{folder}: not a run: none of {RECIPE_FILE}, {LINES_FILE}, {METRICS_FILE} is here")
    run = RunFiles(folder, shown=read_shown(folder))
    if RECIPE_FILE in found:
        run.recipe_text = (folder / RECIPE_FILE).read_text(encoding="utf-8", errors="replace")
        run.recipe = _mapping(run.recipe_text)
    if LINES_FILE in found:
        run.lines = read_lines(folder / LINES_FILE)
    has_rows = (folder / TRANSLATIONS_FILE).is_file()
    if METRICS_FILE in found and has_rows:
        evaluation = Evaluation.from_folder(folder)
        run.metrics, run.rows, run.final = evaluation.metrics, evaluation.rows, True
    else:
        run.metrics = dict(next(reversed(of(run.lines, Evaluated)), {}))
        if METRICS_FILE in found:
            run.metrics, run.final = _mapping((folder / METRICS_FILE).read_text(encoding="utf-8")), True
        if has_rows:
            run.rows = read_translations(folder / TRANSLATIONS_FILE)
    return run


def _mapping(text: str) -> dict[str, Any]:
    """YAML or JSON text as a mapping; empty if it is none (the page then shows only the text)."""
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return tree if isinstance(tree, dict) else {}
