"""Small random networks for the tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sourcewise.config import BridgeConfig
from sourcewise.data.batches import Batch, Source
from sourcewise.data.examples import Dataset, Example
from sourcewise.model.families.bart import Bart, BartConfig
from sourcewise.model.families.transformer import Transformer, TransformerConfig
from sourcewise.model.inputs.registry import build_bridge
from sourcewise.model.network import Seq2Seq
from sourcewise.model.protocol import Aims

VOCABULARY, DIMS = 40, 6


LIKE_BART: dict[str, Any] = {
    "scaled": False,
    "layer_norm": True,
    "biases": True,
    "final_dropout": False,
    "attention_scale": 8**-0.5,
    "positions": 32,
    "start_id": 1,
    "init_std": 0.3,
}
FAMILIES: dict[str, dict[str, Any]] = {  # beside T5
    "bart": {"norm_first": False, "embedding_norm": True, "final_norm": False},
    "mbart": {"embedding_norm": True, "embedding_scale": 24**0.5},
    "marian": {"norm_first": False, "final_norm": False, "learned": False, "output_bias": True},
}


def network(
    bridge: str | None = None,
    route: str = "encoder",
    stride: int = 3,
    activation: str = "relu",
    family: str = "t5",
    **changes: Any,
) -> Seq2Seq:
    """A random network in evaluation mode; weights large enough that every part matters."""
    torch.manual_seed(11)
    shape = {"d_model": 24, "d_kv": 8, "d_ff": 32, "heads": 3, "encoder_layers": 2, "decoder_layers": 2}
    if family == "t5":
        transformer = Transformer(TransformerConfig(VOCABULARY, activation=activation, **(shape | changes)))
    else:
        like = LIKE_BART | FAMILIES[family]
        transformer = Bart(BartConfig(VOCABULARY, activation=activation, **(shape | like | changes)))
    config = transformer.config
    bridge_config = BridgeConfig.model_validate({"kind": bridge, "stride": stride, "latents": 5}) if bridge else None
    built = build_bridge(bridge_config, DIMS, config.d_model, 0.1) if bridge_config else None
    if built is not None:
        drawn = torch.randn(200, DIMS, generator=torch.Generator().manual_seed(2)).numpy()
        built.prepare(Dataset([Example("", "")], dims=DIMS, read=lambda _: drawn))
    made = Seq2Seq(transformer, built, route)  # type: ignore[arg-type]
    for name, parameter in made.named_parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.0 if family != "t5" and name.endswith("bias") else 1.0, 0.2)
    if isinstance(transformer, Bart) and transformer.logits_bias is not None:
        transformer.logits_bias.normal_(0, 0.5)
    return made.eval()


def text_source(lengths: list[int], width: int | None = None, seed: int = 0) -> Source:
    """Random tokens of these lengths, padded to `width`. Row i depends on seed and i alone."""
    width = width or max(lengths)
    tokens = torch.zeros(len(lengths), width, dtype=torch.long)
    for i, length in enumerate(lengths):
        draw = torch.Generator().manual_seed(1000 * seed + i)
        tokens[i, :length] = torch.randint(3, VOCABULARY, (length,), generator=draw)
    return Source(tokens, torch.tensor(lengths))


def feature_source(lengths: list[int], prompts: list[int] | None = None, width: int | None = None) -> Source:
    """Random features of these lengths, beside prompts of those; padding is garbage, to catch whoever reads it."""
    width = width or max(lengths)
    features = torch.full((len(lengths), width, DIMS), 50.0)
    for i, length in enumerate(lengths):
        features[i, :length] = torch.randn(length, DIMS, generator=torch.Generator().manual_seed(i))
    source = Source(features=features, frames=torch.tensor(lengths))
    if prompts:
        text = text_source(prompts)
        source.tokens, source.token_lengths = text.tokens, text.token_lengths
    return source


def rows(source: Source, chosen: list[int]) -> Source:
    """Some rows of a source, cut to their own longest."""
    out = Source()
    if source.tokens is not None and source.token_lengths is not None:
        out.token_lengths = source.token_lengths[chosen]
        out.tokens = source.tokens[chosen, : int(out.token_lengths.max())]
    if source.features is not None and source.frames is not None:
        out.frames = source.frames[chosen]
        out.features = source.features[chosen, : int(out.frames.max())]
    return out


def targets(count: int, time: int = 6) -> Tensor:
    """Random target tokens, the same for the same shape."""
    return torch.randint(3, VOCABULARY, (count, time), generator=torch.Generator().manual_seed(5))


def logits(net: Seq2Seq, source: Source, tokens: Tensor) -> Tensor:
    """What a network says of tokens, by teacher forcing."""
    with torch.inference_mode():
        return net.decode(tokens, net.encode(source))


def loss(net: Any, batch: Batch, smoothing: float = 0.0) -> tuple[Tensor, int]:
    """What is minimised, summed, and the number of target tokens."""
    found = net(batch, Aims(smoothing))
    return found.minimised, found.tokens
