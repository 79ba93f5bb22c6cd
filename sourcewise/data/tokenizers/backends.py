"""Backends of `Tokenizer`: the library tokenizers, also for SentencePiece models, and transformers.

A folder is opened as the tokenizer class that it names, which may rebuild its tokenizer.json and knows how targets are
encoded. A tokenizer.json without a class, such as ours, is read as it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from sourcewise.data.tokenizers.classes import open_class
from sourcewise.data.tokenizers.fast import CONFIG, Fast, Frame, read_json
from sourcewise.data.tokenizers.languages import Languages
from sourcewise.errors import RequestError

SENTINEL = "<extra_id_{}>"  # T5's names of dropped spans
SENTENCEPIECE_FILES = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
NO_CLASS = ("PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer", "PythonBackend")


class Backend(Protocol):
    """Interface to a tokenizer library: plain ids, without a guarantee of an end of text."""

    size: int
    pad_id: int
    eos_id: int
    unk_id: int
    notes: tuple[str, ...]  # remarks for the user
    cuts_left: bool  # whether long texts are truncated at the beginning
    languages: Languages | None  # None: texts have no language codes

    def encode(self, texts: Sequence[str], target: bool = False) -> list[list[int]]:
        """Texts → ids with special tokens, as sources or targets."""
        ...

    def frame(self, target: bool = False) -> Frame:
        """The special tokens around a source, or a target."""
        ...

    def decode(self, ids: list[int]) -> str:
        """Ids in 0..size → text without special tokens."""
        ...

    def name(self, token: int) -> str:
        """The vocabulary's entry of an id: "▁the", "<extra_id_0>"; empty if there is none."""
        ...

    def find(self, name: str) -> int | None:
        """The id of an entry of the vocabulary; None if there is none."""
        ...

    def added(self) -> set[int]:
        """Ids of entries that were added after the training of the tokenizer, without special ones."""
        ...

    def add(self, entries: Sequence[str]) -> Backend:
        """A copy with new entries, whose ids start at `size`."""
        ...

    def save(self, folder: Path) -> None:
        """Write the files that transformers opens."""
        ...

    def in_languages(self, source: str, target: str) -> Backend:
        """A copy for these languages of sources and targets; empty: as they are. Raises RequestError for others."""
        ...

    def to_json(self) -> str:
        """The text of a tokenizer.json. Raises RequestError if that is impossible."""
        ...


def open_backend(path: str | Path) -> Backend:
    """Open a tokenizer.json, a SentencePiece .model, a folder with either, or a hub name, by the right library.

    Raises RequestError if it is missing or corrupt, or has no end of text.
    """
    where = Path(path).expanduser()
    if where.is_dir():
        return _open_folder(where)
    if where.is_file():
        return _open_file(where)
    if _looks_like_hub_name(str(path)):
        return open_class(str(path))
    raise RequestError(f"{path}: no such tokenizer; give a tokenizer.json, a SentencePiece .model, or a folder")


def read_backend(text: str) -> Backend:
    """The backend of a tokenizer.json's text. Raises RequestError if it has no end of text."""
    return Fast(text, "tokenizer")


def _open_file(path: Path) -> Backend:
    """Open a file as it stands, or by its class if a tokenizer.json alone is not enough."""
    return _open_folder(path.parent) if path.name == "tokenizer.json" and _of_class(path.parent) else Fast.load(path)


def _open_folder(folder: Path) -> Backend:
    whole = folder / "tokenizer.json"
    if whole.is_file() and not _of_class(folder):
        return Fast.load(whole)
    # A configuration may add to a bare model file: sentinels, shifted ids, bytes.
    if any((folder / name).is_file() for name in (CONFIG, "config.json")):
        return open_class(str(folder))
    for name in SENTENCEPIECE_FILES:
        if (folder / name).is_file():
            return Fast.load(folder / name)
    raise RequestError(f"{folder}: no tokenizer in this folder; it should hold tokenizer.json or spiece.model")


def _of_class(folder: Path) -> bool:
    """Whether a folder names the transformers class of its tokenizer."""
    named = read_json(folder / CONFIG).get("tokenizer_class")
    return named not in NO_CLASS if named else (folder / "config.json").is_file()


def _looks_like_hub_name(name: str) -> bool:
    return (
        not name.endswith((".json", ".model"))
        and not Path(name).is_absolute()
        and not name.startswith((".", "~"))
        and name.count("/") <= 1
    )
