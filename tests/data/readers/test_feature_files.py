"""A row of a manifest opens its own file, or none; and frames of its own span, or none."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.open import config_for, open_dataset, open_sources
from sourcewise.data.readers.manifests import read_manifest
from sourcewise.errors import FaultyData, RequestError

AUDIO = ("id", "audio", "tgt_text")
SIGNS = ("id", "signs_file", "signs_offset", "signs_length", "translation")
SIGNAL = ("signal", "signal_start", "signal_end", "encoder_prompt", "output")


@pytest.fixture
def folder(tmp_path):
    """Writes files whose every number is their place in the list."""

    def write(*names):
        for place, name in enumerate(names, start=1):
            path = tmp_path / "features" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path.open("wb"), np.full((10, 3), place, np.float32))
        return tmp_path / "features"

    return write


@pytest.fixture
def manifest(write_text):
    """Writes a manifest of a header and rows."""
    return lambda header, *rows: write_text(
        "m.tsv", "".join("\t".join(map(str, row)) + "\n" for row in (header, *rows))
    )


def _opened(dataset):
    return [int(dataset.features(i)[0, 0]) for i in range(len(dataset))]


def test_files_of_one_name_in_two_folders(folder, manifest):
    home = folder("spk1/001.npy", "spk2/001.npy", "spk1/002.npy")
    rows = [("spk2/001", "a"), ("spk1/002", "b"), ("spk1/001", "c")]
    assert _opened(read_manifest(manifest(("id", "text"), *rows), home)) == [2, 3, 1]
    far = [("x", f"/data/of/others/{name}.npy", text) for name, text in rows]
    assert _opened(read_manifest(manifest(AUDIO, *far), home)) == [2, 3, 1]
    windows = [("x", f"D:\\data\\{name}.npy".replace("/", "\\"), text) for name, text in rows]
    assert _opened(read_manifest(manifest(AUDIO, *windows), home)) == [2, 3, 1]


def test_a_tree_that_is_copied_in_part(folder, manifest):
    home = folder("spk1/001.npy", "spk1/002.npy", "001.npy")
    path = manifest(("id", "text"), ("spk1/001", "a"), ("spk2/001", "b"), ("spk1/002", "c"))
    with pytest.raises(RequestError, match=r"m\.tsv:3: .*spk2/001\.npy: no such file.*/001\.npy is there: another's"):
        read_manifest(path, home)
    found = read_manifest(path, home, skip_bad=True)
    assert _opened(found) == [1, 2] and [e.target for e in found] == ["a", "c"]


@pytest.mark.parametrize("prefix", ["", "/data/"])
def test_two_rows_never_share_a_file_by_their_last_part(prefix, folder, manifest):
    home = folder("001.npy", "002.npy")
    rows = [
        ("x", f"{prefix}spk1/001.npy", "a"),
        ("y", f"{prefix}spk2/001.npy", "b"),
        ("z", f"{prefix}spk1/002.npy", "c"),
    ]
    with pytest.raises(RequestError, match=r"001\.npy: would be the file of both .*spk1/001\.npy and .*spk2/001\.npy"):
        read_manifest(manifest(AUDIO, *rows), home, skip_bad=True)
    flat = read_manifest(manifest(AUDIO, *rows[1:]), home)
    assert _opened(flat) == [1, 2] and "leading folders of its file names are not here" in flat.notes[0].what


SPELLED = {
    "ending in the id": ("clip1.npy", ("id", "text")),
    "backslash": ("sub\\clip2", ("id", "text")),
    "blank after": ("clip1 ", ("id", "text")),
    "no-break space": ("clip1\u00a0", ("id", "text")),
    "other Unicode form": (unicodedata.normalize("NFC", "über"), ("id", "text")),
    "other case": ("CLIP1", ("id", "text")),
    "no ending": ("clip1", AUDIO),
    "ending in capitals": ("clip1.NPY", AUDIO),
    "other case, elsewhere": ("/home/u/Sub/Clip2.npy", AUDIO),
}


@pytest.mark.parametrize("case", SPELLED)
def test_names_spelled_otherwise_than_their_files(case, folder, manifest):
    name, header = SPELLED[case]
    home = folder("clip1.npy", "sub/clip2.npy", unicodedata.normalize("NFD", "über") + ".npy")
    found = read_manifest(manifest(header, (*("a",) * (len(header) - 2), name, "text")), home)
    place = 2 if "lip2" in name else 3 if "ber" in name else 1
    assert _opened(found) == [place]
    quiet = case in ("ending in the id", "no ending")
    assert quiet or any("spelled otherwise" in note.what or "leading" in note.what for note in found.notes)


def test_case_tells_files_apart_where_it_does_for_others(folder, manifest):
    home = folder("a1.npy", "B2.npy")
    with pytest.raises(RequestError, match=r"m\.tsv:3: .*A1\.npy: no such file.*a1\.npy is there: is the name spelled"):
        read_manifest(manifest(("id", "text"), ("B2", "x"), ("A1", "y")), home)
    with pytest.raises(RequestError, match=r"m\.tsv:3: .*A1\.npy: no such file"):
        read_manifest(manifest(("id", "text"), ("a1", "x"), ("A1", "y")), home)
    home = folder("clip1.npy")
    with pytest.raises(RequestError, match=r"m\.tsv:3: .*clip1\.npy: is the file of Clip1, not of CLIP1"):
        read_manifest(manifest(("id", "text"), ("Clip1", "x"), ("CLIP1", "y")), home)


@pytest.mark.parametrize(
    "name, there", [("007", "7.npy"), ("7.0", "7.npy"), ("clip", "clip.npz"), ("clop11", "clip11.npy")]
)
def test_the_file_that_nearly_matches_is_named(name, there, folder, manifest):
    home = folder(there, "other.npy")
    with pytest.raises(RequestError, match=f"no such file; .*{there} is there: is the name spelled otherwise"):
        read_manifest(manifest(("id", "text"), ("other", "y"), (name, "x")), home)


@pytest.mark.parametrize("features", [True, False])
def test_all_missing_files_are_counted(features, folder, manifest, tmp_path):
    home = folder(*(f"clip{i}.npy" for i in range(20) if i % 4))
    path = manifest(("id", "text"), *((f"clip{i}", "" if i == 6 else f"text {i}") for i in range(20)))
    with pytest.raises(RequestError) as caught:
        read_manifest(path, home if features else None)
    assert "clip0.npy: no such file" in str(caught.value) and not isinstance(caught.value, FaultyData)
    told = "(6 of 20 rows are bad: no such file (5: lines 2, 6, 10, …), the target is empty (1: line 8))"
    assert told in str(caught.value) and str(caught.value).endswith("data.skip_bad: true leaves them out")
    config = DatasetConfig(manifest=str(path), features=str(home))
    found = open_dataset(config, DataConfig(skip_bad=True))
    assert [e.target for e in found] == [f"text {i}" for i in range(20) if i % 4 and i != 6]
    assert _opened(found[3:5]) == [4, 6] and len(found.notes) == 6


@pytest.mark.parametrize(
    "header, cells, message",
    [
        (SIGNS, (4, 0), "asks for frames 4 to 4: a span of no frames"),
        (SIGNS, (0, 0), "asks for frames 0 to 0: a span of no frames"),
        (SIGNS, (4, "0.0"), "a span of no frames"),
        (SIGNS, (4, ""), "signs_length is empty"),
        (SIGNS, ("", 4), "signs_offset is empty"),
        (SIGNS, (10, 2), "has 10 frames; the manifest asks for frames 10 to 12"),
        (SIGNS, (4, "nan"), "signs_length is 'nan'; it should be a whole number"),
        (SIGNS, (-4, 2), "signs_offset is '-4'"),
        (SIGNS, ("2.5", 2), "signs_offset is '2.5'"),
        (SIGNAL, (6, 6, ""), "asks for frames 6 to 6: a span of no frames"),
        (SIGNAL, (6, 4, ""), "asks for frames 6 to 4: a span that ends before it starts"),
        (SIGNAL, (4, 12, ""), "asks for frames 4 to 12"),
        (SIGNAL, (12, "", ""), "asks for frames 12 to 10"),
    ],
)
def test_spans_that_mean_no_frames(header, cells, message, folder, manifest):
    home = folder("x.npy")
    names = ("i", "x.npy") if header is SIGNS else ("x.npy",)
    good = (0, 5) if header is SIGNS else (0, 5, "")
    path = manifest(header, (*names, *good, "a"), (*names, *cells, "b"), (*names, *good, "c"), (*names, *cells, "d"))
    with pytest.raises(RequestError) as caught:
        read_manifest(path, home)
    assert "m.tsv:3: " in str(caught.value) and message in str(caught.value)
    assert "(2 of 4 rows are bad: " in str(caught.value) and "(2: lines 3, 5)" in str(caught.value)
    assert [e.target for e in read_manifest(path, home, skip_bad=True)] == ["a", "c"]


def test_spans_that_are_read_otherwise_are_told(folder, manifest):
    home = folder("x.npy")
    signs = read_manifest(manifest(SIGNS, ("i", "x.npy", 0, 4, "a"), ("j", "x.npy", 6, 40, "b")), home)
    assert [e.frames for e in signs] == [4, 4]
    assert [n.what for n in signs.notes] == ["1 spans go beyond the end of their files, and are cut there"]
    whole = read_manifest(manifest(SIGNS, ("i", "x.npy", "", "", "a")), home)
    assert [e.frames for e in whole] == [10] and not whole.notes
    signal = read_manifest(manifest(SIGNAL, ("x.npy", 0, 0, "", "a"), ("x.npy", 3, 0, "", "b")), home)
    assert [e.frames for e in signal] == [10, 7]
    assert [n.what for n in signal.notes] == [
        "1 spans with a start and signal_end 0 or nothing: read to the end of the file"
    ]


def test_matrices_of_another_width_and_broken_ones_are_counted(folder, manifest):
    home = folder("a.npy", "b.npy", "c.npy", "d.npy")
    np.save(home / "b.npy", np.ones((4, 5), np.float32))
    Path(home / "d.npy").write_bytes(b"")
    path = manifest(("id", "text"), *((name, name) for name in "abcd"))
    with pytest.raises(
        RequestError, match=r"b\.npy: is 5 wide; its neighbours are 3 wide.*another width \(1: line 3\), is empty"
    ):
        read_manifest(path, home)
    assert _opened(read_manifest(path, home, skip_bad=True)) == [1, 3]


def test_a_manifest_may_be_a_csv(folder, write_text):
    home = folder("a.npy", "b.npy")
    path = write_text("m.csv", 'id;n_frames;text\r\na;10;"x; ""y"""\r\nb;10;z\r\n')
    found = open_dataset(DatasetConfig(manifest=str(path), features=str(home)))
    assert [(e.id, e.target) for e in found] == [("a", 'x; "y"'), ("b", "z")] and _opened(found) == [1, 2]


@pytest.mark.parametrize("ending", [".mp4", ".WAV", ".pose"])
def test_names_of_the_recordings_that_features_were_extracted_from(ending, folder, manifest):
    home = folder("s/a_1.npy", "s/a_2.npy")
    named = manifest(AUDIO, ("x", f"s/a_2{ending}", "x"), ("y", f"s/a_1{ending}", "y"))
    problem = "extract them first" if ending == ".mp4" else "no such file"  # the others are read, where they are
    with pytest.raises(RequestError, match=rf"m\.tsv:2: .*a_2\{ending}: .*{problem}; .*a_2\.npy is there: is the"):
        read_manifest(named, home)
    found = read_manifest(manifest(("id", "text"), (f"s/a_2{ending}", "x"), (f"s/a_1{ending}", "y")), home)
    assert _opened(found) == [2, 1] and "2 names are spelled otherwise" in found.notes[0].what
    with pytest.raises(RequestError, match=r"m\.tsv:3: .*a_1\.npy: is the file of s/a_1, not of s/a_1\.mp4"):
        read_manifest(manifest(("id", "text"), ("s/a_1", "x"), ("s/a_1.mp4", "y")), home)


def test_folders_that_became_part_of_the_name_are_told(folder, manifest):
    home = folder("spk1_a.npy", "spk2_a.npy")
    with pytest.raises(RequestError, match=r"spk1/a\.npy: no such file.*spk1_a\.npy is there: is the name spelled"):
        read_manifest(manifest(("id", "text"), ("spk1/a", "x"), ("spk2/a", "y")), home)


def test_columns_of_spans_that_are_not_there(folder, manifest):
    home = folder("x.npy")
    begun = read_manifest(manifest(("signs_file", "signs_offset", "translation"), ("x.npy", 4, "a")), home)
    assert [n.what for n in begun.notes] == ["1 spans with a start and no signs_length: read to the end of the file"]
    with pytest.raises(RequestError, match=r"m\.tsv:2: there is no column signs_offset"):
        read_manifest(manifest(("signs_file", "signs_length", "translation"), ("x.npy", 4, "a")), home)


def test_a_home_folder_is_understood(folder, manifest, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder("a.npy")
    manifest(("id", "text"), ("a", "x"))
    assert _opened(open_dataset(config_for("~/m.tsv", "~/features"))) == [1]
    assert [e.id for e in open_sources("~/m.tsv")] == ["a"]


def test_an_id_in_several_rows_reads_one_file_and_is_told(folder, manifest):
    home = folder("a.npy", "b.npy", "c.npy")
    path = manifest(("id", "text"), ("a", "x"), ("b", "y"), ("a", "z"), ("c", "v"), ("c", "w"), ("a", "u"))
    found = read_manifest(path, home)
    assert _opened(found) == [1, 2, 1, 3, 3, 1]
    (note,) = found.notes
    assert note.what == "2 ids stand in 5 rows, such as 'a': the same features, with a text each"
    assert note.where == "line 4"
    assert not read_manifest(manifest(("id", "text"), ("a", "x"), ("b", "y")), home).notes


@pytest.mark.parametrize(
    "data, what",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n", "is a pointer of Git LFS"),
        (b"/annex/objects/SHA256E-s1--ab.npy\n", "is a pointer of git-annex"),
        (b"<!DOCTYPE html><title>404</title>", "is a page of the web"),
    ],
)
@pytest.mark.parametrize("ending", [".npy", ".npz", ".h5", ".pt", ".safetensors", ".pkl", ".wav"])
def test_what_stands_for_a_file_is_named(data, what, ending, folder, manifest):
    home = folder("a.npy")
    (home / "a.npy").unlink()
    (home / f"a{ending}").write_bytes(data)
    with pytest.raises(RequestError, match=rf"m\.tsv:2: .*a\{ending}: {what}"):
        read_manifest(manifest(("id", "text"), ("a", "x")), home)


@pytest.mark.parametrize("ending", [".npy.gz", ".csv", ".mat"])
def test_a_file_of_an_ending_that_is_not_read_is_named(ending, folder, manifest):
    home = folder("b.npy")
    (home / f"a{ending}").write_bytes(b"x")
    with pytest.raises(RequestError, match=rf"no such file; .*a{re.escape(ending)} is there, whose ending is not read"):
        read_manifest(manifest(("id", "text"), ("b", "y"), ("a", "x")), home)


@pytest.mark.parametrize("count", [0, 2])
def test_archives_of_several_arrays_or_none_are_counted_as_one_kind(count, tmp_path, manifest):
    for name in "abc":
        np.savez(tmp_path / f"{name}.npz", **{f"x{i}": np.ones((3, 2)) for i in range(count)})
    kind = "several arrays in one file" if count else "holds no array"
    with pytest.raises(RequestError, match=rf"a\.npz: holds .*3 of 3 rows are bad: {kind} \(3: lines 2, 3, 4\)"):
        read_manifest(manifest(("id", "text"), *((name, "x") for name in "abc")), tmp_path)
