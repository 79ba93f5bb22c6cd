"""What tests of whole command lines share: tiny runs, data beside them, and a look at what a command left."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TINY = (
    "--model.d_model 8 --model.d_ff 8 --model.heads 1 --model.encoder_layers 1 --model.decoder_layers 1 --train.steps 2"
    " --train.preflight false"
)
DIMS = 4
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[1])}


@dataclass(frozen=True)
class Models:
    """One tiny run of each kind, trained once."""

    text: Path
    features: Path


class NoPages:
    """A `Listener` in the place of the one that draws."""

    def started(self, run: object, step: int, total: int) -> None: ...

    def stepped(self, step: int, line: object) -> None: ...

    def evaluated(self, line: object) -> None: ...

    def stopped(self, run: object, finished: bool) -> None: ...

    def done(self, run: object) -> None: ...

    def interrupted(self, run: object) -> None: ...


def write_features(folder: Path, name: str = "m.tsv", lengths: tuple[int, ...] = (6, 8, 5), dims: int = DIMS) -> None:
    (folder / "features").mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for i, frames in enumerate(lengths):
        np.save(folder / "features" / f"clip{i}.npy", rng.standard_normal((frames, dims)).astype("float32"))
    rows = [f"clip{i}\t{frames}\tword {i}\n" for i, frames in enumerate(lengths)]
    (folder / name).write_text("id\tn_frames\ttext\n" + "".join(rows))


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, with what the files hold."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


class Bomb:
    """Leaves a folder where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unpickled",)
