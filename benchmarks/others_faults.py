"""An exam by others: faults that people told of in public, rebuilt small, and healthy public recipes beside them.

    python benchmarks/others_faults.py [--half seen|unseen|all] [--more DIR] [--only NAME] [--jobs N] [--json F]
    python benchmarks/others_faults.py --figures          # are they at fault at all? without any tool of ours

Each fault is run in its broken and in its mended form, with the doctor and without it. Counted is where its cause
stands in what the doctor says; of mended forms and controls, what is said at all. The unseen half was held back until
the first whole run, whose figures docs/diagnosis.md has; DIR may hold another one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from others.case import HOSTS
from others.exam import Question, answer, cases, halves
from others.marking import VERDICTS, summary
from rich.console import Console
from rich.markup import escape
from rich.table import Table

HELD_BACK = Path(__file__).parent / "others" / "held_back"
GOOD = {"first": "green", "among three": "yellow", "named": "yellow"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--half", choices=("seen", "unseen", "all"), default="all", help="which half (default: all)")
    parser.add_argument("--more", type=Path, default=HELD_BACK, help="folder of the unseen half's modules")
    parser.add_argument("--only", action="append", help="a case whose name holds this, or a host; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="other data, other weights")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time, a core each")
    parser.add_argument("--json", type=Path, help="write the figures and a row a form there")
    parser.add_argument("--figures", action="store_true", help="train only, without the doctor")
    arguments = parser.parse_args()
    console = Console()
    asked = list(questions(arguments))
    if not asked:
        parser.error(f"no case's name holds {' or '.join(arguments.only or [])!r} in this half")
    rows = []
    for row in sat(asked, arguments.jobs):
        rows.append(row)
        console.print(f"{len(rows):>3}/{len(asked)}  {told(row)}", highlight=False, soft_wrap=True)
        write(arguments.json, rows)  # after each: a run that is stopped has its rows
    report = summary(rows)
    if not arguments.figures:
        console.print(table(rows))
    skipped = [row for row in rows if row["skipped"]]
    if skipped:
        console.print(f"[bold red]SKIPPED, NOT COUNTED: {len(skipped)} of {len(rows)} forms.[/]")
        for reason in dict.fromkeys(row["skipped"] for row in skipped):
            console.print(f"  {sum(row['skipped'] == reason for row in skipped)}: {escape(reason)}")
    console.print(json.dumps(report), soft_wrap=True, highlight=False)
    return 1 if report["not at fault"] else 0


def write(file: Path | None, rows: list[dict[str, Any]]) -> None:
    """The figures, and a row a form."""
    if file is not None:
        file.write_text(json.dumps(summary(rows) | {"rows": rows}, indent=2, ensure_ascii=False) + "\n")


def questions(arguments: argparse.Namespace) -> Iterator[Question]:
    """Both forms of each fault, and the controls, as far as they are asked for."""
    known = cases(arguments.more)
    half = halves(known.values())
    there = set(cases(None))
    for case in sorted(known.values(), key=lambda case: HOSTS.index(case.host)):
        if arguments.half != "all" and (case.name in there) != (arguments.half == "seen"):
            continue
        if arguments.more and half[case.name] != ("seen" if case.name in there else "unseen"):
            print(f"{case.name}: by its name it belongs to the {half[case.name]} half", file=sys.stderr)
        wanted = arguments.only or [""]
        if not any(word in case.name or word == case.host for word in wanted):
            continue
        for form in ("control",) if case.control else ("broken", "mended"):
            yield Question(case.name, form, arguments.seed, arguments.more, arguments.figures)


def sat(asked: list[Question], jobs: int) -> Iterator[dict[str, Any]]:
    """The rows, in order; where both forms of a fault are known, the second says whether it is at fault."""
    context = multiprocessing.get_context("spawn")
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as bases, ProcessPoolExecutor(jobs, context) as pool:
        os.environ.setdefault("OTHERS_BASES", bases)  # trained bases are shared by the processes
        for question, row in zip(asked, pool.map(answer, asked), strict=True):
            row["at_fault"] = None
            if question.form == "mended" and None not in (row["figure"], figures.get(question.name)):
                row["at_fault"] = row["figure"] - figures[question.name] >= row["gap"]
            figures[question.name] = row["figure"]
            yield row


def told(row: dict[str, Any]) -> str:
    """A row in a line."""
    where = f"{row['name']} [{row['host']}, {row['form']}]"
    figure = "" if row["figure"] is None else f" figure {row['figure']:.3f}"
    if row["at_fault"] is not None:
        figure += " [green](at fault)[/]" if row["at_fault"] else " [bold red](NOT AT FAULT)[/]"
    if row["skipped"] or row["error"] or row["harmed"]:
        problem = row["skipped"] or row["error"] or f"harmed: {row['harmed']}"
        return f"{escape(where)}:{figure} [red]{escape(problem)}[/]"
    said = " ".join(_code(each) for each in row["findings"]) or "healthy"
    verdict = row["verdict"] or ("false alarm" if any(row["alarms"].values()) else "right")
    colour = GOOD.get(verdict, "green" if verdict == "right" else "red")
    return f"{escape(where)}:{figure} [{colour}]{verdict}[/] in {row['seconds']:.0f} s: {escape(said)}"


def _code(finding: dict[str, str]) -> str:
    return finding["code"] + {"error": "", "warning": "?", "note": "(note)"}[finding["level"]]


def table(rows: list[dict[str, Any]]) -> Table:
    """The faults by verdict, what was said first, and what the mended form was told."""
    found = Table("host", "fault", "verdict", "what would name it", "said", "mended", title="Faults of others")
    mended = {row["name"]: row for row in rows if row["form"] == "mended"}
    broken = [row for row in rows if row["form"] == "broken"]
    for row in sorted(broken, key=lambda row: (HOSTS.index(row["host"]), VERDICTS.index(row["verdict"]))):
        other = mended.get(row["name"])
        alarms = [] if other is None else [*other["alarms"]["error"], *(f"{c}?" for c in other["alarms"]["warning"])]
        said = " ".join(_code(each) for each in row["findings"]) or row["error"] or row["harmed"] or "healthy"
        colour = GOOD.get(row["verdict"], "red")
        verdict = f"[{colour}]{row['verdict']}[/]"
        accepted = " ".join(row["accepts"])
        found.add_row(row["host"], row["name"], verdict, accepted, escape(said[:120]), " ".join(alarms) or "healthy")
    return found


if __name__ == "__main__":
    sys.exit(main())
