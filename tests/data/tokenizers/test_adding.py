"""New entries in finished tokenizers: one id each, decoded to exactly what they were, and alike in transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sourcewise.data.tokenizers.tokenizer import Tokenizer
from tests.data.tokenizers.t5_tokenizers import TEXT, fast_t5_folder, opened, t5_folder

pytest.importorskip("transformers")
NEW = ["{", "}", "\n", "\t"]
LAID_OUT = 'the cat {"name": 1}\n\ta {b} x\n\n- y'
KINDS: dict[str, Callable[[Path], Path]] = {"spiece.model": t5_folder, "tokenizer.json": fast_t5_folder}


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return KINDS[request.param](tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module")
def before(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def after(before: Tokenizer) -> Tokenizer:
    return before.add(NEW)


def test_new_entries_are_one_id_each_after_all_others(before: Tokenizer, after: Tokenizer) -> None:
    assert before.encode("{}\n")[:-1].count(before.unk_id) == 1  # two unknown in a row; the line end is nothing
    ids = [after.encode(entry) for entry in NEW]
    assert ids == [[before.size + i, after.eos_id] for i in range(4)]
    assert list(after.fresh) == [row[0] for row in ids] == sorted(after.added)
    assert [after.decode(row) for row in ids] == NEW
    assert before.added == set() and not before.fresh


@given(pieces=st.lists(st.sampled_from([*NEW, "the", "cat", " ", "1", '"', ":", "[", "]", "b"]), max_size=25))
def test_what_is_encoded_comes_back_exactly(after: Tokenizer, pieces: list[str]) -> None:
    text = "".join(pieces)
    while "  " in text:  # runs of spaces are one, as ever
        text = text.replace("  ", " ")
    assert after.decode(after.encode(text)) == text.removeprefix(" ")


@given(words=st.lists(st.sampled_from([*TEXT.split(), "<extra_id_0>", "<extra_id_7>", "Ω"]), min_size=1, max_size=12))
def test_texts_without_new_entries_have_the_ids_they_had(before: Tokenizer, after: Tokenizer, words: list[str]) -> None:
    for text in (" ".join(words), "  " + "   ".join(words)):
        assert after.encode(text) == before.encode(text)


def test_transformers_opens_the_saved_folder_with_the_same_ids(after: Tokenizer, tmp_path: Path) -> None:
    after.save(tmp_path)
    theirs, again = opened(tmp_path), Tokenizer.load(tmp_path)
    assert len(theirs) == again.size == after.size
    assert again.added == after.added and not again.fresh
    for text in (LAID_OUT, "{a", "a {", '{"list": [1, 2]}', "the <extra_id_0> sat", "\n"):
        ids = after.encode(text)
        assert theirs(text)["input_ids"] == again.encode(text) == ids
        assert theirs.decode(ids, skip_special_tokens=True) == after.decode(ids) == again.decode(ids)
    assert after.decode(after.encode(LAID_OUT)) == LAID_OUT


def test_what_a_tokenizer_has_is_not_added_again(before: Tokenizer, after: Tokenizer) -> None:
    assert after.add(NEW) is after
    assert before.add(["c", "[", "<extra_id_3>"]) is before
    larger = after.add(["{", "}}", "}}"])
    assert list(larger.fresh) == [after.size] and larger.encode("}}")[0] == after.size


def test_bytes_and_trained_tokenizers_take_new_entries_too(tmp_path: Path) -> None:
    import transformers

    transformers.ByT5Tokenizer().save_pretrained(tmp_path)
    bytes_ = Tokenizer.load(tmp_path)
    assert bytes_.add(NEW) is bytes_  # every byte is an id
    tables = bytes_.add(["<table>"])
    assert len(tables.encode("a<table>é ü")) == 1 + 1 + 2 + 1 + 2 + 1
    assert tables.decode(tables.encode("a<table>é ü")) == "a<table>é ü"
    tables.save(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again").encode("a<table>é ü") == tables.encode("a<table>é ü")
    assert (bytes_.size, tables.size) == (384, 385)
    trained = Tokenizer.train([TEXT] * 5, 80).add(NEW)
    assert trained.decode(trained.encode(LAID_OUT)) == LAID_OUT
    trained.save(tmp_path / "trained")
    assert opened(tmp_path / "trained")(LAID_OUT)["input_ids"] == trained.encode(LAID_OUT)
