"""The libraries behind `Tokenizer`: tokenizers, which reads SentencePiece models too, and what transformers opens."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from sourcewise.data import hub
from sourcewise.errors import RequestError

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"  # T5's names and, in this order, its ids
SENTINEL = "<extra_id_{}>"  # T5's names for the spans dropped from a text
SENTENCEPIECE_FILES = ("spiece.model", "sentencepiece.bpe.model", "tokenizer.model")
ROLES = ("pad_token", "eos_token", "unk_token")
CONFIG_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


class Backend(Protocol):
    """What a library must do for us: plain ids, without a promise about the end of text."""

    size: int
    pad_id: int
    eos_id: int
    unk_id: int

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Texts → ids."""
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
        return _Fast.load(where)
    if _looks_like_hub_name(str(path)):
        return _Transformers(str(path))
    raise RequestError(f"{path}: no such tokenizer; give a tokenizer.json, a SentencePiece .model, or a folder")


def read_backend(text: str) -> Backend:
    """What the text of a tokenizer.json says. Raises RequestError when it has no token that ends a text."""
    return _Fast(text, "tokenizer")


class _Fast:
    """The text of a tokenizer.json, and the configuration files that came with it.

    The text is kept and saved as it is: reading it changes the last digit of some scores.
    """

    def __init__(self, text: str, where: str, names: dict[str, str] | None = None, folder: Path | None = None) -> None:
        import tokenizers

        try:
            self._tokenizer = tokenizer = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise RequestError(f"{where}: not a tokenizer.json: {str(error).splitlines()[0]}") from None
        self._text = text
        self._folder = folder
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.size = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self._names = _special_names(tokenizer.token_to_id, names or {}, where)
        ids = tokenizer.get_vocab(with_added_tokens=True)
        self.pad_id, self.eos_id, self.unk_id = (ids[name] for name in self._names.values())

    @classmethod
    def load(cls, path: Path) -> _Fast:
        data = _read(path)
        if path.suffix == ".model":
            return cls._from_sentencepiece(path, data)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise RequestError(f"{path}: not a tokenizer.json: it is not UTF-8 text") from None
        return cls(text, str(path), _declared_names(path.parent), path.parent)

    @classmethod
    def _from_sentencepiece(cls, path: Path, data: bytes) -> _Fast:
        from sourcewise.data.sentencepiece_models import convert, parse

        try:
            model = parse(data)
        except ValueError:
            raise RequestError(f"{path}: not a SentencePiece model, or cut off; copy it again") from None
        if not 0 <= model.eos_id < len(model.pieces):
            raise RequestError(f"{path}: has no end-of-text piece; train it with an eos_id")
        names = {"eos_token": model.pieces[model.eos_id][0], "unk_token": model.pieces[model.unk_id][0]}
        if 0 <= model.pad_id < len(model.pieces):
            names["pad_token"] = model.pieces[model.pad_id][0]
        return cls(convert(model).to_str(pretty=True), str(path), names)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]

    def decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)

    def name(self, token: int) -> str:
        return self._tokenizer.id_to_token(token) or ""

    def find(self, name: str) -> int | None:
        return self._tokenizer.token_to_id(name)

    def added(self) -> set[int]:
        return {i for i, entry in self._tokenizer.get_added_tokens_decoder().items() if not entry.special}

    def add(self, entries: Sequence[str]) -> _Fast:
        from sourcewise.data.tokenizer_adding import add_entries

        return _Fast(add_entries(self._text, self.size, entries), "tokenizer", self._names)

    def to_json(self) -> str:
        return self._text

    def save(self, folder: Path) -> None:
        _write(folder / "tokenizer.json", self.to_json())
        copied = self._folder is not None and _copy(self._folder, folder, CONFIG_FILES)
        if copied and (folder / "tokenizer_config.json").is_file():
            return
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **self._names,
            "model_max_length": 1_000_000,
            "clean_up_tokenization_spaces": False,
        }
        _write(folder / "tokenizer_config.json", json.dumps(config, indent=2, ensure_ascii=False))
        _write(folder / "special_tokens_map.json", json.dumps(self._names, indent=2, ensure_ascii=False))


class _Transformers:
    """Any tokenizer class of transformers: slow ones, byte-level ones, those with rules of their own."""

    def __init__(self, name: str) -> None:
        import transformers

        self._name = name
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        except Exception as error:  # a dozen kinds, some from the network
            raise RequestError(f"{name}: no tokenizer can be opened there: {hub.reason(error)}") from None
        self.size = len(self._tokenizer)
        if len(set(self._tokenizer.get_vocab()) - set(self._tokenizer.all_special_tokens)) < 2:
            # transformers makes one of special tokens alone where the files of the vocabulary are not there
            raise RequestError(f"{name}: its tokenizer has no vocabulary; tokenizer.json or spiece.model is missing")
        if self._tokenizer.eos_token_id is None:
            raise RequestError(f"{name}: its tokenizer has no end-of-text token, which every target needs")
        self.eos_id: int = self._tokenizer.eos_token_id
        self.unk_id: int = _first(self._tokenizer.unk_token_id, self.eos_id)
        self.pad_id: int = _first(self._tokenizer.pad_token_id, self.unk_id)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(ids) for ids in self._tokenizer(list(texts), verbose=False)["input_ids"]] if texts else []

    def decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def name(self, token: int) -> str:
        return str(self._tokenizer.convert_ids_to_tokens(token) or "")

    def find(self, name: str) -> int | None:
        found: Any = self._tokenizer.convert_tokens_to_ids(name)  # that of the unknown where there is none
        return None if found is None or self._tokenizer.convert_ids_to_tokens(found) != name else int(found)

    def added(self) -> set[int]:
        return {i for i, entry in self._tokenizer.added_tokens_decoder.items() if not entry.special}

    def add(self, entries: Sequence[str]) -> Backend:
        if getattr(self._tokenizer, "backend_tokenizer", None) is not None:
            named = {role: str(getattr(self._tokenizer, role) or "") for role in ROLES}
            return _Fast(self.to_json(), self._name, named).add(entries)
        import tokenizers

        larger = copy.copy(self)
        larger._tokenizer = copy.deepcopy(self._tokenizer)
        larger._tokenizer.add_tokens([tokenizers.AddedToken(entry, normalized=False) for entry in entries])
        larger.size = len(larger._tokenizer)
        return larger

    def save(self, folder: Path) -> None:
        self._tokenizer.save_pretrained(str(folder))

    def to_json(self) -> str:
        engine = getattr(self._tokenizer, "backend_tokenizer", None)
        if engine is None:
            raise RequestError(f"{self._name}: this kind of tokenizer has no tokenizer.json; save it as a folder")
        return str(engine.to_str(pretty=True))


def _open_folder(folder: Path) -> Backend:
    if (folder / "tokenizer.json").is_file():
        return _Fast.load(folder / "tokenizer.json")
    # A configuration may say what a bare model file does not: sentinels, shifted ids, bytes.
    if any((folder / name).is_file() for name in ("tokenizer_config.json", "config.json")):
        return _Transformers(str(folder))
    for name in SENTENCEPIECE_FILES:
        if (folder / name).is_file():
            return _Fast.load(folder / name)
    raise RequestError(f"{folder}: no tokenizer in this folder; it should hold tokenizer.json or spiece.model")


def _looks_like_hub_name(name: str) -> bool:
    return (
        not name.endswith((".json", ".model"))
        and not Path(name).is_absolute()
        and not name.startswith((".", "~"))
        and name.count("/") <= 1
    )


def _special_names(find: Callable[[str], int | None], declared: dict[str, str], where: str) -> dict[str, str]:
    """The tokens that pad, end a text, and stand for the unknown: as declared, else by their usual names."""
    usual = {
        "eos_token": (EOS, "<|endoftext|>", "<eos>", "[SEP]", "<|end|>"),
        "unk_token": (UNK, "[UNK]"),
        "pad_token": (PAD, "[PAD]", "<|pad|>"),
    }
    names = {}
    for role, candidates in usual.items():
        known = [n for n in (declared.get(role), *candidates) if n and find(n) is not None]
        if known:
            names[role] = known[0]
    if "eos_token" not in names:
        raise RequestError(f"{where}: the tokenizer has no end-of-text token; it should have {EOS}")
    # A byte-level tokenizer has no unknown; padding is masked everywhere, so any token may pad.
    names.setdefault("unk_token", names["eos_token"])
    names.setdefault("pad_token", names["unk_token"])
    return {role: names[role] for role in ROLES}


def _declared_names(folder: Path) -> dict[str, str]:
    names: dict[str, str] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        if not (folder / file).is_file():
            continue
        try:
            tree = json.loads(_read(folder / file))
        except ValueError:
            raise RequestError(f"{folder / file}: not JSON; copy it again or remove it") from None
        for role in ROLES:
            value = tree.get(role) if isinstance(tree, dict) else None
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                names[role] = value
    return names


def _first(*ids: int | None) -> int:
    return next(i for i in ids if i is not None)


def _copy(source: Path, target: Path, names: Sequence[str]) -> bool:
    present = [name for name in names if (source / name).is_file()]
    for name in present:
        if (source / name).resolve() != (target / name).resolve():
            shutil.copyfile(source / name, target / name)
    return bool(present)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from None


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
