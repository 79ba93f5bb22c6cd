"""Folders of Kaldi and ESPnet: every text meets its own features, and what cannot be used is named."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import soundfile

from sourcewise.data.readers.manifests import read_manifest
from sourcewise.errors import FaultyData, RequestError


def _write(path, **lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name} {rest}\n" for name, rest in lines.items()), encoding="utf-8")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """data/train of two utterances, 6 and 4 frames of an archive."""
    monkeypatch.chdir(tmp_path)
    data, places = b"", {}
    for name, frames in (("u1", 6), ("u2", 4)):
        data += name.encode() + b" "
        places[name] = f"feats.ark:{len(data)}"
        matrix = np.arange(frames * 2, dtype="<f4").reshape(frames, 2)
        data += b"\0BFM " + struct.pack("<bibi", 4, frames, 4, 2) + matrix.tobytes()
    (tmp_path / "feats.ark").write_bytes(data)
    _write(tmp_path / "data/train/feats.scp", **places)
    _write(tmp_path / "data/train/text", u2="two  words", u1="eins")
    return tmp_path


def test_texts_are_matched_by_id_not_by_line(home):
    _write(home / "data/train/utt2spk", u1="anna", u2="bert")
    found = read_manifest("data/train")
    assert [(e.id, e.target, e.frames, dict(e.group)) for e in found] == [
        ("u1", "eins", 6, {"speaker": "anna"}),
        ("u2", "two  words", 4, {"speaker": "bert"}),
    ]


def test_frames_of_an_archive(home):
    lines = (home / "data/train/feats.scp").read_text().splitlines()
    (home / "data/train/feats.scp").write_text(f"{lines[0]}[1:3]\n{lines[1]}\n")
    found = read_manifest("data/train")
    assert found.features(0).tolist() == [[2, 3], [4, 5], [6, 7]]  # Kaldi's last frame is included


def test_counts_of_frames_are_checked(home):
    _write(home / "data/train/utt2num_frames", u1=6, u2=5)
    with pytest.raises(FaultyData, match=r"feats\.scp:2: .*feats\.ark\[\d+\]: has 4 frames; the manifest says 5"):
        read_manifest("data/train")


def test_what_has_no_partner_is_told(home):
    _write(home / "data/train/text", u1="eins", u3="drei", u4="vier")
    with pytest.raises(FaultyData, match=r"\(3 of 4 rows are bad: the target is empty \(1.*a text without features"):
        read_manifest("data/train")
    found = read_manifest("data/train", skip_bad=True)
    assert [e.id for e in found] == ["u1"] and sum("left out" in note.what for note in found.notes) == 3


def test_an_id_twice_is_refused(home):
    with (home / "data/train/text").open("a") as file:
        file.write("u1 noch einmal\n")
    with pytest.raises(RequestError, match=r"text:3: 'u1' is there twice \(line 2\)"):
        read_manifest("data/train")


def test_commands_are_never_run(home):
    (home / "data/train/feats.scp").unlink()
    _write(home / "data/train/wav.scp", u1="touch harmed; cat a.wav |", u2="b.wav")
    with pytest.raises(RequestError, match=r"wav\.scp:1: u1: a command, which is never run"):
        read_manifest("data/train")
    assert not (home / "harmed").exists()


def test_segments_of_recordings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    samples = np.random.default_rng(0).standard_normal(32_000) * 0.1
    soundfile.write("talk.wav", samples, 16_000)
    soundfile.write("part.wav", samples[8_000:16_000], 16_000)
    _write(tmp_path / "d/wav.scp", talk="talk.wav")
    _write(tmp_path / "d/segments", s1="talk 0.5 1.0", s2="talk 1.0 2.0")
    _write(tmp_path / "d/text", s1="a", s2="b")
    found = read_manifest("d")
    (tmp_path / "m.csv").write_text("file,text\npart.wav,a\n")
    alone = read_manifest("m.csv", file="file")
    assert [e.frames for e in found] == [50, 100] and np.array_equal(found.features(0), alone.features(0))
    _write(tmp_path / "d/segments", s1="talk 0.5 1.0", s2="talk 1.0 3.0")
    with pytest.raises(RequestError, match=r"d/segments:2: talk\.wav\[1\.0:3\.0\]: is 2\.00 s long"):
        read_manifest("d")
    _write(tmp_path / "d/segments", s1="talk 0.5 1.0", s2="walk 1.0 2.0")
    with pytest.raises(FaultyData, match=r"d/segments:2: s2: a segment without times, or of a recording that wav\.scp"):
        read_manifest("d")


def test_conversions_of_recordings_are_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    soundfile.write("a.wav", rng.standard_normal((8_000, 2)) * 0.1, 8_000)
    soundfile.write("b.wav", rng.standard_normal(16_000) * 0.1, 16_000)
    (tmp_path / "m.csv").write_text("file,text\na.wav,a\nb.wav,b\n")
    found = read_manifest("m.csv", file="file")
    assert [e.frames for e in found] == [100, 100] and found.dims == 80
    assert found.features(0).shape == (100, 80)
    assert [note.what for note in found.notes] == [
        "2 clips are recordings: read as Whisper's log-mel features of 80 bands",
        "1 clips are sampled at 8,000 Hz: resampled to 16,000",
        "1 clips have 2 channels: averaged",
    ]
