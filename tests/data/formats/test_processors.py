"""Recordings as the processors of models prepare them: the numbers that these compute themselves, and refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sourcewise.config import Recipe
from sourcewise.data.open import open_sources
from sourcewise.errors import RequestError
from sourcewise.generation.model import load
from sourcewise.model.weights.checkpoint import save_network
from sourcewise.model.weights.hearing import sounds_of
from sourcewise.training.setup import set_up
from tests.model.families import zoo
from tests.training.test_huggingface import recipe

soundfile = pytest.importorskip("soundfile")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")
RATE = 16_000
LENGTHS = (5000, 8077, 16_000, 16_321)


def sounds(folder: Path) -> list[np.ndarray]:
    """Recordings of several lengths, which are kept in folder/wavs."""
    (folder / "wavs").mkdir()
    draw, found = np.random.default_rng(0), []
    lines = ["id\ttext"]
    for i, length in enumerate(LENGTHS):
        samples = (0.3 * np.sin(np.arange(length) * 0.05 * (i + 1)) + 0.05 * draw.standard_normal(length) + 0.1).astype(
            np.float32
        )
        soundfile.write(folder / "wavs" / f"{i}.wav", samples, RATE, subtype="FLOAT")
        lines.append(f"{i}.wav\tt{i}")
        found.append(samples)
    (folder / "wavs.tsv").write_text("\n".join(lines) + "\n")
    return found


def model_of(kind: str, folder: Path) -> Path:
    """A tiny model of a kind that reads sounds, of the width of its published processors."""
    shape: dict[str, Any] = {
        "seamless_m4t": {**zoo.SEAMLESS, "feature_projection_input_dim": 160},
        "speech_to_text": {**zoo.SPEECH, "input_feat_per_channel": 80},
    }.get(kind, {})
    if kind == "seamless_m4t":
        model = transformers.SeamlessM4TForSpeechToText(transformers.SeamlessM4TConfig(**shape))
    elif kind == "speech_to_text":
        model = transformers.Speech2TextForConditionalGeneration(transformers.Speech2TextConfig(**shape))
    elif kind == "whisper":
        model = transformers.WhisperForConditionalGeneration(
            transformers.WhisperConfig(**{**zoo.WHISPER, "num_mel_bins": 80, "max_source_positions": 100})
        )
    else:
        model = zoo.KINDS[kind].make()
    model.save_pretrained(folder / "model")
    zoo.tokenizer(folder / "model")
    return folder / "model"


PROCESSORS = {
    "seamless_m4t": lambda: transformers.SeamlessM4TFeatureExtractor(),
    "speech_to_text": lambda: transformers.Speech2TextFeatureExtractor(),
    "whisper": lambda: transformers.WhisperFeatureExtractor(),
    "speech-encoder-decoder": lambda: transformers.Wav2Vec2FeatureExtractor(do_normalize=True),
    "moonshine": lambda: transformers.Wav2Vec2FeatureExtractor(do_normalize=False),
    "speecht5": lambda: transformers.SpeechT5FeatureExtractor(do_normalize=True),
}
AS_BEFORE = {"whisper": "log-mel", "moonshine": "samples"}  # what we compute ourselves, to the same numbers


def save_processor(kind: str, folder: Path, nested: bool) -> Any:
    """The processor's files, as one of its own, or nested in processor_config.json as transformers 5 writes it."""
    made = PROCESSORS[kind]()
    made.save_pretrained(folder)
    if nested:
        own = folder / "preprocessor_config.json"
        (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": json.loads(own.read_text())}))
        own.unlink()
    return made


@pytest.mark.parametrize("nested", [False, True], ids=["a file of its own", "nested"])
@pytest.mark.parametrize("kind", PROCESSORS)
def test_recordings_become_what_the_processor_in_the_folder_computes(kind: str, nested: bool, tmp_path: Path) -> None:
    folder, samples = model_of(kind, tmp_path), sounds(tmp_path)
    theirs = save_processor(kind, folder, nested)
    assert sounds_of(folder) == AS_BEFORE.get(kind, f"own:{folder}")
    data = {"manifest": str(tmp_path / "wavs.tsv"), "features": str(tmp_path / "wavs")}
    setup = set_up(recipe(tmp_path, {"train": data, "max_frames": 20_000}))
    for i, one in enumerate(samples):
        given = theirs(
            one, sampling_rate=RATE, return_tensors="np", **({"padding": False} if kind == "whisper" else {})
        )
        expected = given.get("input_features", given.get("input_values"))[0]
        expected = expected.T if kind == "whisper" else expected if expected.ndim == 2 else expected[:, None]
        found = setup.train.dataset.features(i)
        assert len(found) == setup.train.dataset[i].frames and len(expected) - len(found) in (0, 1)
        np.testing.assert_allclose(found, expected[: len(found)], atol=1e-5, rtol=1e-5)
    save_network(setup.network.eval(), tmp_path / "out", setup.tokenizer, setup.recipe.generation)
    shutil.rmtree(folder)  # a checkpoint has its own processor
    assert {p.name for p in (tmp_path / "out").iterdir()} & {"preprocessor_config.json", "processor_config.json"}
    asked = Recipe.model_validate(json.loads(setup.recipe.model_dump_json()))
    assert asked.data.sounds == setup.recipe.data.sounds
    model = load(tmp_path / "out")
    again = open_sources(tmp_path / "wavs" / "2.wav", sounds=model.data.sounds)
    np.testing.assert_array_equal(again.features(0), setup.train.dataset.features(2))
    assert model.generate([setup.train.dataset.features(2)]) == model.generate(again)


@pytest.mark.parametrize("kind", ["seamless_m4t", "canary", "cohere_asr"])
def test_without_its_processor_no_other_features_are_taken(kind: str, tmp_path: Path) -> None:
    folder = model_of(kind, tmp_path)
    sounds(tmp_path)
    data = {"manifest": str(tmp_path / "wavs.tsv"), "features": str(tmp_path / "wavs")}
    with pytest.raises(
        RequestError, match=r"0\.wav.* its preprocessor_config\.json, .* is not there; copy it"
    ) as refused:
        set_up(recipe(tmp_path, {"train": data}))
    assert "\n" not in str(refused.value) and str(folder) in str(refused.value)


def test_a_processor_of_another_rate_or_width_and_a_damaged_one_are_told(tmp_path: Path) -> None:
    folder = model_of("seamless_m4t", tmp_path)
    sounds(tmp_path)
    asked = recipe(tmp_path, {"train": {"manifest": str(tmp_path / "wavs.tsv"), "features": str(tmp_path / "wavs")}})
    transformers.SeamlessM4TFeatureExtractor(num_mel_bins=40).save_pretrained(folder)
    with pytest.raises(RequestError, match=r"it reads 160 dims, .* has 80"):
        set_up(asked)
    (folder / "preprocessor_config.json").unlink()
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    transformers.SeamlessM4TFeatureExtractor(sampling_rate=8000).save_pretrained(other)
    slower = asked.model_copy(update={"model": asked.model.model_copy(update={"weights": str(other)})})
    with pytest.raises(RequestError, match=r"0\.wav.* takes 8,000 samples a second, not 16,000"):
        set_up(slower)
    (other / "preprocessor_config.json").write_text('{"feature_extractor_type": "NoSuchExtractor"}')
    with pytest.raises(RequestError, match=r"0\.wav.* takes the processor in .*other, which transformers cannot make"):
        set_up(slower)


def test_names_of_sounds_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"mel: not one of log-mel, log-mel-128, fbank, samples, own:FOLDER"):
        Recipe.model_validate({"data": {"sounds": "mel"}})
    assert Recipe.model_validate({"data": {"sounds": "own:x"}}).data.sounds == "own:x"
