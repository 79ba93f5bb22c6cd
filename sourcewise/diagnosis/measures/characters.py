"""What a tokenizer cannot read or say of a set's texts; each is turned into ids, and these into text again."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from sourcewise.diagnosis.cure import Cure
from sourcewise.diagnosis.pairs import sample as spread

if TYPE_CHECKING:
    from sourcewise.data.encoding import ExampleSet
    from sourcewise.data.tokenizers.tokenizer import Tokenizer

SAMPLE, TARGETS = 1000, 5000  # texts of which characters are counted; targets that are read again whole
TRIED = 100  # targets that a cure is tried on
SHOWN, LONGEST = 8, 60  # characters that are named; characters of a text that are shown
HELPED = 0.1  # of what is lost, that is lost in another Unicode form where it is the form that is not known
FORMS: tuple[Literal["NFC"], Literal["NFD"]] = ("NFC", "NFD")
MANY = 12  # texts from which on adding them is no cure


class Unsaid(NamedTuple):
    """A target that its own ids do not give back."""

    place: int
    text: str
    said: str


def lost_characters(tokenizer: Tokenizer, texts: Sequence[str], target: bool) -> tuple[Counter[str], int, float]:
    """Characters that do not come back, how many there were, and the share of unknown tokens."""
    lost: Counter[str] = Counter()
    rows = tokenizer.encode_batch(texts, target=target)
    total = unknown = 0
    for text, ids in zip(texts, rows, strict=True):
        before, after = _comparable(text), _comparable(tokenizer.decode(ids))
        total += sum(before.values())
        lost.update(before - after)
        unknown += ids.count(tokenizer.unk_id) if tokenizer.unk_id != tokenizer.eos_id else 0
    return lost, total, unknown / max(1, sum(len(ids) - 1 for ids in rows))


def form_known(tokenizer: Tokenizer, texts: Sequence[str], target: bool, lost: float) -> Literal["NFC", "NFD"] | None:
    """The Unicode form in which next to nothing is lost of texts that lose this share of their characters as they are.

    An é is one character (NFC) or two, e and an accent (NFD, as macOS writes the names of files): they look alike.
    """
    for form in FORMS:
        other = [unicodedata.normalize(form, text) for text in texts]
        if other != list(texts):
            gone, total, _ = lost_characters(tokenizer, other, target)
            if sum(gone.values()) < HELPED * lost * total:
                return form
    return None


def _comparable(text: str) -> Counter[str]:
    return Counter("".join(unicodedata.normalize("NFKC", text).casefold().split()))


def unsaid_targets(part: ExampleSet) -> list[Unsaid]:
    """Targets that do not come back exactly as they are written, up to a sample; cut ones are read whole."""
    tokenizer, found = part.tokenizer, []
    longest = int(part.target_lengths.max())
    for i in map(int, spread(len(part), TARGETS)):
        text, ids = part.dataset[i].target, part.targets[i]
        if len(ids) == longest:
            ids = tokenizer.encode(text, target=True)
        said = tokenizer.decode(ids)
        if said != text:
            found.append(Unsaid(i, text, said))
    return found


def told(part: ExampleSet, unsaid: list[Unsaid]) -> str:
    """How many targets of how many, the first of them, and the characters that are lost."""
    looked = min(len(part), TARGETS)
    first = next((each for each in unsaid if not only_blanks(each)), unsaid[0])
    of = f"{looked:,}" if looked == len(part) else f"a sample of {looked:,}"
    shown = ", ".join(f"{named(character)} ({count})" for character, count in _gone(unsaid).most_common(SHOWN))
    evidence = f"{len(unsaid):,} of {of} targets cannot be said as written, such as {part.dataset[first.place].where}: "
    evidence += '"{}" becomes "{}"'.format(*_differing(first.text, first.said))
    return evidence + (f"; lost: {shown}" if shown else "")


def _gone(unsaid: list[Unsaid]) -> Counter[str]:
    """The characters of targets that are not in what comes back."""
    lost: Counter[str] = Counter()
    for each in unsaid:
        lost.update(Counter(each.text) - Counter(each.said))
    return lost


def only_blanks(each: Unsaid) -> bool:
    """Whether nothing is lost but spaces at the ends and doubled ones of a text of one line."""
    return "\n" not in each.text and _single(each.text) == _single(each.said)


def _single(text: str) -> str:
    return " ".join(word for word in text.split(" ") if word)


def cures_of(part: ExampleSet, unsaid: list[Unsaid]) -> tuple[Cure, ...]:
    """New entries of the vocabulary, where they help: they are tried."""
    lost = _gone(unsaid)
    runs = {run for each in unsaid[:TRIED] for run in re.findall(" {2,}", each.text)} if lost[" "] else set()
    entries = [*(character for character, _ in lost.most_common() if character != " "), *sorted(runs)]
    if not entries or len(entries) > MANY:
        return ()
    larger, tried = part.tokenizer.add(entries), unsaid[:TRIED]
    helped = sum(larger.decode(larger.encode(each.text, target=True)) == each.text for each in tried)
    if 2 * helped < len(tried):
        return ()
    option = json.dumps(entries, ensure_ascii=not all(map(str.isprintable, entries)))
    words = f"Add what is lacking; {helped} of {len(tried)} tried come back then:"
    return (Cure(words, {"data.add_tokens": f"'{option}'"}),)


def _differing(text: str, said: str) -> tuple[str, str]:
    """Both from a little before where they begin to differ, on one line."""
    same = next((i for i, (a, b) in enumerate(zip(text, said, strict=False)) if a != b), min(len(text), len(said)))
    start = max(0, same - LONGEST // 3)
    return _shown(text, start), _shown(said, start)


def _shown(text: str, start: int) -> str:
    piece = text[start : start + LONGEST]
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in piece)
    return ("…" if start else "") + line + ("…" if start + LONGEST < len(text) else "")


def named(character: str) -> str:
    """A character as it is seen; one that cannot be seen alone by its number."""
    if character.isprintable() and character != " " and not unicodedata.combining(character):
        return character
    return {"\n": "line break", "\t": "tab", " ": "space"}.get(character, f"U+{ord(character):04X}")
