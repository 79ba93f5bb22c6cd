"""Recordings and images as their encoders read them: samples, or log-mel features; arrays of four axes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sourcewise
from sourcewise.cli import main
from sourcewise.config import Recipe
from sourcewise.data.open import open_sources
from sourcewise.errors import RequestError
from sourcewise.generation.model import load
from sourcewise.model.weights.checkpoint import save_network
from sourcewise.training.setup import set_up
from tests.model.families.zoo import WORDS
from tests.training.test_huggingface import folder_of, learned, recipe, right
from tests.training.test_source_encoder import of_transformers, sounds_folder

soundfile = pytest.importorskip("soundfile")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")
RATE = 16_000


def tone(i: int) -> np.ndarray:
    """A sound of a target's pitch, a twentieth of a second long."""
    length = RATE // 20 + 32 * (i % 4)
    noise = 0.01 * np.random.default_rng(i).standard_normal(length)
    return (0.5 * np.sin(np.arange(length) * (0.05 + 0.07 * i)) + noise).astype("float32")


def recordings(folder: Path, ending: str = ".wav", rate: int = RATE) -> dict[str, Any]:
    """A set of recordings, a word each."""
    (folder / "wavs").mkdir()
    lines = ["id\ttext"]
    for i in range(WORDS):
        soundfile.write(folder / "wavs" / f"{i}{ending}", tone(i), rate, subtype="FLOAT" if ending == ".wav" else None)
        lines.append(f"{i}{ending}\tt{i} t{(3 * i + 1) % WORDS}")
    (folder / "wavs.tsv").write_text("\n".join(lines) + "\n")
    return {"manifest": str(folder / "wavs.tsv"), "features": str(folder / "wavs")}


def behind(folder: Path, kind: str, data: dict[str, Any], train: str = "whole", **more: Any) -> Any:
    """The setup of a tiny T5 behind a source encoder."""
    name = sounds_folder(folder / "encoder", kind)
    folder_of("t5", folder)
    model = {"source_encoder": {"name": str(name), "train": train}, "bridge": {"kind": "projection", "stride": 1}}
    return set_up(recipe(folder, {"train": data}, {"learning_rate": 3e-3, **more}, **model))


@pytest.mark.parametrize(("kind", "width"), [("Wav2Vec2", 1), ("Hubert", 1), ("Wav2Vec2Bert", 1), ("Whisper", 80)])
def test_recordings_are_what_a_source_encoder_reads(kind: str, width: int, tmp_path: Path) -> None:
    if kind in ("Wav2Vec2Bert", "Whisper"):  # log-mel frames of a twentieth of a second are few
        setup = behind(tmp_path, kind, recordings(tmp_path))
    else:
        setup = behind(tmp_path, kind, recordings(tmp_path, ".flac"))
    assert setup.train.dataset.dims == width and setup.network.bridge.encoder.dims == width
    if width == 1:
        stored, _ = soundfile.read(next((tmp_path / "wavs").glob("3.*")), dtype="float32")
        assert np.array_equal(setup.train.dataset.features(3)[:, 0], stored)
    what = "samples" if width == 1 else "Whisper's log-mel features of 80 bands"
    assert any(f"20 clips are recordings: read as {what}" in note.what for note in setup.train.dataset.notes)


def test_the_vectors_of_a_recording_are_those_of_transformers(tmp_path: Path) -> None:
    setup = behind(tmp_path, "Wav2Vec2", recordings(tmp_path))
    encoder, source = setup.network.bridge.encoder.eval(), setup.train.batch([5]).source
    with torch.no_grad():
        found, _ = encoder(source.features, source.frame_layout)
    assert torch.allclose(found[0], of_transformers(tmp_path / "encoder", "Wav2Vec2", tone(5)[:, None]), atol=1e-4)


def test_other_rates_are_resampled_and_parts_are_cut_from_samples(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(8_000), 8_000)
    dataset = open_sources(tmp_path / "a.wav", sounds="samples")
    assert dataset.features(0).shape == (16_000, 1) and dataset[0].frames == 16_000
    assert any("resampled" in note.what for note in dataset.notes)
    (tmp_path / "part.tsv").write_text("id\taudio\ttext\n1\ta.wav[0.25:0.5]\tx\n")
    part = open_sources(tmp_path / "part.tsv", sounds="samples", file="audio")
    assert part.features(0).shape == (4_000, 1)
    soundfile.write(tmp_path / "long.wav", np.zeros(16_000), RATE)
    assert open_sources(tmp_path / "long.wav", sounds="log-mel-128").features(0).shape == (100, 128)
    assert open_sources(tmp_path / "long.wav").features(0).shape == (100, 80)


@pytest.mark.parametrize(("kind", "width"), [("moonshine", 1), ("speecht5", 1), ("whisper", 8)])
def test_a_model_that_reads_sounds_itself_takes_recordings(kind: str, width: int, tmp_path: Path) -> None:
    folder_of(kind, tmp_path)
    data = {"train": recordings(tmp_path)}
    if width == 1:
        setup = set_up(recipe(tmp_path, data))
        assert setup.train.dataset.dims == 1
        assert load(tmp_path / "model").data.sounds == "samples"
        return
    with pytest.raises(RequestError, match=r"it reads 8 dims, .* has 80"):  # no bands that recordings have
        set_up(recipe(tmp_path, data))


def test_who_says_what_recordings_are_is_followed(tmp_path: Path) -> None:
    folder_of("t5", tmp_path)
    sets = {"train": recordings(tmp_path)}
    for sounds, width in (("samples", 1), ("log-mel", 80), ("log-mel-128", 128), (None, 80)):
        setup = set_up(recipe(tmp_path, {**sets, "sounds": sounds}))
        assert setup.network.bridge.dims == width
    with pytest.raises(RequestError, match=r"reads samples \(dims 1, .*the features are 80 wide"):
        name = str(sounds_folder(tmp_path / "encoder", "Hubert"))
        set_up(recipe(tmp_path, {**sets, "sounds": "log-mel"}, source_encoder={"name": name}))


def test_a_run_on_recordings_is_used_by_every_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = recordings(tmp_path)
    name = str(sounds_folder(tmp_path / "encoder", "Wav2Vec2"))
    folder_of("t5", tmp_path)
    options = {"train": {**data}, "valid": {**data}}
    asked = {"steps": 2, "preflight": False}
    made = recipe(tmp_path, options, asked, source_encoder={"name": name}).model_copy(update={"name": "run"})
    run = sourcewise.train(made)
    assert Recipe.model_validate(json.loads(made.model_dump_json())).data.sounds is None
    assert main(["generate", str(run.folder), data["manifest"], "--features", data["features"], "-o", "o.txt"]) == 0
    assert main(["generate", str(run.folder), str(tmp_path / "wavs" / "3.wav"), "-o", "one.txt"]) == 0
    assert Path("one.txt").read_text() == Path("o.txt").read_text().splitlines(keepends=True)[3]
    assert main(["evaluate", str(run.folder), data["manifest"], "--features", data["features"]]) == 0
    assert main(["diagnose", str(run.folder)]) in (0, 1)


def pictures(folder: Path, turned: bool = False, size: tuple[int, int] = (8, 12)) -> dict[str, Any]:
    """Clips of two images each, stored as (time, channel, height, width) or (time, height, width, channel)."""
    (folder / "clips").mkdir()
    draw, lines = np.random.default_rng(0), ["id\ttext"]
    for i in range(WORDS):
        image = draw.integers(0, 256, (*size, 3))
        clip = np.clip(image + draw.integers(-3, 4, (2, *size, 3)), 0, 255).astype("uint8")
        np.save(folder / "clips" / f"{i}.npy", np.moveaxis(clip, 3, 1) if turned else clip)
        lines.append(f"{i}\tt{i} t{(3 * i + 1) % WORDS}")
    (folder / "clips.tsv").write_text("\n".join(lines) + "\n")
    return {"manifest": str(folder / "clips.tsv"), "features": str(folder / "clips")}


@pytest.mark.parametrize("turned", [True, False])
def test_images_of_any_size_are_read_frame_by_frame(turned: bool, tmp_path: Path) -> None:
    setup = behind(tmp_path, "ViT", pictures(tmp_path, turned), "frozen")
    clip = np.load(tmp_path / "clips" / "4.npy")
    clip = np.moveaxis(clip, 1, 3) if turned else clip
    assert setup.train.dataset.image == (8, 12, 3)
    assert any("20 clips are images, 8 × 12 of 3 channels" in note.what for note in setup.train.dataset.notes)
    encoder, source = setup.network.bridge.encoder.eval(), setup.train.batch([4]).source
    with torch.no_grad():
        found, layout = encoder(source.features, source.frame_layout)
        given = transformers.AutoImageProcessor.from_pretrained(tmp_path / "encoder")(list(clip), return_tensors="pt")
        model = transformers.AutoModel.from_pretrained(tmp_path / "encoder").eval()
        expected = model(**given).last_hidden_state[:, 0]
    assert layout.lengths.tolist() == [2] and torch.allclose(found[0], expected, atol=1e-4)
    save_network(setup.network.eval(), tmp_path / "out", setup.tokenizer, setup.recipe.generation)
    model = load(tmp_path / "out")
    outputs = model.generate(setup.train.dataset)
    assert model.generate([np.load(tmp_path / "clips" / f"{i}.npy") for i in range(WORDS)]) == outputs
    wrong = np.zeros((2, 12, 8, 3), np.uint8)  # as many numbers
    with pytest.raises(RequestError, match=r"its images are 12 × 8 × 3 .*, the model's 8 × 12 × 3"):
        model.generate([wrong])


def test_images_that_are_not_alike_and_other_arrays_are_refused_in_a_line(tmp_path: Path) -> None:
    data = pictures(tmp_path)
    np.save(tmp_path / "clips" / "7.npy", np.zeros((2, 12, 8, 3), np.uint8))
    folder_of("t5", tmp_path)
    with pytest.raises(RequestError, match=r"7\.npy: holds 12 × 8 × 3; its neighbours hold 8 × 12 × 3") as refused:
        set_up(recipe(tmp_path, {"train": data}))
    assert "\n" not in str(refused.value)
    np.save(tmp_path / "clips" / "7.npy", np.zeros((2, 5, 1024, 7), np.uint8))
    with pytest.raises(RequestError, match=r"has shape \(2, 5, 1024, 7\); a feature matrix is \(frames, dims\)"):
        set_up(recipe(tmp_path, {"train": data}))


LEARN = [("Wav2Vec2", "whole", 3e-3, 150), ("ViT", "frozen", 1e-2, 250)]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "train", "rate", "steps"), LEARN)
def test_a_small_task_is_learned_from_recordings_and_from_images(
    kind: str, train: str, rate: float, steps: int, tmp_path: Path
) -> None:
    data = pictures(tmp_path, turned=True) if kind == "ViT" else recordings(tmp_path)
    setup = behind(tmp_path, kind, data, train, learning_rate=rate)
    assert right(learned(setup, steps), setup) >= 0.9
