"""Output of the commands: tables on a terminal, plain tab-separated lines in a log or a pipe."""

from __future__ import annotations

import contextlib
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sourcewise.errors import printable
from sourcewise.evaluation.verdict import POOR, verdict_of
from sourcewise.figures import figures
from sourcewise.reporting.baselines import baseline_note, baseline_table
from sourcewise.reporting.groups import group_tables
from sourcewise.reporting.tasks import COLUMNS, task_rows

if TYPE_CHECKING:
    from sourcewise.data.examples import Note
    from sourcewise.diagnosis.answer import Diagnosis
    from sourcewise.diagnosis.finding import Finding
    from sourcewise.evaluation.results import Evaluation, Row

LONGEST_DEFAULT = 40  # characters of a default that a list of options shows
COLOURS = {
    "above copying": "green",
    "undecided": "blue",
    "below copying": "yellow",
    "failed": "red",
    "error": "red",
    "warning": "yellow",
    "note": "blue",
}


def print_run(folder: Path, evaluation: Evaluation | None) -> None:
    """Print the result of a training: its evaluation, the report's path, and commands to go on with."""
    steps = [("report", f"{folder / 'report.html'}"), ("model", f"{folder}")]
    if evaluation is not None:
        print_evaluation(evaluation)
        said = verdict_of(evaluation)
        if said is not None and said.level in POOR:
            steps.append(("why not better", f"sourcewise diagnose {folder}"))
    else:
        steps.append(("not evaluated", "there is no data.valid or data.test"))
    steps += [
        ("use it", f"sourcewise generate {folder} FILE"),
        ("measure it", f"sourcewise evaluate {folder} DATA"),
        ("train on yours", "sourcewise train --help"),
    ]
    print()
    _print_pairs(_console(), steps)


def print_evaluation(evaluation: Evaluation, samples: int = 10) -> None:
    """Print samples, figures, baselines and the verdict."""
    console = _console()
    print_samples(evaluation.rows, samples)
    console.print()
    _print_pairs(console, measured(evaluation.metrics))
    _print_rows(console, *baseline_table(evaluation.metrics), baseline_note(evaluation.metrics))
    _print_rows(console, COLUMNS, task_rows(evaluation.metrics))
    for _, columns, rows in group_tables(evaluation.metrics):
        _print_rows(console, columns, rows)
    said = verdict_of(evaluation)
    if said is not None:
        console.print()
        console.print(
            f"[bold {COLOURS[said.level]}]{said.level}[/]  {escape(said.text)}", soft_wrap=not console.is_terminal
        )


def print_notes(notes: Sequence[Note], all_in: Path | None = None, shown: int = 3) -> None:
    """Print notes on data that is not used as it stands to standard error: counts by kind, and the first few."""
    for note in notes:
        if not note.where:
            print(f"{note.file}: {note.what}", file=sys.stderr)
    for file in dict.fromkeys(note.file for note in notes if note.where):
        found = [note for note in notes if note.file == file and note.where]
        kinds = ", ".join(f"{what} ({count})" for what, count in Counter(note.what for note in found).most_common())
        print(printable(f"{file}: not all is taken as it stands: {kinds}"), file=sys.stderr)
        for note in found[:shown]:
            print(f"  {printable(note.where)}: {printable(note.what)}", file=sys.stderr)
        if len(found) > shown:
            print(f"  and {len(found) - shown:,} more" + (f" in {all_in}" if all_in else ""), file=sys.stderr)


def progress_of(what: str, count: int, before: int = 0) -> Callable[[int, int], None] | None:
    """A function that prints progress to a terminal; None for short work or no terminal. `before` are done already."""
    if before + count < 50 or not sys.stderr.isatty():
        return None
    return lambda done, of: print(
        f"\r{what}: {before + done}/{before + of} ", end="\n" if done == of else "", file=sys.stderr, flush=True
    )


def measured(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(label, value) of all measured figures, with interval (source bits) and signature (BLEU)."""
    found = []
    for key, figure in figures().items():
        value = metrics.get(key)
        if not figure.label or not isinstance(value, (int, float)):
            continue
        shown = figure.format.format(value)
        interval = metrics.get(f"{key}_ci95")
        if interval and None not in interval:
            shown += "  [" + ", ".join(figure.format.format(end) for end in interval) + "]"
        found.append((figure.label, shown))
        if figure.signed and (signature := metrics.get(f"{key}_signature")):
            found.append(("its signature", str(signature)))
    return found


def print_samples(rows: Sequence[Row], count: int = 10) -> None:
    """Print references beside outputs, for rows spread evenly over the set."""
    console = _console()
    chosen = [rows[i * len(rows) // min(count, len(rows))] for i in range(min(count, len(rows)))]
    if not console.is_terminal:
        for row in chosen:
            texts = (" ".join(text.splitlines()) for text in (row.reference, row.output))
            print("{}\treference: {}\toutput: {}".format(row.id, *texts))
        return
    with_source = any(row.source for row in chosen)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in [*(["source"] if with_source else []), "reference", "output"]:
        table.add_column(title, overflow="fold", ratio=1 if with_source else None)
    for row in chosen:
        colour = "green" if row.reference.split() == row.output.split() else "default"
        cells = [escape(row.reference), f"[{colour}]{escape(row.output)}[/]"]
        table.add_row(*([escape(row.source)] if with_source else []), *cells)
    console.print(table)


def _print_rows(console: Console, titles: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> None:
    """Print rows and a note as a table on a terminal, else as tab-separated lines; nothing without rows."""
    if not rows:
        return
    console.print()
    if not console.is_terminal:
        for line in (titles, *rows, *([[note]] if note else [])):
            print("\t".join(line))
        return
    table = Table(*titles, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
    if note:
        console.print(f"[dim]{escape(note)}[/]")


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print the verdict, then every finding with its evidence and cure, the cause first."""
    console = _console()
    if not diagnosis.findings:
        console.print("[bold green]healthy[/]  nothing was found")
    elif diagnosis.cause:
        console.print(f"[bold red]ill[/]  the cause: {diagnosis.cause}")
    elif diagnosis.verdict == "undecided":
        console.print("[bold yellow]undecided[/]  evaluate says failed, and it is too early to say why:")
    else:
        console.print("[bold green]healthy[/]  no errors, but:")
    _print_findings(console, diagnosis.findings)
    if diagnosis.findings:
        code = diagnosis.findings[0].code
        console.print(f"\n[dim]a rule in full: sourcewise explain {code}[/]", highlight=False)
    for missing in diagnosis.not_checked:
        _print_filled("not checked: ", missing)


def print_findings(findings: Sequence[Finding]) -> None:
    """Print findings with evidence and cure to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        _print_findings(_console(), findings)


def _print_findings(console: Console, findings: Sequence[Finding]) -> None:
    for finding in findings:
        colour = COLOURS[finding.level]
        console.print(f"\n[bold {colour}]{finding.level} {finding.code}[/] {escape(finding.name)}")
        for title, text in (("evidence", finding.evidence), ("cure", finding.cure)):
            _print_filled(f"  {title + ':':10}", text)


def print_options(rows: Sequence[tuple[str, str, str, str]]) -> None:
    """Print every option of a recipe by section, for `train --options`; keys that all data sets share only once."""
    print("Set any of these with --KEY VALUE, or in a recipe:")
    section = ""
    for key, kind, default, description in rows:
        if key.startswith(("data.valid.", "data.test.")):
            parent, leaf = key.rsplit(".", 1)
            if leaf == "pairs":
                print(f"\n{parent}.…\n  the same keys as data.train")
            section = parent
            continue
        parent = key.rpartition(".")[0]
        if parent != section:
            print(f"\n{parent or 'run'}")
            section = parent
        note = f" ({kind.replace('|', ', ')})" if "|" in kind and kind != "true|false" else ""
        shown = default.replace("\n", "\\n") or _placeholder(kind)
        shown = shown if len(shown) <= LONGEST_DEFAULT else shown[: LONGEST_DEFAULT - 1] + "…"
        _print_filled(f"  {f'--{key} {shown} ':36}", description + note)


def _placeholder(kind: str) -> str:
    return {"text": "TEXT", "integer": "N", "number": "X"}.get(kind, "…")


def _console() -> Console:
    return Console(highlight=False, soft_wrap=False)


def _print_pairs(console: Console, pairs: Sequence[tuple[str, str]]) -> None:
    """Print names and values in two columns on a terminal, else as `name<tab>value`."""
    if not console.is_terminal:
        for name, value in pairs:
            print(f"{name}\t{value}")
        return
    table = Table.grid(padding=(0, 2))
    for name, value in pairs:
        table.add_row(f"[dim]{escape(name)}[/]", escape(value))
    console.print(table)


def _print_filled(start: str, text: str) -> None:
    """Print a text beside its title, wrapped to the terminal's width except lines that begin with two spaces (code).

    Without a terminal nothing is wrapped, so that `grep` finds complete lines.
    """
    width = max(min(shutil.get_terminal_size((100, 24)).columns, 110) - 1, 60)
    for line in text.splitlines() or [""]:
        if line.startswith("  ") or not sys.stdout.isatty():
            print(start + line)
        else:
            print(textwrap.fill(line, width, initial_indent=start, subsequent_indent=" " * len(start)))
        start = " " * len(start)
