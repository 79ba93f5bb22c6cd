"""Trainings that several processes have to do as one does, and what they wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from sourcewise.config import Recipe
from sourcewise.config.files import save_recipe
from tests.commands import ENVIRONMENT
from tests.training.recipes import feature_recipe, recipe
from tests.training.test_trainer import everything

SAME: dict[str, Any] = {
    "train__parts": 12,
    "train__precision": "fp32",
    "train__log_every": 1,
    "train__steps": 10,
    "train__evaluate_every": 10,
    "model__dropout": 0.1,
}
TIMED = ("seconds", "tokens_per_s", "peak_mb")


def text(folder: Path, **changes: Any) -> Recipe:
    return recipe(folder, **{**SAME, **changes})


def features(folder: Path, **changes: Any) -> Recipe:
    return feature_recipe(folder, **{**SAME, "train__batch_tokens": 800, **changes})


def all_switched_on(folder: Path) -> Recipe:
    made = everything(folder, "everything")
    of = {"parts": 12, "precision": "fp32", "log_every": 1, "steps": 10, "evaluate_every": 5}
    return made.model_copy(update={"train": made.train.model_copy(update=of)})


MADE: dict[str, Callable[[Path], Recipe]] = {
    "plain": lambda folder: text(folder, name="plain"),
    "everything": all_switched_on,
    "contrastive": lambda folder: text(
        folder, name="contrastive", train__contrastive=0.5, train__unfreeze={"encoder": 0.1}, train__accumulate=3
    ),
    "untied": lambda folder: text(folder, name="untied", model__tied=False, train__scale_updates=True),
    "bart": lambda folder: text(folder, name="bart", model__family="bart", train__guided_attention=0.1),
    "rnn": lambda folder: text(folder, name="rnn", model__family="rnn"),
    "decoder": lambda folder: text(folder, name="decoder", model__family="decoder"),
}


def written(folder: Path, names: Sequence[str], **options: Any) -> list[Path]:
    """The recipes of these names as files in a folder; `options` are those of the training."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names:
        paths.append(folder / f"{name}.yaml")
        made = MADE[name](folder)
        save_recipe(made.model_copy(update={"train": made.train.model_copy(update=options)}), paths[-1])
    return paths


def environment() -> dict[str, str]:
    """That of a user's shell, with one thread per process."""
    mine = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    kept = {name: value for name, value in ENVIRONMENT.items() if name not in mine}
    return {**kept, "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def torchrun(world: int, *words: str | Path, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    """`python -m WORDS` by so many processes."""
    agent = f"-m torch.distributed.run --standalone --nproc-per-node {world} --max-restarts {restarts}".split()
    called = [sys.executable, *agent, "-m", *map(str, words)]
    return subprocess.run(called, env=environment(), capture_output=True, text=True, timeout=600, check=False)


def lines(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, without what a clock or the machine says."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMED} for line in found if line["kind"] != "start"]


def weights(run: Path) -> dict[str, Tensor]:
    """Those of the last checkpoint, of bridge and network."""
    found: dict[str, Tensor] = {}
    for path in sorted((run / "checkpoints" / "last").glob("*.safetensors")):
        found |= {f"{path.stem} {name}": tensor for name, tensor in load_file(path).items()}
    return found


def furthest(one: Path, other: Path) -> tuple[float, float]:
    """Largest difference of a step's loss in nats, and of a tensor of the weights relative to its norm."""
    first, second = ([line for line in lines(run) if line["kind"] == "train"] for run in (one, other))
    assert [line["step"] for line in first] == [line["step"] for line in second]
    loss = max(abs(a["loss"] - b["loss"]) for a, b in zip(first, second, strict=True))
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    # A softmax does not change with the bias of its keys: their gradients are rounding, of which AdamW makes updates.
    compared = [name for name in ours if not name.endswith("k_proj.bias")]
    return loss, max(float((ours[name] - theirs[name]).norm() / ours[name].norm().clamp(min=1e-3)) for name in compared)
