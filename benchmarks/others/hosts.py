"""The hosts: how a case runs in each, with the doctor and without it.

A host gives what the doctor found, the figure that shows whether the case is at fault, and whether the training was
changed by being looked at. `make` of a case takes (broken, seed, folder), and for a loop a fourth: `watch`.

trainer    gives a Trained: a Seq2SeqTrainer, and its figure
loop       trains by itself, and gives its losses and its figure; the doctor is `watch(model, optimizer, **hints)`
lightning  gives a Fitted: a Lightning trainer, its module and loaders, the losses it takes down, and its figure
diagnose   gives a Judged: a folder or data alone, a table, what `diagnose` is told besides, and the figure;
           or a Script, which `diagnose --script` runs and watches
recipe     gives a Planned: a recipe, and how the figure is taken from its run
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sourcewise
from others.case import Case
from sourcewise.diagnosis.finding import Finding

REFUSED = "REFUSED"  # the code of a refusal


class Skipped(Exception):
    """A case cannot be run here, for a reason that is told loudly."""


@dataclass
class Outcome:
    """What came of a case in one of its forms."""

    findings: list[Finding]
    figure: float
    not_checked: list[str] = field(default_factory=list)
    harmed: str = ""


@dataclass
class Judged:
    """What `sourcewise diagnose` is asked."""

    model: Path
    data: Path | None
    figure: Callable[[], float]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Script:
    """A training script that knows nothing of us; it runs in its own folder."""

    file: Path
    figure: Callable[[], float]
    steps: int = 60  # that are watched


@dataclass
class Fitted:
    """A training of Lightning's still to be run. `losses` are filled by the module, `options` are the doctor's."""

    trainer: Any
    module: Any
    loaders: tuple[Any, Any]
    losses: list[float]
    figure: Callable[[], float]
    options: dict[str, Any] = field(default_factory=dict)

    def fit(self, *callbacks: Any) -> None:
        """Run it."""
        self.trainer.callbacks.extend(callbacks)
        self.trainer.fit(self.module, *self.loaders)


@dataclass
class Planned:
    """A recipe of ours, as a mapping, and the figure of its run."""

    recipe: dict[str, Any]
    figure: Callable[[Any], float]
    data: Path | None = None  # another set that the run is diagnosed on
    options: dict[str, Any] = field(default_factory=dict)


class Nobody:
    """The doctor's place in a loop that nobody looks at."""

    def step(self, loss: Any, batch: Any) -> None:
        """Nothing."""

    def evaluate(self, loader: Any) -> None:
        """Nothing."""


def run(case: Case, broken: bool, seed: int, folder: Path) -> Outcome:
    """Run a case in one of its forms. Raises Skipped."""
    return RUNS[case.host](case, broken, seed, folder)


def _trainer(case: Case, broken: bool, seed: int, folder: Path) -> Outcome:
    from sourcewise.integrations.transformers import SourcewiseCallback

    watched = case.make(broken, seed, folder / "watched")
    callback = SourcewiseCallback(watched.trainer)
    watched.trainer.add_callback(callback)
    watched.trainer.train()
    harmed = ""
    if broken or case.control:  # mended forms train once: time
        alone = case.make(broken, seed, folder / "alone")
        alone.trainer.train()
        harmed = _changed(_losses(alone.trainer), _losses(watched.trainer))
    diagnosis = callback.diagnosis
    return Outcome(diagnosis.findings, watched.figure(), [str(line) for line in diagnosis.not_checked], harmed)


def _losses(trainer: Any) -> list[float]:
    return [line[key] for line in trainer.state.log_history for key in ("loss", "eval_loss") if key in line]


def _loop(case: Case, broken: bool, seed: int, folder: Path) -> Outcome:
    doctor = getattr(sourcewise, "doctor", None)
    if doctor is None:
        raise Skipped("sourcewise.doctor does not exist yet: plain loops cannot be watched")
    kept: list[Any] = []

    def watch(model: Any, optimizer: Any, **hints: Any) -> Any:
        kept.append(doctor(model, optimizer, **hints))
        return kept[-1]

    alone, figure = case.make(broken, seed, folder, lambda *_, **__: Nobody())
    watched, _ = case.make(broken, seed, folder, watch)
    diagnosis = kept[-1].diagnosis
    return Outcome(diagnosis.findings, figure, [str(line) for line in diagnosis.not_checked], _changed(alone, watched))


def _lightning(case: Case, broken: bool, seed: int, folder: Path) -> Outcome:
    from sourcewise.integrations.lightning import SourcewiseCallback

    watched: Fitted = case.make(broken, seed, folder / "watched")
    callback = SourcewiseCallback(**watched.options)
    watched.fit(callback)
    harmed = ""
    if broken or case.control:
        alone: Fitted = case.make(broken, seed, folder / "alone")
        alone.fit()
        harmed = _changed(alone.losses, watched.losses)
    diagnosis = callback.diagnosis
    return Outcome(diagnosis.findings, watched.figure(), [str(line) for line in diagnosis.not_checked], harmed)


def _diagnose(case: Case, broken: bool, seed: int, folder: Path) -> Outcome:
    judged: Judged | Script = case.make(broken, seed, folder)
    if isinstance(judged, Script):
        return _script(judged)
    try:
        diagnosis = sourcewise.diagnose(judged.model, judged.data, **judged.options)
    except sourcewise.RequestError as refusal:
        return Outcome([refused(refusal)], judged.figure())
    return Outcome(diagnosis.findings, judged.figure(), [str(line) for line in diagnosis.not_checked])


def _script(script: Script) -> Outcome:
    """By the command, as its user has it: in a process of its own."""
    command = [sys.executable, "-m", "sourcewise", "diagnose", "--script", script.file.name]
    command += ["--steps", str(script.steps), "--json"]
    done = subprocess.run(command, cwd=script.file.parent, capture_output=True, text=True)
    if done.returncode not in (0, 1) or not done.stdout:
        return Outcome([refused(RuntimeError(done.stderr.strip()[-500:]))], script.figure())
    said = json.loads(done.stdout)
    keys = ("code", "name", "level", "evidence", "cure")
    found = [Finding(**{key: each[key] for key in keys}) for each in said["findings"]]
    return Outcome(found, script.figure(), [str(line) for line in said["not_checked"]])


def _recipe(case: Case, broken: bool, seed: int, folder: Path) -> Outcome:
    from planted.exam import findings_of, merged

    from sourcewise.config import Recipe
    from sourcewise.training.run import Run

    planned: Planned = case.make(broken, seed, folder)
    recipe = Recipe.model_validate(planned.recipe)
    found = findings_of(recipe)
    folder = Path(recipe.output) / recipe.name
    if not any(folder.glob("*/")):  # refused: trained anyway, for the figure
        sourcewise.train(unchecked(planned.recipe), overwrite=True)
    elif planned.data is not None:
        found = merged([*found, *sourcewise.diagnose(folder, planned.data, **planned.options).findings])
    return Outcome(found, planned.figure(Run(folder)))


def unchecked(recipe: dict[str, Any]) -> Any:
    """A recipe that is trained whatever the pre-flight finds."""
    from sourcewise.config import Recipe

    return Recipe.model_validate(recipe | {"train": recipe["train"] | {"preflight": False}})


def refused(refusal: Exception) -> Finding:
    """A request that was refused in words, as a finding: it may name the cause, too."""
    return Finding(REFUSED, "refused", "error", str(refusal), "")


RUNS = {"trainer": _trainer, "loop": _loop, "lightning": _lightning, "diagnose": _diagnose, "recipe": _recipe}


def _changed(alone: list[float], watched: list[float]) -> str:
    """Where the losses of the two differ, in words; "" where they are the same (not a number is itself)."""
    if len(alone) != len(watched):
        return f"{len(alone)} losses without the doctor, {len(watched)} with it"
    for place, (a, b) in enumerate(zip(alone, watched, strict=True), 1):
        if a != b and not (a != a and b != b):
            return f"loss {place} is {a!r} without the doctor, {b!r} with it"
    return ""
