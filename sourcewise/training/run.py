"""A run: the folder with everything one training produced."""

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
from sourcewise.data.readers.delimited import write_tsv
from sourcewise.errors import RequestError
from sourcewise.evaluation.results import Evaluation
from sourcewise.runtime.files import new_folder, write_atomically
from sourcewise.runtime.locks import hold
from sourcewise.training.events import LINES_FILE, Event, Line, append, as_text, read_lines, started

LOCK = ".lock"
UNUSED = (LOCK, "recipe.yaml.part")  # all that a kill before a training began may leave


@dataclass
class Run:
    """Paths and files of one run folder."""

    folder: Path
    evaluation: Evaluation | None = None  # the final one, once there

    @property
    def best(self) -> Path:
        """The checkpoint that did best on the validation set."""
        return self.folder / "checkpoints" / "best"

    @property
    def last(self) -> Path:
        """The checkpoint of the last evaluation."""
        return self.folder / "checkpoints" / "last"

    @property
    def state(self) -> Path:
        """The file an exact resume needs."""
        return self.folder / "state" / "state.pt"

    @property
    def notes(self) -> Path:
        """What in the data was not taken as it stands; not there where all was."""
        return self.folder / "notes.tsv"

    @property
    def tokenizer(self) -> Path:
        """The folder of the tokenizer it was trained with."""
        return self.folder / "tokenizer"

    @property
    def has_tokenizer(self) -> bool:
        """Whether that folder is complete: its configuration is written last."""
        return (self.tokenizer / "tokenizer_config.json").is_file()

    @property
    def recipe(self) -> Recipe:
        """The complete recipe of this run."""
        return load_recipe(self.folder / "recipe.yaml")

    @property
    def log(self) -> Path:
        """The file with a line an event."""
        return self.folder / LINES_FILE

    def metrics(self) -> list[Line]:
        """The lines of metrics.jsonl. Raises RequestError for one that is damaged."""
        return read_lines(self.log, strict=True)

    def clear(self) -> None:
        """Delete what a former run left in the folder."""
        for path in self.folder.iterdir():
            if path.name != LOCK:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def write_notes(self, notes: Sequence[Note]) -> None:
        """Write notes.tsv, where there are any: file, where, what."""
        if notes:
            write_tsv(self.notes, ("file", "where", "what"), ((note.file, note.where, note.what) for note in notes))

    def append(self, event: Event | Line) -> Line:
        """Add an event to metrics.jsonl, or a line as it stands there; the line is returned."""
        line = event.line() if isinstance(event, Event) else event
        append(self.log, line)
        return line

    @property
    def parameters(self) -> int:
        """How many parameters its network has, as the run noted when it began; 0: it did not."""
        return int(started(self.metrics()).get("parameters", 0))

    @property
    def native_code(self) -> str:
        """Which C++ its training used, as noted when it began; "" where none is for its device or none was noted."""
        said = str(started(self.metrics()).get("native code", ""))
        return "" if "is for the CPU" in said else said

    def rewind(self, step: int) -> None:
        """Drop the lines of metrics.jsonl after a step: a resumed run writes them again."""
        write_atomically(self.log, as_text(line for line in self.metrics() if line["step"] <= step))


def create_run(recipe: Recipe, *, resume: bool = False, overwrite: bool = False) -> Run:
    """Where a recipe's run will be, or the run to go on with. Nothing is written, or deleted, yet.

    Raises RequestError where the folder holds a run and neither `resume` nor `overwrite` was asked for, and where it
    holds anything else.
    """
    folder = Path(recipe.output).expanduser() / recipe.name
    if resume:
        if not (folder / "recipe.yaml").is_file():
            raise RequestError(f"{folder}: no run to resume here")
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
    """Write recipe.yaml whole or not at all."""
    part = run.folder / "recipe.yaml.part"
    save_recipe(recipe, part)
    os.replace(part, run.folder / "recipe.yaml")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run, made where it is not there: a second training of the same folder raises RequestError.

    A killed holder lets go by itself. Where the block fails before it wrote anything, the folder is gone again.
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
                file.close()  # Windows deletes no open file
                lock.unlink()
            raise
