"""The parts and layers of anybody's modules, by their names, their order and their kinds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from sourcewise.errors import RequestError
from sourcewise.integrations.loop.watching import side_of
from sourcewise.model.parts import ParameterInfo

DEEP = 3  # layers, from which on a stack is one
Named = list[tuple[str, nn.Module]]


def named_modules(model: Any) -> Named:
    """What was given as the model, by name: a module, several (encoder first), or a dict. Raises RequestError."""
    if isinstance(model, nn.Module):
        return [("model", unwrapped(model))]
    if isinstance(model, Mapping):
        pairs = [(str(name), each) for name, each in model.items()]
    elif isinstance(model, (list, tuple)):
        pairs = list(zip(_names(model), model, strict=True))
    else:
        pairs = []
    if not pairs or not all(isinstance(each, nn.Module) for _, each in pairs):
        kinds = ", ".join(type(each).__name__ for _, each in pairs) or type(model).__name__
        raise RequestError(f"doctor: the model is a torch module, or several as in (encoder, decoder), not {kinds}")
    return [(name, unwrapped(each)) for name, each in pairs]


def _names(modules: Sequence[Any]) -> list[str]:
    """What several modules are called: by their class, else encoder, decoder where they are two."""
    found = [side_of(type(each).__name__) for each in modules]
    if len(modules) == 2 and sorted(found) != ["decoder", "encoder"]:
        return ["encoder", "decoder"]
    words = [side or type(each).__name__.lower() for side, each in zip(found, modules, strict=True)]
    return [word if words.count(word) == 1 else f"{word}{i}" for i, word in enumerate(words)]


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside what spreads it over processes: calls go through that, looks go past it."""
    while isinstance(module, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        module = module.module
    return module


def parts_of(modules: Named) -> list[ParameterInfo]:
    """Every parameter once, with its part (encoder, decoder, embedding, other) and its layer in a stack."""
    found: dict[int, ParameterInfo] = {}
    for top, module in modules:
        layers = dict(_layers(module))
        for path, owner in module.named_modules():
            for name, parameter in owner.named_parameters(recurse=False):
                if id(parameter) in found:
                    continue
                full = ".".join(filter(None, (path, name)))
                shown = full.replace("_orig_mod.", "")
                shown = shown if len(modules) == 1 else f"{top}.{shown}"
                part = _part(f"{top}.{path}", owner)
                found[id(parameter)] = ParameterInfo(shown, parameter, part, layers.get(id(parameter)))
    return list(found.values())


def _part(path: str, owner: nn.Module) -> str:
    for word in path.split("."):
        if side := side_of(word):
            return side
    return "embedding" if isinstance(owner, nn.Embedding) else "other"


def _layers(module: nn.Module) -> Iterator[tuple[int, tuple[str, int]]]:
    """Parameter → its stack, by path, and its place there; the outermost stacks of a module."""
    seen: set[int] = set()
    for path, each in module.named_modules():
        blocks = _blocks(each)
        name = path.replace("_orig_mod.", "") or type(each).__name__
        for place, parameters in enumerate(blocks if len(blocks) >= DEEP else []):
            for parameter in parameters:
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield id(parameter), (name, place)


def _blocks(module: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of each layer, first layer first; [] where it is no stack."""
    if isinstance(module, nn.RNNBase):
        named = list(module.named_parameters(recurse=False))
        places = [int(match[1]) if (match := re.search(r"_l(\d+)", name)) else 0 for name, _ in named]
        return [[p for (_, p), at in zip(named, places, strict=True) if at == i] for i in range(module.num_layers)]
    if isinstance(module, (nn.ModuleList, nn.Sequential)):
        return [list(each.parameters()) for each in module.children() if any(True for _ in each.parameters())]
    numbered: dict[tuple[str, type], list[tuple[int, nn.Module]]] = {}
    for name, child in module.named_children():
        if match := re.fullmatch(r"(.*?)(\d+)", name):
            numbered.setdefault((match[1], type(child)), []).append((int(match[2]), child))
    longest = max(numbered.values(), key=len, default=[])
    return [list(child.parameters()) for _, child in sorted(longest, key=lambda pair: pair[0])]
