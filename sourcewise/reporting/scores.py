"""Writes the table of `sourcewise score`: on a terminal, as Markdown, as HTML (one file), as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from sourcewise.evaluation.results import without_nan
from sourcewise.figures import figures
from sourcewise.reporting.pages import markdown_table, template
from sourcewise.scoring.table import Part, Scores, System

Rows = list[list[str]]
BEYOND_CHANCE = 0.05
_OF_TESTS = {"bootstrap": "paired bootstrap", "randomisation": "approximate randomisation"}


def sections(scores: Scores) -> list[tuple[str, list[str], Rows, str]]:
    """(title, headings, rows, legend) of every table: scores, outputs, paired tests, parts of the set."""
    keys = scores.keys
    several = f", up to {scores.several} references each" if scores.several > 1 else ""
    title = f"{scores.references}: {scores.examples:,} examples{several}"
    rows = [[each.name, *(_with_interval(each, key) for key in keys)] for each in scores.systems]
    found = [(title, ["system", *_headings(keys)], rows, "In brackets: 95 % over examples (bootstrap).")]
    if any(each.level for each in scores.systems):
        places = [[each.name, each.level, each.place] for each in scores.systems if each.level]
        found.append(("Beside the baselines", ["system", "level", "place"], places, ""))
    names = list(scores.systems[0].figures)
    form = [[each.name, *(_written(key, each.figures[key]) for key in names)] for each in scores.systems]
    found.append(("Outputs", ["system", *_headings(names)], form, "Beside the first reference of each example."))
    if scores.pairs and scores.test:
        pairs = [
            [f"{pair.second} − {pair.first}", *(_tested(key, pair.differences[key], pair.p[key]) for key in keys)]
            for pair in scores.pairs
        ]
        legend = f"Difference, and p of no difference; * where p < {BEYOND_CHANCE}. As sacreBLEU: {scores.test_with}."
        found.append((_OF_TESTS[scores.test].capitalize(), ["systems", *_headings(keys)], pairs, legend))
    for by, parts in groupby(scores.parts, key=lambda part: part.by):
        found.append((f"By {by}", ["part", "examples", "system", *_headings(keys)], _parts(list(parts), keys), ""))
    return found


def signatures(scores: Scores) -> Rows:
    """[score, signature] of every score."""
    return [[_heading(key), scores.signatures[key]] for key in scores.keys]


def print_scores(scores: Scores) -> None:
    """Print all tables, signatures and remarks; tab-separated unless standard output is a terminal."""
    console = Console(highlight=False)
    for title, headings, rows, legend in sections(scores):
        if console.is_terminal:
            grid = Grid(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
            for i, heading in enumerate(headings):
                grid.add_column(heading, justify="left" if i == 0 else "right", overflow="fold")
            for row in rows:
                grid.add_row(*map(escape, row))
            console.print(grid)
            if legend:
                console.print(legend, style="dim")
        else:
            print(f"# {title}")
            for row in (headings, *rows):
                print("\t".join(row))
            if legend:
                print(legend)
            print()
    for name, signature in signatures(scores):
        print(f"{name}\t{signature}")
    for remark in scores.remarks:
        print(f"note\t{remark}")


def as_markdown(scores: Scores) -> str:
    """All tables, signatures and remarks."""
    parts = ["# Scores"]
    for title, headings, rows, legend in sections(scores):
        parts += [f"## {title}", markdown_table(headings, rows)]
        parts += [legend] if legend else []
    parts += ["## Signatures", "\n".join(f"- {name}: `{signature}`" for name, signature in signatures(scores))]
    if scores.remarks:
        parts += ["## Notes", "\n".join(f"- {remark}" for remark in scores.remarks)]
    return "\n\n".join(parts) + "\n"


def as_html(scores: Scores) -> str:
    """The same as a self-contained page."""
    return template("scores.html.j2").render(
        name=scores.references,
        sections=sections(scores),
        signatures=signatures(scores),
        notes=scores.remarks,
        written=time.strftime("%Y-%m-%d %H:%M"),
    )


def as_json(scores: Scores) -> str:
    """All of the table with all digits, without the texts."""
    systems = [
        {"name": each.name, "scores": each.scores, "ci95": each.intervals, "figures": each.figures}
        | ({"level": each.level, "place": each.place} if each.level else {})
        for each in scores.systems
    ]
    tests = {"test": scores.test, "signatures": scores.test_signatures, "pairs": [asdict(p) for p in scores.pairs]}
    found = {
        "references": scores.references,
        "examples": scores.examples,
        "most_references": scores.several,
        "signatures": scores.signatures,
        "systems": systems,
        "paired": tests if scores.test else None,
        "parts": [asdict(part) for part in scores.parts],
        "notes": scores.remarks,
    }
    return json.dumps(without_nan(found), indent=2, ensure_ascii=False)


def _parts(parts: Sequence[Part], keys: Sequence[str]) -> Rows:
    return [
        [part.name, f"{part.examples:,}", system, *(_written(key, scores[key]) for key in keys)]
        for part in parts
        for system, scores in part.scores.items()
    ]


def _headings(keys: Sequence[str]) -> list[str]:
    return [_heading(key) for key in keys]


def _heading(key: str) -> str:
    return figures()[key].heading if key != "bleu_4" else "BLEU-4"


def _written(key: str, value: float | None) -> str:
    return "unknown" if value is None else figures()[key].number.format(value)


def _with_interval(system: System, key: str) -> str:
    low, high = system.intervals[key]
    return f"{_written(key, system.scores[key])} [{_written(key, low)}, {_written(key, high)}]"


def _tested(key: str, difference: float, p: float) -> str:
    if difference == 0:
        return "equal"
    sign = "−" if difference < 0 else "+"
    star = "*" if p < BEYOND_CHANCE else ""
    return f"{sign}{_written(key, abs(difference))} (p {p:.4f}){star}"
