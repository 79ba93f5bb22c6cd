"""One tokenizer class (text ↔ ids) for tokenizer.json, SentencePiece models, and all that transformers can open."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Sequence
from itertools import count, takewhile
from pathlib import Path
from typing import Literal

from sourcewise.data.tokenizers.backends import SENTINEL, Backend, open_backend, read_backend
from sourcewise.data.tokenizers.fast import Fast
from sourcewise.data.tokenizers.languages import Languages, is_code
from sourcewise.errors import DataWarning
from sourcewise.runtime.files import write_atomically

CONTEXT = 4  # preceding ids on which the text of an id depends, since a character may have so many bytes


class Tokenizer:
    """Text ↔ ids; `size` is the number of ids, special ones included.

    A text ends with `eos_id`, or with a language code behind it for some classes. Texts are encoded as sources or, with
    `target`, as targets: with the target's language code, or by the second model of a Marian. `notes` are remarks on
    the opened tokenizer; `load` turns them into warnings.
    """

    fresh: range = range(0)  # ids made by `add`, for which no weights are trained

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.size, self.pad_id, self.eos_id, self.unk_id = backend.size, backend.pad_id, backend.eos_id, backend.unk_id
        self.notes: list[str] = []

    @classmethod
    def load(cls, path: str | Path, *, asked: bool = False) -> Tokenizer:
        """Open a tokenizer.json, a SentencePiece .model, a folder with either, or a hub name.

        The folder of a Hugging Face model is opened by its tokenizer class if plain files are not enough. Its languages
        are a note unless others are `asked` for.
        Raises RequestError if it is missing or corrupt, or has no end of text.
        """
        opened = cls(open_backend(path))
        spoken = None if asked else opened.languages
        opened.notes = [*opened._backend.notes, *([spoken.said] if spoken else [])]
        for what in opened.notes:
            warnings.warn(f"{path}: {what}", DataWarning, stacklevel=2)
        return opened

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocabulary: int,
        unit: Literal["subwords", "words", "characters"] = "subwords",
        special: Sequence[str] = (),
    ) -> Tokenizer:
        """Train a tokenizer of at most `vocabulary` ids: subwords, words or characters.

        Subwords and characters cover every character of the texts: a small corpus gives a smaller vocabulary, one with
        many characters a larger. Of words the most frequent are kept, apart from punctuation; others are unknown, and
        decode to nothing. Digits are single tokens, so that unseen numbers are spelt like all others. `special` entries
        get the highest ids, in addition to the vocabulary; only texts that spell them contain them. The same texts give
        the same bytes. Raises RequestError if the texts are empty.
        """
        from sourcewise.data.tokenizers.training import train

        return cls(read_backend(train(texts, vocabulary, unit, special).to_str(pretty=True)))

    def add(self, texts: Iterable[str]) -> Tokenizer:
        """A copy with each of these texts as one id, which decodes to exactly that text.

        Texts that are entries of the vocabulary already are unchanged.
        """
        lacking = [text for text in dict.fromkeys(texts) if not self._has(text)]
        if not lacking:
            return self
        larger = Tokenizer(self._backend.add(lacking))
        larger.fresh, larger.notes = range(self.size, larger.size), self.notes
        return larger

    def in_languages(self, source: str = "", target: str = "") -> Tokenizer:
        """A tokenizer with the language codes of these sources and targets; empty: as they are. Raises RequestError."""
        if not source and not target:
            return self
        other = Tokenizer(self._backend.in_languages(source, target))
        other.fresh, other.notes = self.fresh, self.notes
        return other

    @property
    def opening(self) -> list[int]:
        """The ids before a target that name its language, or task; [] if there are none."""
        return list(self._backend.frame(True).before) if self.languages is not None else []

    def led_by(self, forced: Sequence[int]) -> Tokenizer:
        """A tokenizer whose targets begin with the language code that outputs are forced to begin with, if it is one.

        It is for tokenizers whose class knows no languages; others encode targets in theirs.
        """
        code = forced[0] if len(forced) == 1 and is_code(self._backend.name(forced[0])) else None
        own = self.languages is not None and self.languages.switches
        if code is None or own or code in self.opening_of_target or not isinstance(self._backend, Fast):
            return self
        other = Tokenizer(self._backend.led_by(code))
        other.fresh, other.notes = self.fresh, self.notes
        return other

    @property
    def prompt(self) -> list[int]:
        """The ids that every output begins with: of a Whisper its language, its task and no timestamps; else []."""
        return self.opening_of_target if getattr(self._backend, "prompted", False) else []

    @property
    def opening_of_target(self) -> list[int]:
        """The special ids at the beginning of every target; [] if there are none."""
        return list(self._backend.frame(True).before)

    @property
    def target_start(self) -> int | None:
        """The language code behind the end of a target, with which a decoder starts (mBART, PLBart); None: no such."""
        after = list(self._backend.frame(True).after)
        behind = after[after.index(self.eos_id) + 1 :] if self.eos_id in after else []
        return behind[-1] if behind and self.languages is not None else None

    def _has(self, text: str) -> bool:
        ids = self.encode(text)
        said = [i for i in ids if self.decode([i])]
        return self._backend.find(text) in ids or (len(said) == 1 and self.decode(said) == text)

    @property
    def added(self) -> set[int]:
        """The ids of all added texts."""
        return self._backend.added()

    @property
    def sentinels(self) -> list[int]:
        """The ids of T5's <extra_id_0>, <extra_id_1>, … up to the first missing one."""
        found = takewhile(lambda i: i is not None, (self._backend.find(SENTINEL.format(n)) for n in count()))
        return [i for i in found if i is not None]

    @property
    def languages(self) -> Languages | None:
        """The language codes of sources and targets; None if texts have none."""
        return self._backend.languages

    @property
    def cuts_left(self) -> bool:
        """Whether long texts are truncated at the beginning: truncation_side in tokenizer_config.json."""
        return self._backend.cuts_left

    @property
    def around(self) -> set[int]:
        """The ids of special tokens around sources and targets."""
        frames = (self._backend.frame(target) for target in (False, True))
        return {self.eos_id, *(i for frame in frames for part in frame for i in part)}

    @property
    def begins(self) -> int | None:
        """The id at the beginning of every target, such as BERT's [CLS]; None if there is none."""
        return next(iter(self._backend.frame(True).before), None)

    def encode(
        self, text: str, max_length: int | None = None, *, target: bool = False, from_left: bool | None = None
    ) -> list[int]:
        """Ids of a text with the special tokens of a source, or of a target.

        Longer texts are truncated to `max_length` ids, on the right or `from_left` (default: `cuts_left`), and keep
        their special tokens.
        """
        return self.encode_batch([text], max_length, target=target, from_left=from_left)[0]

    def inner(self, text: str) -> list[int]:
        """Ids of a text without the special tokens around a target."""
        ids = self._backend.encode([text], True)[0]
        before, after = self._backend.frame(True)
        return ids[len(before) : len(ids) - len(after)]

    def encode_batch(
        self,
        texts: Sequence[str],
        max_length: int | None = None,
        *,
        target: bool = False,
        from_left: bool | None = None,
    ) -> list[list[int]]:
        """`encode` for many texts, faster."""
        rows = self._backend.encode(texts, target)
        endless = self.eos_id not in self._backend.frame(target).after
        for ids in rows:
            if endless and (not ids or ids[-1] != self.eos_id):
                ids.append(self.eos_id)
        if max_length is None:
            return rows
        return [self.shorten(ids, max_length, target=target, from_left=from_left) for ids in rows]

    def shorten(self, ids: list[int], most: int, *, target: bool = False, from_left: bool | None = None) -> list[int]:
        """Truncate the ids of a source, or a target, to at most `most`: special tokens, and the first or last others.

        The result still ends with the end of text, as in `encode`.
        """
        if len(ids) <= most:
            return ids
        from_left = self.cuts_left if from_left is None else from_left
        before, after = self._backend.frame(target)
        behind = len(after) if self.eos_id in after else 1
        tail = ids[len(ids) - behind :][:most]
        head = ids[: len(before)][: most - len(tail)]
        body, size = ids[len(before) : len(ids) - behind], most - len(head) - len(tail)
        return [*head, *(body[len(body) - size :] if from_left else body[:size]), *tail]

    def decode(self, ids: Iterable[int]) -> str:
        """Text up to the first end of text; padding, special, negative and unknown ids are left out."""
        kept = []
        for each in ids:
            each = int(each)
            if each == self.eos_id:
                break
            if 0 <= each < self.size and each != self.pad_id:
                kept.append(each)
        return self._backend.decode(kept)

    def decode_batch(self, rows: Iterable[Iterable[int]]) -> list[str]:
        """`decode` for many rows."""
        return [self.decode(row) for row in rows]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text that each id adds, with its space; an id that adds nothing (a special one) has its name.

        Parts of a character are as the tokenizer decodes them; the id that completes a character has all of it.
        """
        return [self.piece(ids[:i], ids[i]) for i in range(len(ids))]

    def name(self, token: int) -> str:
        """The vocabulary's entry of an id; empty if there is none."""
        return self._backend.name(token) if 0 <= token < self.size else ""

    def piece(self, before: Sequence[int], token: int) -> str:
        """The text that an id adds to the text of the ids before it."""
        near = [each for each in before[-CONTEXT:] if each != self.eos_id]
        shown, longer = self.decode(near), self.decode([*near, token])
        same = next((i for i, (a, b) in enumerate(zip(shown, longer, strict=False)) if a != b), len(shown))
        return longer[same:] or self.name(token) or f"<{token}>"

    def digest(self) -> str:
        """A digest that is equal for tokenizers whose ids have the same meaning."""
        named = [self.size, self.pad_id, self.eos_id, *(self._backend.name(i) for i in range(self.size))]
        return hashlib.blake2b(json.dumps(named).encode(), digest_size=16).hexdigest()

    def to_json(self) -> str:
        """The text of a tokenizer.json with the same ids. Raises RequestError if its class has none."""
        return self._backend.to_json()

    def save(self, path: str | Path) -> None:
        """Write the files that `transformers.AutoTokenizer.from_pretrained(folder)` opens with the same ids.

        If the path ends in .json, only the tokenizer.json is written. Raises RequestError if there is none.
        """
        path = Path(path)
        if path.suffix == ".json":
            write_atomically(path, self.to_json())
            return
        path.mkdir(parents=True, exist_ok=True)
        self._backend.save(path)

    def __len__(self) -> int:
        return self.size
