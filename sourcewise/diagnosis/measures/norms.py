"""Norms over batches whose running statistics never arrive."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

FEWEST = 3  # steps in which statistics would have moved


@torch.no_grad()
def as_made(modules: Iterable[tuple[str, nn.Module]]) -> list[str]:
    """Norms that were used, and whose running mean is 0 and variance 1 all the same, each with what shows why."""
    found = []
    for name, module in modules:
        if not isinstance(module, _BatchNorm) or module.running_mean is None or module.running_var is None:
            continue
        if bool(module.running_mean.any()) or not bool((module.running_var == 1).all()) or not _used(module):
            continue
        why = "momentum is 0" if module.momentum == 0 else "" if module.training else "it is in eval() mode in training"
        found.append(f"{name} ({type(module).__name__}{why and f', {why}'})")
    return found


def _used(module: _BatchNorm) -> bool:
    """Whether it counted batches, or its weights have learned."""
    tracked = module.num_batches_tracked
    if tracked is not None and int(tracked) > 0:
        return True
    return bool(module.affine and ((module.weight != 1).any() or module.bias.any()))
