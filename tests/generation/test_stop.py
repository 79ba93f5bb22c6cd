"""Texts that end an output: transformers' `stop_strings` for every kind of tokenizer, and where theirs are wrong."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer
from transformers.generation.stopping_criteria import StopStringCriteria

from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import Notice
from sourcewise.generation.words import Words, unwritten
from tests.data.tokenizers.tokenizer_classes import OTHERS
from tests.generation.tokenized import KINDS, Pair, pair, with_letters

pytestmark = pytest.mark.filterwarnings("ignore::sourcewise.errors.DataWarning")
TOKENS = 12


@pytest.fixture(scope="module", params=KINDS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair(request.param, tmp_path_factory.mktemp(request.param))


def parts(texts: list[str]) -> list[str]:
    """Frequent parts of texts, of one to four characters, none of which begins with a space."""
    found: list[str] = []
    for size in (1, 2, 3, 4):
        counted = Counter(text[i : i + size] for text in texts for i in range(len(text) - size))
        some = [part for part, _ in counted.most_common(40) if part == part.lstrip() and "\ufffd" not in part]
        found += some[3:5]
    return found


@pytest.mark.parametrize("beams", [1, 3])
def test_outputs_end_where_their_stop_strings_end_them(both: Pair, beams: int) -> None:
    """200 sources; texts that begin and end within tokens, one alone and several; short outputs are the better ones."""
    how: dict[str, Any] = {"max_new_tokens": TOKENS, "min_new_tokens": 6, "length_penalty": float(beams == 1)}
    free = [text for sources in both.groups for text in both.ours.generate(sources, beams=beams, **how)]
    stops = parts(free)
    ended = 0
    for number, sources in enumerate(both.groups):
        stop = [stops[number % len(stops)]] if number % 3 else stops[-3:]
        found = both.ours.generate(sources, beams=beams, stop=stop, **how).of
        rows = both.generate(sources, num_beams=beams, stop_strings=stop, tokenizer=both.tokenizer, **how)
        rows = rows[:, 1:].tolist()
        for outputs, row in zip(found, rows, strict=True):
            ids = list(outputs.best.ids)
            assert row[: len(ids)] == ids and set(row[len(ids) :]) <= both.neutral
            stopped = any(each in outputs.best.text for each in stop)
            assert outputs.best.finished or not stopped
            ended += stopped
    assert ended >= 20


def test_a_text_that_begins_in_the_given_beginning_ends_an_output_too(both: Pair) -> None:
    """As in `generate` with `decoder_input_ids`; one that is all in it does not."""
    begun = [*both.ours.tokenizer.opening_of_target, *both.ours.tokenizer.inner("a cat")]
    start = torch.tensor([[both.ours.network.start_id, *begun]])
    sources = both.groups[0][:8]
    free = both.ours.generate(sources, beams=1, max_new_tokens=6, target_prefix="a cat")
    nexts = Counter(text[4:6] for text in free if "\ufffd" not in text[4:6])
    stop = nexts.most_common(1)[0][0]  # its t, and what comes next
    found = both.ours.generate(sources, beams=1, max_new_tokens=6, target_prefix="a cat", stop=[stop, "a c"]).of
    asked: dict[str, Any] = {"num_beams": 1, "max_new_tokens": 6, "tokenizer": both.tokenizer}
    rows = both.generate(sources, decoder_input_ids=start.expand(len(sources), -1), stop_strings=[stop, "a c"], **asked)
    for outputs, row in zip(found, rows[:, 1:].tolist(), strict=True):
        ids = list(outputs.best.ids)
        assert row[: len(ids)] == ids and set(row[len(ids) :]) <= both.neutral
    assert any(len(outputs.best.ids) == len(begun) + 1 for outputs in found)


def first(ids: list[int], stop: str, theirs: Any, ours: Tokenizer) -> tuple[int | None, int | None]:
    """The number of tokens after which transformers' criterion and ours end an output."""
    criterion, words = StopStringCriteria(theirs, [stop]), Words(ours, stops=(stop,))
    numbers = range(1, len(ids) + 1)
    return (
        next((n for n in numbers if bool(criterion(torch.tensor([ids[:n]]), None))), None),
        next((n for n in numbers if words.ends(ids[:n])), None),
    )


def test_where_transformers_own_matching_is_not_that_of_the_text(tmp_path: Path) -> None:
    """What docs/generation.md says of it; if one of these changes there, that page does, too."""
    for kind in ("t5", "small t5", "byt5", "bert"):
        (tmp_path / kind).mkdir()
    theirs, ours = with_letters("bert", tmp_path / "bert"), Tokenizer.load(tmp_path / "bert")
    ids = [theirs.convert_tokens_to_ids(word) for word in ("cat", "dog")]
    assert first(ids, " ", theirs, ours) == (1, 2)  # the space before the first word, which no text has
    theirs, ours = with_letters("t5", tmp_path / "t5"), Tokenizer.load(tmp_path / "t5")
    sentinel = ours.sentinels[0]
    assert ours.decode([sentinel]) == "" and first([sentinel], "extra", theirs, ours) == (1, None)  # a token's name
    theirs, ours = with_letters("byt5", tmp_path / "byt5"), Tokenizer.load(tmp_path / "byt5")
    umlaut = theirs("ab\u00e4", add_special_tokens=False)["input_ids"]
    with pytest.raises(ValueError, match="unable to identify tokens"):
        StopStringCriteria(theirs, ["\u00e4"])
    assert [Words(ours, stops=("\u00e4",)).ends(umlaut[:n]) for n in (2, 3, 4)] == [False, False, True]
    OTHERS["t5"](tmp_path / "small t5")
    with pytest.raises(ValueError, match="substring not found"):  # it cannot write "abcdef"
        StopStringCriteria(AutoTokenizer.from_pretrained(tmp_path / "small t5"), ["a"])


def test_a_stop_that_the_tokenizer_cannot_write_is_told(both: Pair) -> None:
    lost = "" if "\u010a" in both.tokenizer.get_vocab() else "\n"  # an entry for each byte
    assert unwritten(both.ours.tokenizer, "a cat\n") == lost
    if lost:
        with pytest.warns(
            Notice, match=r"stop '\\n\\n': the tokenizer cannot write '\\n', so that no output ends there"
        ):
            both.ours.generate(both.groups[0][0], max_new_tokens=2, stop=["\n\n"])
