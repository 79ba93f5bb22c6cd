"""Whether a list of layers holds one and the same layer several times."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


def repeated_in(modules: Iterable[tuple[str, nn.Module]]) -> str:
    """The first list of layers in which one layer with weights stands several times, in words; "" where none does."""
    for top, each in modules:
        for path, module in each.named_modules():
            if not isinstance(module, (nn.ModuleList, nn.Sequential)) or len(module) < 2:
                continue
            layers = [layer for layer in module if any(True for _ in layer.parameters())]
            most = max(sum(layer is other for other in layers) for layer in layers) if layers else 0
            if most > 1:
                kind = type(next(x for x in layers if sum(x is other for other in layers) == most)).__name__
                name = f"{top}.{path}" if path else top
                return (
                    f"{name} holds one and the same {kind} {most} times: {len(module)} layers have the weights of "
                    f"{len({id(layer) for layer in module})}"
                )
    return ""
