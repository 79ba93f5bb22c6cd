"""What a run's folder tells of its training: the lines of its log, what its pre-flight found, its outputs so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sourcewise.diagnosis.answer import Piece
from sourcewise.diagnosis.finding import LEVELS, Finding
from sourcewise.evaluation.results import METRICS_FILE, TRANSLATIONS_FILE, Evaluation, read_translations


def noted_findings(lines: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Finding, int]]:
    """Findings that a training noted on its way, by code: each as it was noted last, and at which step."""
    found: dict[str, tuple[Finding, int]] = {}
    for line in lines:
        if line.get("kind") == "finding" and line.get("level") in LEVELS and line.get("code"):
            code, name, evidence, cure = (str(line.get(key, "")) for key in ("code", "name", "evidence", "cure"))
            found[code] = Finding(code, name, line["level"], evidence, cure), int(line.get("step") or 0)
    return found


def noted_preflight(lines: Sequence[Mapping[str, Any]]) -> Piece | None:
    """What was found before the first step, when the data was what it was trained on; None where nobody looked."""
    watch = next((line for line in lines if line.get("kind") == "watch"), None)
    if watch is None or not watch.get("preflight"):
        return None
    before = [finding for finding, step in noted_findings(lines).values() if not step]
    missing = [str(words) for words in watch.get("not_checked") or ()]
    return Piece(before, missing, ["the data and the wiring, before the first step"])


def kept_evaluation(folder: Path, lines: Sequence[Mapping[str, Any]]) -> Evaluation | None:
    """The outputs in a run folder: those of its final evaluation, else the last ones of its training; None: none.

    Raises RequestError where a file is damaged.
    """
    if not (folder / TRANSLATIONS_FILE).is_file():
        return None
    if (folder / METRICS_FILE).is_file():
        return Evaluation.from_folder(folder)
    last = next((dict(line) for line in reversed(lines) if line.get("kind") == "evaluation"), None)
    return None if last is None else Evaluation(last, read_translations(folder / TRANSLATIONS_FILE))
