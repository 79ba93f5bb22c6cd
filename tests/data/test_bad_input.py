"""Every way the files can be wrong ends in one line that names the file, the line and what would be right."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.open import open_dataset
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError


class _Boom:
    """Leaves a trace where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def _fails(config: dict, message: str, cache_gb: float = 1.0) -> None:
    with pytest.raises(RequestError) as caught:
        dataset = open_dataset(DatasetConfig.model_validate(config), DataConfig(cache_gb=cache_gb))
        dataset.features(1)  # beyond the cache numbers are checked when they are read
    assert "\n" not in str(caught.value)
    assert message in str(caught.value)


HEADER = "source\ttarget\n"
PAIRS = {
    "missing file": ("none.tsv", None, {}, "none.tsv: no such file"),
    "missing jsonl": ("none.jsonl", None, {}, "none.jsonl: no such file"),
    "missing parquet": ("none.parquet", None, {}, "none.parquet: no such file"),
    "a folder": ("x.tsv/y.tsv", "source\n", {"pairs": "x.tsv"}, "x.tsv: cannot be read (Is a directory)"),
    "unknown ending": (
        "x.xlsx",
        "a,b",
        {},
        "pairs are read from .tsv, .csv, .jsonl, .parquet, .tar or hub:NAME",
    ),
    "wrong column": ("x.tsv", "id\tsorce\ttarget\n1\ta\tb\n", {}, "x.tsv: no column 'source'; it has: id, sorce, "),
    "wrong target column": ("x.tsv", HEADER + "a\tb\n", {"target": "de"}, "no column 'de'; it has: "),
    "wrong nested column": ("x.jsonl", '{"t": {"en": "a"}}', {"source": "t.fr"}, "no column 't.fr'; it has: t.en"),
    "too few fields": (
        "x.tsv",
        HEADER + "a\tb\nonly\n",
        {},
        "x.tsv:3: only 1 fields; the header names 2: source, target",
    ),
    "too many fields": ("x.tsv", HEADER + "a\tb\tc\n", {}, "x.tsv:2: 3 fields; the header names 2: source, target"),
    "a column twice": ("x.tsv", "source\tsource\na\tb\n", {}, "x.tsv:1: two columns are called 'source'"),
    "not UTF-8": (
        "x.tsv",
        HEADER.encode() + b"ok\tok\nK\xe4se\tx\n",
        {},
        "x.tsv:3: not UTF-8 text at byte 2 of the line",
    ),
    "jsonl not UTF-8": ("x.jsonl", b'{"source": "\xff"}', {}, "x.jsonl:1: not UTF-8 text at byte 13"),
    "empty file": ("x.tsv", "", {}, "x.tsv: empty; its first line should name the columns"),
    "only a header": ("x.tsv", HEADER, {}, "x.tsv: no examples"),
    "empty jsonl": ("x.jsonl", "\n", {}, "x.jsonl: no examples"),
    "empty target": ("x.tsv", HEADER + "a\tb\nc\t\n", {}, "x.tsv:3: the target is empty"),
    "blank target": ("x.jsonl", '{"source": "a", "target": " \\n"}', {}, "x.jsonl:1: the target is empty"),
    "null target": ("x.jsonl", '{"source": "a", "target": null}', {}, "x.jsonl:1: the target is empty"),
    "bad JSON": ("x.jsonl", '{"source": "a", "target": "b"}\n{"source": ', {}, "x.jsonl:2: not JSON: "),
    "JSON of another shape": ("x.jsonl", '["a", "b"]', {}, "x.jsonl:1: a JSON list; each line is one"),
    "a key left out": (
        *("x.jsonl", '{"source": "a", "target": "b"}\n{"source": "c"}', {}),
        "x.jsonl:2: no 'target' in this line; every line needs it",
    ),
    "not text": ("x.jsonl", '{"source": ["a"], "target": "b"}', {}, "x.jsonl:1: 'source' is a list; it should be text"),
    "half a character": ("x.jsonl", '{"source": "\\ud83d", "target": "b"}', {}, "x.jsonl:1: half of a surrogate pair"),
    "no parquet": ("x.parquet", "PAR1 no", {}, "x.parquet: not a readable Parquet file"),
    "prompt for pairs": ("x.tsv", HEADER + "a\tb\n", {"prompt": "p"}, "x.tsv: prompt goes with a manifest"),
    "unknown split": (
        "",
        None,
        {"pairs": None, "builtin": "digits", "split": "dev"},
        "no split 'dev'; it has: train, ",
    ),
}


@pytest.mark.parametrize("case", PAIRS)
def test_pairs(case, write_text, tmp_path, monkeypatch):
    name, content, options, message = PAIRS[case]
    if content is not None:
        write_text(name, content)
    monkeypatch.chdir(tmp_path)
    _fails({"pairs": name, **options}, message)


def _array(array, **options):
    return lambda path: np.save(path, array, **options)


def _bytes(content):
    return lambda path: path.write_bytes(content)


def _cut(count):
    def write(path):
        np.save(path, np.ones((8, 4), np.float32))
        path.write_bytes(path.read_bytes()[:count])

    return write


def _with(value, dtype="float32"):
    array = np.ones((8, 4), dtype)
    array[5, 2] = value
    return _array(array)


MATRICES = {
    "missing": (Path.unlink, "no such file"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "cannot be read (Is a directory)"),
    "empty file": (_bytes(b""), "is empty; write it again"),
    "cut in the header": (_cut(60), "has a broken header"),
    "cut in the numbers": (_cut(200), "is cut off: 72 of 128 bytes"),
    "garbage": (_bytes(b"hello world"), "is not an .npy file"),
    "garbage after the mark": (_bytes(b"\x93NUMPY\x01\x00\x10\x00(((((((((((((((("), "has a broken header"),
    "pickled objects": (
        _array(np.array([[_Boom()]], object), allow_pickle=True),
        "holds pickled objects, which are never",
    ),
    "a pickle": (_bytes(pickle.dumps(_Boom())), "is a pickle, which is never loaded"),
    "an archive": (lambda path: np.savez(path.open("wb"), x=np.ones(3)), "is an .npz archive"),
    "no axis": (_array(np.float32(1)), "has shape (); a feature matrix is (frames, dims)"),
    "a vector of another width": (_array(np.ones(8, np.float32)), "is 8 wide; its neighbours are 4 wide"),
    "three axes": (_array(np.ones((8, 1, 4))), "has shape (8, 1, 4); a feature matrix is (frames, dims)"),
    "another width": (_array(np.ones((8, 5), np.float32)), "is 5 wide; its neighbours are 4 wide"),
    "NaN": (_with(np.nan), "has NaN or infinity, first in frame 5"),
    "infinity": (_with(-np.inf, "float16"), "has NaN or infinity, first in frame 5"),
    "beyond float32": (
        _with(1e300, "float64"),
        "has float64 numbers that float32 cannot hold, first in frame 5: 1e+300 in dimension 2; scale them",
    ),
    "no frames": (_array(np.ones((0, 4), np.float32)), "has no frames"),
    "no dims": (_array(np.ones((8, 0), np.float32)), "has frames of width 0"),
    "texts": (_array(np.full((8, 4), "a")), "holds <U1, not numbers"),
    "complex numbers": (_array(np.ones((8, 4), complex)), "holds complex128, not numbers"),
    "records": (_array(np.ones((8, 4), [("a", "f4")])), "holds [('a', '<f4')], not numbers"),
    "other frames than the manifest says": (_array(np.ones((7, 4), np.float32)), "has 7 frames; the manifest says 8"),
}


@pytest.mark.parametrize("cache_gb", [1.0, 0.0])
@pytest.mark.parametrize("case", MATRICES)
def test_matrices(case, cache_gb, write_features, tmp_path, monkeypatch):
    spoil, message = MATRICES[case]
    manifest = write_features((5, 8, 3))
    spoil(tmp_path / "features/train/clip1.npy")
    monkeypatch.chdir(tmp_path)
    _fails({"manifest": str(manifest)}, f"{manifest}:3: {tmp_path / 'features/train/clip1.npy'}: {message}", cache_gb)
    assert not Path("unpickled").exists()


SIGNAL = "signal\tsignal_start\tsignal_end\tencoder_prompt\tdecoder_prompt\toutput\n"
SIGNS = "id\tsigns_file\tsigns_offset\tsigns_length\ttranslation\n"
MANIFESTS = {
    "missing": (None, {}, "m.tsv: no such file"),
    "empty": ("", {}, "m.tsv: no column that names a feature file"),
    "of no layout": ("source\ttarget\na\tb\n", {}, "m.tsv: no column that names a feature file (one of audio, id, "),
    "no target column": ("id\tn_frames\n" + "x\t6\n" * 2, {}, "m.tsv: no column 'text'; it has: "),
    "wrong target column": ("id\ttext\nx\ta\n", {"target": "txet"}, "m.tsv: no column 'txet'; it has: id, text; is "),
    "wrong prompt column": ("id\ttext\nx\ta\n", {"prompt": "hint"}, "m.tsv: no column 'hint'"),
    "too few fields": ("id\tn_frames\ttext\nx\t6\ta\ny\n", {}, "m.tsv:3: only 1 fields; the header names 3"),
    "not UTF-8": (b"id\ttext\nx\t\xfc\n", {}, "m.tsv:2: not UTF-8 text at byte 3 of the line"),
    "only a header": ("id\tn_frames\ttext\n", {}, "m.tsv: no examples"),
    "empty target": ("id\ttext\nx\t\n", {}, "m.tsv:2: the target is empty"),
    "empty id": ("id\ttext\n\ta\n", {}, "m.tsv:2: id is empty; it should name the example's features"),
    "frames that are no number": ("id\tn_frames\ttext\nx\tsix\ta\n", {}, "m.tsv:2: n_frames is 'six'"),
    "no features folder": ("id\ttext\nx\ta\n", {"features": "nowhere"}, "nowhere: no such folder"),
    "audio": (
        "id\taudio\tn_frames\ttgt_text\nx\tx.mp4\t6\ta\n",
        {},
        "m.tsv:2: x.mp4: features are read from .npy, ",
    ),
    "a slice of audio": (
        "id\taudio\ttgt_text\nx\tx.flac:0:100\ta\n",
        {},
        "m.tsv:2: x.flac:0:100: features are read from",
    ),
    "a missing archive": ("id\taudio\ttgt_text\nx\tz.zip:0:10\ta\n", {}, "m.tsv:2: z.zip: no such file"),
    "milliseconds": (
        SIGNAL + "x.npy\t0\t2400\t\t\ta\n",
        {},
        "m.tsv:2: x.npy: has 6 frames; the manifest asks for frames 0 to 2400",
    ),
    "an end before its start": (
        SIGNAL + "x.npy\t5\t2\t\t\ta\n",
        {},
        "has 6 frames; the manifest asks for frames 5 to 2",
    ),
    "a start beyond the end": (SIGNS + "i\tx.npy\t6\t4\ta\n", {}, "has 6 frames; the manifest asks for frames 6 to 10"),
    "a pose file": (SIGNS + "i\tx.pose\t0\t4\ta\n", {}, "m.tsv:2: x.pose: no such file; "),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_manifests(case, write_text, tmp_path, monkeypatch):
    content, options, message = MANIFESTS[case]
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones((6, 2), np.float32))
    if content is not None:
        write_text("m.tsv", content)
    _fails({"manifest": "m.tsv", **options}, message)


def _saved(folder: Path) -> dict:
    Tokenizer.train(["a b c"], 20).save(folder)
    return json.loads((folder / "tokenizer.json").read_text())


TOKENIZERS = {
    "missing": ("none.json", None, "none.json: no such tokenizer; give a tokenizer.json, a SentencePiece .model, or a"),
    "missing model": ("./none.model", None, "none.model: no such tokenizer"),
    "empty folder": ("t", {"t/readme.txt": b"x"}, "t: no tokenizer in this folder; it should hold tokenizer.json or"),
    "no JSON": ("tokenizer.json", {"tokenizer.json": b"{"}, "tokenizer.json: not a tokenizer.json: "),
    "other JSON": ("x.json", {"x.json": b'{"a": 1}'}, "x.json: not a tokenizer.json: "),
    "not UTF-8": ("x.json", {"x.json": b"\xff"}, "x.json: not a tokenizer.json: it is not UTF-8"),
    "no model": ("x.model", {"x.model": b"hello"}, "x.model: not a SentencePiece model, or cut off"),
    "empty model": ("t", {"t/spiece.model": b""}, "spiece.model: not a SentencePiece model, or cut off"),
    "an unknown class": (
        "t",
        {"t/tokenizer_config.json": b'{"tokenizer_class": "Nope"}'},
        "t: no tokenizer can be opened",
    ),
}


@pytest.mark.parametrize("case", TOKENIZERS)
def test_tokenizers(case, write_text, tmp_path, monkeypatch):
    name, files, message = TOKENIZERS[case]
    for file, content in (files or {}).items():
        write_text(file, content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError) as caught:
        Tokenizer.load(name)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_tokenizer_cut_off_or_without_an_end(tmp_path):
    tree = _saved(tmp_path)
    text = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "cut.json").write_text(text[: len(text) // 2])
    with pytest.raises(RequestError, match=r"cut\.json: not a tokenizer\.json"):
        Tokenizer.load(tmp_path / "cut.json")
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(RequestError, match=r"tokenizer_config\.json: not JSON"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    changed = json.dumps({**tree, "post_processor": None}).replace('"</s>"', '"<stop>"')
    (tmp_path / "tokenizer.json").write_text(changed)
    with pytest.raises(RequestError, match="the tokenizer has no end-of-text token"):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_nothing_to_train_a_tokenizer_on():
    with pytest.raises(RequestError, match="no text to train on"):
        Tokenizer.train(["", " "], 100)


@pytest.mark.parametrize("name, library", [("digits", "sklearn"), ("dates", "babel")])
def test_an_embedded_set_without_its_library(name, library, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(RequestError, match=r"pip install 'sourcewise\[demo\]'"):
        open_dataset(DatasetConfig(builtin=name))
