"""`sourcewise features` gives what a user of transformers gets, goes on where it was, and says how it was made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import sourcewise
from sourcewise.cli import main
from sourcewise.errors import RequestError
from sourcewise.extraction.encoder import Encoder
from sourcewise.extraction.extract import extract
from sourcewise.extraction.inputs import frames
from tests.commands import TINY
from tests.training.test_source_encoder import sounds_folder

soundfile = pytest.importorskip("soundfile")
pytestmark = pytest.mark.filterwarnings("ignore")


def write_sounds(folder: Path, seconds: tuple[float, ...] = (0.5, 0.8), rate: int = 16_000) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    rng, paths = np.random.default_rng(0), []
    for i, each in enumerate(seconds):
        paths.append(folder / f"clip{i}.wav")
        soundfile.write(paths[-1], rng.uniform(-0.5, 0.5, round(each * rate)).astype("float32"), rate, subtype="FLOAT")
    return paths


def write_video(path: Path, count: int = 10, size: int = 32, rate: int = 10) -> None:
    """A video without loss: picture i is grey 20 · i."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.width = stream.height = size
        stream.pix_fmt = "bgr0"
        for i in range(count):
            picture = np.full((size, size, 3), 20 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def of_transformers(folder: Path, kind: str, samples: np.ndarray, layer: int | None = None) -> np.ndarray:
    given = transformers.AutoFeatureExtractor.from_pretrained(folder)(samples, sampling_rate=16000, return_tensors="pt")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    model = model.get_encoder() if kind == "Whisper" else model
    with torch.no_grad():
        out = model(**given, output_hidden_states=True)
    states = out.last_hidden_state if layer is None else out.hidden_states[layer]
    count = -(-len(samples) * states.shape[1] // 480_000) if kind == "Whisper" else states.shape[1]
    return np.asarray(states[0, :count])


@pytest.mark.parametrize("kind", ["Wav2Vec2", "Hubert", "Whisper"])
@pytest.mark.parametrize("layer", [None, 0, 1])
def test_recordings(kind: str, layer: int | None, tmp_path: Path) -> None:
    model = sounds_folder(tmp_path / "model", kind)
    paths = write_sounds(tmp_path / "wav")
    done = extract([tmp_path / "wav"], model, tmp_path / "out", layer=layer)
    assert (done.made, done.kept, done.bad) == (2, 0, [])
    for path in paths:
        found = np.load(tmp_path / "out" / f"{path.stem}.npy")
        np.testing.assert_allclose(found, of_transformers(model, kind, soundfile.read(path)[0], layer), atol=2e-5)
    record = json.loads((tmp_path / "out" / "features.json").read_text())
    assert (record["layer"], record["dims"]) == ("last" if layer is None else layer, found.shape[1])
    assert record["processor"]["sampling_rate"] == 16_000


@pytest.mark.parametrize("kind", ["ViT", "Dinov2", "CLIPVision"])
def test_videos(kind: str, tmp_path: Path) -> None:
    model = sounds_folder(tmp_path / "model", kind)
    write_video(tmp_path / "videos" / "a" / "x.mkv")
    done = extract([tmp_path / "videos"], model, tmp_path / "out", stride=3)
    assert done.made == 1
    found = np.load(tmp_path / "out" / "a" / "x.npy")
    pictures = [np.full((32, 32, 3), 20 * i, np.uint8) for i in (0, 3, 6, 9)]
    pixels = transformers.AutoImageProcessor.from_pretrained(model)(pictures, return_tensors="pt")
    made = {"CLIPVision": transformers.CLIPVisionModel}.get(kind, transformers.AutoModel)
    with torch.no_grad():
        expected = made.from_pretrained(model).eval()(**pixels).last_hidden_state[:, 0]
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-5)


@pytest.mark.parametrize(
    ("rate", "seen"), [(None, range(10)), (5, [0, 2, 4, 6, 8]), (10, range(10)), (4, [0, 2, 5, 7])]
)
def test_pictures_a_second(rate: float | None, seen: Any, tmp_path: Path) -> None:
    write_video(tmp_path / "x.mkv")
    assert [int(image[0, 0, 0]) // 20 for image in frames(tmp_path / "x.mkv", rate, 1)] == list(seen)


def test_long_recordings_are_read_in_windows(tmp_path: Path) -> None:
    model = sounds_folder(tmp_path / "model", "Whisper")
    (path,) = write_sounds(tmp_path / "wav", (31.0,))
    done = extract([path], model, tmp_path / "out")
    samples = soundfile.read(path)[0]
    parts = [of_transformers(model, "Whisper", part) for part in (samples[:480_000], samples[480_000:])]
    np.testing.assert_allclose(np.load(tmp_path / "out" / "clip0.npy"), np.concatenate(parts), atol=2e-5)
    assert done.remarks == {"are longer than the encoder reads at once: read in windows of 30 s": 1}


def test_conversions_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = sounds_folder(tmp_path / "model", "Hubert")
    write_sounds(tmp_path / "wav", (0.5, 0.6), 8_000)
    assert main(["features", str(tmp_path / "wav"), "--with", str(model), "-o", str(tmp_path / "out"), "--json"]) == 0
    said = capsys.readouterr()
    assert "2 files are sampled at 8,000 Hz: resampled to 16,000" in said.err
    assert json.loads(said.out)["made"] == 2


@pytest.fixture
def words(tmp_path: Path) -> Callable[..., list[str]]:
    model = sounds_folder(tmp_path / "model", "Wav2Vec2")
    write_sounds(tmp_path / "wav", (0.2, 0.3, 0.4))
    return lambda *more: ["features", str(tmp_path / "wav"), "--with", str(model), "-o", str(tmp_path / "out"), *more]


def test_it_goes_on_where_it_was(
    words: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, calls = Encoder.of_sound, []

    def second_is_interrupted(self: Encoder, samples: np.ndarray) -> Any:
        calls.append(len(samples))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return kept(self, samples)

    monkeypatch.setattr(Encoder, "of_sound", second_is_interrupted)
    assert main(words()) == 130
    assert "1 of 3 are done; the same command goes on" in capsys.readouterr().err
    with (tmp_path / "out" / "files.tsv").open("a") as file:
        file.write("clip1\t")  # a line that a kill cut off
    first = (tmp_path / "out" / "clip0.npy").stat().st_mtime_ns
    assert main(words()) == 0
    assert capsys.readouterr().out.split("\t")[1] == "2 made, 1 were there"
    assert (tmp_path / "out" / "clip0.npy").stat().st_mtime_ns == first
    assert main(words()) == 0
    assert capsys.readouterr().out.split("\t")[1] == "0 made, 3 were there"
    write_sounds(tmp_path / "wav", (0.5,))  # another clip0
    assert main(words()) == 0
    assert capsys.readouterr().out.split("\t")[1] == "1 made, 2 were there"


@pytest.mark.parametrize("more", [["--layer", "1"], ["--stride", "2"]])
def test_features_made_otherwise_are_not_mixed(
    more: list[str], words: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words()) == 0
    assert main(words(*more)) == 2
    name, value = more[0].removeprefix("--"), more[1]
    assert f"holds features with {name} {'last' if name == 'layer' else 1}, not {value}; name another folder" in (
        capsys.readouterr().err
    )


def test_files_that_cannot_be_read_are_counted_and_the_others_made(
    words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wav" / "broken.wav").write_bytes(b"RIFFnothing")
    soundfile.write(tmp_path / "wav" / "short.wav", np.zeros(20, "float32"), 16_000)
    assert main(words("--json")) == 1
    said = capsys.readouterr()
    assert "no features of" in said.err and "broken.wav: is no readable recording" in said.err
    assert "and 1 more files" in said.err
    found = json.loads(said.out)
    assert found["made"] == 3 and len(found["bad"]) == 2


def test_what_cannot_be_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound, image = sounds_folder(tmp_path / "s", "Hubert"), sounds_folder(tmp_path / "i", "ViT")
    capsys.readouterr()
    (wav,) = write_sounds(tmp_path / "wav", (0.5,))
    write_video(tmp_path / "v" / "clip0.mkv")
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.txt").write_text("")
    again = tmp_path / "again" / "clip0.wav"
    write_sounds(again.parent, (0.5,))
    for files, model, more, line in [
        ([wav], image, [], "reads pictures; these are recordings"),
        ([tmp_path / "v"], sound, [], "reads no pictures; these are videos"),
        ([wav, tmp_path / "v"], sound, [], "an encoder reads one kind, so name them apart"),
        ([wav, again], sound, [], "would both be clip0.npy; name the folder above them"),
        ([tmp_path / "empty"], sound, [], "holds no recording and no video"),
        ([tmp_path / "x.txt"], sound, [], "x.txt: is none of .wav"),
        ([tmp_path / "gone.wav"], sound, [], "gone.wav: no such file or folder"),
        ([wav], sound, ["--layer", "7"], "--layer 7: "),
        ([wav], sound, ["--rate", "5"], "--rate is of videos"),
        ([wav], sound, ["--stride", "0"], "should be above 0"),
    ]:
        status = main(["features", *map(str, files), "--with", str(model), "-o", str(tmp_path / "out"), *more])
        error = capsys.readouterr().err
        assert status == 2 and line in error and error.count("\n") == 1, error
        assert not (tmp_path / "out").exists()


def test_sets_that_were_made_in_different_ways_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sounds_folder(tmp_path / "model", "Wav2Vec2")
    write_sounds(tmp_path / "wav", (0.1,) * 12)
    for name, layer in (("train", None), ("valid", 1), ("again", None)):
        extract(["wav"], "model", f"features/{name}", layer=layer)
    Path("m.tsv").write_text("id\ttext\n" + "".join(f"clip{i}\tword {i}\n" for i in range(12)))
    words = f"--data.train.manifest m.tsv --data.train.features features/train {TINY} --data.valid.manifest m.tsv"
    assert main(f"train --name same {words} --data.valid.features features/again".split()) == 0
    assert "otherwise" not in capsys.readouterr().err
    assert main(f"train --name other {words} --data.valid.features features/valid".split()) == 0
    assert "otherwise than those of m.tsv: layer 1, not last" in capsys.readouterr().err
    found = sourcewise.diagnose("runs/same", "m.tsv", features="features/valid")
    evidence = next(each.evidence for each in found.findings if each.code == "DAT024")
    assert "made otherwise than those of training: layer 1, not last" in evidence
    found = sourcewise.diagnose("runs/same", "m.tsv", features="features/again")
    assert not any("made otherwise" in each.evidence for each in found.findings)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "features.json").write_text("{")
    np.save(tmp_path / "a.npy", np.zeros((3, 2), "float32"))
    (tmp_path / "m.tsv").write_text("id\ttext\na\tx\n")
    from sourcewise.data.readers.manifests import read_manifest

    with pytest.raises(RequestError, match=r"features\.json: cannot be read"):
        read_manifest(tmp_path / "m.tsv", tmp_path)
    (tmp_path / "features.json").write_text('{"type": "FeatureCollection"}')  # another program's
    assert read_manifest(tmp_path / "m.tsv", tmp_path).made == {}
