"""Every format gives the arrays that its own library wrote, by key, whole and in part."""

from __future__ import annotations

import io
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch

from sourcewise.data.formats.registry import formats, open_bytes, open_store

ARRAYS = {
    "clip1": np.arange(15, dtype=np.float32).reshape(5, 3),
    "b/clip2": np.arange(8, dtype=np.float64).reshape(4, 2),
    "vector": np.arange(4, dtype=np.float16),
    "whole": np.arange(6).reshape(2, 3),
}


def _npz(path):
    np.savez(path.open("wb"), **ARRAYS)


def _compressed(path):
    np.savez_compressed(path.open("wb"), **ARRAYS)


def _torch(path):
    torch.save({name: torch.from_numpy(array) for name, array in ARRAYS.items()}, path)


def _old_torch(path):
    values = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
    torch.save(values, path, _use_new_zipfile_serialization=False)


def _torch_of_numpy(path):
    torch.save(ARRAYS, path)


def _safetensors(path):
    from safetensors.numpy import save_file

    save_file(ARRAYS, path)


def _hdf5(path):
    import h5py

    with h5py.File(path, "w") as file:
        for name, array in ARRAYS.items():
            file.create_dataset(name, data=array, chunks=True, compression="gzip")


WRITERS = {
    "x.npz": _npz,
    "y.npz": _compressed,
    "x.pt": _torch,
    "old.pth": _old_torch,
    "numpy.pt": _torch_of_numpy,
    "x.safetensors": _safetensors,
    "x.h5": _hdf5,
    "x.hdf5": _hdf5,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("inside", [False, True])
def test_arrays_by_key(name, inside, tmp_path):
    path = tmp_path / name
    WRITERS[name](path)
    store = open_bytes(io.BytesIO(path.read_bytes()), path.suffix) if inside else open_store(path)
    assert set(store.keys()) == set(ARRAYS)
    for key, array in ARRAYS.items():
        assert store.header(key).shape == array.shape and store.header(key).dtype == array.dtype
        assert np.array_equal(store.read(key, slice(None)), array)
        assert np.array_equal(store.read(key, slice(1, 2)), array[1:2])
    with pytest.raises(KeyError):
        store.header("clip9")


@pytest.mark.parametrize("content", [b"", b"hello world", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"], ids=str)
@pytest.mark.parametrize("ending", [e for e in formats() if e != ".ark"])
def test_garbage_is_refused_in_words(ending, content, tmp_path):
    path = tmp_path / f"x{ending}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^(is|has|holds) ") as caught:
        open_store(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.npz", "x.pt", "x.safetensors", "x.h5"])
def test_a_file_that_is_cut_off_is_refused(name, tmp_path):
    path = tmp_path / name
    WRITERS[name](path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"^is "):
        open_store(path)


def test_a_changed_file_is_read_anew(tmp_path):
    path = tmp_path / "x.pt"
    torch.save(torch.ones(2, 3), path)
    assert open_store(path).header("").shape == (2, 3)
    torch.save(torch.ones(40, 3), path)
    assert open_store(path).header("").shape == (40, 3)


def test_hdf5_never_leads_to_another_file(tmp_path):
    import h5py

    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.ones((2, 2))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["own"] = np.zeros((2, 2))
        file["linked"] = h5py.ExternalLink("other.h5", "secret")
        file["soft"] = h5py.SoftLink("/own")
        layout = h5py.VirtualLayout((2, 2), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "secret", (2, 2))
        file.create_virtual_dataset("virtual", layout)
    store = open_store(tmp_path / "x.h5")
    assert set(store.keys()) == {"own", "virtual"}
    with pytest.raises(ValueError, match="keeps its numbers in another file"):
        store.header("virtual")


def _kaldi(name, kind, array):
    sizes = b"".join(struct.pack("<bi", 4, each) for each in array.shape)
    return f"{name} ".encode() + b"\0B" + kind + sizes + array.tobytes()


def test_kaldis_archive_by_id_and_offset(tmp_path):
    double = np.arange(6.0).reshape(3, 2)
    vector = np.arange(4, dtype="float32")
    data = _kaldi("utt1", b"FM ", ARRAYS["clip1"]) + _kaldi("utt2", b"DM ", double) + _kaldi("7", b"FV ", vector)
    (tmp_path / "x.ark").write_bytes(data)
    by_id, expected = open_store(tmp_path / "x.ark"), {"utt1": ARRAYS["clip1"], "utt2": double, "7": vector}
    assert list(by_id.keys()) == list(expected)
    for key, array in expected.items():
        assert np.array_equal(by_id.read(key, slice(None)), array)
    assert np.array_equal(by_id.read("5", slice(1, 3)), ARRAYS["clip1"][1:3])


def test_kaldis_compressed_matrices(tmp_path):
    """By the published formulas: two bytes or one over the range, or one between percentiles of each column."""
    low, span, steps = 1.0, 2.0, np.array([[0, 255], [128, 64]], np.uint8)
    globe = struct.pack("<ffii", low, span, 2, 2)
    percentiles = np.array([[0, 100, 60000, 65535], [10, 20, 30, 40]], "<u2")
    (tmp_path / "x.ark").write_bytes(
        b"a \0BCM3 " + globe + steps.tobytes()
        + b"b \0BCM2 " + globe + (steps.astype("<u2") * 257).tobytes()
        + b"c \0BCM " + globe + percentiles.tobytes() + np.array([[0, 64], [192, 255]], np.uint8).tobytes()
    )  # fmt: skip
    store = open_store(tmp_path / "x.ark")
    assert [store.header(key).shape for key in "abc"] == [(2, 2)] * 3
    straight = low + steps / 255 * span
    assert np.allclose(store.read("a", slice(None)), straight, atol=1e-6)
    assert np.allclose(store.read("b", slice(None)), straight, atol=1e-6)
    column = low + percentiles / 65535 * span
    found = store.read("c", slice(None))
    assert np.allclose(found[:, 0], column[0, :2], atol=1e-6) and np.allclose(found[:, 1], column[1, 2:], atol=1e-6)


def test_a_textual_archive_is_named(tmp_path):
    (tmp_path / "x.ark").write_bytes(b"utt1  [\n  1 2 3\n  4 5 6 ]\n")
    with pytest.raises(ValueError, match="holds text there, not a binary matrix of Kaldi's; copy it"):
        open_store(tmp_path / "x.ark").keys()


def pose(version: float, values: np.ndarray, seen: np.ndarray) -> bytes:
    """A .pose file of two components of points, as the format is published."""
    frames, people, points, dims = values.shape

    def text(word: str) -> bytes:
        return struct.pack("<H", len(word)) + word.encode()

    head = struct.pack("<fHHHH", version, 640, 480, 0, 2)
    for name, count in (("BODY", points - 1), ("HAND", 1)):
        head += text(name) + text("XYZC"[:dims] + "C") + struct.pack("<HHH", count, 1, 1)
        head += b"".join(text(f"{name}{i}") for i in range(count)) + struct.pack("<HHHHH", 0, 0, 9, 9, 9)
    counts = ("<HHH", 25, frames, people) if version == 0.1 else ("<fIH", 25.0, frames, people)
    return head + struct.pack(*counts) + values.astype("<f4").tobytes() + seen.astype("<f4").tobytes()


@pytest.mark.parametrize("version", [0.1, 0.2])
@pytest.mark.parametrize("dims", [2, 3])
def test_poses(version, dims, tmp_path):
    rng = np.random.default_rng(1)
    values, seen = rng.standard_normal((6, 2, 4, dims)).astype("float32"), np.ones((6, 2, 4))
    seen[2, 0, 1] = 0
    (tmp_path / "x.pose").write_bytes(pose(version, values, seen))
    store = open_store(tmp_path / "x.pose")
    found = store.read("", slice(None)).reshape(6, 4, dims)
    expected = values[:, 0].copy()
    expected[2, 1] = 0  # not seen
    assert np.array_equal(found, expected)
    assert store.header("").remarks == ("have several persons: the first is read",)


def test_a_long_pose_of_version_1_keeps_its_frames(tmp_path):
    """Its header counts frames in two bytes."""
    numbers = 2 * 3 * 4  # bytes a frame
    head = pose(0.1, np.zeros((4, 1, 2, 2)), np.ones((4, 1, 2)))[: -4 * numbers]
    (tmp_path / "x.pose").write_bytes(head + bytes(65_540 * numbers))  # 65,540 is 4 in two bytes
    assert open_store(tmp_path / "x.pose").header("").shape == (65_540, 4)


def test_a_pose_that_is_cut_off_is_refused(tmp_path):
    content = pose(0.2, np.zeros((4, 1, 2, 2)), np.ones((4, 1, 2)))
    for length, problem in ((len(content) - 8, "is cut off: 24 of 32 bytes"), (40, "is no whole .pose file")):
        (tmp_path / "x.pose").write_bytes(content[:length])
        with pytest.raises(ValueError, match=problem):
            open_store(tmp_path / "x.pose")


def test_a_missing_library_is_one_line(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"")
    code = (
        "import sys; sys.modules['h5py'] = None\n"
        "from sourcewise.data.formats.registry import open_store\nfrom pathlib import Path\n"
        f"try: open_store(Path({str(tmp_path / 'x.h5')!r}))\nexcept ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ".h5 takes h5py, which is not installed: pip install 'sourcewise[h5]'\n"
