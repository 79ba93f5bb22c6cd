"""Random recurrent networks, and their equations slot by slot and token by token."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from sourcewise.config import BridgeConfig
from sourcewise.data.batches import Source
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.model.blocks.recurrent_layers import AttentiveLayer
from sourcewise.model.families.recurrent import Recurrent, RecurrentConfig
from sourcewise.model.inputs.registry import build_bridge
from sourcewise.model.network import Seq2Seq
from tests.model.networks import DIMS, VOCABULARY, feature_source, text_source

TOKENIZER = Tokenizer.train(["ba do ki lu me no"] * 3, VOCABULARY)
WIDTH = 24


def network(cell: str, attention: str, bridge: str | None = None, route: str = "encoder", **changes: Any) -> Seq2Seq:
    """A random network in evaluation mode; weights large enough that every part matters."""
    torch.manual_seed(11)
    body = Recurrent(RecurrentConfig(VOCABULARY, WIDTH, cell=cell, attention=attention, **changes))  # type: ignore[arg-type]
    body.reset_parameters()
    built = None
    if bridge:
        built = build_bridge(BridgeConfig.model_validate({"kind": bridge, "stride": 3, "latents": 5}), DIMS, WIDTH, 0.1)
    made = Seq2Seq(body, built, route)  # type: ignore[arg-type]
    for parameter in body.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 0.0, 0.5)
    return made.eval()


KINDS: dict[str, Seq2Seq] = {
    "gru": network("gru", "bahdanau"),
    "lstm, deep, untied": network("lstm", "bahdanau", encoder_layers=2, decoder_layers=3, tied=False),
    "gru, one vector, deep": network("gru", "none", encoder_layers=2, decoder_layers=2),
    "lstm, one vector": network("lstm", "none"),
    "lstm, features": network("lstm", "bahdanau", "convolution"),
    "gru, features, bypass": network("gru", "bahdanau", "projection", "bypass"),
    "gru, perceiver, bypass, one vector": network("gru", "none", "perceiver", "bypass"),
}
ATTENTIVE = [kind for kind in KINDS if "vector" not in kind]
kinds = pytest.mark.parametrize("kind", KINDS)
lengths = st.lists(st.integers(1, 14), min_size=2, max_size=5)


def source_of(kind: str, sizes: list[int], extra: int = 0, prompted: bool = True) -> Source:
    if KINDS[kind].bridge is None:
        return text_source(sizes, max(sizes) + extra)
    return feature_source(sizes, [1 + size % 4 for size in sizes] if prompted else None, max(sizes) + extra)


def after(cell: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One step of one row by the equations: the input (in,), the state (width,) and the LSTM's own (width,)."""
    of_input = cell.weight_ih_l0 @ x + cell.bias_ih_l0
    of_state = cell.weight_hh_l0 @ h + cell.bias_hh_l0
    if isinstance(cell, nn.LSTM):
        i, f, g, o = (of_input + of_state).chunk(4)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    (a, b, d), (u, v, w) = of_input.chunk(3), of_state.chunk(3)
    reset, update = torch.sigmoid(a + u), torch.sigmoid(b + v)
    return (1 - update) * torch.tanh(d + reset * w) + update * h, c


def one_by_one(net: Seq2Seq, source: Source, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """A single source (1 row) and what its decoder is fed (time,), step by step, without batch or padding.

    Logits (time, vocabulary), and Bahdanau's weights (time, slots) or zeros.
    """
    body: Any = net.body
    x, nothing = net.embed(source)[0][0], torch.zeros(WIDTH // 2)
    vector = x.mean(0)
    for layer in () if net.bypassed(source) else body.encoder:
        directions, ends = [], []
        for cell, order in ((layer.forwards, list(range(len(x)))), (layer.backwards, list(range(len(x)))[::-1])):
            h, c, states = nothing, nothing, {}
            for slot in order:
                h, c = after(cell, x[slot], h, c)
                states[slot] = h
            directions.append(torch.stack([states[slot] for slot in range(len(x))]))
            ends.append(h)
        x, vector = torch.cat(directions, dim=1), torch.cat(ends)
    first: Any = body.decoder[0]
    starts = [torch.tanh(linear(vector)) for linear in body.decoder_start]
    carries = len(starts) // len(body.decoder)
    state = [(starts[carries * i], starts[carries * i + carries - 1]) for i in range(len(body.decoder))]
    said, seen = [], []
    for token in tokens:
        y = body.embedding.weight[token] * math.sqrt(WIDTH)
        weights, context = torch.zeros(len(x)), vector
        if isinstance(first, AttentiveLayer):
            asked = first.query.weight @ state[0][0] + first.query.bias
            weights = torch.stack([first.score @ torch.tanh(asked + first.key.weight @ slot) for slot in x]).softmax(0)
            context = weights @ x
        state[0] = after(first.cell, torch.cat((y, context)), *state[0])
        for i, layer in enumerate(body.decoder[1:], 1):
            state[i] = after(layer.cell, state[i - 1][0], *state[i])
        read = torch.tanh(body.decoder_readout(torch.cat((state[-1][0], y, context))))
        said.append(body.output_matrix @ read)
        seen.append(weights)
    return torch.stack(said), torch.stack(seen)


# ── the computation ───────────────────────────────────────────────────────────────────────────────────────────────────
