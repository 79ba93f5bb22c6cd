"""A tokenizer.json in the `tokenizers` library: encoding, decoding, new entries, saving."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from sourcewise.data.tokenizers.languages import Languages, coded, is_code, refuse_language
from sourcewise.data.tokenizers.words import FEW, Words, words_of
from sourcewise.errors import RequestError

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"  # T5's names and, in this order, its ids
ROLES = ("pad_token", "eos_token", "unk_token")
CONFIG = "tokenizer_config.json"
SIDE = "truncation_side"  # key in CONFIG: the side at which long texts are truncated
CONFIG_FILES = (CONFIG, "special_tokens_map.json", "added_tokens.json")
PROBE = "a"  # any text: the special tokens around its ids are those around every text
# Replacements in decoded texts by transformers if tokenizer_config.json sets clean_up_tokenization_spaces.
CLEANED = [(" " + mark, mark) for mark in ".?!,"]
CLEANED += [(" ' ", "'"), *((" " + end, end) for end in ("n't", "'m", "'s", "'ve", "'re"))]


class Frame(NamedTuple):
    """The special tokens around a text: ends of text, language codes."""

    before: list[int]
    after: list[int]


class Fast:
    """A tokenizer.json as text, with its configuration files.

    The text is saved unchanged, since parsing changes the last digit of some scores. `target` are the special tokens
    around targets if they differ from those around sources. `cleans`: transformers would remove spaces before
    punctuation in decoded texts.
    """

    notes: tuple[str, ...] = ()
    cuts_left = False

    def __init__(
        self,
        text: str,
        where: str,
        names: dict[str, str] | None = None,
        folder: Path | None = None,
        *,
        target: Frame | None = None,
        cleans: bool = False,
    ) -> None:
        import tokenizers

        text, stored = without_stored(text)
        try:
            self._tokenizer = tokenizer = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise RequestError(f"{where}: not a tokenizer.json: {str(error).splitlines()[0]}") from None
        self._text, self._folder = text, folder
        self.size = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        self._names = special_names(tokenizer.token_to_id, names or {}, where)
        ids = tokenizer.get_vocab(with_added_tokens=True)
        self.pad_id, self.eos_id, self.unk_id = (ids[name] for name in self._names.values())
        self.notes = notes_on(stored)
        around = _around(tokenizer)
        self._frames = (around, target or around)
        self.languages: Languages | None = coded([self.name(i) for i in (*around.before, *around.after)])
        self._cleans = cleans and type(tokenizer.model).__name__ != "BPE"  # as in transformers

    @classmethod
    def load(cls, path: Path) -> Fast:
        """Open a tokenizer.json or a SentencePiece .model. Raises RequestError if it is neither, or truncated."""
        data = _read(path)
        if path.suffix == ".model":
            return cls._from_sentencepiece(path, data)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise RequestError(f"{path}: not a tokenizer.json: it is not UTF-8 text") from None
        said = read_json(path.parent / CONFIG)
        cleans = bool(said.get("clean_up_tokenization_spaces"))
        opened = cls(text, str(path), declared_names(path.parent), path.parent, cleans=cleans)
        opened.cuts_left = said.get(SIDE) == "left"
        return opened

    @classmethod
    def _from_sentencepiece(cls, path: Path, data: bytes) -> Fast:
        from sourcewise.data.tokenizers.sentencepiece_models import convert, parse

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

    def encode(self, texts: Sequence[str], target: bool = False) -> list[list[int]]:
        """See Backend."""
        before, after = self._frames[target]
        rows = self._words.encode(texts) if len(texts) >= FEW and self._words else self._encode(list(texts))
        return [[*before, *ids, *after] for ids in rows]

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return [row.ids for row in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    @cached_property
    def _words(self) -> Words | None:
        return words_of(self._text, self._encode)

    def led_by(self, code: int) -> Fast:
        """The same with this language code before targets, in the place of another."""
        before, after = self._frames[True]
        kept = [i for i in before if not is_code(self.name(i))]
        other = copy.copy(self)
        other._frames = (self._frames[False], Frame([code, *kept], after))
        source = next((self.name(i) for i in self._frames[False].before if is_code(self.name(i))), self.name(code))
        other.languages = Languages(source, self.name(code), "forced_bos_token_id", switches=False)
        return other

    def frame(self, target: bool = False) -> Frame:
        """See Backend."""
        return self._frames[target]

    def decode(self, ids: list[int]) -> str:
        """See Backend."""
        text = self._tokenizer.decode(ids, skip_special_tokens=True)
        for old, new in CLEANED if self._cleans else ():
            text = text.replace(old, new)
        return text

    def name(self, token: int) -> str:
        """See Backend."""
        return self._tokenizer.id_to_token(token) or ""

    def find(self, name: str) -> int | None:
        """See Backend."""
        return self._tokenizer.token_to_id(name)

    def added(self) -> set[int]:
        """See Backend."""
        return {i for i, entry in self._tokenizer.get_added_tokens_decoder().items() if not entry.special}

    def in_languages(self, source: str, target: str) -> Fast:
        """See Backend."""
        raise refuse_language(target or source, "target" if target else "source", ())

    def add(self, entries: Sequence[str]) -> Fast:
        """See Backend."""
        from sourcewise.data.tokenizers.adding import add_entries

        larger = Fast(add_entries(self._text, self.size, entries), "tokenizer", self._names, cleans=self._cleans)
        larger.cuts_left = self.cuts_left
        return larger

    def to_json(self) -> str:
        """See Backend."""
        return self._text

    def save(self, folder: Path) -> None:
        """See Backend."""
        _write(folder / "tokenizer.json", self.to_json())
        copied = self._folder is not None and _copy(self._folder, folder, CONFIG_FILES)
        if copied and (folder / CONFIG).is_file():
            return
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **self._names,
            "model_max_length": 1_000_000,
            "clean_up_tokenization_spaces": False,
            **({SIDE: "left"} if self.cuts_left else {}),
        }
        _write(folder / CONFIG, json.dumps(config, indent=2, ensure_ascii=False))
        _write(folder / "special_tokens_map.json", json.dumps(self._names, indent=2, ensure_ascii=False))


def _around(tokenizer: Any) -> Frame:
    """The special tokens that the tokenizer's template puts around a text."""
    try:
        return framed(tokenizer.encode(PROBE).ids, tokenizer.encode(PROBE, add_special_tokens=False).ids)
    except Exception:  # the library raises bare Exception, here if there is no unknown token
        return framed(tokenizer.encode("").ids, [])


def framed(whole: Sequence[int], body: Sequence[int]) -> Frame:
    """The special tokens around the ids `body` of a text in `whole`."""
    size = len(body)
    at = next((i for i in range(len(whole) - size + 1) if list(whole[i : i + size]) == list(body)), 0)
    return Frame(list(whole[:at]), list(whole[at + size :]))


def special_names(find: Callable[[str], int | None], declared: dict[str, str], where: str) -> dict[str, str]:
    """The tokens of padding, end of text and unknown: as declared, else by their usual names.

    Raises RequestError if there is no end of text.
    """
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
    # A byte-level tokenizer has no unknown token; padding is masked everywhere, so any token can be used for it.
    names.setdefault("unk_token", names["eos_token"])
    names.setdefault("pad_token", names["unk_token"])
    return {role: names[role] for role in ROLES}


def declared_names(folder: Path) -> dict[str, str]:
    """The special tokens in a folder's configuration files. Raises RequestError for invalid JSON."""
    names: dict[str, str] = {}
    for file in ("special_tokens_map.json", CONFIG):
        tree = read_json(folder / file)
        for role in ROLES:
            value = tree.get(role)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                names[role] = value
    return names


def read_json(path: Path) -> dict[str, Any]:
    """The contents of a configuration file; empty if it is missing. Raises RequestError for invalid JSON."""
    if not path.is_file():
        return {}
    try:
        tree = json.loads(_read(path))
    except ValueError:
        raise RequestError(f"{path}: not JSON; copy it again or remove it") from None
    return tree if isinstance(tree, dict) else {}


def without_stored(text: str) -> tuple[str, str]:
    """A tokenizer.json without stored truncation and padding of an earlier call, and the removed settings."""
    if '"truncation"' not in text and '"padding"' not in text:
        return text, ""
    try:
        tree = json.loads(text)
    except ValueError:
        return text, ""
    if not isinstance(tree, dict):
        return text, ""
    stored = [name for name in ("truncation", "padding") if tree.get(name) is not None]
    if not stored:
        return text, ""
    kinds = " and ".join(f"{name} ({_lengths(tree[name])})" for name in stored)
    return json.dumps(tree | dict.fromkeys(stored), ensure_ascii=False, indent=2), kinds


def notes_on(stored: str) -> tuple[str, ...]:
    """Notes on stored truncation or padding."""
    return (f"its tokenizer.json holds {stored} of somebody's last call; left out here",) if stored else ()


def _lengths(setting: Any) -> str:
    """The length of a stored truncation or padding, in words."""
    if not isinstance(setting, dict):
        return str(setting)
    longest = setting.get("max_length", setting.get("strategy"))
    return f"to {longest['Fixed']}" if isinstance(longest, dict) and "Fixed" in longest else f"to {longest}"


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
