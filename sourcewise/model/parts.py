"""Parts of a network: the network assigns each parameter to its part, and nobody else parses names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

# Parts that can be frozen and are logged; `features` is the feature encoder. All other parameters are `other`.
PARTS = ("embedding", "encoder", "decoder", "features", "bridge")
OTHER = "other"

Stacks = Mapping[str, Sequence[nn.Module]]  # part → layers (blocks) of a stack, first layer first


@dataclass(frozen=True, slots=True)
class ParameterInfo:
    """A parameter of a network with its part and layer."""

    name: str  # as in `named_parameters` of the network
    parameter: nn.Parameter
    part: str  # one of PARTS, or `other`
    layer: tuple[str, int] | None  # the stack, and the layer's index from 0; None: in no stack


def belonging(
    network: nn.Module, owners: Iterable[tuple[str, nn.Module | None]], stacks: Stacks
) -> Iterator[ParameterInfo]:
    """ParameterInfo of every parameter; a shared one belongs to its first owner.

    Parameters are compared by identity, so that wrappers around modules and their names do not matter.
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
    """The layers of any encoder or decoder: its ModuleList with the most parameters."""
    lists = [each for each in module.modules() if isinstance(each, nn.ModuleList)]
    return list(max(lists, key=size, default=()))


def size(module: nn.Module) -> int:
    """Number of parameters; of packed ones, such as in 4 bits, as many as they stand for."""
    packed = (getattr(getattr(parameter, "quant_state", None), "shape", None) for parameter in module.parameters())
    pairs = zip(packed, module.parameters(), strict=True)
    return sum(parameter.numel() if shape is None else shape.numel() for shape, parameter in pairs)
