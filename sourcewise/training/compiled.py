"""Blocks compiled by torch.compile: norms, residuals, activations and dropout in few kernels, on an accelerator."""

from __future__ import annotations

from typing import Any

from sourcewise.errors import RequestError
from sourcewise.model.attention import Attention


def compile_blocks(network: Any, backend: str = "inductor") -> None:
    """Compile each block as one graph, for all widths; it is done in the first step. Raises RequestError.

    Blocks of one kind and setting share a graph.
    """
    import torch.fx.experimental._config as shapes

    blocks = [block for stack in network.stacks.values() for block in stack]
    if not blocks or not all(any(isinstance(m, Attention) for m in block.modules()) for block in blocks):
        raise RequestError("train.compile: is for the families t5, bart and decoder; leave it out")
    shapes.use_duck_shape = False  # two widths that happen to be equal in the first batch need not be in the next
    for block in blocks:
        block.compile(backend=backend, fullgraph=True, dynamic=True)
