"""report.html: one self-contained page with a run's verdict, findings, figures and next step.

Style, script, charts and traces are inside, nothing is fetched. The page is made from the files that the run folder
holds so far, so that it can be rewritten at every evaluation during the training.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sourcewise.evaluation.results import Row
from sourcewise.evaluation.verdict import verdict_of
from sourcewise.figures import shown
from sourcewise.metrics.texts import words
from sourcewise.reporting.again import environment, times
from sourcewise.reporting.baselines import baseline_note, baseline_table
from sourcewise.reporting.charts import length_chart, pair_chart
from sourcewise.reporting.checked import Checked, check
from sourcewise.reporting.course import course_charts
from sourcewise.reporting.groups import group_tables
from sourcewise.reporting.model_card import write_model_card
from sourcewise.reporting.pages import template
from sourcewise.reporting.run_files import RECIPE_FILE, RunFiles, read_run
from sourcewise.reporting.samples import differences, text_samples, token_samples
from sourcewise.reporting.summary import next_step, progress, tiles
from sourcewise.reporting.tasks import COLUMNS, task_rows
from sourcewise.reporting.trace import script_json
from sourcewise.runtime.files import write_atomically
from sourcewise.training.events import Evaluated, of

REPORT_FILE = "report.html"
SAMPLES = 24


def write_report(run_folder: Path | str, *, training: bool = False) -> Path:
    """Write report.html into a run folder from the folder's files, atomically, and return its path.

    After the final evaluation the best checkpoint gets its model card, too.

    The findings are those of `diagnose` on this folder; during `training` only the rules that need no network run.
    Raises RequestError for a missing folder, one with nothing to report, a broken metrics.json, translations.tsv or
    traces.json, weights that are NaN, or a folder that cannot be written.
    """
    folder = Path(run_folder)
    run = read_run(folder)
    checked = check(run, training=training)
    write_atomically(folder / REPORT_FILE, render(run, checked))
    if not training:
        write_model_card(run, checked)
    return folder / REPORT_FILE


def render(run: RunFiles, checked: Checked) -> str:
    """The page of a run as HTML."""
    said = verdict_of(run.evaluation)
    return template("report.html.j2").render(
        pieces=differences,
        name=run.name,
        final=run.final,
        measured_on=run.measured_on,
        verdict=said,
        checked=checked,
        next_step=next_step(run, checked, said),
        progress=progress(run),
        figures=tiles(run.metrics),
        baselines=baseline_table(run.metrics),
        baseline_note=baseline_note(run.metrics),
        task_columns=COLUMNS,
        tasks=task_rows(run.metrics),
        groups=group_tables(run.metrics),
        signature=run.metrics.get("bleu_signature"),
        charts=course_charts(run.lines),
        evaluations=_evaluations(run.lines),
        token_samples=token_samples(run.shown),
        text_samples=text_samples(run.rows, run.shown, SAMPLES),
        against=run.shown[0].trace["source_bits"]["against"] if run.shown else "",
        examples=len(run.rows),
        traces=script_json(json.dumps([each.trace for each in run.shown], ensure_ascii=False, separators=(",", ":"))),
        lengths=_lengths(run.rows),
        recipe=run.recipe_text,
        seed=run.recipe.get("seed", 0),
        recipe_file=RECIPE_FILE,
        environment=environment(run.lines),
        times=times(run),
        written=time.strftime("%Y-%m-%d %H:%M"),
    )


def _evaluations(lines: Sequence[Mapping[str, Any]], most: int = 50) -> dict[str, Any]:
    """The last `most` evaluations as a table: titles of the columns, and rows of texts."""
    keys = ("step", "epoch", *(each.key for each in shown("course")))
    found = of(lines, Evaluated)[-most:]
    columns = [key for key in keys if any(isinstance(line.get(key), (int, float)) for line in found)]
    return {
        "columns": [key.replace("_pct", " %").replace("_", " ") for key in columns],
        "rows": [[_number(line.get(key)) for key in columns] for line in found],
    }


def _lengths(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Lengths of references and outputs, in words, or in characters if most references are single words."""
    if not rows:
        return None
    by_words = 2 * sum(len(words(row.reference)) > 1 for row in rows) >= len(rows)
    unit, measure = ("words", words) if by_words else ("characters", str.strip)
    references, outputs = [len(measure(r.reference)) for r in rows], [len(measure(r.output)) for r in rows]
    return {
        "unit": unit,
        "svg": length_chart("Lengths", references, outputs, unit),
        "pairs": pair_chart("Length of each output against its reference's", references, outputs, unit),
        "reference": f"{sum(references) / len(rows):.1f}",
        "output": f"{sum(outputs) / len(rows):.1f}",
    }


def _number(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else ""
