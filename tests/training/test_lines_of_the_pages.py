"""The trainings that README and docs/models.md show, as typed: with a tiny folder in the place of the hub's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sourcewise
from sourcewise.cli import main
from sourcewise.generation.model import load
from sourcewise.training.run import Run
from tests.data.tokenizers.tokenizer_classes import ENGLISH, GERMAN, OTHERS
from tests.generation.folders import change
from tests.test_docs import ROOT, commands
from tests.training.test_languages import model_folder
from tests.training.test_source_encoder import sounds_folder

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")
PAGES = ("README.md", "docs/models.md")
TYPED = [
    words
    for page in PAGES
    for words in commands((ROOT / page).read_text(encoding="utf-8"))
    if words[0] == "train" and "--model" in words
]
each_line = pytest.mark.parametrize("words", TYPED, ids=[" ".join(words[1:7]) for words in TYPED])


def value(words: list[str], option: str, default: str = "") -> str:
    return words[words.index(option) + 1] if option in words else default


def t5_folder(folder: Path) -> None:
    """A FLAN-T5 in small: gated, its head apart."""
    folder.mkdir(parents=True)
    OTHERS["t5"](folder)
    size = len(transformers.AutoTokenizer.from_pretrained(folder))
    shape: dict[str, Any] = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 1, "num_heads": 4}
    gated = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0}
    config = transformers.T5Config(vocab_size=-(-size // 8) * 8, **shape, **gated)
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)


def nllb_folder(folder: Path) -> None:
    folder.mkdir(parents=True)
    model_folder(folder, "M2M100", "nllb unset", decoder_start_token_id="</s>")
    change(folder, "config.json", max_position_embeddings=1024)  # its positions are computed


MODELS = {  # what of transformers' own classes stands in the place of a name
    "google/flan-t5-small": t5_folder,
    "google/flan-t5-xl": t5_folder,
    "t5-small": t5_folder,
    "facebook/nllb-200-distilled-600M": nllb_folder,
    "facebook/hubert-base-ls960": lambda folder: sounds_folder(folder, "Hubert"),
}


def write_data(words: list[str]) -> None:
    """The files that a line names, in the working folder."""
    pairs = list(zip(ENGLISH * 4, GERMAN * 4, strict=True))
    if path := value(words, "--data.train.pairs"):
        columns = value(words, "--data.train.source", "source"), value(words, "--data.train.target", "target")
        rows = ["\t".join(columns), *(f"{source} {i}\t{target}" for i, (source, target) in enumerate(pairs))]
        Path(path).write_text("\n".join(rows) + "\n", encoding="utf-8")
    samples = "--model.source_encoder" in words
    for use in ("train", "valid"):
        if not (path := value(words, f"--data.{use}.manifest")):
            continue
        draw, features = np.random.default_rng(0), Path(value(words, f"--data.{use}.features"))
        features.mkdir(parents=True)
        Path(path).parent.mkdir(exist_ok=True)
        rows = ["id\tn_frames\ttext"]
        for i, (_, target) in enumerate(pairs):
            shape = (1600 + 320 * (i % 3), 1) if samples else (24 + i, 8)
            np.save(features / f"{i}.npy", draw.standard_normal(shape).astype("float32"))
            rows.append(f"{i}\t{shape[0]}\t{target}")
        Path(path).write_text("\n".join(rows) + "\n", encoding="utf-8")


def test_the_lines_are_found() -> None:
    named = {value(words, "--model") for words in TYPED} | {value(words, "--model.source_encoder") for words in TYPED}
    assert named - {""} == set(MODELS) and len(TYPED) >= 6


@each_line
def test_a_line_runs_as_it_is_typed(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    for name in {value(words, "--model"), value(words, "--model.source_encoder")} - {""}:
        MODELS[name](Path(name))
    write_data(words)
    if "--model.quantization" in words and not torch.cuda.is_available():
        assert main(words) == 2 and "on CUDA alone" in capsys.readouterr().err
        return
    assert main(words) == 0
    assert "no target language" not in capsys.readouterr().err
    run = Run(Path("runs") / value(words, "--name"))
    model = load(run.folder)
    if "--data.target_language" in words:
        assert model.tokenizer.name(model.network.defaults.forced_bos[0]) == "deu_Latn"
    last = [line for line in run.metrics() if line["kind"] == "train"][-1]
    assert last["step"] > 0 and np.isfinite(last["loss"])
    if path := value(words, "--data.train.pairs"):
        assert sourcewise.evaluate(model, path).metrics["examples"] == 12
        if "--train.lora.rank" not in words:
            transformers.AutoModelForSeq2SeqLM.from_pretrained(run.last)


@each_line
def test_without_the_hub_a_line_says_so_in_one(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    write_data(words)
    assert main(words) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    named = [value(words, option) for option in ("--model", "--model.source_encoder") if option in words]
    known = [f"{name}: no folder of this name here" for name in named]
    known += ["on CUDA alone"] if "--model.quantization" in words else []
    assert len(said) == 1 and any(each in said[0] for each in known)
    assert not Path("runs").exists() or not list(Path("runs").rglob("*.safetensors"))
