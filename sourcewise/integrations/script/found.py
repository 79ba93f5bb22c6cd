"""Whose modules a script calls, and which optimizers hold their weights, among all that is alive."""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from sourcewise.integrations.loop.modules import unwrapped as inside
from sourcewise.integrations.loop.stepping import unwrapped


def roots_of(called: Iterable[nn.Module]) -> list[nn.Module]:
    """The outermost modules that hold these, in the order of the calls, each once."""
    above: dict[int, list[nn.Module]] = {}
    for module in alive(nn.Module):
        for child in module._modules.values():
            if child is not None:
                above.setdefault(id(child), []).append(module)
    found: dict[int, nn.Module] = {}
    for module in called:
        seen = {id(module)}
        while holders := [each for each in above.get(id(module), []) if _holds(each, above) and id(each) not in seen]:
            module = holders[0]
            seen.add(id(module))
        module = inside(module)
        found.setdefault(id(module), module)
    return list(found.values())


def _holds(module: nn.Module, above: dict[int, list[nn.Module]]) -> bool:
    """Whether it is a part of a model: a list of modules by itself is none."""
    return not isinstance(module, (nn.ModuleList, nn.ModuleDict)) or id(module) in above


def optimizers_of(modules: Sequence[nn.Module]) -> list[Any]:
    """All that hold some weight of these."""
    weights = {id(p) for module in modules for p in module.parameters()}
    found = {id(unwrapped(each)): unwrapped(each) for each in alive(Optimizer)}
    return [each for each in found.values() if weights & held_by(each)]


def held_by(optimizer: Any) -> set[int]:
    """The weights of an optimizer, by identity."""
    return {id(p) for group in getattr(optimizer, "param_groups", ()) for p in group["params"]}


def trained(modules: Sequence[nn.Module], optimizers: Collection[Any]) -> list[nn.Module]:
    """Those with a weight that has a gradient, or that some of the optimizers hold: not a teacher, nor what judges."""
    held = {i for each in optimizers for i in held_by(each)}
    return [
        m for m in modules if any(p.requires_grad and (p.grad is not None or id(p) in held) for p in m.parameters())
    ]


def alive(kind: type) -> list[Any]:
    """All objects of a class, as they were made: nothing that only passes for one is asked."""
    return [each for each in gc.get_objects() if issubclass(type(each), kind)]
