"""Somebody's own training script, watched for some steps and diagnosed: nothing of it is changed.

It runs in a process of its own as it always does, by the same interpreter, with its own words, folder, streams and
exit status. See `child` for that process.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sourcewise.diagnosis.answer import Diagnosis
from sourcewise.diagnosis.finding import Finding
from sourcewise.errors import RequestError
from sourcewise.integrations.script.program import Program

STEPS = 60  # that are watched
PATIENT = 20.0  # seconds, in which a script that has ended may end its threads


@dataclass(frozen=True, slots=True)
class Watched:
    """What a script showed: the diagnosis, in a line what was looked at, and the exit status of its process."""

    diagnosis: Diagnosis
    words: str
    status: int


def watch_script(name: str, arguments: Sequence[str] = (), *, steps: int = STEPS, quiet: bool = False) -> Watched:
    """Run a script, or a module as `python -m` does, and diagnose the training in it.

    It is ended after so many `steps`, between two of them; 0 lets it run to its own end. With `quiet` what it prints
    goes to standard error. Raises RequestError where there is no such script, or no training was seen in it.
    """
    if steps < 0:
        raise RequestError(f"--steps {steps}: is a number of steps; 0 lets the script run to its end")
    Program(name, arguments).check()
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        words = [sys.executable, str(Path(__file__).with_name("child.py")), str(answer), str(steps), name, *arguments]
        status = _run(words, answer, quiet)
        found = json.loads(answer.read_text("utf-8")) if answer.is_file() else {}
    if found.get("refused"):
        raise RequestError(found["refused"])
    end = _end(found, status)
    if "diagnosis" not in found:
        raise RequestError(f"{name}: {_why(found)}{f'; it ended by {end}' if end else ''}")
    return Watched(_diagnosis(found["diagnosis"]), _words(name, found, end), status)


def _run(words: Sequence[str], answer: Path, quiet: bool) -> int:
    """The exit status of the process. A Ctrl-C is the script's to answer; what is left of it after its end is ended."""
    process = subprocess.Popen(words, stdout=sys.stderr if quiet else None)
    seen = False
    while True:
        try:
            return process.wait(PATIENT)
        except subprocess.TimeoutExpired:
            if seen and _is_over(answer):
                process.terminate()
                print("sourcewise: the script's threads did not end with it; its process was ended", file=sys.stderr)
                process.wait()
                return 0
            seen = answer.is_file()
        except KeyboardInterrupt:
            continue


def _is_over(answer: Path) -> bool:
    with contextlib.suppress(ValueError, OSError):
        return not json.loads(answer.read_text("utf-8")).get("goes_on")
    return False


def _end(found: dict[str, Any], status: int) -> str:
    """What ended the script, where it did not end well."""
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"signal {-status} ({signal.Signals(-status).name})"
        return f"signal {-status}"
    if found.get("error"):
        return f"{found['error']} (exit status {status})"
    return f"exit status {status}" if status else ""


def _why(found: dict[str, Any]) -> str:
    """Why nothing can be said."""
    if not found:
        return "its process ended before anything could be told of it"
    if not found["torch"]:
        return "torch was not imported; a training in PyTorch, a Trainer or Lightning can be watched"
    if problems := found.get("problems"):
        return "; ".join(problems)
    passes = found.get("passes", 0)
    if passes and not found.get("moves"):
        return (
            f"{passes} backward passes, but no optimizer took a step: call optimizer.step() after loss.backward(), on "
            "an optimizer of torch that holds the model's weights"
        )
    return (
        "no training was seen in its process: no module that learns was called and followed by backward(); what trains "
        "in processes of its own (torch.multiprocessing.spawn, a launcher) is to be run as one"
    )


def _words(name: str, found: dict[str, Any], end: str) -> str:
    """In a line, what was looked at."""
    words = f"{name}: {found['steps']} steps of {found['model']}"
    if len(found.get("losses", ())) == 2:
        words += ", loss {:.2f} → {:.2f}".format(*found["losses"])
    if found.get("source_bits") is not None:
        low, high = found.get("source_bits_ci95") or (None, None)
        interval = "" if low is None else f" ({low:.2f} to {high:.2f})"
        kind = "held-out" if found.get("held_out") else "training"
        words += f", source bits {found['source_bits']:.2f}{interval} on {kind} examples"
    return f"{words}; it ended by {end}" if end else words


def _diagnosis(found: dict[str, Any]) -> Diagnosis:
    findings = [Finding(**each) for each in found["findings"]]
    return Diagnosis(findings, found["not_checked"], found["seconds"])
