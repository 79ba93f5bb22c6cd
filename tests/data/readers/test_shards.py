"""Texts in shards of a WebDataset: pairs by the endings of their members, or by the keys of their JSON."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sourcewise.config import DatasetConfig
from sourcewise.data.open import config_for, open_dataset
from sourcewise.data.readers.manifests import read_manifest
from sourcewise.data.readers.pairs import read_pairs
from sourcewise.errors import RequestError


def shard(path: Path, **members: Any) -> Path:
    """A tar file; texts as UTF-8, mappings as JSON, matrices as .npy. `__` in a name is a point."""
    with tarfile.open(path, "w") as file:
        for name, value in members.items():
            data = value if isinstance(value, bytes) else None
            if isinstance(value, np.ndarray):
                buffer = io.BytesIO()
                np.save(buffer, value)
                data = buffer.getvalue()
            elif data is None:
                data = (value if isinstance(value, str) else json.dumps(value)).encode()
            member = tarfile.TarInfo(name.replace("__", "."))
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


def read(path: Path, **how: Any) -> list[tuple[str, str, str]]:
    return [(e.id, e.source, e.target) for e in read_pairs(path, **how)]


def test_a_file_for_each_side(tmp_path: Path) -> None:
    path = shard(tmp_path / "x.tar", a__src__txt="eins\n", a__tgt__txt="one\r\n", b__src__txt="zwei", b__tgt__txt="two")
    assert read(path, source="src", target="tgt") == [("a", "eins", "one"), ("b", "zwei", "two")]
    with pytest.raises(RequestError, match=r"x\.tar: no column 'source'; it has: id, src, tgt"):
        read(path)
    direct = shard(tmp_path / "y.TAR", a__source__txt="\ufeffeins", a__target__txt=" one ")
    assert read(direct) == [("a", "eins", " one ")]
    bare = shard(tmp_path / "z.tar", a__de="no text", a__source="eins", a__target="one")
    assert read(bare) == [("a", "eins", "one")]
    assert "members of these endings are not read: .de (1)" in [note.what for note in read_pairs(bare).notes]


def test_json_with_fields(tmp_path: Path) -> None:
    rows = [{"translation": {"de": "eins", "en": "one"}, "domain": "x"}, {"translation": {"de": "zwei", "en": None}}]
    path = shard(tmp_path / "x.tar", a__json=rows[0], b__json=rows[1])
    with pytest.raises(RequestError, match=r"x\.tar:2: the target is empty"):
        read(path, source="translation.de", target="translation.en")
    assert read(path, source="translation.de", target="translation.en", skip_bad=True) == [("a", "eins", "one")]


def test_what_is_wrong_is_told_with_shard_and_member(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    for members, problem in (
        ({"a__txt": b"\xff\xfe"}, r"x\.tar: a\.txt: 'utf-8' codec can't decode"),
        ({"a__json": [1]}, r"x\.tar: a\.json: no JSON object"),
        ({"a__json": "{"}, r"x\.tar: a\.json: Expecting property name"),
        ({"a__source__txt": "x", "a__json": {"source": "y"}}, r"a\.json: gives 'source', as another of its members"),
        (
            {"a__source__txt": "x", "b__target__txt": "y"},
            r"x\.tar:1: no 'target' in this line; every line needs it",
        ),
    ):
        shard(path, **members)
        with pytest.raises(RequestError, match=problem):
            read(path)
    with pytest.raises(RequestError, match=r"no-000\.tar: no such file"):
        read(tmp_path / "no-{000..001}.tar")
    with pytest.raises(RequestError, match=r"\{5\.\.3\} stands for no number"):
        read(tmp_path / "no-{5..3}.tar")
    path.write_bytes(b"no tar at all")
    with pytest.raises(RequestError, match=r"x\.tar: is no uncompressed tar file"):
        read(path)


def test_a_shard_of_texts_is_pairs_and_one_of_matrices_a_manifest(tmp_path: Path) -> None:
    texts = shard(tmp_path / "texts.tar", a__source__txt="eins", a__target__txt="one")
    clips = shard(tmp_path / "clips.tar", a__npy=np.ones((3, 2), np.float32), a__txt="one", a__jpg=b"picture")
    assert config_for(str(texts)).pairs == str(texts) and config_for(str(clips)).manifest == str(clips)
    found = read_manifest(clips)
    assert (found.dims, found[0].target) == (2, "one")
    assert "members of these endings are not read: .jpg (1)" in [note.what for note in found.notes]


def test_a_large_shard_is_kept_on_disk_as_a_table_is(tmp_path: Path) -> None:
    from sourcewise.config import DataConfig

    members = {f"{i:04}__{side}__txt": f"{side} {i}" for i in range(300) for side in ("source", "target")}
    path = shard(tmp_path / "x.tar", **members)
    config = DatasetConfig(pairs=str(path))
    data = DataConfig(memory_mb=0.0, store=str(tmp_path / "store"))
    kept, held = open_dataset(config, data), open_dataset(config)
    assert [(e.id, e.source, e.target, e.where) for e in kept] == [(e.id, e.source, e.target, e.where) for e in held]


def test_a_set_of_the_hub_is_written_with_hub() -> None:
    with pytest.raises(ValueError, match="a set of the hub is written hub:me/set, not hf://datasets/me/set/x"):
        DatasetConfig(pairs="hf://datasets/me/set/x.parquet")
