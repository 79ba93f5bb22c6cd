"""Whether weights are those that a network begins with, or were trained.

What networks begin with shows: norms are all ones, biases are all zero, and tables of linear and recurrent layers end
at the bound that their rule of initialisation sets. A training moves every one of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from statistics import mean

import torch
from torch import Tensor, nn

from sourcewise.model.parts import ParameterInfo

FEWEST = 12  # rows and columns of a matrix that tells whether it was drawn
SOME = 192  # of these that are looked at
LOOSE = 2.5  # deviations of the largest singular value of a drawn matrix, about
EDGE = 1.02  # times the bound of a uniform initialisation
MOST = 64  # layers that are asked
SCALED, BESIDE = 0.02, 0.25  # mean distance of a norm's scales from 1: of a part that was trained; of the others'


def looks_trained(model: nn.Module) -> bool:
    """Whether few layers of a network are as networks begin; False where there is nothing to tell by."""
    signs = list(islice(_signs(model.modules()), MOST))
    return bool(signs) and sum(signs) < len(signs) / 2


@torch.no_grad()
def is_drawn(table: Tensor) -> bool:
    """Whether a matrix looks as drawn at random, number by number; False where it is too small to tell.

    The largest singular value of m × n such numbers is their deviation times √m + √n (Marchenko & Pastur 1967). What a
    training adds is alike in many rows, and larger. A matrix that is all zeros or whose rows are sinusoids is none.
    """
    if table.ndim < 2 or not table.is_floating_point() or table.numel() == 0:
        return False
    flat = _here(table.detach()).flatten(1)
    if min(flat.shape) < FEWEST:
        return False
    rows, columns = (max(1, size // SOME) for size in flat.shape)
    some = flat[::rows, ::columns][:SOME, :SOME].float().cpu()
    deviation = float(some.std())
    if deviation <= 0 or abs(float(some.mean())) > deviation / 2:
        return False
    m, n = some.shape
    largest = float(torch.linalg.matrix_norm(some, 2))
    usual = deviation * (m**0.5 + n**0.5)
    return usual / (1 + LOOSE) <= largest <= usual * (1 + LOOSE * min(m, n) ** (-2 / 3))


@torch.no_grad()
def drawn_by_part(infos: Iterable[ParameterInfo]) -> dict[str, tuple[int, int, int, int]]:
    """Part → how many of up to `MOST` matrices look as drawn, of how many; and the same of all other parts.

    Matrices of a narrow network look as drawn after a training, too. Its norms tell: where their scales have moved
    about as far as those of the other parts, nothing of the part is as it was drawn.
    """
    found: dict[str, list[bool]] = {}
    scales: dict[str, list[float]] = {}
    for info in infos:
        known, table = found.setdefault(info.part, []), info.parameter
        if table.ndim > 1 and min(table.flatten(1).shape) >= FEWEST and len(known) < MOST:
            known.append(is_drawn(table))
        elif table.ndim == 1 and table.numel() >= FEWEST and info.name.endswith("weight"):  # the scale of a norm
            scales.setdefault(info.part, []).append(float((_here(table.detach()).float() - 1).abs().mean()))
    for part, moved in scales.items():
        others = [each for other, several in scales.items() if other != part for each in several]
        if mean(moved) > max(SCALED, BESIDE * mean(others or [0.0])):
            found[part] = [False] * len(found[part])
    total, drawn = sum(map(len, found.values())), sum(map(sum, found.values()))
    return {part: (sum(own), len(own), drawn - sum(own), total - len(own)) for part, own in found.items()}


def _signs(modules: Iterable[nn.Module]) -> Iterator[bool]:
    """For each layer that tells: whether it is as at the beginning."""
    for module in modules:
        held = {name: _here(each.detach()) for name, each in module.named_parameters(recurse=False)}
        own = {name: each for name, each in held.items() if each.numel() > 1}
        kind = type(module).__name__.lower()
        if "norm" in kind and "weight" in own:
            yield _constant(own["weight"])
        elif isinstance(module, (nn.RNNBase, nn.RNNCellBase)) and own:
            bound = EDGE / float(module.hidden_size) ** 0.5
            yield all(float(each.abs().max()) <= bound for each in own.values())
        elif isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)) and own.keys() >= {"weight", "bias"}:
            yield _constant(own["bias"]) or _bounded(own["weight"])


def _here(table: Tensor) -> Tensor:
    """What this process holds of a table that may be sharded."""
    return table.to_local() if hasattr(table, "to_local") else table


def _constant(table: Tensor) -> bool:
    return bool(torch.equal(table, table.flatten()[0].expand_as(table)))


def _bounded(weight: Tensor) -> bool:
    """Whether a table (out, in, …) ends at the bound of torch's own rule, as a uniform distribution does."""
    bound = 1 / float(weight[0].numel()) ** 0.5
    return 0.9 * bound <= float(weight.abs().max()) <= EDGE * bound
