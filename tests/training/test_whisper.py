"""Whisper's prompt: language, task and no timestamps stand before every target, and are given to every output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sourcewise
from sourcewise.generation.model import load
from sourcewise.model.weights.checkpoint import save_network
from sourcewise.training.setup import set_up
from tests.data.tokenizers.test_switching import whisper
from tests.data.tokenizers.tokenizer_classes import GERMAN
from tests.model.families.zoo import MELS, WHISPER
from tests.training.test_huggingface import learned, recipe, right

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")
TEXTS = [text for text in GERMAN for _ in range(2)]


def folder_of(folder: Path, **settings: Any) -> Path:
    """A tiny random Whisper with the generation settings that OpenAI's have: words of its prompt are suppressed."""
    (folder / "model").mkdir()
    whisper(folder / "model")
    theirs = transformers.AutoTokenizer.from_pretrained(folder / "model")
    code = theirs.convert_tokens_to_ids
    ids = dict.fromkeys(("pad_token_id", "eos_token_id", "bos_token_id"), theirs.eos_token_id)
    ids["decoder_start_token_id"] = code("<|startoftranscript|>")
    torch.manual_seed(0)
    shape = {**WHISPER, **ids, "vocab_size": len(theirs), "max_source_positions": 20}
    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**shape))
    languages = {f"<|{name}|>": code(f"<|{name}|>") for name in ("en", "de", "fr")}
    tasks = {name: code(f"<|{name}|>") for name in ("transcribe", "translate")}
    said = {
        "_from_model_config": False,  # else what is only Whisper's is left out when it is read
        "lang_to_id": languages,
        "task_to_id": tasks,
        "is_multilingual": True,
        "no_timestamps_token_id": code("<|notimestamps|>"),
        "suppress_tokens": [*tasks.values(), code("<|notimestamps|>"), ids["decoder_start_token_id"]],
        "begin_suppress_tokens": [theirs.eos_token_id],
        "max_length": 60,
        "return_timestamps": False,
        **settings,
    }
    for name, value in said.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder / "model")
    return folder


def sounds(folder: Path) -> dict[str, Any]:
    """A set of six spectrograms and their texts, the same text every second time."""
    (folder / "features").mkdir()
    draw, lines = np.random.default_rng(0), ["id\tn_frames\ttext"]
    for i, text in enumerate(TEXTS):
        np.save(folder / "features" / f"{i}.npy", draw.standard_normal((40, MELS)).astype("float32"))
        lines.append(f"{i}\t40\t{text}")
    (folder / "sounds.tsv").write_text("\n".join(lines) + "\n")
    return {"manifest": str(folder / "sounds.tsv"), "features": str(folder / "features")}


def prompt(folder: Path) -> list[int]:
    names = ["<|de|>", "<|transcribe|>", "<|notimestamps|>"]
    return list(transformers.AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(names))


@pytest.mark.slow
def test_a_language_is_learned_measured_and_said_as_by_transformers(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    data = sounds(tmp_path)
    setup = set_up(recipe(folder, {"train": data, "target_language": "german"}, {"steps": 150}))
    begins = prompt(folder / "model")
    assert all(list(ids[:3]) == begins for ids in setup.train.targets)
    model = learned(setup)
    assert right(model, setup) >= 0.9
    save_network(setup.network, tmp_path / "out", setup.tokenizer, setup.recipe.generation)
    said = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (said["language"], said["task"]) == ("<|de|>", "transcribe")
    again = load(tmp_path / "out")
    outputs = again.generate(setup.train.dataset)
    assert list(outputs) == TEXTS and list(outputs.of[0].best.ids[:3]) == begins
    found = sourcewise.evaluate(again, data["manifest"], features=data["features"]).metrics
    assert found["exact_match_pct"] == 100 and found["source_bits"] > 0.1
    theirs = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    features = torch.from_numpy(np.stack([np.load(tmp_path / "features" / f"{i}.npy").T for i in range(len(TEXTS))]))
    rows = theirs.generate(features)
    assert tokenizer.batch_decode(rows, skip_special_tokens=True) == TEXTS


@pytest.mark.parametrize("settings", ["language", "forced", "none"])
def test_the_prompt_of_a_folder_is_given_to_outputs(settings: str, tmp_path: Path) -> None:
    named: dict[str, Any] = {"language": {"language": "<|de|>", "task": "transcribe"}, "none": {}}.get(settings, {})
    folder = folder_of(tmp_path, **named)
    begins = prompt(folder / "model")
    if settings == "forced":  # as the first Whispers had it
        file = folder / "model" / "generation_config.json"
        said = {**json.loads(file.read_text()), "forced_decoder_ids": [[1, begins[0]], [2, begins[1]]]}
        file.write_text(json.dumps(said))
    sources = [np.random.default_rng(i).standard_normal((40, MELS)).astype("float32") for i in range(2)]
    model = load(folder / "model")
    outputs = model.generate(sources, max_new_tokens=6)  # type: ignore[arg-type]
    expected = begins if settings != "none" else begins[2:]
    assert all(list(each.best.ids[: len(expected)]) == expected for each in outputs.of)
    if settings != "none":  # nor is a language asked for in training
        setup = set_up(recipe(folder, {"train": sounds(tmp_path)}))
        assert all(list(ids[:3]) == begins for ids in setup.train.targets) and setup.train.begins == [begins] * 6
    assert any("no target language is set" in note for note in model.tokenizer.notes) == (settings == "none")
    spoken = load(folder / "model", target_language="fr").generate(sources, max_new_tokens=6)  # type: ignore[arg-type]
    french = transformers.AutoTokenizer.from_pretrained(folder / "model").convert_tokens_to_ids("<|fr|>")
    assert spoken.of[0].best.ids[:3] == (french, *begins[1:])
