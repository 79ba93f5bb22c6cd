"""What is behind `Tokenizer`: the library tokenizers, which reads SentencePiece models too, and transformers.

A folder is opened as the tokenizer class that it names, which may rebuild what its tokenizer.json says and knows how
targets are written; a tokenizer.json that is of no class in particular, such as ours, is read as it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from sourcewise.data.tokenizers.classes import open_class
from sourcewise.data.tokenizers.fast import CONFIG, Fast, Frame, read_json
from sourcewise.data.tokenizers.languages import Languages
from sourcewise.errors import RequestError

SENTINEL = "<extra_id_{}>"  # T5's names for the spans dropped from a text
SENTENCEPIECE_FILES = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
NO_CLASS = ("PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer", "PythonBackend")


class Backend(Protocol):
    """What a library must do for us: plain ids, without a promise about the end of text."""

    size: int
    pad_id: int
    eos_id: int
    unk_id: int
    notes: tuple[str, ...]  # what a person should know of how it was opened
    cuts_left: bool  # whether long texts lose their beginning
    languages: Languages | None  # None: its texts are marked with none

    def encode(self, texts: Sequence[str], target: bool = False) -> list[list[int]]:
        """Texts → ids, special tokens included: as sources, or as targets."""
        ...

    def frame(self, target: bool = False) -> Frame:
        """The special tokens around a source, or a target."""
        ...

    def decode(self, ids: list[int]) -> str:
        """Ids, all within 0..size, → text without special tokens."""
        ...

    def name(self, token: int) -> str:
        """The entry of the vocabulary as it is written there: "▁the", "<extra_id_0>"; empty where there is none."""
        ...

    def find(self, name: str) -> int | None:
        """The id of an entry of the vocabulary, or None."""
        ...

    def added(self) -> set[int]:
        """Ids of texts that were made entries after the tokenizer was trained, special ones apart."""
        ...

    def add(self, entries: Sequence[str]) -> Backend:
        """One with these entries, their ids from `size` on."""
        ...

    def save(self, folder: Path) -> None:
        """Write the files transformers opens."""
        ...

    def to_json(self) -> str:
        """The text of a tokenizer.json. Raises RequestError where there can be none."""
        ...


def open_backend(path: str | Path) -> Backend:
    """A tokenizer.json, a SentencePiece .model, a folder with either, or a hub name, opened by the library it is for.

    Raises RequestError when it is missing, corrupt, or has no token that ends a text.
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
    """What the text of a tokenizer.json says. Raises RequestError when it has no token that ends a text."""
    return Fast(text, "tokenizer")


def _open_file(path: Path) -> Backend:
    """A file as it stands, but for the tokenizer.json of a class that has more to say."""
    return _open_folder(path.parent) if path.name == "tokenizer.json" and _of_class(path.parent) else Fast.load(path)


def _open_folder(folder: Path) -> Backend:
    whole = folder / "tokenizer.json"
    if whole.is_file() and not _of_class(folder):
        return Fast.load(whole)
    # A configuration may say what a bare model file does not: sentinels, shifted ids, bytes.
    if any((folder / name).is_file() for name in (CONFIG, "config.json")):
        return open_class(str(folder))
    for name in SENTENCEPIECE_FILES:
        if (folder / name).is_file():
            return Fast.load(folder / name)
    raise RequestError(f"{folder}: no tokenizer in this folder; it should hold tokenizer.json or spiece.model")


def _of_class(folder: Path) -> bool:
    """Whether a folder says which class of transformers its tokenizer is of."""
    named = read_json(folder / CONFIG).get("tokenizer_class")
    return named not in NO_CLASS if named else (folder / "config.json").is_file()


def _looks_like_hub_name(name: str) -> bool:
    return (
        not name.endswith((".json", ".model"))
        and not Path(name).is_absolute()
        and not name.startswith((".", "~"))
        and name.count("/") <= 1
    )
