"""What `features` may be: a folder of files of any format, one file of all clips, a pattern, or several streams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.formats.registry import formats
from sourcewise.data.open import open_dataset, open_sources
from sourcewise.data.readers.manifests import read_manifest
from sourcewise.errors import FaultyData, RequestError
from tests.data.formats.test_formats import pose

CLIPS = {f"c{i}": np.full((frames, 3), i, np.float32) for i, frames in enumerate((5, 2, 4), 1)}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A current folder with a manifest of three clips."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.tsv").write_text("id\ttext\n" + "".join(f"{name}\ttext {name}\n" for name in CLIPS))
    return tmp_path


def _opened(dataset):
    return [(len(dataset.features(i)), float(dataset.features(i).min())) for i in range(len(dataset))]


ALL = [(5, 1.0), (2, 2.0), (4, 3.0)]


def _pickle(path, array):
    import pickle

    path.write_bytes(pickle.dumps({"features": array}))


def _hdf5(path, array):
    import h5py

    with h5py.File(path, "w") as file:
        file["x"] = array


def _safetensors(path, array):
    from safetensors.numpy import save_file

    save_file({"x": array}, path)


FILES = {
    ".npy": lambda path, array: np.save(path, array),
    ".npz": lambda path, array: np.savez(path, array),
    ".pt": lambda path, array: torch.save(torch.from_numpy(array), path),
    ".pkl": _pickle,
    ".h5": _hdf5,
    ".safetensors": _safetensors,
    ".pose": lambda path, array: path.write_bytes(pose(0.2, array.reshape(-1, 1, 1, 3), np.ones((len(array), 1, 1)))),
}


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("ending", [".npy", ".npz", ".pt", ".pkl", ".h5", ".safetensors"])
def test_a_folder_of_one_file_each(ending, named, home):
    (home / "f").mkdir()
    for name, array in CLIPS.items():
        FILES[ending](home / "f" / f"{name}{ending}", array)
    if not named:
        assert _opened(read_manifest("m.tsv", "f")) == ALL
        return
    rows = "".join(f"{name}{ending}\t{name}\n" for name in CLIPS)
    (home / "paths.csv").write_text("where,text\n" + rows.replace("\t", ","))
    assert _opened(read_manifest("paths.csv", "f", file="where")) == ALL


def test_poses_in_a_folder(home):
    values = np.arange(18, dtype="float32").reshape(2, 1, 3, 3)
    for name in CLIPS:
        (home / f"{name}.pose").write_bytes(pose(0.1, values, np.ones((2, 1, 3))))
    found = read_manifest("m.tsv", ".")
    assert found.dims == 9 and np.array_equal(found.features(1), values.reshape(2, 9))


@pytest.mark.parametrize(
    ("span", "frames"), [((0, 0), (0, 10)), ((0, 200), (0, 5)), ((210, 0), (5, 10)), ((90, 210), (2, 6))]
)
@pytest.mark.parametrize("version", [0.1, 0.2])
def test_spans_of_poses_are_milliseconds_in_multimodalhugs(span, frames, version, home):
    """From the frame that holds the start to the one that holds the end, as pose-format's own reader cuts."""
    values = np.arange(20, dtype="float32").reshape(10, 1, 1, 2)
    (home / "a.pose").write_bytes(pose(version, values, np.ones((10, 1, 1))))  # 25 frames a second
    header = "signal\tsignal_start\tsignal_end\tencoder_prompt\tdecoder_prompt\toutput\n"
    (home / "s.tsv").write_text(f"{header}a.pose\t{span[0]}\t{span[1]}\t\t\ttext\n")
    assert np.array_equal(read_manifest("s.tsv").features(0), values[slice(*frames), 0, 0])
    (home / "s.tsv").write_text(f"{header}a.pose\t0\t900\t\t\ttext\n")
    with pytest.raises(RequestError, match=r"s\.tsv:2: .*is 0\.40 s long; it has no part"):
        read_manifest("s.tsv")


def test_one_array_for_all_rows_in_order(home):
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.save("sentences.npy", rows)
    found = read_manifest("m.tsv", "sentences.npy")
    assert [e.frames for e in found] == [1, 1, 1] and np.array_equal(found.features(2), rows[2:])
    said = " ".join(note.what for note in found.notes)
    assert "row i of sentences.npy is taken for row i of the manifest" in said and "3 of 3 clips are vectors" in said
    np.save("clips.npy", np.stack([rows, rows + 1, rows + 2]))
    assert np.array_equal(read_manifest("m.tsv", "clips.npy").features(1), rows + 1)
    np.save("more.npy", np.ones((4, 2), np.float32))
    with pytest.raises(RequestError, match=r"more\.npy: is one array of 4 rows, and m\.tsv has 3"):
        read_manifest("m.tsv", "more.npy")


@pytest.mark.parametrize("limit", [1, 2])
def test_a_limit_does_not_shift_rows(limit, home):
    np.save("rows.npy", np.arange(6, dtype=np.float32).reshape(3, 2))
    found = read_manifest("m.tsv", "rows.npy", limit=limit)
    assert [found.features(i)[0, 0] for i in range(limit)] == [0, 2][:limit]


def test_a_vector_is_one_frame(home):
    for name in CLIPS:
        np.save(f"{name}.npy", np.full(6, 2, np.float32))
    found = read_manifest("m.tsv", ".")
    assert found.dims == 6 and [e.frames for e in found] == [1, 1, 1] and found.features(0).shape == (1, 6)
    np.save("c2.npy", np.ones((4, 6), np.float32))
    assert any("2 of 3 clips are vectors" in note.what for note in read_manifest("m.tsv", ".").notes)


def test_a_key_that_is_not_there(home):
    np.savez("clips.npz", **{name: array for name, array in CLIPS.items() if name != "c2"}, c22=CLIPS["c2"])
    with pytest.raises(RequestError, match=r"m\.tsv:3: clips\.npz\[c2\]: has no 'c2' among its 3 keys .*'c22' meant"):
        read_manifest("m.tsv", "clips.npz")
    assert _opened(read_manifest("m.tsv", "clips.npz", skip_bad=True)) == [ALL[0], ALL[2]]


def test_a_file_of_several_needs_a_key(home):
    for name, array in CLIPS.items():
        np.savez(f"{name}.npz", rgb=array, flow=array[:, :2])
    with pytest.raises(RequestError, match=r"m\.tsv:2: c1\.npz: holds 2 arrays \(rgb, flow\); name one of them"):
        read_manifest("m.tsv", ".")
    assert _opened(read_manifest("m.tsv", "{id}.npz[rgb]")) == ALL
    assert read_manifest("m.tsv", "{id}.npz[flow]").dims == 2


@pytest.mark.parametrize("pattern", ["{id}/video.npy", "{id:.1}/{id}_s2.npy"])
def test_a_pattern(pattern, home):
    for name, array in CLIPS.items():
        path = home / pattern.replace("{id:.1}", name[0]).replace("{id}", name)
        path.parent.mkdir(exist_ok=True)
        np.save(path, array)
    assert _opened(read_manifest("m.tsv", pattern)) == ALL
    with pytest.raises(RequestError, match=r"m\.tsv:2: c1\.npy: no such file"):
        read_manifest("m.tsv", "{id}.npy")


STREAMS = {"rgb": 3, "pose": 2}


@pytest.fixture
def streams(home):
    (home / "rgb").mkdir()
    for name, array in CLIPS.items():
        np.save(home / "rgb" / f"{name}.npy", array)
    torch.save({name: torch.from_numpy(array[:, :2] + 10) for name, array in CLIPS.items()}, home / "pose.pt")
    return {"rgb": "rgb", "pose": "pose.pt"}


@pytest.mark.parametrize("given", ["a mapping", "the other order", "words"])
@pytest.mark.parametrize("cache_gb", [1.0, 0.0])
def test_streams_are_joined_frame_by_frame_in_order_of_name(given, cache_gb, streams):
    if given == "the other order":
        streams = dict(reversed(streams.items()))
    words = "rgb=rgb,pose=pose.pt" if given == "words" else streams
    config = DatasetConfig.model_validate({"manifest": "m.tsv", "features": words})
    found = open_dataset(config, DataConfig(cache_gb=cache_gb))
    assert found.dims == 5 and [e.frames for e in found] == [5, 2, 4]
    for i, array in enumerate(CLIPS.values()):
        assert np.array_equal(found.features(i), np.concatenate([array[:, :2] + 10, array], axis=1))
    assert any("frames are 5 wide: pose (2) + rgb (3)" in note.what for note in found.notes)
    again = open_sources("m.tsv", "rgb=rgb,pose=pose.pt")
    assert np.array_equal(again.features(2), found.features(2))


def test_streams_of_different_lengths_are_told_with_their_count(streams, home):
    for name in ("c1", "c3"):
        np.save(home / "rgb" / f"{name}.npy", CLIPS[name][1:])
    with pytest.raises(FaultyData, match=r"m\.tsv:2: pose has 5 frames, rgb has 4 frames; .*\(2 of 3 rows are bad"):
        read_manifest("m.tsv", streams)
    assert [e.id for e in read_manifest("m.tsv", streams, skip_bad=True)] == ["c2"]


def test_a_stream_that_lacks_a_clip_names_it(streams, home):
    (home / "rgb/c2.npy").unlink()
    with pytest.raises(RequestError, match=r"m\.tsv:3: rgb/c2\.npy: no such file"):
        read_manifest("m.tsv", streams)


@pytest.mark.parametrize("words", ["rgb=a,rgb=b", {}, {"rgb": 3}])
def test_streams_that_cannot_be(words):
    with pytest.raises(ValidationError, match="features"):
        DatasetConfig.model_validate({"manifest": "m.tsv", "features": words})


def test_rounded_numbers_are_told(home):
    for name, kind in zip(CLIPS, ("float64", "float64", "float16"), strict=True):
        np.save(f"{name}.npy", CLIPS[name].astype(kind))
    said = [note.what for note in read_manifest("m.tsv", ".").notes]
    assert said == ["2 clips hold float64: rounded to float32", "1 clips hold float16: read as float32, without loss"]


@pytest.mark.parametrize("kind", ["uint8", "int16", "bool", "float16", "int64", ">f8"])
def test_every_conversion_is_told(home, kind):
    for name, array in CLIPS.items():
        np.save(f"{name}.npy", np.ones_like(array).astype(kind))
    exact = kind not in ("int64", ">f8")
    how = "read as float32, without loss" if exact else "rounded to float32"
    assert [note.what for note in read_manifest("m.tsv", ".").notes] == [f"3 clips hold {np.dtype(kind)}: {how}"]


@pytest.mark.parametrize(("count", "others"), [(3, (".pt",)), (1, (".npz",)), (2, (".pt", ".h5"))])
def test_files_of_other_endings_beside_are_told(home, count, others):
    """Made by another version of the extraction, say: which of them is read must not be a secret."""
    for name, array in CLIPS.items():
        np.save(f"{name}.npy", array)
    for other in others:
        for name in list(CLIPS)[:count]:
            FILES[other](Path(f"{name}{other}"), 2 * CLIPS[name])
    found = read_manifest("m.tsv", ".")
    for other in others:
        said = f"{count} of 3 names have a file in {other}, too: .npy is read; `features: FOLDER/{{id}}{other}` reads"
        assert any(note.what.startswith(said) for note in found.notes), found.notes
    np.testing.assert_array_equal(found.features(0), next(iter(CLIPS.values())))
    named = read_manifest("m.tsv", "{id}" + others[0]) if count == 3 else None
    assert named is None or not any("too" in note.what for note in named.notes)


def test_transposed_matrices_are_suspected(home):
    for name, array in CLIPS.items():
        np.save(f"{name}.npy", array.T)
    with pytest.raises(RequestError, match=r"one number of rows and many widths: are they \(dims, frames\)\?"):
        read_manifest("m.tsv", ".")


def test_a_file_of_matrices_alone_is_a_source(home):
    np.savez("clips.npz", **CLIPS)
    found = open_sources("clips.npz")
    assert [e.id for e in found] == list(CLIPS) and _opened(found) == ALL
    torch.save(torch.ones(4, 3), "one.pt")
    assert _opened(open_sources("one.pt")) == [(4, 1.0)] and open_sources("one.pt")[0].id == "one"


def test_a_wrong_feature_file_is_named(home):
    (home / "x.txt").write_text("a")
    with pytest.raises(RequestError, match=r"x\.txt: no folder; features are a folder, or a file in \.npy, "):
        read_manifest("m.tsv", "x.txt")
    (home / "x.pt").write_text("a")
    with pytest.raises(RequestError, match=r"x\.pt: is no readable file of torch\.save"):
        read_manifest("m.tsv", "x.pt")
    with pytest.raises(RequestError, match=r"nothing: no such folder"):
        read_manifest("m.tsv", "nothing")


def test_every_ending_is_read_once():
    assert next(iter(formats())) == ".npy" and len(formats()) == len(set(formats()))
