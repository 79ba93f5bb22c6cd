from __future__ import annotations

import io
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

from sourcewise.data.readers.layouts import layout_of
from sourcewise.data.readers.manifests import read_manifest
from sourcewise.errors import RequestError


def _save(path, frames, dims=2, first=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = (first + np.arange(frames * dims, dtype=np.float32)).reshape(frames, dims)
    np.save(path, array)
    return array


@pytest.mark.parametrize("features", ["features/train", None])
@pytest.mark.parametrize("cache_gb", [1.0, 0.0])
def test_our_own_layout(write_features, tmp_path, features, cache_gb):
    manifest = write_features((5, 8, 3), dims=4)
    dataset = read_manifest(manifest, features and tmp_path / features, cache_gb=cache_gb)
    assert [(e.id, e.target, e.frames, e.source) for e in dataset] == [
        (f"clip{i}", f"text {i}", n, "") for i, n in enumerate((5, 8, 3))
    ]
    assert dataset.dims == 4 and dataset[2].where == f"{manifest}:4"
    for i in range(3):
        stored = np.load(tmp_path / f"features/train/clip{i}.npy")
        assert np.array_equal(dataset.features(i), stored.astype(np.float32))
    assert np.array_equal(dataset[1:].features(1), dataset.features(2))


def test_columns_may_be_named(write_features):
    manifest = write_features((2, 3), german=["eins", "zwei"], task=["say", "sign"])
    dataset = read_manifest(manifest, target="german", prompt="task")
    assert [(e.target, e.source) for e in dataset] == [("eins", "say"), ("zwei", "sign")]


def test_without_n_frames_or_target(write_text, tmp_path):
    _save(tmp_path / "f/x.npy", 3)
    manifest = write_text("m.tsv", "id\nx\n")
    assert read_manifest(manifest, tmp_path / "f", need_target=False)[0].frames == 3
    with pytest.raises(RequestError, match="no column 'text'; it has: id"):
        read_manifest(manifest, tmp_path / "f")


def test_limit_reads_only_those_files(write_features, tmp_path):
    manifest = write_features((2, 3, 4))
    (tmp_path / "features/train/clip2.npy").unlink()
    assert len(read_manifest(manifest, limit=2)) == 2


def test_slt_how2sign(write_text, tmp_path):
    """Absolute paths of another machine are found by their last part; slices end with the file."""
    array = _save(tmp_path / "i3d/train/vid_1.npy", 10)
    header = "id\tsigns_file\tsigns_offset\tsigns_length\tsigns_type\tsigns_lang\ttranslation\ttranslation_lang\ttopic"
    rows = [
        "s1\t/far/away/train/vid_1.npy\t0\t4\ti3d\tasl\tHello.\ten\t1",
        "s2\t/far/away/train/vid_1.npy\t4\t3\ti3d\tasl\tAnd you?\ten\t1",
        "s3\t/far/away/train/vid_1.npy\t7\t9\ti3d\tasl\tBye.\ten\t1",
    ]
    manifest = write_text("i3d/cvpr23.train.tsv", "\n".join([header, *rows]))
    dataset = read_manifest(manifest, tmp_path / "i3d/train")
    assert [(e.id, e.target, e.frames) for e in dataset] == [
        ("s1", "Hello.", 4),
        ("s2", "And you?", 3),
        ("s3", "Bye.", 3),
    ]
    assert np.array_equal(np.concatenate([dataset.features(i) for i in range(3)]), array)


def test_fairseq(write_text, tmp_path):
    """Plain .npy, and .npy inside an uncompressed archive by byte offset and length; quotes are literal."""
    plain = _save(tmp_path / "fbank/a.npy", 4)
    stored = np.arange(6, dtype=np.float16).reshape(3, 2)
    buffer = io.BytesIO()
    np.save(buffer, stored)
    with zipfile.ZipFile(tmp_path / "fbank80.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("other.npy", b"something else")
        archive.writestr("b.npy", buffer.getvalue())
    offset = (tmp_path / "fbank80.zip").read_bytes().index(buffer.getvalue())
    manifest = write_text(
        "train.tsv",
        "id\taudio\tn_frames\ttgt_text\tspeaker\n"
        'a\tfbank/a.npy\t4\t"quoted"\tx\n'
        f"b\tfbank80.zip:{offset}:{len(buffer.getvalue())}\t3\tzwei\tx\n",
    )
    for cache_gb in (1.0, 0.0):
        dataset = read_manifest(manifest, cache_gb=cache_gb)
        assert [(e.id, e.target) for e in dataset] == [("a", '"quoted"'), ("b", "zwei")]
        assert np.array_equal(dataset.features(0), plain)
        assert np.array_equal(dataset.features(1), stored.astype(np.float32))


def test_multimodalhugs(write_text, tmp_path):
    array = _save(tmp_path / "x.npy", 6)
    manifest = write_text(
        "m.tsv",
        "signal\tsignal_start\tsignal_end\tencoder_prompt\tdecoder_prompt\toutput\n"
        f"{tmp_path / 'x.npy'}\t0\t0\t__asl__\t\tall\n"
        "x.npy\t2\t5\t\t\tpart\n"
        "x.npy\t\t\t\t\tall again\n",
    )
    dataset = read_manifest(manifest)
    assert [(e.source, e.target, e.frames) for e in dataset] == [
        ("__asl__", "all", 6),
        ("", "part", 3),
        ("", "all again", 6),
    ]
    assert np.array_equal(dataset.features(1), array[2:5]) and dataset[0].id == "x"


def test_layouts_are_told_apart_by_a_column():
    assert layout_of(["id", "audio", "n_frames"]).name == "fairseq S2T"
    assert layout_of(["id", "signs_file"]).name == "slt_how2sign"
    assert layout_of(["id", "text"]).name == "sourcewise"
    assert layout_of(["source", "target"]) is None


def test_seven_thousand_files_open_within_seconds(tmp_path, write_text):
    folder = tmp_path / "f"
    folder.mkdir()
    buffer = io.BytesIO()
    np.save(buffer, np.ones((50, 20), np.float16))
    for i in range(7000):
        (folder / f"{i}.npy").write_bytes(buffer.getvalue())
    manifest = write_text("m.tsv", "id\ttext\n" + "".join(f"{i}\tx\n" for i in range(7000)))
    began = time.process_time()
    assert len(read_manifest(manifest, folder)) == 7000
    assert time.process_time() - began < 10


def test_benchmark_features(benchmark_data, tmp_path):
    subprocess.run([sys.executable, benchmark_data / "prepare.py", tmp_path, "fsdd"], check=True, capture_output=True)
    dataset = read_manifest(tmp_path / "fsdd/manifests/test.tsv")
    assert len(dataset) == 400 and dataset.dims == 40
    assert dataset.features(0).shape == (dataset[0].frames, 40)
