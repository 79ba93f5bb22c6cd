"""Pickles give arrays, tensors and plain containers; whatever else they name is never called."""

from __future__ import annotations

import builtins
import collections
import gzip
import io
import os
import pathlib
import pickle
import shutil
import subprocess

import numpy as np
import pytest
import torch

from sourcewise.data.formats.pickles import load_pickle, open_pickle
from sourcewise.data.formats.trees import open_torch
from sourcewise.data.readers.manifests import read_manifest
from sourcewise.errors import RequestError


class Calls:
    """Calls a function where it is unpickled."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def _opened(content: bytes):
    return open_pickle(io.BytesIO(content))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_arrays_and_tensors_of_every_protocol(protocol, compress):
    rng = np.random.default_rng(0)
    arrays = {
        "float32": rng.standard_normal((5, 3)).astype("float32"),
        "by column": np.asfortranarray(rng.standard_normal((4, 3))),
        "big-endian": np.arange(6, dtype=">f4").reshape(2, 3),
        "a view": rng.standard_normal((9, 8)).astype("float16")[::2, 1:4],
        "whole numbers": np.arange(6).reshape(3, 2),
    }
    tensors = {
        "tensor": torch.randn(6, 4),
        "turned": torch.randn(4, 6).T,
        "a part": torch.randn(10, 4)[3:7],
        "half": torch.randn(2, 2).half(),
        "parameter": torch.nn.Parameter(torch.randn(3, 2)),
    }
    whole = {"arrays": arrays, "tensors": collections.OrderedDict(tensors), "words": ["a", b"b", {1}, None, 2.5, True]}
    found = _opened(compress(pickle.dumps(whole, protocol=protocol)))
    assert list(found.keys()) == [*(f"arrays/{n}" for n in arrays), *(f"tensors/{n}" for n in tensors)]
    for name, array in arrays.items():
        assert np.array_equal(found.read(f"arrays/{name}", slice(None)), array)
    for name, tensor in tensors.items():
        assert np.array_equal(found.read(f"tensors/{name}", slice(1, 2)), tensor.detach().numpy()[1:2])
    assert load_pickle(io.BytesIO(pickle.dumps(whole, protocol=protocol)))["words"] == ["a", b"b", {1}, None, 2.5, True]


HOSTILE = {
    "a command": Calls(os.system, "touch harmed"),
    "a process": Calls(subprocess.run, ["touch", "harmed"]),
    "eval": Calls(eval, "open('harmed', 'w')"),
    "exec": Calls(exec, "open('harmed', 'w')"),
    "a file": Calls(builtins.open, "harmed", "w"),
    "getattr": Calls(getattr, "x", "upper"),
    "import": Calls(__import__, "harmed"),
    "numpy.load": Calls(np.load, "harmed.npy", None, True),
    "numpy.memmap": Calls(np.memmap, "harmed", "float32", "w+"),
    "numpy.fromfile": Calls(np.fromfile, "x.bin"),
    "torch.load": Calls(torch.load, "x.pt"),
    "a storage of a file": Calls(torch.UntypedStorage.from_file, "harmed", True, 8),
    "a folder gone": Calls(shutil.rmtree, "kept"),
    "a path": pathlib.Path("x"),
    "a class of ours": Calls(Calls, os.system),
    "inside a list": [np.ones((2, 2)), {"x": Calls(os.mkdir, "harmed")}],
    "as a key": {("x", Calls(os.mkdir, "harmed")): 1},
    "in an array of objects": np.array([[Calls(os.mkdir, "harmed")]], object),
    "in a dict's factory": Calls(collections.defaultdict, os.getcwd),
    "a type of numpy's": Calls(np.dtype, "O", False),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("case", HOSTILE)
def test_nothing_else_is_called(case, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").mkdir()
    content = pickle.dumps(HOSTILE[case], protocol=protocol)
    if case != "a type of numpy's":  # builds nothing
        with pytest.raises(ValueError, match=r"is a pickle that names [\w.]+; only arrays, tensors, texts"):
            _opened(content)
    else:
        assert not _opened(content).keys()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


_TENSOR = pickle.dumps(torch.ones(2, 2), protocol=2)
WRITTEN = {  # pickles that no Python writes
    "a name with dots": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.",
    "a module by itself": _global("os", "path") + b".",
    "an extension": b"\x80\x02\x82\x01.",
    "something outside": b"\x80\x02X\x01\x00\x00\x00xQ.",
    "bytes of a number": _global("builtins", "bytearray") + b"(I1000000000000\ntR.",
    "an array beyond its bytes": (
        _global("numpy.core.multiarray", "_reconstruct")
        + b"(" + _global("numpy", "ndarray") + b"(I0\ntC\x01btR"
        + b"(I1\n(I1000000\nI1000000\nt" + _global("numpy", "dtype") + b"(S'f4'\nI0\nI1\ntRI00\nC\x04abcdtb."
    ),
    "a tensor beyond its storage": _TENSOR.replace(b"K\x02K\x02\x86", b"K\x02K\x63\x86"),
    "cut off": pickle.dumps({"a": np.ones((3, 3))})[:-20],
    "empty": b"",
    "text": b"name,text\na,b\n",
}  # fmt: skip


@pytest.mark.parametrize("case", WRITTEN)
def test_broken_pickles_are_refused_in_words(case):
    with pytest.raises(ValueError, match=r"^(is|holds) ") as caught:
        _opened(WRITTEN[case])
    assert "\n" not in str(caught.value)


def test_a_torch_file_with_more_than_tensors_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place, value in enumerate((Calls(os.mkdir, "harmed"), pathlib.Path("x"))):
        torch.save({"a": torch.ones(2, 2), "b": value}, tmp_path / f"{place}.pt")
        with pytest.raises(ValueError, match=r"holds more than tensors .*which is never loaded"):
            open_torch(tmp_path / f"{place}.pt")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("name", ["set.train", "set.pkl", "set.pkl.gz", "set.npy", "set.pt"])
def test_a_hostile_manifest_is_refused_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"name": "a", "text": "b", "sign": Calls(os.mkdir, "harmed")}]
    if name.endswith(".npy"):
        np.save(name, np.array(rows, object), allow_pickle=True)
    elif name.endswith(".pt"):
        torch.save(rows, name)
    else:
        (tmp_path / name).write_bytes(gzip.compress(pickle.dumps(rows)))
    with pytest.raises(RequestError, match=rf"^{name}: .*mkdir"):
        read_manifest(name)
    assert not (tmp_path / "harmed").exists()
