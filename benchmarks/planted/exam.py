"""One question of the exam: plant, train, diagnose, mark."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
import torch

import sourcewise
from planted import material
from planted.controls import CONTROLS
from planted.fault import Fault, around
from planted.faults import FAULTS
from planted.subjects import SEEDS, SUBJECTS, Subject, nested, recipe_options
from sourcewise.config import Recipe
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.diagnosis.finding import LEVELS, Finding
from sourcewise.diagnosis.ranking import ranked
from sourcewise.errors import RequestError
from sourcewise.training.run import Run

BUILT = "sourcewise.training.setup.build_network"
# What options may stand for; both are made of what was drawn, before it was spoilt.
CLEAN = "OF THE CLEAN SET"  # a tokenizer
TRAINED = "A TRAINED RUN"  # of the subject as it is
DIED = "its process died"


@dataclass(frozen=True)
class Question:
    """A fault in a subject; as a control it has nothing planted but what is healthy."""

    kind: Literal["fault", "control"]
    name: str
    patient: str  # the subject's name: a question goes to another process, and faults are code
    shift: int = 0  # of the seeds
    root: Path | None = None
    anyway: bool = False  # train where the pre-flight refuses, too

    @property
    def fault(self) -> Fault:
        """What is planted."""
        return (FAULTS if self.kind == "fault" else CONTROLS)[self.name]

    @property
    def subject(self) -> Subject:
        """Where it is planted."""
        return SUBJECTS[self.patient]

    @property
    def seed(self) -> int:
        """Of the data drawn, of the fault and of the recipe."""
        return SEEDS[self.subject.split] + list(SUBJECTS).index(self.subject.name) + self.shift


def answer(question: Question) -> dict[str, Any]:
    """Sit one question; whatever breaks is told in the row."""
    started = time.perf_counter()
    torch.set_num_threads(1)  # a question has one core
    row = _blank(question)
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        try:
            with _quiet():
                findings = examined(question, Path(folder))
            row["findings"] = [finding.to_dict() for finding in findings]
        except material.NotThere as missing:
            row["skipped"] = str(missing)
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}"
            row["where"] = traceback.format_exc()[-1500:]
    row["seconds"] = round(time.perf_counter() - started, 2)
    return row | mark(row["findings"], question.fault.causes)


def died(question: Question) -> dict[str, Any]:
    """The row of a question whose process is gone."""
    return _blank(question) | {"error": DIED, "seconds": 0.0} | mark([], question.fault.causes)


def _blank(question: Question) -> dict[str, Any]:
    return {
        "kind": question.kind,
        "name": question.name,
        "subject": question.subject.name,
        "split": question.subject.split,
        "seed": question.seed,
        "skipped": None,
        "error": None,
        "findings": [],
    }


def mark(findings: list[dict[str, str]], causes: frozenset[str]) -> dict[str, Any]:
    """Where the true cause stands among errors and warnings."""
    grave = [f["code"] for f in findings if f["level"] != "note"]
    rank = next((place for place, code in enumerate(grave, 1) if code in causes), None)
    return {
        "accepted": sorted(causes),
        "found": rank is not None,
        "rank": rank,
        "above": grave[: rank - 1] if rank else grave[:3],
        "errors": sum(f["level"] == "error" for f in findings),
        "warnings": sum(f["level"] == "warning" for f in findings),
    }


def examined(question: Question, folder: Path) -> list[Finding]:
    """Plant the fault, train, and give all that the doctor says, in its own order."""
    fault, subject = question.fault, question.subject
    drawn = material.draw(subject.data, subject.size, question.seed, question.root)
    options = recipe_options(subject, question.seed) | dict(fault.options)
    if options.get("data.tokenizer") == CLEAN:
        options["data.tokenizer"] = str(_tokenizer(drawn, int(options["data.vocabulary"]), folder / "tokenizer"))
    if options.get("model.weights") == TRAINED:
        options["model.weights"] = str(_trained(drawn, subject, question.seed, folder / "before"))
    if fault.spoil is not None:
        drawn = fault.spoil(drawn, np.random.default_rng([41, question.seed]))
    options |= material.write(drawn, folder) | {"output": str(folder / "runs")}
    options["train.preflight"] = not question.anyway
    with contextlib.ExitStack() as planted:
        for patch in fault.patches:
            planted.enter_context(patch())
        if fault.change is not None:
            planted.enter_context(_changed(fault.change))
        if subject.stranger:
            from planted import stranger  # transformers takes seconds to import

            return merged(stranger.examined(drawn, fault, subject, question.seed, folder))
        return findings_of(Recipe.model_validate(nested(options)))


def findings_of(recipe: Recipe) -> list[Finding]:
    """What the doctor says: of the run, with what was told while it trained; of the recipe where no run came of it."""
    run = Run(Path(recipe.output) / recipe.name)
    try:
        sourcewise.train(recipe)
    except RequestError:
        if not (run.folder / "recipe.yaml").is_file():
            return sourcewise.preflight(recipe).findings
    return merged(sourcewise.diagnose(run.folder).findings, run.metrics())


def merged(findings: Sequence[Finding], lines: Iterable[dict[str, Any]] = ()) -> list[Finding]:
    """Findings, and those told on the way (lines of kind "finding"), each code once at its gravest, ranked anew."""
    keys = ("code", "name", "level", "evidence", "cure")
    live = [Finding(*(line[key] for key in keys)) for line in lines if line.get("kind") == "finding"]
    best: dict[str, Finding] = {}
    for finding in sorted((*findings, *live), key=lambda f: LEVELS.index(f.level)):
        best.setdefault(finding.code, finding)
    return ranked(list(best.values()))


def _changed(change: Any) -> Any:
    def built(usual: Any, *args: Any, **kwargs: Any) -> Any:
        network = usual(*args, **kwargs)
        change(network)
        return network

    return around(BUILT, built)()


def _tokenizer(drawn: material.Material, vocabulary: int, folder: Path) -> Path:
    texts = [text for row in drawn.train for text in (row.source, row.target) if text]
    Tokenizer.train(texts, vocabulary).save(folder)
    return folder


def _trained(drawn: material.Material, subject: Subject, seed: int, folder: Path) -> Path:
    """A run of the subject without anything planted, to start from."""
    folder.mkdir()
    options = recipe_options(subject, seed) | material.write(drawn, folder) | {"output": str(folder / "runs")}
    return sourcewise.train(Recipe.model_validate(nested(options))).folder


class NoReport:
    """A listener that draws nothing: curves and pages would take a third of a question's time."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Within: progress is not shown, and no report is drawn."""
    said = io.StringIO()
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        mock.patch("sourcewise.api.LiveReport", NoReport),
    ):
        yield
