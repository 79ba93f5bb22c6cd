"""What `export` can write: a `Kind` is one program's format, with its reasons against a model and its own outputs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sourcewise.config import GenerationConfig
from sourcewise.data.encoding import ExampleSet
from sourcewise.errors import RequestError
from sourcewise.model.network import Seq2Seq

if TYPE_CHECKING:
    from sourcewise.generation.model import Model

Ids = list[int]
MODEL_FILES = ("config.json", "model.safetensors", "sourcewise.json", "bridge.safetensors")


@dataclass(frozen=True, slots=True)
class Task:
    """A model to export, its Hugging Face folder, and the new folder to write."""

    model: Model
    source: Path
    folder: Path


class Kind(Protocol):
    """One format."""

    by: str  # what computes the outputs of its files in the check, in words

    def why_not(self, model: Model) -> str:
        """Why this model cannot be written so, in words that go on after its name; empty: it can."""

    def write(self, task: Task) -> None:
        """Write the files. Raises RequestError."""

    def options(self, options: GenerationConfig) -> GenerationConfig:
        """Those of the greedy options that this format's program follows."""

    def outputs(self, task: Task, encoded: ExampleSet, options: GenerationConfig) -> list[Ids]:
        """The greedy output of each source, computed from the written files: its ids, without the start."""


def why_no_tokens(model: Model, reader: str) -> str:
    """Why a format whose `reader` ("the graphs read", say) takes tokens cannot hold this model; empty: it may."""
    network = model.network
    assert isinstance(network, Seq2Seq)
    return f"reads features, and {reader} tokens" if network.dims else ""


def copy_beside(source: Path, folder: Path, without: Sequence[str] = MODEL_FILES) -> None:
    """Copy tokenizer and settings of a Hugging Face folder beside files of another format."""
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name not in without:
            shutil.copyfile(path, folder / path.name)


def needs(name: str, module: str) -> RequestError:
    """The error of a library that is not installed."""
    return RequestError(f"--to {name} takes {module}, which is not installed: pip install 'sourcewise[export]'")
