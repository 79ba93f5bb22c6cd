"""Text ↔ ids, behind one class: tokenizer.json, SentencePiece models, and whatever transformers can open."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Sequence
from itertools import count, takewhile
from pathlib import Path
from typing import Literal

from sourcewise.data.tokenizers.backends import SENTINEL, Backend, open_backend, read_backend
from sourcewise.data.tokenizers.languages import Languages
from sourcewise.errors import DataWarning
from sourcewise.runtime.files import write_atomically

CONTEXT = 4  # ids before it that tell how an id is read: a character may have as many bytes


class Tokenizer:
    """Text ↔ ids; `size` counts the ids, special ones included.

    A text ends with `eos_id`, and with the code of its language where its tokenizer's class puts one behind. Texts are
    encoded as sources, or with `target` as what a model is to say: with the target's language, or by the second model
    of a Marian. `notes` say what a person should know of how it was opened; `load` warns of them.
    """

    fresh: range = range(0)  # ids that `add` has made: no weights know them

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.size, self.pad_id, self.eos_id, self.unk_id = backend.size, backend.pad_id, backend.eos_id, backend.unk_id
        self.notes: list[str] = []

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Open a tokenizer.json, a SentencePiece .model, a folder with either, or a hub name.

        A folder of a Hugging Face model is opened as its own tokenizer class where plain files do not tell all.
        Raises RequestError when it is missing, corrupt, or has no token that ends a text.
        """
        opened = cls(open_backend(path))
        opened.notes = [*opened._backend.notes, *([opened.languages.said] if opened.languages else [])]
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
        """A tokenizer of at most `vocabulary` ids: pieces of words, words or characters.

        Pieces and characters hold every character of the texts: a small corpus gives a smaller vocabulary, one of many
        characters a larger. Of words the most frequent are kept, punctuation apart; another one is unknown, and
        decodes to nothing. Digits stay single, so that numbers never seen are spelt like all others. `special` entries
        get the highest ids, on top of the vocabulary; no text gives them but one that spells them. The same texts give
        the same bytes. Raises RequestError when the texts are empty.
        """
        from sourcewise.data.tokenizers.training import train

        return cls(read_backend(train(texts, vocabulary, unit, special).to_str(pretty=True)))

    def add(self, texts: Iterable[str]) -> Tokenizer:
        """One that has each of these texts as one id, which decodes to exactly that text.

        A text that is an entry of the vocabulary already stays what it is.
        """
        lacking = [text for text in dict.fromkeys(texts) if not self._has(text)]
        if not lacking:
            return self
        larger = Tokenizer(self._backend.add(lacking))
        larger.fresh, larger.notes = range(self.size, larger.size), self.notes
        return larger

    def _has(self, text: str) -> bool:
        ids = self.encode(text)
        said = [i for i in ids if self.decode([i])]
        return self._backend.find(text) in ids or (len(said) == 1 and self.decode(said) == text)

    @property
    def added(self) -> set[int]:
        """The ids of all texts that were ever added."""
        return self._backend.added()

    @property
    def sentinels(self) -> list[int]:
        """The ids of T5's <extra_id_0>, <extra_id_1>, … as far as they go; empty where there are none."""
        found = takewhile(lambda i: i is not None, (self._backend.find(SENTINEL.format(n)) for n in count()))
        return [i for i in found if i is not None]

    @property
    def languages(self) -> Languages | None:
        """The codes that mark its sources and targets; None where texts are not marked."""
        return self._backend.languages

    @property
    def cuts_left(self) -> bool:
        """Whether long texts lose their beginning: truncation_side in its tokenizer_config.json."""
        return self._backend.cuts_left

    @property
    def around(self) -> set[int]:
        """The ids that stand around texts, sources' and targets'."""
        frames = (self._backend.frame(target) for target in (False, True))
        return {self.eos_id, *(i for frame in frames for part in frame for i in part)}

    @property
    def begins(self) -> int | None:
        """The id that stands before every target, such as BERT's [CLS]; None where there is none."""
        return next(iter(self._backend.frame(True).before), None)

    def encode(
        self, text: str, max_length: int | None = None, *, target: bool = False, from_left: bool | None = None
    ) -> list[int]:
        """Ids with the special tokens of a source, or of a target.

        A longer text is cut to `max_length` ids, on the right or `from_left`, and keeps its special tokens. What is
        not said is as `cuts_left` has it.
        """
        return self.encode_batch([text], max_length, target=target, from_left=from_left)[0]

    def encode_batch(
        self,
        texts: Sequence[str],
        max_length: int | None = None,
        *,
        target: bool = False,
        from_left: bool | None = None,
    ) -> list[list[int]]:
        """`encode` of each text, faster together."""
        rows = self._backend.encode(texts, target)
        endless = self.eos_id not in self._backend.frame(target).after
        for ids in rows:
            if endless and (not ids or ids[-1] != self.eos_id):
                ids.append(self.eos_id)
        if max_length is None:
            return rows
        return [self.shorten(ids, max_length, target=target, from_left=from_left) for ids in rows]

    def shorten(self, ids: list[int], most: int, *, target: bool = False, from_left: bool | None = None) -> list[int]:
        """At most so many of the ids of a source, or a target: what stands around it, and its first ids, or its last.

        It still ends with the end of text, as `encode` cuts.
        """
        if len(ids) <= most:
            return ids
        from_left = self.cuts_left if from_left is None else from_left
        before, after = self._backend.frame(target)
        behind = len(after) if self.eos_id in after else 1
        tail = ids[len(ids) - behind :][:most]
        head = ids[: len(before)][: most - len(tail)]
        body, room = ids[len(before) : len(ids) - behind], most - len(head) - len(tail)
        return [*head, *(body[len(body) - room :] if from_left else body[:room]), *tail]

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
        """`decode` of each row."""
        return [self.decode(row) for row in rows]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """What each id adds to the text, its space included; one that adds nothing (a special one) by its name.

        Part of a character is what the tokenizer makes of it; the id that completes it is the whole character.
        """
        return [self.piece(ids[:i], ids[i]) for i in range(len(ids))]

    def name(self, token: int) -> str:
        """The entry of the vocabulary as it is written there; empty where there is none."""
        return self._backend.name(token) if 0 <= token < self.size else ""

    def piece(self, before: Sequence[int], token: int) -> str:
        """What an id adds to the text of those before it."""
        near = [each for each in before[-CONTEXT:] if each != self.eos_id]
        shown, longer = self.decode(near), self.decode([*near, token])
        same = next((i for i, (a, b) in enumerate(zip(shown, longer, strict=False)) if a != b), len(shown))
        return longer[same:] or self.name(token) or f"<{token}>"

    def digest(self) -> str:
        """One and the same for tokenizers whose ids mean the same."""
        named = [self.size, self.pad_id, self.eos_id, *(self._backend.name(i) for i in range(self.size))]
        return hashlib.blake2b(json.dumps(named).encode(), digest_size=16).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the files that `transformers.AutoTokenizer.from_pretrained(folder)` opens with the same ids.

        A path that ends in .json gets the tokenizer.json alone. Raises RequestError when this tokenizer has none.
        """
        path = Path(path)
        if path.suffix == ".json":
            write_atomically(path, self._backend.to_json())
            return
        path.mkdir(parents=True, exist_ok=True)
        self._backend.save(path)

    def __len__(self) -> int:
        return self.size
