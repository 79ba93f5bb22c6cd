"""The doctor's own exam: faults planted one at a time in healthy small trainings, and healthy ones beside them.

    python benchmarks/planted_faults.py [--data FOLDER] [--split practice|exam] [--only NAME] [--jobs 2] [--json FILE]

Each question draws its data, plants its fault in files, recipe or code, trains for seconds, and asks the doctor:
before, during and after. Counted is where the true cause stands among the errors and warnings, in the doctor's own
order. FOLDER holds fsdd/ and multi30k/; without it only the embedded sets are used. docs/diagnosis.md tells how the
halves differ and what a fault's true cause is.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from planted import exam
from planted.controls import CONTROLS
from planted.faults import FAULTS
from planted.subjects import SUBJECTS
from rich.console import Console
from rich.markup import escape
from rich.table import Table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with fsdd/ and multi30k/")
    parser.add_argument("--split", choices=("practice", "exam"), help="one half only")
    parser.add_argument("--only", action="append", help="a fault or control by name, or a subject; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="is added to all seeds: other data, other weights")
    parser.add_argument("--anyway", action="store_true", help="train where the pre-flight found an error, too")
    parser.add_argument("--jobs", type=int, default=1, help="questions at a time, a core each")
    parser.add_argument("--json", type=Path, help="write the figures and a row a question there")
    arguments = parser.parse_args()
    asked = list(questions(arguments))
    if not asked:
        parser.error(f"nothing to ask: no fault, control or subject is called {' or '.join(arguments.only or [])}")
    console = Console()
    rows = []
    for row in sat(asked, arguments.jobs):
        rows.append(row)
        console.print(f"{len(rows):>3}/{len(asked)}  {told(row)}", highlight=False, soft_wrap=True)
    report = summary(rows)
    console.print(table(rows))
    console.print(json.dumps({key: value for key, value in report.items() if key != "rows"}), soft_wrap=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def questions(arguments: argparse.Namespace) -> Iterator[exam.Question]:
    """Every fault in each of its subjects, then the controls, as far as they were asked for."""
    wanted = set(arguments.only or ())
    for fault in (*FAULTS.values(), *CONTROLS.values()):
        for name in fault.subjects:
            if arguments.split not in (None, SUBJECTS[name].split):
                continue
            if wanted and wanted.isdisjoint((fault.name, name)):
                continue
            kind = "fault" if fault.causes else "control"
            yield exam.Question(kind, fault.name, name, arguments.seed, arguments.data, arguments.anyway)


def sat(asked: list[exam.Question], jobs: int) -> Iterator[dict[str, Any]]:
    """The rows, in order; one whose process dies is a row with that error, and the others go on."""
    context = multiprocessing.get_context("spawn")
    waiting = list(asked)
    while waiting:
        with ProcessPoolExecutor(jobs, context) as pool:
            futures = [pool.submit(exam.answer, question) for question in waiting]
            for question, future in zip(list(waiting), futures, strict=True):
                try:
                    row = future.result()
                except BrokenProcessPool:
                    row = exam.died(question)
                waiting.remove(question)
                yield row
                if row["error"] == exam.DIED:
                    break


def summary(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What `--json` holds; a question that broke counts as a fault not found, or as a false error."""
    rows = list(rows)
    taken = [row for row in rows if row["skipped"] is None]
    faults, controls = ([row for row in taken if row["kind"] == kind] for kind in ("fault", "control"))
    return {
        "faults": len(faults),
        "cause_first": sum(row["rank"] == 1 for row in faults),
        "cause_in_three": sum(row["rank"] in (1, 2, 3) for row in faults),
        "controls": len(controls),
        "false_errors": sum(bool(row["errors"] or row["error"]) for row in controls),
        "false_warnings": sum(bool(row["warnings"]) for row in controls),
        "rows": rows,
    }


def told(row: dict[str, Any]) -> str:
    """A row in a line."""
    where = f"{row['name']} ({row['subject']})"
    if row["skipped"] or row["error"]:
        return f"{where}: {escape(row['skipped'] or row['error'])}"
    said = " ".join(
        f"{f['code']}{'' if f['level'] == 'error' else '?'}" for f in row["findings"] if f["level"] != "note"
    )
    return f"{where}: {verdict(row)} in {row['seconds']:.1f} s: {said or 'healthy'}"


def verdict(row: dict[str, Any]) -> str:
    """In a word or two."""
    if row["kind"] == "control":
        return "[green]healthy[/]" if not row["errors"] + row["warnings"] else "[red]false alarm[/]"
    colour = "green" if row["rank"] == 1 else "yellow" if row["found"] else "red"
    return f"[{colour}]{'rank ' + str(row['rank']) if row['found'] else 'missed'}[/]"


def table(rows: Iterable[dict[str, Any]]) -> Table:
    """What did not go as it should, and the sum of it."""
    found = Table(
        "", "name", "subject", "half", "rank", "the true cause", "said instead", "seconds", title="Not as it should be"
    )
    for row in rows:
        control = row["kind"] == "control"
        if row["skipped"] is None and row["error"] is None and (not row["above"] if control else row["rank"] == 1):
            continue
        rank = "" if control else str(row["rank"] or "missed")
        if row["skipped"] or row["error"]:
            rank = "skipped" if row["skipped"] else "broke"
        said = escape(row["skipped"] or row["error"] or " ".join(row["above"]) or "healthy")
        where = row["kind"], row["name"], row["subject"], row["split"]
        found.add_row(*where, rank, " ".join(row["accepted"]), said, f"{row['seconds']:.1f}")
    return found


if __name__ == "__main__":
    main()
