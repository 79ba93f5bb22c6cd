from __future__ import annotations

import numpy as np
import pytest

from sourcewise.data.readers.matrices import Clip, MatrixStore


def _store(tmp_path, arrays, cache_bytes=1e9, **clip):
    clips = []
    for i, array in enumerate(arrays):
        np.save(tmp_path / f"{i}.npy", array)
        clips.append(Clip(tmp_path / f"{i}.npy", f"m.tsv:{i + 2}", **clip))
    return MatrixStore(clips, cache_bytes)


@pytest.mark.parametrize("cache_bytes", [1e9, 0])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", "int16", "uint8", "bool"])
def test_every_kind_of_number_comes_as_float32(tmp_path, dtype, cache_bytes):
    array = (np.arange(12).reshape(4, 3) % 5).astype(dtype)
    store = _store(tmp_path, [array], cache_bytes)
    assert store.cached == (cache_bytes > 0)
    assert store(0).dtype == np.float32 and np.array_equal(store(0), array.astype(np.float32))
    assert store.frames == [4] and store.dims == 3 and len(store) == 1


@pytest.mark.parametrize("cache_bytes", [1e9, 0])
def test_slices_and_column_order(tmp_path, cache_bytes):
    array = np.arange(40, dtype=np.float32).reshape(10, 4)
    for layout in (array, np.asfortranarray(array)):
        store = _store(tmp_path, [layout], cache_bytes, start=3, stop=7)
        assert np.array_equal(store(0), array[3:7])


def test_a_matrix_is_the_callers_own(tmp_path):
    store = _store(tmp_path, [np.zeros((2, 2), np.float32)])
    store(0)[:] = 1
    assert store(0).sum() == 0


def test_one_file_for_many_clips_is_read_once(tmp_path):
    array = np.arange(20, dtype=np.float32).reshape(10, 2)
    np.save(tmp_path / "x.npy", array)
    size = (tmp_path / "x.npy").stat().st_size
    store = MatrixStore([Clip(tmp_path / "x.npy", "m:2", i, i + 1) for i in range(10)], cache_bytes=size)
    assert store.cached and np.array_equal(np.concatenate([store(i) for i in range(10)]), array)


def test_a_parser_that_fails_for_other_threads_is_asked_again(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.ones((2, 3), dtype="float32"))
    usual, failures = np.lib.format.read_array_header_1_0, iter([SystemError("AST constructor"), None])

    def fails_once(file):
        if error := next(failures, None):
            file.read(20)
            raise error
        return usual(file)

    monkeypatch.setattr(np.lib.format, "read_array_header_1_0", fails_once)
    assert MatrixStore([Clip(tmp_path / "a.npy", "m.tsv:2")], 0).frames == [2]
