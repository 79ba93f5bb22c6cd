"""COMET of outputs, by its own command line in an environment of its own.

unbabel-comet needs transformers below 5 and numpy below 2, so it cannot be installed beside sourcewise. Its command
`comet-score` is run as another process; it has to be on the PATH.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sourcewise.errors import RequestError
from sourcewise.metrics.adapted import PerExample
from sourcewise.metrics.counting import Scorer

COMMAND = "comet-score"
MODEL = "Unbabel/wmt22-comet-da"
INSTALL = "it needs an environment of its own: pipx install unbabel-comet"


def comet_scorer(
    sources: Sequence[str], references: Sequence[str], systems: Sequence[Sequence[str]], model: str = MODEL
) -> Scorer:
    """The scorer of COMET, about 0..1, that knows these systems' outputs; one reference per example.

    Raises RequestError if `comet-score` is not installed or fails.
    """
    command = shutil.which(COMMAND)
    if command is None:
        raise RequestError(f"comet: no command {COMMAND}; {INSTALL}")
    distinct = list(dict.fromkeys(map(tuple, systems)))
    scores = _run(command, sources, references, distinct, model)
    found = Scorer("comet", PerExample("COMET", {"model": model.replace("|", "/"), "version": _version(command)}))
    for outputs, each in zip(distinct, scores, strict=True):
        found.know(outputs, np.array([[score, 1.0] for score in each]))
    return found


def comet_scores(
    sources: Sequence[str], references: Sequence[str], outputs: Sequence[str], model: str = MODEL
) -> list[float]:
    """COMET of each output. Raises RequestError if `comet-score` is not installed or fails."""
    command = shutil.which(COMMAND)
    if command is None:
        raise RequestError(f"comet: no command {COMMAND}; {INSTALL}")
    return _run(command, sources, references, [outputs], model)[0]


def _run(
    command: str,
    sources: Sequence[str],
    references: Sequence[str],
    systems: Sequence[Sequence[str]],
    model: str,
) -> list[list[float]]:
    """Scores of every system's outputs, in order."""
    with tempfile.TemporaryDirectory() as folder:
        names = {"sources": sources, "references": references}
        names |= {f"system{i}": outputs for i, outputs in enumerate(systems)}
        files = {name: Path(folder, f"{name}.txt") for name in names}
        for name, texts in names.items():
            files[name].write_text("".join(" ".join(text.split()) + "\n" for text in texts), encoding="utf-8")
        hypotheses = [str(files[f"system{i}"]) for i in range(len(systems))]
        result = Path(folder, "scores.json")
        words = [command, "-s", str(files["sources"]), "-r", str(files["references"]), "-t", *hypotheses]
        done = subprocess.run(
            [*words, "--model", model, "--quiet", "--to_json", str(result)], capture_output=True, text=True
        )
        if done.returncode or not result.is_file():
            last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
            raise RequestError(f"comet: {COMMAND} --model {model} failed: {last}")
        return _scores(json.loads(result.read_text(encoding="utf-8")), hypotheses, len(sources))


def _scores(found: dict[str, list[dict[str, float]]], names: Sequence[str], examples: int) -> list[list[float]]:
    """The scores in what `comet-score --to_json` wrote: system → of every example a mapping with its COMET."""
    columns = [[float(row["COMET"]) for row in found.get(name, ())] for name in names]
    wrong = next((each for each in columns if len(each) != examples), None)
    if wrong is not None:
        raise RequestError(f"comet: {COMMAND} gave {len(wrong):,} scores for {examples:,} examples")
    return columns


def _version(command: str) -> str:
    """comet-VERSION, or comet where the command does not tell it."""
    done = subprocess.run([command, "--version"], capture_output=True, text=True)
    told = re.search(r"\d+(\.\d+)+", done.stdout) if done.returncode == 0 else None
    return f"comet-{told[0]}" if told else "comet"
