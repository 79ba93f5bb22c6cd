"""Writes a model for another program and checks what was written: the work of the command `export`."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sourcewise.data.examples import Dataset
from sourcewise.data.open import open_sources
from sourcewise.data.request import SourceRequest
from sourcewise.errors import RequestError
from sourcewise.exporting.checking import Check, compared, greedy, own_outputs, sources_for
from sourcewise.exporting.kinds import Kind, Task
from sourcewise.generation.model import Model, load
from sourcewise.model.network import Seq2Seq
from sourcewise.model.weights.checkpoint import find_folder
from sourcewise.runtime.files import new_folder

KINDS = ("hf", "ctranslate2", "onnx", "gguf")
CARD = "README.md"


@dataclass(frozen=True, slots=True)
class Exported:
    """The written folder, its kind, and the check of its outputs."""

    folder: Path
    kind: str
    check: Check
    card: bool  # whether it has a model card

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        check = self.check
        counts = {"sources": check.sources, "same": check.same, "made": check.made, "by": check.by}
        return {"folder": str(self.folder), "to": self.kind, "card": self.card, **counts, "first": check.first or None}


def export(
    model: Model | str | Path,
    folder: str | Path,
    to: str = "hf",
    sources: str | Path | Dataset | list[str] | None = None,
    features: str | None = None,
) -> Exported:
    """Write a run's best checkpoint, or any model, for another program: `hf`, `ctranslate2`, `onnx` or `gguf`.

    Adapters are merged. Then the greedy outputs of what was written are compared with the model's own, on the first 100
    of `sources` or on 100 that are made. Raises RequestError if that format cannot hold the model, and if something is
    in the folder; then nothing is written.
    """
    path = Path(folder).expanduser()
    if to not in KINDS:
        raise RequestError(f"--to {to}: not one of {', '.join(KINDS)}")
    _check_free(path)
    opened = model if isinstance(model, Model) else load(model, "cpu")
    if not isinstance(opened.network, Seq2Seq):
        raise RequestError(f"{opened.name}: an ensemble is exported model by model")
    kind = _kind(to)
    reason = kind.why_not(opened)
    if reason:
        raise RequestError(f"{opened.name}: {reason}; --to hf holds every model")
    given = _given(opened, sources, features)
    with _complete_or_none(path), tempfile.TemporaryDirectory() as scratch:
        plain = path if to == "hf" else Path(scratch) / "hf"
        opened.save(plain)
        path.mkdir(parents=True, exist_ok=True)
        task = Task(opened, plain, path)
        kind.write(task)
        card = _copy_card(opened.name, path)
        check = _checked(kind, task, given)
    return Exported(path, to, check, card)


def _kind(to: str) -> Kind:
    """The module of a kind, which is imported only now, as an object of its class."""
    made: Kind = importlib.import_module(f"sourcewise.exporting.{'huggingface' if to == 'hf' else to}").KIND
    return made


def _check_free(path: Path) -> None:
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RequestError(f"{path}: something is there; name a folder that is new or empty")


def _given(model: Model, sources: str | Path | Dataset | list[str] | None, features: str | None) -> Dataset | None:
    """The sources of the check, if any are given. Raises RequestError for features without a manifest."""
    if sources is None:
        if features:
            raise RequestError("--features goes with --check MANIFEST")
        return None
    if isinstance(sources, Dataset):
        return sources
    if isinstance(sources, list):
        return open_sources(sources)
    return SourceRequest(model.data, None, features, None).sources(str(sources), str(sources))


@contextmanager
def _complete_or_none(path: Path) -> Iterator[None]:
    """Within: a folder is written; if that fails, nothing stays."""
    with new_folder(path.parent):
        try:
            yield
        except BaseException:
            there = path.is_dir()
            if there:
                shutil.rmtree(path, ignore_errors=True)
            raise


def _copy_card(name: str, folder: Path) -> bool:
    """Copy the model card of a run's best checkpoint, or of another folder, beside the weights."""
    card = find_folder(name) / CARD if name and Path(name).expanduser().exists() else Path()
    if not card.is_file():
        return False
    shutil.copyfile(card, folder / CARD)
    return True


def _checked(kind: Kind, task: Task, given: Dataset | None) -> Check:
    model = task.model
    encoded = model.lay_out(sources_for(model, given))
    encoded.tell()
    options = kind.options(greedy(model))
    ours = own_outputs(model, encoded, options)
    return compared(model, ours, kind.outputs(task, encoded, options), kind.by, given is None)
