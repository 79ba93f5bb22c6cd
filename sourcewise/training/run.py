"""A run: the folder with all files of one training."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sourcewise.config import Recipe
from sourcewise.config.files import load_recipe, save_recipe
from sourcewise.data.examples import Note
from sourcewise.data.profiles.profile import PROFILE_FILE
from sourcewise.data.readers.delimited import write_tsv
from sourcewise.errors import RequestError
from sourcewise.evaluation.results import Evaluation
from sourcewise.runtime.files import new_folder, write_atomically
from sourcewise.runtime.locks import hold
from sourcewise.training.events import LINES_FILE, Event, Line, append, as_text, read_lines, started

LOCK = ".lock"
UNUSED = (LOCK, "recipe.yaml.part")  # files that a kill before the training may leave


@dataclass
class Run:
    """Paths and files of one run folder."""

    folder: Path
    evaluation: Evaluation | None = None  # the final one, once there

    def __post_init__(self) -> None:
        """The paths in the folder."""
        self.best = self.folder / "checkpoints" / "best"  # the checkpoint with the best validation figure
        self.last = self.folder / "checkpoints" / "last"  # that of the last evaluation
        self.state = self.folder / "state" / "state.pt"  # for an exact resume
        self.notes = self.folder / "notes.tsv"  # on data that is not used as it stands; missing without notes
        self.profile = self.folder / PROFILE_FILE  # what its training sets look like
        self.tokenizer = self.folder / "tokenizer"  # a folder
        self.log = self.folder / LINES_FILE  # one line per event

    @property
    def exists(self) -> bool:
        """Whether a run is in its folder."""
        return (self.folder / "recipe.yaml").is_file()

    @property
    def has_tokenizer(self) -> bool:
        """Whether the tokenizer's folder is complete; its configuration is written last."""
        return (self.tokenizer / "tokenizer_config.json").is_file()

    @property
    def recipe(self) -> Recipe:
        """The complete recipe of this run."""
        return load_recipe(self.folder / "recipe.yaml")

    def metrics(self) -> list[Line]:
        """The lines of metrics.jsonl. Raises RequestError for a damaged line."""
        return read_lines(self.log, strict=True)

    def clear(self) -> None:
        """Delete the files of a former run in the folder."""
        for path in self.folder.iterdir():
            if path.name != LOCK:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def write_notes(self, notes: Sequence[Note]) -> None:
        """Write notes.tsv (file, where, what) if there are notes."""
        if notes:
            write_tsv(self.notes, ("file", "where", "what"), ((note.file, note.where, note.what) for note in notes))

    def append(self, event: Event | Line) -> Line:
        """Append an event, or a finished line, to metrics.jsonl; returns the line."""
        line = event.line() if isinstance(event, Event) else event
        append(self.log, line)
        return line

    @property
    def parameters(self) -> int:
        """Number of parameters as logged at the start; 0 if not logged."""
        return int(started(self.metrics()).get("parameters", 0))

    @property
    def native_code(self) -> str:
        """Native code of the training as logged at the start; empty if there is none or it is not logged."""
        said = str(started(self.metrics()).get("native code", ""))
        return "" if "is for the CPU" in said else said

    def rewind(self, step: int) -> None:
        """Delete the lines of metrics.jsonl after a step, which a resumed run writes again."""
        write_atomically(self.log, as_text(line for line in self.metrics() if line["step"] <= step))


def create_run(recipe: Recipe, *, resume: bool = False, overwrite: bool = False) -> Run:
    """The run of a recipe, new or to be resumed; nothing is written or deleted yet.

    With `resume` it may not be there yet, and begins. Raises RequestError if the folder holds a run and neither
    `resume` nor `overwrite` is set, and if it holds other files.
    """
    folder = Path(recipe.output).expanduser() / recipe.name
    if resume and (folder / "recipe.yaml").is_file():
        return Run(folder)
    if folder.exists() and not folder.is_dir():
        raise RequestError(f"{folder}: a file is in the way; set --name or --output")
    if folder.exists() and any(p.name not in UNUSED for p in folder.iterdir()):
        if not (folder / "recipe.yaml").is_file():
            raise RequestError(f"{folder}: not empty, and not a run, so nothing is written there; set --name")
        if not overwrite:
            raise RequestError(
                f"{folder}: a run is there; go on with --resume, replace with --overwrite, or set --name"
            )
    return Run(folder)


def write_recipe(run: Run, recipe: Recipe) -> None:
    """Write recipe.yaml atomically."""
    part = run.folder / "recipe.yaml.part"
    save_recipe(recipe, part)
    os.replace(part, run.folder / "recipe.yaml")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within: the run's folder, made if necessary, is locked; a second training there raises RequestError.

    The lock of a killed process is released. If the block fails before it writes a file, the folder is removed.
    """
    lock = folder / LOCK
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(new_folder(folder))
            file = stack.enter_context(lock.open("w"))
        except OSError as error:
            raise RequestError(f"{folder}: cannot be made ({error.strerror})") from None
        if not hold(file):
            raise RequestError(f"{folder}: another process is training here")
        try:
            yield
        except BaseException:
            if all(p.name == LOCK for p in folder.iterdir()):
                file.close()  # Windows cannot delete an open file
                lock.unlink()
            raise
