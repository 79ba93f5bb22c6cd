"""The cases of both halves, and one question of the exam."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import io
import json
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import mock

from others import figures, hosts
from others.case import Case
from others.keys import KEYS
from others.marking import false_alarms, marked

MODULES = ("faults_trainer", "faults_loop", "faults_diagnose", "faults_recipe", "controls")


@dataclass(frozen=True)
class Question:
    """A case in one of its forms."""

    name: str
    form: Literal["broken", "mended", "control"]
    seed: int = 0
    more: Path | None = None
    figures: bool = False  # train only: nobody looks


def cases(more: Path | None) -> dict[str, Case]:
    """The cases of the repository, and those of all modules in `more`, by name."""
    found: dict[str, Case] = {}
    for name in MODULES:
        found |= importlib.import_module(f"others.{name}").CASES.found
    for file in [] if more is None else sorted(more.glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"unseen_{file.stem}", file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert not found.keys() & module.CASES.found.keys(), file
        found |= module.CASES.found
    return found


def keys(more: Path | None) -> dict[str, str]:
    """Which codes answer the keys: of the repository, and of `keys.json` in `more`."""
    file = None if more is None else more / "keys.json"
    return KEYS | (json.loads(file.read_text()) if file is not None and file.is_file() else {})


def halves(known: Iterable[Case]) -> dict[str, str]:
    """The half of each case: of each host, faults and controls apart, every second one in the order of the hash."""
    groups: dict[tuple[bool, str], list[str]] = {}
    for case in known:
        groups.setdefault((case.control, "" if case.control else case.host), []).append(case.name)
    return {
        name: "unseen" if place % 2 else "seen"
        for names in groups.values()
        for place, name in enumerate(sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest()))
    }


def answer(question: Question) -> dict[str, Any]:
    """Run one; whatever breaks is told in the row."""
    import torch

    torch.set_num_threads(1)
    case = cases(question.more)[question.name]
    row: dict[str, Any] = {
        "name": case.name,
        "host": case.host,
        "form": question.form,
        "origin": case.origin,
        "what": case.what,
        "expected": case.expected,
        "accepts": dict(case.accepts),
        "gap": case.gap,
        "seed": question.seed,
        "figure": None,
        "findings": [],
        "not_checked": [],
        "error": None,
        "skipped": None,
        "harmed": "",
    }
    started, said = time.perf_counter(), io.StringIO()
    with (
        tempfile.TemporaryDirectory(prefix="others-") as folder,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        mock.patch("sourcewise.api.LiveReport", mock.MagicMock),  # no pages are drawn
    ):
        warnings.simplefilter("ignore")
        try:
            _run(case, question, Path(folder), row)
        except hosts.Skipped as reason:
            row["skipped"] = str(reason)
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}"
            row["where"] = traceback.format_exc()[-1500:]
    row["seconds"] = round(time.perf_counter() - started, 1)
    row["verdict"] = marked(case, row, keys(question.more)) if question.form == "broken" else None
    row["alarms"] = false_alarms(row) if question.form != "broken" else {}
    return row


def _run(case: Case, question: Question, folder: Path, row: dict[str, Any]) -> None:
    broken = question.form == "broken"
    if question.figures:
        row["figure"] = figures.alone(case, broken, question.seed, folder)
        return
    outcome = hosts.run(case, broken, question.seed, folder)
    row |= {"figure": outcome.figure, "not_checked": outcome.not_checked, "harmed": outcome.harmed}
    row["findings"] = [finding.to_dict() for finding in outcome.findings]
