"""Networks for a training set: what must fit, and what is told when it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sourcewise.config import ModelConfig
from sourcewise.data.examples import Dataset, Example
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError
from sourcewise.model.builder import build_network, feature_statistics
from sourcewise.model.weights.checkpoint import save_network
from tests.model.networks import DIMS, VOCABULARY, network

TOKENIZER = Tokenizer.train(["ba do ki lu me no"] * 3, VOCABULARY)
TEXT = Dataset([Example("1", "ba", "do")], "pairs.tsv")


def clips(dims: int = DIMS, frames: int = 7) -> Dataset:
    draw = np.random.default_rng(0)
    matrices = [draw.normal(3, 2, (frames, dims)).astype(np.float32) for _ in range(5)]
    return Dataset([Example(str(i), "ba", frames=frames) for i in range(5)], "clips.tsv", dims, lambda i: matrices[i])


def config(folder: Path, **changes: object) -> ModelConfig:
    return ModelConfig.model_validate({"weights": str(folder), **changes})


def test_pretrained_text_weights_get_a_bridge_for_features(tmp_path: Path) -> None:
    save_network(network(), tmp_path)
    made = build_network(config(tmp_path), TOKENIZER, clips())
    assert made.bridge is not None and made.dims == DIMS
    mean, deviation = feature_statistics(clips())
    np.testing.assert_allclose(made.bridge.mean, mean)
    np.testing.assert_allclose(made.bridge.deviation, deviation)


def test_a_bridge_that_came_with_the_weights_is_kept(tmp_path: Path) -> None:
    saved = network("projection", "bypass")
    save_network(saved, tmp_path)
    made = build_network(config(tmp_path, route="bypass"), TOKENIZER, clips())
    assert made.bridge is not None and made.bridge.config == saved.bridge.config  # type: ignore[union-attr]
    with pytest.raises(RequestError, match=r"was trained with bypass; set --model\.route bypass"):
        build_network(config(tmp_path), TOKENIZER, clips())
    with pytest.raises(RequestError, match=f"its bridge reads {DIMS} dims, clips.tsv has 4"):
        build_network(config(tmp_path, route="bypass"), TOKENIZER, clips(4))
    with pytest.raises(RequestError, match=r"its bridge reads 6 dims, pairs\.tsv is text"):
        build_network(config(tmp_path, route="bypass"), TOKENIZER, TEXT)


def test_a_tokenizer_of_other_ids_is_refused(tmp_path: Path) -> None:
    save_network(network(), tmp_path)
    larger = Tokenizer.train(["".join(chr(0x4E00 + i) for i in range(100))], 200)
    with pytest.raises(RequestError, match="use the model's own"):
        build_network(config(tmp_path), larger, TEXT)
    other = Tokenizer.train(["ba do"], VOCABULARY)
    other.eos_id = 5
    with pytest.raises(RequestError, match=r"ends a text with id 5, .* with 1; use the model's own"):
        build_network(config(tmp_path), other, TEXT)


def test_one_frame_and_a_constant_dimension_are_only_centred() -> None:
    matrix = np.full((1, 2), 4.0, dtype=np.float32)
    one = Dataset([Example("1", "ba", frames=1)], "one", 2, lambda i: matrix)
    mean, deviation = feature_statistics(one)
    assert mean.tolist() == [4.0, 4.0] and deviation.tolist() == [1.0, 1.0]
