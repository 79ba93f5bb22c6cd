"""Pickles of records, Parquet, Arrow and shards: what is missing, doubtful or not alone is told by name."""

from __future__ import annotations

import io
import pickle
import tarfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from sourcewise.data.open import config_for
from sourcewise.data.readers.manifests import read_manifest
from sourcewise.errors import RequestError

GOOD = {"name": "a", "text": "one", "sign": torch.ones(3, 2)}


@pytest.fixture
def pickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda tree: (tmp_path / "set.train").write_bytes(pickle.dumps(tree))


def test_rows_without_their_matrix_or_text(pickled):
    pickled([GOOD, {"name": "b", "text": "two"}, {**GOOD, "name": "c", "text": " "}])
    with pytest.raises(RequestError, match=r"set\.train:2: sign holds no matrix \(2 of 3 rows are bad"):
        read_manifest("set.train")
    assert [e.id for e in read_manifest("set.train", skip_bad=True)] == ["a"]


def test_widths_and_shapes_are_checked_by_row(pickled):
    rows = [{**GOOD, "name": str(i)} for i in range(3)]
    pickled([*rows, {**GOOD, "name": "w", "sign": torch.ones(3, 5)}])
    with pytest.raises(RequestError, match=r"set\.train:4: set\.train\[3\]: is 5 wide; its neighbours are 2 wide"):
        read_manifest("set.train")
    pickled([*rows, {**GOOD, "name": "w", "sign": torch.ones(1, 3, 2)}])
    with pytest.raises(RequestError, match=r"set\.train:4: .*has shape \(1, 3, 2\); .*save its only part, x\[0\]"):
        read_manifest("set.train")


def test_several_columns_of_matrices_need_a_word(pickled):
    rows = [{"name": "a", "text": "one", "rgb": torch.ones(3, 2), "pose": torch.zeros(3, 4)}]
    pickled(rows)
    with pytest.raises(RequestError, match=r"rgb, pose hold matrices; `file: COLUMN` says which"):
        read_manifest("set.train")
    assert read_manifest("set.train", file="pose").dims == 4
    pickled([{"id": "a", "target": "one", "keypoints": np.ones((3, 6))}])
    assert read_manifest("set.train").dims == 6  # the only one


def test_what_is_no_record_is_told(pickled):
    pickled({"prefix": "/data", 0: {"fileid": "x", "text": "one"}, 1: {"fileid": "y", "text": "two"}})
    for name in "xy":
        np.save(f"{name}.npy", np.ones((3, 2), np.float32))
    found = read_manifest("set.train", ".")
    assert [e.id for e in found] == ["x", "y"]
    assert any("1 entries are no records ('prefix'): left out" in note.what for note in found.notes)
    pickled({"weights": 3, "lr": 0.1})
    with pytest.raises(RequestError, match=r"set\.train: holds a dict without records; as a manifest it should hold"):
        read_manifest("set.train")


def test_texts_of_python_2_are_utf_8(pickled, tmp_path):
    """Python 2 wrote byte strings; its arrays and names come the same way."""

    def text(word):
        data = word.encode("utf-8")
        return b"U" + bytes([len(data)]) + data

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text("b") + b"tR"
        b"(K\x01(K\x01K\x02tcnumpy\ndtype\n(" + text("f4") + b"K\x00K\x01tR(K\x03" + text("<") + b"NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08" + np.array([1, 2], "<f4").tobytes() + b"tb"
    )
    record = b"}(" + text("name") + text("a") + text("text") + text("grün") + text("sign") + array + b"u"
    (tmp_path / "set.train").write_bytes(b"\x80\x02](" + record + b"e.")
    found = read_manifest("set.train")
    assert found[0].target == "grün" and found[0].id == "a" and found.features(0).tolist() == [[1, 2]]


def test_a_set_that_holds_its_matrices_takes_no_folder(pickled, tmp_path):
    pickled([GOOD])
    with pytest.raises(RequestError, match=r"set\.train holds its matrices itself, in sign; leave features out"):
        read_manifest("set.train", tmp_path)


def _parquet(path, features, kind, **columns):
    arrays = {"features": pyarrow.array(features, kind), **{n: pyarrow.array(v) for n, v in columns.items()}}
    pyarrow.parquet.write_table(pyarrow.table(arrays), path, row_group_size=2)


KINDS = {
    "lists": pyarrow.list_(pyarrow.list_(pyarrow.float32())),
    "large lists": pyarrow.large_list(pyarrow.large_list(pyarrow.float32())),
    "fixed lists": pyarrow.list_(pyarrow.list_(pyarrow.float32(), 2)),
    "half": pyarrow.list_(pyarrow.list_(pyarrow.float16())),
    "whole": pyarrow.list_(pyarrow.list_(pyarrow.int16())),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cache_gb", [1.0, 0.0])
def test_columns_of_every_type_of_list(kind, cache_gb, tmp_path):
    values = [np.full((frames, 2), i).tolist() for i, frames in enumerate((3, 1, 4, 2, 5))]
    if kind == "half":
        values = [np.array(each, np.float16).tolist() for each in values]
        values = [[[np.float16(x) for x in row] for row in each] for each in values]
    _parquet(tmp_path / "x.parquet", values, KINDS[kind], text=list("abcde"))
    found = read_manifest(tmp_path / "x.parquet", cache_gb=cache_gb)
    assert [e.frames for e in found] == [3, 1, 4, 2, 5]
    assert all(np.array_equal(found.features(i), np.full_like(found.features(i), i)) for i in (4, 0, 3, 1, 2))
    assert config_for(str(tmp_path / "x.parquet")).manifest


def test_cells_that_are_no_matrix(tmp_path):
    values = [[[1.0, 2.0]], None, [[1.0, 2.0], [3.0]], [[1.0, None]]]
    _parquet(tmp_path / "x.parquet", values, KINDS["lists"], text=list("abcd"))
    with pytest.raises(RequestError, match=r"x\.parquet:2: features holds no matrix \(3 of 4 rows are bad: "):
        read_manifest(tmp_path / "x.parquet")
    assert [e.target for e in read_manifest(tmp_path / "x.parquet", skip_bad=True)] == ["a"]


def test_vectors_in_a_column_are_frames(tmp_path):
    _parquet(tmp_path / "x.parquet", [[1.0, 2.0, 3.0]] * 2, pyarrow.list_(pyarrow.float32()), text=["a", "b"])
    found = read_manifest(tmp_path / "x.parquet")
    assert found.dims == 3 and [e.frames for e in found] == [1, 1]


def test_a_table_of_texts_is_no_manifest(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"source": ["a"], "target": ["b"]}), tmp_path / "x.parquet")
    assert config_for(str(tmp_path / "x.parquet")).pairs


def _shard(path, **members):
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


def _npy(array):
    data = io.BytesIO()
    np.save(data, array)
    return data.getvalue()


def test_members_of_shards(tmp_path):
    ones = _npy(np.ones((2, 3), np.float32))
    _shard(tmp_path / "a.tar", x__npy=ones, x__txt=b"one\n", y__npy=ones, y__txt=b"two", z__txt=b"no features")
    with pytest.raises(RequestError, match=r"a\.tar:3: npy holds no matrix"):
        read_manifest(tmp_path / "a.tar")
    found = read_manifest(tmp_path / "a.tar", skip_bad=True)
    assert [(e.id, e.target, e.frames) for e in found] == [("x", "one", 2), ("y", "two", 2)]
    tensor = io.BytesIO()
    torch.save(torch.full((4, 3), 2.0), tensor)
    _shard(tmp_path / "b.tar", x__feats__pth=tensor.getvalue(), x__json=b'{"text": "drei", "speaker": "s"}')
    found = read_manifest(tmp_path / "b.tar")
    assert found[0].target == "drei" and found[0].group == {"speaker": "s"} and found.features(0).sum() == 24


def test_shards_that_cannot_be_read(tmp_path):
    _shard(tmp_path / "a-0.tar", x__npy=_npy(np.ones((2, 3))), x__txt=b"one")
    _shard(tmp_path / "a-1.tar", x__npy=_npy(np.ones((2, 3))), x__txt=b"one")
    with pytest.raises(RequestError, match=r"a-1\.tar: holds 'x', as another shard does"):
        read_manifest(tmp_path / "a-{0..1}.tar")
    with pytest.raises(RequestError, match=r"a-2\.tar: no such file"):
        read_manifest(tmp_path / "a-{2..3}.tar")
    _shard(tmp_path / "c.tar", x__npy=b"\x93NUMPY", x__txt=b"one")
    with pytest.raises(RequestError, match=r"c\.tar:1: .*has a broken header"):
        read_manifest(tmp_path / "c.tar")
    (tmp_path / "d.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(RequestError, match=r"d\.tar: is no uncompressed tar file"):
        read_manifest(tmp_path / "d.tar")
    _shard(tmp_path / "e.tar", x__npy=_npy(np.ones((2, 3))), x__json=b"[1]")
    with pytest.raises(RequestError, match=r"e\.tar: x\.json: no JSON object"):
        read_manifest(tmp_path / "e.tar")
