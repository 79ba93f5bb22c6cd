"""Initialisation of weights by a chosen scheme instead of the family's own."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sourcewise.model.blocks.sublayers import CrossAttention, SelfAttention

Rule = Literal["own", "xavier", "he", "t5"]


@torch.no_grad()
def initialize(network: nn.Module, rule: Rule) -> None:
    """Initialise every matrix of a new network; embeddings, positions, norms and biases are unchanged.

    xavier: variance 2 / (fan in + fan out), uniform (Glorot & Bengio 2010). he: 2 / fan in, normal (He et al. 2015).
    t5: 1 / fan in, normal, as in Mesh TensorFlow. If scores are not divided by √d_kv, the queries are, since the
    softmax would be saturated else. Each gate of a cell, and each of Q, K and V, counts as a matrix.
    """
    if rule == "own":
        return
    generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))

    def draw(weight: Tensor, parts: int = 1) -> None:
        for part in weight.detach().chunk(parts):
            _draw(part, rule, generator)

    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d)):
            draw(module.weight)
        elif isinstance(module, (nn.GRU, nn.LSTM)):
            gates = 3 if isinstance(module, nn.GRU) else 4
            for name, weight in module.named_parameters():
                if name.startswith("weight"):
                    draw(weight, gates)
    for module in network.modules():
        if isinstance(module, SelfAttention):
            draw(module.qkv.weight, 3)
            _tempered(module.qkv.weight.chunk(3)[0], module)
        elif isinstance(module, CrossAttention):
            draw(module.kv.weight, 2)
            _tempered(module.q.weight, module)


def _draw(weight: Tensor, rule: Rule, generator: torch.Generator) -> None:
    """Initialise a matrix in place; fans of a convolution (out, in, kernel) include its kernel."""
    field = weight[0][0].numel()
    fan_in, fan_out = weight.shape[1] * field, weight.shape[0] * field
    if rule == "xavier":
        bound = (6 / (fan_in + fan_out)) ** 0.5
        weight.uniform_(-bound, bound, generator=generator)
    else:
        weight.normal_(0, ((2 if rule == "he" else 1) / fan_in) ** 0.5, generator=generator)


def _tempered(query: Tensor, attention: SelfAttention | CrossAttention) -> None:
    if attention.scale == 1:
        query.div_(attention.d_kv**0.5)
