"""Native code let into a network from outside, once, when it is placed on a CPU.

The modules of a network know nothing of it: those that are listed here by the name of their class get another
`forward`, and keep their weights, hooks and names.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

from torch import nn

from sourcewise.native.training import loss
from sourcewise.native.training.forwards import FORWARDS, arrangement

OURS, THEIRS = ("torch.nn.", "sourcewise.model."), "transformers."  # where classes are from
SIDE = 32  # heads without padding are a multiple of it wide


def install(network: Any) -> None:
    """Let the modules of a network that is on a CPU compute in native code, wherever that can.

    A model of transformers stays as it is. A body lays out what it reads without padding, if all of its blocks can do
    without.
    """
    kind = type(network).__name__
    if kind in FORWARDS and type(network).__module__.startswith(OURS):
        network.forward = MethodType(FORWARDS[kind], network)
    elif kind == "LinearCrossEntropy":
        loss.install(network)
    for module in network.children():
        if type(module).__name__ != "Arrangement":
            if not type(module).__module__.startswith(THEIRS):
                install(module)
        elif (width := _width_of_heads(network)) is not None:
            module.d_kv, module.forward = width, MethodType(arrangement, module)


def _width_of_heads(body: nn.Module) -> int | None:
    """That of all attention of a stack whose blocks are norms of the root mean square, and plain; else None."""
    modules: list[Any] = list(body.modules())
    attentions = [m for m in modules if type(m).__name__ in ("SelfAttention", "CrossAttention")]
    residuals = [m for m in modules if type(m).__name__ == "Residual"]
    plain = all(m.norm_first for m in residuals) and not any(isinstance(m, nn.LayerNorm) for m in modules)
    plain = plain and all(m.scale == 1 and m.out.bias is None and m.d_kv % SIDE == 0 for m in attentions)
    return int(attentions[0].d_kv) if attentions and plain else None
