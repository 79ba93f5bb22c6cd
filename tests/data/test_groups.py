"""Groups of examples: columns as people name them, and regular expressions on ids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.groups import group_columns, groups_in, read_groups
from sourcewise.data.mixtures import join
from sourcewise.data.open import open_dataset, open_sets
from sourcewise.errors import RequestError

Write = Callable[[str, str], Path]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("group", "group"),
        ("Group ID", "group"),
        ("signer", "signer"),
        ("signer_id", "signer"),
        ("Performer", "signer"),
        ("speaker", "speaker"),
        ("speakerId", "speaker"),
        ("spk-id", "speaker"),
        ("client_id", "speaker"),
        ("participant_id", "person"),
        ("VIDEO_ID", "recording"),
        ("video_name", "recording"),
        ("recording", "recording"),
        ("broadcast", "recording"),
    ],
)
def test_columns_are_read_as_people_name_them(column: str, kind: str) -> None:
    assert group_columns(["id", column, "text"]) == {kind: column}


@pytest.mark.parametrize("column", ["subject", "document", "user", "grouping", "speakers_note", "idgroup", "title"])
def test_other_columns_are_no_groups(column: str) -> None:
    assert group_columns(["id", column]) == {}


def test_a_second_column_of_a_kind_keeps_its_name() -> None:
    assert group_columns(["VIDEO_NAME", "VIDEO_ID", "signer"]) == {
        "recording": "VIDEO_ID", "VIDEO_NAME": "VIDEO_NAME", "signer": "signer",
    }  # fmt: skip


def test_cells_that_name_none_are_remarked_on() -> None:
    groups, remarks = read_groups({"speaker": ["a", "unknown", "", None, "NA", 3]}, 6)
    assert groups == [{"speaker": "a"}, {}, {}, {}, {}, {"speaker": "3"}]
    assert remarks == [(1, "2 cells of 'speaker' are 'unknown': they name no group")]


def test_pairs_and_mixtures_have_groups(write_text: Write, write_jsonl: Callable[..., Path]) -> None:
    table = write_text("a.tsv", "source\ttarget\tspeaker\nx\ty\tanna\nz\tw\t\n")
    lines = write_jsonl("b.jsonl", {"source": "x", "target": "y", "signer": 7}, {"source": "z", "target": "w"})
    one, other = (open_dataset(DatasetConfig(pairs=str(path))) for path in (table, lines))
    assert [e.group for e in one] == [{"speaker": "anna"}, {}]
    assert [e.group for e in other] == [{"signer": "7"}, {}]
    assert [e.group for e in join([one, other])] == [{"speaker": "anna"}, {}, {"signer": "7"}, {}]
    assert groups_in(one) == {"speaker": {"anna": [0]}}


def test_a_column_that_is_the_source_is_no_group(write_text: Write) -> None:
    path = write_text("a.tsv", "group\ttarget\nx\ty\n")
    assert open_dataset(DatasetConfig(pairs=str(path), source="group"))[0].group == {}


def test_a_group_that_is_no_text_does_not_make_a_row_bad(write_jsonl: Callable[..., Path]) -> None:
    path = write_jsonl("b.jsonl", {"source": "x", "target": "y", "group": ["a"]})
    assert open_dataset(DatasetConfig(pairs=str(path)))[0].group == {}


def test_manifests_have_groups(write_features: Callable[..., Path]) -> None:
    path = write_features(speaker=["a", "b", "a"], recording=["r", "r", "s"])
    found = open_dataset(DatasetConfig(manifest=str(path)))
    assert [e.group for e in found] == [
        {"recording": "r", "speaker": "a"}, {"recording": "r", "speaker": "b"}, {"recording": "s", "speaker": "a"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [(r"^(.*)-\d+$", ["tv9", "tv9", "x"]), (r"tv\d|x", ["tv9", "tv9", "x"]), (r"^t(v)9", ["v", "v", None])],
)
def test_data_group_finds_groups_in_ids(write_text: Write, pattern: str, groups: list[str | None]) -> None:
    path = write_text("a.tsv", "id\tsource\ttarget\ntv9-1\ta\tb\ntv9-2\tc\td\nx-3\te\tf\n")
    found = open_dataset(DatasetConfig(pairs=str(path)), DataConfig(group=pattern))
    assert [e.group.get("group") for e in found] == groups
    missed = [note.what for note in found.notes]
    assert missed == (["data.group finds nothing in 1 of 3 ids, such as 'x-3'"] if None in groups else [])


def test_data_group_that_finds_nothing_is_refused(write_text: Write) -> None:
    path = write_text("a.tsv", "source\ttarget\na\tb\n")
    data = DataConfig(train=DatasetConfig(pairs=str(path)), group="signer(.)")
    with pytest.raises(RequestError, match=r"data.group: 'signer\(.\)' finds nothing in the ids of .*, such as '1'"):
        open_sets(data, "train")


def test_data_group_that_is_no_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match="no regular expression"):
        DataConfig(group="(")
