"""Weights and logits that are NaN or infinite: every door names the tensor, or what overflows, and says no word."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sourcewise
from sourcewise.config import GenerationConfig
from sourcewise.data.examples import Dataset, Example
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import NotFinite
from sourcewise.generation.engine.search import Engine, why_not
from sourcewise.generation.model import Model
from sourcewise.model.weights.checkpoint import load_network
from tests.model import networks, recurrent_networks
from tests.model.networks import DIMS, VOCABULARY
from tests.model.test_adapter import folder_of

TEXTS = ("ba do ki", "lu me no", "no", "ba lu", "ki ki do", "me no", "do", "lu", "no me")
SEARCHES = {"beams": {"beams": 2}, "greedy": {"beams": 1}, "sample": {"beams": 1, "sample": True}}
NETWORKS: dict[str, Callable[[], Any]] = {
    "t5": networks.network,
    "gated": lambda: networks.network(activation="gated-gelu", tied=False),
    "bart": lambda: networks.network(family="bart"),
    "marian": lambda: networks.network(family="marian"),
    "convolution": lambda: networks.network("convolution"),
    "perceiver, past the encoder": lambda: networks.network("perceiver", "bypass"),
    "gru": lambda: recurrent_networks.network("gru", "bahdanau"),
    "lstm, one vector": lambda: recurrent_networks.network("lstm", "none"),
}


def model_of(network: Any) -> Model:
    tokenizer = Tokenizer.train(["ba do ki lu me no"] * 3, VOCABULARY)
    return Model(network, tokenizer, "mine", generation=GenerationConfig(beams=2, max_new_tokens=6))


def data_of(network: Any) -> Dataset:
    """Nine examples of what a network reads."""
    if not network.dims:
        return Dataset([Example(str(i), "do ba", text) for i, text in enumerate(TEXTS)], "memory")
    rng = np.random.default_rng(0)
    matrices = [rng.standard_normal((9 + i, DIMS)).astype(np.float32) for i in range(9)]
    examples = [Example(str(i), "do ba", frames=len(m)) for i, m in enumerate(matrices)]
    return Dataset(examples, "memory", DIMS, lambda i: matrices[i].copy())


def doors(model: Model) -> Iterator[tuple[str, Callable[[], Any]]]:
    data = data_of(model.network)
    for name, options in SEARCHES.items():
        yield name, lambda options=options: model.generate(data, **options)
    yield "stream", lambda: list(model.stream(data[:1]))
    yield "trace", lambda: sourcewise.trace(model, data)
    yield "evaluate", lambda: sourcewise.evaluate(model, data)
    yield "diagnose", lambda: sourcewise.diagnose(model, data)


def refused_everywhere(model: Model, said: str) -> None:
    for name, ask in doors(model):
        with pytest.raises(NotFinite) as told:
            pytest.fail(f"{name}: {ask()!r}")
        assert said in str(told.value) and "\n" not in str(told.value), name


def spoil(tensor: torch.Tensor, value: float, at: int = -1) -> None:
    with torch.no_grad():
        tensor.view(-1)[at] = value


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_tensor_of_any_part_is_named(kind: str) -> None:
    values = (math.nan, math.inf, -math.inf)
    names = [name for name, _ in NETWORKS[kind]().named_parameters()]
    for i, name in enumerate(names[:: max(1, len(names) // 9)]):
        model = model_of(NETWORKS[kind]())
        spoil(model.network.get_parameter(name), values[i % 3])
        refused_everywhere(model, f"{name}: 1 of ")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_row_that_no_text_uses_counts(value: float) -> None:
    model = model_of(networks.network())
    spoil(model.network.body.embedding.weight, value)  # of the last id, which the tokenizer never gives
    assert model.tokenizer.size < VOCABULARY
    refused_everywhere(model, f"body.embedding.weight: 1 of {VOCABULARY * 24:,} values are not finite")
    with pytest.raises(NotFinite, match=r"body\.embedding\.weight"):
        model.encode("ba do")


@pytest.mark.parametrize("name", ["m2m100", "umt5", "pegasus"])
def test_networks_of_transformers(name: str, tmp_path: Path) -> None:
    network: Any = load_network(folder_of(name, tmp_path))
    weights = [n for n, _ in network.named_parameters()]
    for which in (weights[0], weights[len(weights) // 2], weights[-1]):
        model = model_of(load_network(tmp_path))
        spoil(model.network.get_parameter(which), math.nan)  # type: ignore[attr-defined]
        refused_everywhere(model, f"{which}: 1 of ")


def test_weights_that_are_spoiled_after_a_first_output() -> None:
    model = model_of(networks.network())
    data = data_of(model.network)
    assert len(model.generate(data)) == len(TEXTS)
    model.network.body.decoder[1].feedforward.wo.weight.data[3, 2] = math.nan  # type: ignore[attr-defined]
    refused_everywhere(model, "body.decoder.1.feedforward.wo.weight: 1 of ")


@pytest.mark.parametrize(("part", "said"), [("encoder", "the states of the encoder"), ("decoder", "the logits of the")])
def test_arithmetic_that_overflows_is_told_from_weights(part: str, said: str) -> None:
    model = model_of(networks.network())
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():  # type: ignore[attr-defined]
            if f"{part}.1.feedforward.w" in name or f"{part}_norm" in name:
                parameter.mul_(6e4 / parameter.abs().max())
    model.network.half()  # type: ignore[attr-defined]
    refused_everywhere(model, "the arithmetic in float16 overflows")
    with pytest.raises(NotFinite, match=said):
        model.generate("ba do")
    model.network.float()  # type: ignore[attr-defined]
    assert len(model.generate("ba do")) == 1


def test_logits_of_anybodys_network_that_are_nan() -> None:
    model = model_of(networks.network())
    decode = model.network.decode
    model.network.decode = lambda *given: decode(*given) * math.nan  # type: ignore[method-assign]
    for name, ask in doors(model):
        with pytest.raises(NotFinite, match="are not finite although all weights are"):
            pytest.fail(f"{name}: {ask()!r}")


def test_minus_infinity_in_a_buffer_bars_a_token() -> None:
    model = model_of(networks.network(family="marian"))
    bias = dict(model.network.named_buffers())["body.logits_bias"]  # type: ignore[attr-defined]
    spoil(bias, -math.inf)
    assert len(model.generate(data_of(model.network))) == len(TEXTS)
    spoil(bias, math.nan)
    refused_everywhere(model, "logits_bias: 1 of ")


def test_int8_says_so_too() -> None:
    network = networks.network(tied=False)
    if why_not(network, torch.device("cpu")):
        pytest.skip("no int8 here")
    model = model_of(network)
    model.engine = Engine(network)
    data = data_of(network)
    assert len(model.generate(data)) == len(TEXTS)
    for name in ("encoder.1.feedforward.wo", "decoder.0.feedforward.wi", "decoder.1.attention.qkv"):
        with torch.no_grad():
            kept = network.get_parameter(f"body.{name}.weight").clone()
            network.get_parameter(f"body.{name}.weight").fill_(3e38)
            model.engine = Engine(network)
            for options in ({"beams": 1}, {"beams": 3}):
                with pytest.raises(NotFinite, match="the logits of the search in int8 are not finite"):
                    pytest.fail(f"{name}: {model.generate(data, **options)}")
            network.get_parameter(f"body.{name}.weight").copy_(kept)


def test_a_server_does_not_start_with_such_weights() -> None:
    pytest.importorskip("fastapi")
    from sourcewise.serving.app import create_app

    model = model_of(networks.network())
    spoil(model.network.body.encoder_norm.weight, math.nan)
    with pytest.raises(NotFinite, match=r"mine: body\.encoder_norm\.weight"):
        create_app(model)
