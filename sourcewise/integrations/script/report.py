"""What becomes of a script that is watched: the doctor's answer, written to a file, and the script's end."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sourcewise.diagnosis.answer import Diagnosis

if TYPE_CHECKING:
    from sourcewise.integrations.script.hooks import Hooks
    from sourcewise.integrations.script.watcher import Watcher

PATIENCE = 3  # times that a script may catch its end


class Ended(BaseException):
    """The end of a script between two steps, once it was watched for as long as was asked."""


class Report:
    """Watches what the process does with torch once that is imported; see `child`."""

    def __init__(self, path: Path, steps: int) -> None:
        """Where the answer goes; after how many steps the script ends, 0 for never."""
        self.path, self.steps = path, steps
        self.refused = ""  # why there was nothing to run
        self.error = ""  # what the script raised
        self.trainers: list[Any] = []  # callbacks of Hugging Face's Trainers
        self.watcher: Watcher | None = None
        self.hooks: Hooks | None = None
        self.after: dict[str, Callable[[ModuleType], None]] = {
            "torch": self._torch,
            "transformers.trainer": self._trainer,
        }
        self._found: dict[str, Any] | None = None
        self._caught = 0

    def raised(self, problem: BaseException) -> None:
        """What ended the script."""
        self.error = type(problem).__name__

    def enough(self) -> None:
        """All steps were taken. Raises Ended, as often as the script catches it, within reason."""
        if self._found is None:
            self.write()
        self._caught += 1
        if self._caught <= PATIENCE:
            raise Ended
        if self.hooks is not None:
            self.hooks.remove()
            self.hooks = None
            self._put({"goes_on": True})
            print("sourcewise: the script catches every exception, its end too; it goes on, unwatched", file=sys.stderr)

    def write(self) -> None:
        """Write the answer, once."""
        if self._found is None:
            self._found = self._answer()
            self._put({})
        elif self.error:
            self._put({"error": self.error})

    def _put(self, more: dict[str, Any]) -> None:
        self._found = {**(self._found or {}), **more}
        self.path.write_text(json.dumps(self._found), encoding="utf-8")

    @contextlib.contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Within: a training is looked at by somebody who sees more of it."""
        hooks, self.hooks = self.hooks, None
        if hooks is not None:
            hooks.remove()
        try:
            yield
        finally:
            self.hooks = hooks
            if hooks is not None and self._found is None:
                hooks.install()

    def _torch(self, module: ModuleType) -> None:
        from sourcewise.integrations.script.hooks import Hooks

        self.hooks = Hooks(self._watch)
        self.hooks.install()

    def _watch(self) -> Watcher:
        """Made once something happens: until then nothing is imported that the script does not import."""
        from sourcewise.integrations.script.watcher import Watcher

        self.watcher = Watcher(self.steps, self.enough)
        return self.watcher

    def _trainer(self, module: ModuleType) -> None:
        from sourcewise.integrations.script.trainers import watch

        watch(module.Trainer, self)

    def _answer(self) -> dict[str, Any]:
        found: dict[str, Any] = {"refused": self.refused, "error": self.error, "torch": "torch" in sys.modules}
        if self.hooks is not None:
            self.hooks.remove()
        if any(each.step > each.began for each in self.trainers):
            from sourcewise.integrations.script.trainers import answer_of as of_trainers

            return found | of_trainers(self.trainers)
        if self.watcher is not None:
            found |= answer_of(self.watcher)
        return found


def answer_of(watcher: Watcher) -> dict[str, Any]:
    """What was seen of a loop: its diagnosis, how much was looked at, and what was not."""
    watcher.end()
    found: dict[str, Any] = {"passes": watcher.passes, "moves": watcher.moves}
    doctor = watcher.doctor
    problems = [f"{what}: {why}" for what, why in watcher.problems.items()]
    if doctor is None or (not watcher.moves and doctor.stepping.optimizers):
        return found | {"problems": problems}
    held_out = bool(watcher.batches.held_out)
    figures = doctor.evaluate(watcher.batches.to_evaluate(doctor), held_out=held_out)
    names = {type(module).__name__ for _, module in doctor.modules}
    others = {name: count for name, count in watcher.others.items() if name not in names}
    problems += [f"{name}: learns in steps of its own, {count} of them" for name, count in others.items()]
    lines = [line for line in doctor.recorder.lines if line.get("kind") == "train"]
    diagnosis = doctor.diagnosis
    whole = Diagnosis(diagnosis.findings, [*diagnosis.not_checked, *problems], diagnosis.seconds)
    losses = [line["loss"] for line in lines if isinstance(line.get("loss"), float) and math.isfinite(line["loss"])]
    return found | {
        "diagnosis": whole.to_dict(),
        "model": ", ".join(type(module).__name__ for _, module in doctor.modules),
        "steps": doctor.history.global_step,
        "losses": [losses[0], losses[-1]] if losses else [],
        "source_bits": figures.get("source_bits"),
        "source_bits_ci95": figures.get("source_bits_ci95"),
        "held_out": held_out,
    }
