"""Writes the table of a comparison to the terminal, and as Markdown, HTML (one file), CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from sourcewise.baselines.measure import NAMES
from sourcewise.comparison.finished import State
from sourcewise.comparison.plan import Comparison
from sourcewise.comparison.table import Difference, Estimate, Line, Table
from sourcewise.evaluation.results import without_nan
from sourcewise.figures import OF_TRAININGS, figures, shown, written
from sourcewise.reporting.baselines import baseline_note
from sourcewise.reporting.course import comparison_charts
from sourcewise.reporting.pages import markdown_table, template
from sourcewise.runtime.files import write_atomically
from sourcewise.training.events import LINES_FILE, read_lines
from sourcewise.training.events import Line as LogLine

NAME = "comparison"  # of the files, without ending
COSTS = ("parameters", "tokens_per_s", "minutes")  # `Line.costs`, beside the figures
MARKS = {1: "+", -1: "−", 0: ""}
LEGEND = (
    "mean ± half of its 95 % interval over seeds (Student's t); + better, − worse than the first row beyond chance: "
    "over seeds (Welch) and over examples (paired bootstrap)"
)


def write_table(table: Table) -> None:
    """Write comparison.md, .html, .csv and .json into the comparison's folder, each atomically."""
    folder = table.comparison.folder
    for suffix, text in (("md", as_markdown(table)), ("html", as_html(table)), ("csv", as_csv(table))):
        write_atomically(folder / f"{NAME}.{suffix}", text)
    write_atomically(folder / f"{NAME}.json", as_json(table) + "\n")


def header(keys: Sequence[str]) -> list[str]:
    """Titles of all columns."""
    return ["variant", *headings(keys), *(OF_TRAININGS[key].heading for key in COSTS), "verdict"]


def headings(keys: Sequence[str]) -> list[str]:
    """Titles of the figures' columns."""
    return [figures()[key].heading for key in keys]


def cells(table: Table, line: Line, keys: Sequence[str]) -> list[str]:
    """The cells of a variant's row."""
    name = line.variant + (" (best)" if table.winner == line.variant else "")
    name += f" ({line.missing} missing)" if line.missing else ""
    estimates = line.figures
    measured = [_estimate(key, estimates.get(key), table.better(line.variant, key)) for key in keys]
    costs = [(OF_TRAININGS[key].format, line.costs[key]) for key in COSTS]
    return [name, *measured, *("" if value is None else written(form, value) for form, value in costs), line.verdict]


def baseline_cells(table: Table, keys: Sequence[str]) -> list[list[str]]:
    """One row per baseline below the variants, as long as `header`: its figures, and no costs."""
    blank = [""] * (len(COSTS) + 1)
    return [
        [f"({name})", *(_score(key, table.baselines[name].get(key)) for key in keys), *blank]
        for name in NAMES
        if table.baselines
    ]


def differences(table: Table, keys: Sequence[str]) -> list[list[str]]:
    """One row per variant but the first: differences from the first, with intervals over seeds and over examples."""
    found = table.differences.items()
    return [[variant, *(_difference(key, each.get(key)) for key in keys)] for variant, each in found]


def as_markdown(table: Table) -> str:
    """Two tables: the figures, and the differences from the first row."""
    keys = table.figures
    rows = [*(cells(table, line, keys) for line in table.lines), *baseline_cells(table, keys)]
    parts = [
        f"# {table.comparison.name}",
        markdown_table(header(keys), rows),
        f"{table.conclusion} {_capital(LEGEND)}.",
    ]
    if table.differences:
        parts.append(f"## Differences from {table.lines[0].variant}")
        parts.append(markdown_table(["variant", *headings(keys)], differences(table, keys)))
        parts.append("In brackets: 95 % over seeds; 95 % over examples.")
    parts += [f"{_capital(note)}." for note in notes(table)]
    return "\n\n".join(parts) + "\n"


def as_html(table: Table) -> str:
    """Both tables and the charts as a self-contained page."""
    keys = table.figures
    return template("comparison.html.j2").render(
        name=table.comparison.name,
        conclusion=table.conclusion,
        legend=_capital(LEGEND),
        header=header(keys),
        lines=[
            {
                "cells": cells(table, line, keys),
                "signs": [0, *(table.better(line.variant, key) for key in keys), 0, 0, 0, 0],
                "best": table.winner == line.variant,
            }
            for line in table.lines
        ]
        + [{"cells": row, "signs": [0] * len(row), "best": False} for row in baseline_cells(table, keys)],
        charts=comparison_charts({line.variant: _course(line) for line in table.lines}),
        figures=headings(keys),
        first=table.lines[0].variant,
        differences=differences(table, keys),
        changes=[(name, _changes(keys)) for name, keys in table.comparison.changes.items()],
        seeds=sorted({each.seed for each in table.comparison.planned}),
        notes=[_capital(note) for note in notes(table)],
        written=time.strftime("%Y-%m-%d %H:%M"),
    )


def _course(line: Line) -> list[LogLine]:
    """Log lines of a variant's first seed; empty if the file is gone."""
    return [logged for each in line.finished[:1] for logged in read_lines(each.planned.folder / LINES_FILE)]


def as_csv(table: Table) -> str:
    """One line per variant: mean and interval of every figure, and its difference with intervals."""
    rows = [_flat(line, table) for line in table.lines]
    rows += [_flat_baseline(table, name) for name in NAMES if table.baselines]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _flat(line: Line, table: Table) -> dict[str, Any]:
    row: dict[str, Any] = {"variant": line.variant, "seeds": len(line.finished), "missing": line.missing}
    for figure, estimate in line.figures.items():
        row[figure] = estimate.mean
        row[f"{figure}_low"], row[f"{figure}_high"] = estimate.interval or ("", "")
    for figure, found in table.differences.get(line.variant, {}).items():
        row[f"{figure}_difference"] = found.mean
        for name, interval in (("seeds", found.seeds), ("examples", found.examples)):
            row[f"{figure}_difference_{name}_low"], row[f"{figure}_difference_{name}_high"] = interval or ("", "")
    return row | line.costs | {"verdict": line.verdict, "best": table.winner == line.variant}


def _flat_baseline(table: Table, name: str) -> dict[str, Any]:
    found = table.baselines[name]
    return {"variant": f"({name})"} | {key: found[key] for key in table.figures if key in found}


def as_json(table: Table) -> str:
    """All of the table: values by seed, intervals, differences, the keys that variants set."""
    lines = [
        {
            "variant": line.variant,
            "changes": table.comparison.changes[line.variant],
            "seeds": [f.planned.seed for f in line.finished],
            "missing": line.missing,
            "figures": {f: {"mean": e.mean, "ci95": e.interval, "values": e.values} for f, e in line.figures.items()},
            "differences": {f: asdict(d) for f, d in table.differences.get(line.variant, {}).items()},
            **line.costs,
            "verdict": line.verdict,
            "runs": [str(f.planned.folder) for f in line.finished],
        }
        for line in table.lines
    ]
    head = {"name": table.comparison.name, "metric": table.comparison.metric, "winner": table.winner}
    rest = {
        "conclusion": table.conclusion,
        "notes": notes(table),
        "failed": table.failed,
        "lines": lines,
        "baselines": table.baselines,
    }
    return json.dumps(without_nan(head | rest), indent=2, ensure_ascii=False)


def print_table(table: Table) -> None:
    """Print the table, its conclusion and the files; tab-separated unless standard output is a terminal."""
    brief = [each.key for each in shown("brief table")]
    keys = [key for key in table.figures if key in brief or key == table.comparison.metric]
    console = Console(highlight=False)
    rows = [cells(table, line, keys) for line in table.lines]
    below = baseline_cells(table, keys)
    if console.is_terminal:
        grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
        for i, title in enumerate(header(keys)):
            grid.add_column(title, justify="left" if i == 0 else "right", overflow="fold", no_wrap=i == 0)
        for line, row in zip(table.lines, rows, strict=True):
            grid.add_row(*map(escape, row), style="bold green" if table.winner == line.variant else None)
        for row in below:
            grid.add_row(*map(escape, row), style="dim")
        console.print(grid)
        console.print(f"{_capital(LEGEND)}.\n", style="dim")
    else:
        for row in (header(keys), *rows, *below):
            print("\t".join(row))
    for text in (table.conclusion, *(f"{_capital(note)}." for note in notes(table))):
        print(text)
    print(f"All of it: {table.comparison.folder / NAME}.html, .md, .csv, .json")


def print_listing(comparison: Comparison, states: dict[str, State]) -> None:
    """Print the planned trainings, one tab-separated line per variant, and the number of trainings left."""
    print("variant\ttrainings\tsets")
    for variant, keys in comparison.changes.items():
        counted = Counter(states[each.name] for each in comparison.of(variant))
        print(f"{variant}\t{', '.join(f'{n} {state}' for state, n in counted.items())}\t{_changes(keys)}")
    left = sum(state != "finished" for state in states.values())
    print(f"{left} of {len(states)} trainings to do, in {comparison.folder}", file=sys.stderr)


def notes(table: Table) -> list[str]:
    """Caveats of the table, one sentence each."""
    found = [f"training {name} failed: {error}" for name, error in table.failed.items()]
    if len(table.devices) > 1:
        found.append(f"minutes and tokens/s do not compare, they come from {' and from '.join(table.devices)}")
    unpaired = any(d.examples is None and f == "bleu" for each in table.differences.values() for f, d in each.items())
    if unpaired:
        found.append("the variants were not measured on the same examples, so differences are over seeds alone")
    if table.baselines:
        others = "" if table.same_baselines else "; other trainings here have others, since their data are others"
        found.append(
            f"in parentheses baselines, which need no model, {baseline_note({'baselines': table.baselines})}{others}"
        )
    if table.lines and max(len(line.finished) for line in table.lines) == 1:
        found.append("one seed each: no intervals over seeds, and nothing is marked")
    return found


def _estimate(figure: str, estimate: Estimate | None, sign: int) -> str:
    if estimate is None:
        return ""
    form, interval = figures()[figure].number, estimate.interval
    spread = "" if interval is None else f" ± {form.format((interval[1] - interval[0]) / 2)}"
    return f"{form.format(estimate.mean)}{spread}{' ' if sign else ''}{MARKS[sign]}"


def _score(figure: str, value: Any) -> str:
    return "" if value is None else figures()[figure].number.format(value)


def _difference(figure: str, found: Difference | None) -> str:
    if found is None:
        return ""
    form = figures()[figure].number.replace("{:", "{:+")
    ends = [interval and ", ".join(form.format(end) for end in interval) for interval in (found.seeds, found.examples)]
    return f"{form.format(found.mean)} " + " ".join(f"[{end or 'unknown'}]" for end in ends)


def _changes(keys: dict[str, Any]) -> str:
    """The keys that a variant sets, as `key=value` words."""
    return " ".join(
        f"{key}={json.dumps(value) if not isinstance(value, str) else value}" for key, value in keys.items()
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
