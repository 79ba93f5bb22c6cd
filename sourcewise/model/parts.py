"""Which part of a network each of its parameters belongs to: known by the network, asked by everybody else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

# What can be frozen, and is told apart in logs; `features` encodes features before the bridge. All else is `other`.
PARTS = ("embedding", "encoder", "decoder", "features", "bridge")
OTHER = "other"

Stacks = Mapping[str, Sequence[nn.Module]]  # by part, the layers (blocks) of a stack, first layer first


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """A parameter of a network and where it belongs."""

    name: str  # as in `named_parameters` of the network
    parameter: nn.Parameter
    part: str  # one of PARTS, or `other`
    layer: tuple[str, int] | None  # the stack, and its place there counted from 0; None: in no stack


def belonging(
    network: nn.Module, owners: Iterable[tuple[str, nn.Module | None]], stacks: Stacks
) -> Iterator[ParameterInfo]:
    """ParameterInfo of every parameter; one that several owners hold belongs to the first of them.

    Parameters are told apart by identity, so wrappers around modules and their names do not matter.
    """
    part_of: dict[int, str] = {}
    for part, owner in owners:
        for parameter in owner.parameters() if owner is not None else ():
            part_of.setdefault(id(parameter), part)
    layer_of = {
        id(parameter): (stack, place)
        for stack, blocks in stacks.items()
        for place, block in enumerate(blocks)
        for parameter in block.parameters()
    }
    for name, parameter in network.named_parameters():
        part = part_of.get(id(parameter), OTHER)
        layer = layer_of.get(id(parameter))
        yield ParameterInfo(name, parameter, part, layer if layer and layer[0] == part else None)


def largest_list(module: nn.Module) -> Sequence[nn.Module]:
    """The layers of somebody's encoder or decoder: of the lists of modules in it, the one with most parameters."""
    lists = [each for each in module.modules() if isinstance(each, nn.ModuleList)]
    return list(max(lists, key=size, default=()))


def size(module: nn.Module) -> int:
    """How many parameters it has."""
    return sum(parameter.numel() for parameter in module.parameters())
