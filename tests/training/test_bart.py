"""A short schedule of the family bart: from scratch and from a Hugging Face folder, text and features, both routes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import sourcewise
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError
from tests.training.recipes import SPOKEN, WORDS, feature_recipe, recipe

SHAPE = {"family": "bart", "d_model": 32, "d_ff": 64, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}
LAYERS = {"layers": 1, "ffn_dim": 48, "attention_heads": 2}  # of a stack, as Hugging Face names them
SHORT = {"train__steps": 10, "train__evaluate_every": 5, "train__log_every": 2}


def losses(run: sourcewise.Run) -> list[float]:
    return [line["loss"] for line in run.metrics() if line["kind"] == "train"]


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_text_from_scratch(tmp_path: Path, precision: str) -> None:
    run = sourcewise.train(recipe(tmp_path, model=SHAPE, train__precision=precision, **SHORT))
    assert losses(run)[-1] < losses(run)[0] and all(map(math.isfinite, losses(run)))
    assert run.evaluation is not None and len(run.evaluation.outputs) == 24
    model = sourcewise.load(run.folder)
    assert "".join(model.stream("ba do")) == model.generate(["ba do"], beams=1)[0]


@pytest.mark.parametrize("route", ["encoder", "bypass"])
def test_features_from_scratch(tmp_path: Path, route: str) -> None:
    made = feature_recipe(tmp_path, model=SHAPE | {"route": route}, train__ctc_weight=0.3, **SHORT)
    run = sourcewise.train(made)
    assert losses(run)[-1] < losses(run)[0]
    assert sourcewise.evaluate(sourcewise.load(run.folder), "digits").metrics["examples"] == 400


@pytest.mark.parametrize("kind", ["Bart", "MBart", "Marian"])
def test_a_hugging_face_folder_is_fine_tuned_part_by_part(tmp_path: Path, kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "hf"
    torch.manual_seed(0)
    tokenizer = Tokenizer.train([" ".join(WORDS + SPOKEN)] * 9, 64)
    sizes = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in LAYERS.items()}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 1, "forced_eos_token_id": 1}
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=64, d_model=32, max_position_embeddings=128, bos_token_id=None, **sizes, **ids
    )
    model = getattr(transformers, "MarianMTModel" if kind == "Marian" else f"{kind}ForConditionalGeneration")(config)
    model.final_logits_bias.normal_(0, 0.1)
    model.save_pretrained(folder)
    tokenizer.save(folder)
    with pytest.raises(RequestError, match=r"data\.max_source: 512 tokens, but the model has 128 positions; set it"):
        sourcewise.train(recipe(tmp_path, model={"weights": str(folder)}, **SHORT))
    limits = {"data__max_source": 128, "data__max_target": 128}
    made = recipe(tmp_path, model={"weights": str(folder)}, train__freeze=["encoder", "embedding"], **limits, **SHORT)
    run = sourcewise.train(made)
    assert losses(run)[-1] < losses(run)[0]
    before, after = (load_file(f / "model.safetensors") for f in (folder, run.last))
    assert before.keys() == after.keys()
    for name in before:
        moved = not bool((before[name] == after[name]).all())
        assert moved == name.startswith("model.decoder"), name  # the bias of the logits never learns
    assert sourcewise.load(run.folder).network.defaults.forced_eos == (1,)


def test_features_into_a_hugging_face_bart(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in LAYERS.items()}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 1, "bos_token_id": None}
    config = transformers.BartConfig(vocab_size=64, d_model=32, max_position_embeddings=256, **sizes, **ids)
    transformers.BartForConditionalGeneration(config).save_pretrained(tmp_path / "hf")
    Tokenizer.train([" ".join(SPOKEN)] * 9, 64).save(tmp_path / "hf")
    for route in ("encoder", "bypass"):
        model = {"weights": str(tmp_path / "hf"), "route": route}
        run = sourcewise.train(feature_recipe(tmp_path, name=route, model=model, **SHORT, data__max_source=256))
        assert losses(run)[-1] < losses(run)[0]
        assert sourcewise.load(run.folder).network.dims == 8
