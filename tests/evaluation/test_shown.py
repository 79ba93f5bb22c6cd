"""Examples shown whole: the outputs of the evaluation itself, their bits, and a file that stays small."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sourcewise
from sourcewise.config import DataConfig, GenerationConfig
from sourcewise.data.encoding import Encoded
from sourcewise.data.examples import Dataset, Example
from sourcewise.data.mixtures import EncodedMixture
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.evaluation import shown as module
from sourcewise.evaluation.evaluate import evaluate_encoded
from sourcewise.evaluation.shown import chosen, read_shown, write_shown
from sourcewise.generation.model import Model
from sourcewise.training import loop
from tests.model.networks import VOCABULARY, network
from tests.training.recipes import recipe

SOURCES = ("me no ba do ki", "lu lu", "ba", "do ki me", "no no no", "ki lu me do")


@pytest.fixture(scope="module")
def model() -> Model:
    tokenizer = Tokenizer.train(["ba do ki lu me no one two"] * 3, VOCABULARY)
    settings = GenerationConfig(max_new_tokens=6, min_new_tokens=4, beams=1)
    return Model(network(), tokenizer, "tiny", generation=settings)


def laid_out(model: Model, sources: tuple[str, ...] = SOURCES) -> Encoded:
    examples = [Example(str(i), "one two", source) for i, source in enumerate(sources)]
    return Encoded(Dataset(examples, "six"), model.tokenizer, DataConfig())


@pytest.mark.parametrize(
    ("examples", "expected"),
    [(0, []), (1, [0]), (6, [0, 3]), (60, [0, 20, 40]), (800, [0, 100, 200, 300, 400, 500, 600, 700])],
)
def test_a_twentieth_of_a_set_is_shown_and_eight_at_most(examples: int, expected: list[int]) -> None:
    assert chosen(examples) == expected


@pytest.mark.parametrize("options", [{}, {"beams": 3}, {"sample": True, "seed": 4}])
def test_they_are_the_outputs_of_the_evaluation(model: Model, options: dict[str, Any], tmp_path: Path) -> None:
    encoded = laid_out(model)
    wanted = model.options(**options)
    rows = evaluate_encoded(model.network, model.tokenizer, encoded, wanted).rows
    write_shown(Model(model.network, model.tokenizer, "tiny", generation=wanted), encoded, tmp_path)
    found = read_shown(tmp_path)
    assert [each.id for each in found] == ["0", "3"]
    for each in found:
        assert each.trace["output"]["text"] == rows[int(each.id)].output
        assert each.trace["source_bits"]["against"] == "5 other sources of six"
        assert "".join(text for text, _ in each.reference[:-1]).strip("▁ ") == "one two"


def test_bits_of_a_reference_are_what_its_tokens_gain(model: Model, tmp_path: Path) -> None:
    """By hand: log2 p with its own source, less the mean log2 p with the others."""
    encoded = laid_out(model)
    write_shown(model, encoded, tmp_path)
    labels = torch.tensor([list(encoded.targets[3])])

    def log2_p(row: int) -> torch.Tensor:
        memory = model.network.encode(encoded.source([row]))
        start = torch.cat((torch.tensor([[model.network.start_id]]), labels[:, :-1]), 1)
        log_p = model.network.decode(start, memory).float().log_softmax(-1)
        return log_p.gather(2, labels[..., None])[0, :, 0] / math.log(2)

    with torch.inference_mode():
        expected = log2_p(3) - torch.stack([log2_p(i) for i in (0, 1, 2, 4, 5)]).mean(0)
    bits = [known for _, known in read_shown(tmp_path)[1].reference]
    assert np.allclose(bits, expected.numpy(), atol=2e-3)


def test_of_a_mixture_each_is_held_against_its_own_set(model: Model, tmp_path: Path) -> None:
    mixture = EncodedMixture([laid_out(model, ("ba", "do ki")), laid_out(model, SOURCES[:4])])
    write_shown(model, mixture, tmp_path)
    found = read_shown(tmp_path)
    against = [each.trace["source_bits"]["against"] for each in found]
    assert against == ["another source of six", "3 other sources of six"]


def test_long_texts_and_many_weights_are_cut_and_averaged(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOKENS", 2)
    monkeypatch.setattr(module, "WEIGHTS", 30)  # 2 layers × 3 heads × 2 tokens × slots
    encoded = laid_out(model)
    write_shown(model, encoded, tmp_path)
    for each in read_shown(tmp_path):
        attention = each.trace["attention"]
        assert each.cut and len(each.trace["steps"]) == 2 == len(each.reference)
        assert not each.trace["output"]["finished"]
        assert attention["averaged"] == {"layers": 2, "heads": 3} and attention["heads"] == 1
        weights = np.array(attention["weights"]) * attention["unit"]
        assert np.allclose(weights.sum(-1), 1, atol=1e-3)
    monkeypatch.setattr(module, "CHARACTERS", len((tmp_path / "traces.json").read_text()) * 2 // 3)
    write_shown(model, encoded, tmp_path)
    assert len(read_shown(tmp_path)) == 1


def test_a_training_learns_the_same_with_them_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They draw nothing that a training draws: its weights are bit for bit the same."""
    options = {"model__dropout": 0.1, "train__steps": 12, "train__evaluate_every": 4}
    shown = sourcewise.train(recipe(tmp_path, name="shown", **options))
    assert len(read_shown(shown.folder)) == 2
    monkeypatch.setattr(loop, "write_shown", lambda *_: None)
    plain = sourcewise.train(recipe(tmp_path, name="plain", **options))
    for checkpoint in ("last", "best"):
        paths = [run.folder / "checkpoints" / checkpoint / "model.safetensors" for run in (shown, plain)]
        assert paths[0].read_bytes() == paths[1].read_bytes()
