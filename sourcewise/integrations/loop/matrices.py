"""The form of the matrices that pass in a loop, as far as its batches say where each of them ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sourcewise.diagnosis.measures.forms import Form, form_of
from sourcewise.integrations.loop.batches import Named
from sourcewise.integrations.loop.understood import Understood
from sourcewise.integrations.passing import FORMS

FRAMES, TIME_FIRST, CHANNELS = "(batch, frames, dims)", "(frames, batch, dims)", "(batch, dims, frames)"
LAYOUTS = {FRAMES: (0, 1, 2), TIME_FIRST: (1, 0, 2), CHANNELS: (0, 2, 1)}  # each, and its way to the first
_BY_TIME = (nn.Linear, nn.RNNBase, nn.LayerNorm)  # modules that read the last dimension of (batch, frames, dims)
_BY_CHANNEL = (nn.Conv1d, nn.BatchNorm1d)  # modules that read the second of (batch, dims, frames)


@dataclass
class Forms:
    """The forms of the tensors of one name in one layout; whether each batch says how many frames they have."""

    found: list[Form] = field(default_factory=list)
    told: bool = True
    shapes: set[tuple[int, int]] = field(default_factory=set)  # frames and dims of the batches


class Matrices:
    """The forms of the first matrices of a loop, by the names of their tensors, in each layout that they may have."""

    def __init__(self) -> None:
        self.of: dict[tuple[str, str], Forms] = {}

    def add(self, named: Named) -> None:
        """Look at the matrices of a batch (tensors by name)."""
        for path, given in named.items():
            if given.ndim == 3 and given.is_floating_point() and given.numel():
                for layout, dims in LAYOUTS.items():
                    _add(self.of.setdefault((path, layout), Forms()), named, given.detach().permute(dims))

    def forms(self, understood: Understood, model: Iterable[nn.Module]) -> list[Form]:
        """Those of the sources; none where a batch may be padded to its longest and nothing says where examples end."""
        path = understood.source.path if understood.source is not None else ""
        layout = TIME_FIRST if understood.source_turned else FRAMES
        if layout == FRAMES and (path, layout) in self.of and _by_channel(model, self.of[path, layout].shapes):
            layout = CHANNELS
        known = self.of.get((path, layout), Forms())
        apart = len({form.frames for form in known.found}) > 1
        return [] if apart and not known.told else known.found


def _add(known: Forms, named: Named, given: Tensor) -> None:
    """The forms of (batch, frames, dims); where nothing says how many frames there are, without zeros behind."""
    if len(known.found) >= FORMS:
        return
    real = _real(named, given)
    known.told &= real is not None
    known.shapes.add((given.shape[1], given.shape[2]))
    some = given[: FORMS - len(known.found)].float().cpu()
    if real is None:
        real = (some.abs().sum(2) > 0).flip(1).cumsum(1).flip(1) > 0
    known.found += [form_of(one[mask].numpy()) for one, mask in zip(some, real, strict=False) if bool(mask.any())]


def _real(named: Named, given: Tensor) -> Tensor | None:
    """The frames of (batch, frames, dims) that are some: (batch, frames) bool, by a mask or lengths; None: unsaid."""
    count, frames = given.shape[:2]
    for path, each in named.items():
        if each.shape == (count, frames) and "mask" in path.lower():
            mask = each.detach().cpu() > 0
            if bool(mask[:, 0].all()) or not bool(mask[:, 0].any()):
                return mask if bool(mask[:, 0].all()) else ~mask
    for each in named.values():
        if each.shape == (count,) and not each.is_floating_point() and each.dtype != torch.bool:
            lengths = each.detach().cpu()
            mask = torch.arange(frames) < lengths[:, None]
            if int(lengths.min()) > 0 and (int(lengths.max()) == frames or _is_padding(given.cpu()[~mask])):
                return mask
    return None


def _is_padding(values: Tensor) -> bool:
    """Whether there are values, which are all the same."""
    return bool(values.numel()) and bool((values == values.flatten()[0]).all())


def _by_channel(model: Iterable[nn.Module], shapes: set[tuple[int, int]]) -> bool:
    """Whether no module reads tensors of these shapes by their last dimension, but one by their second."""
    rows, columns = ({shape[side] for shape in shapes} for side in (0, 1))
    modules = [module for each in model for module in each.modules()]
    by_time = any(isinstance(each, _BY_TIME) and _width(each) in columns for each in modules)
    by_channel = any(isinstance(each, _BY_CHANNEL) and rows == {_width(each)} != columns for each in modules)
    return by_channel and not by_time


def _width(module: nn.Module) -> int | None:
    """The number of dimensions that a module reads."""
    if isinstance(module, nn.LayerNorm):
        return int(module.normalized_shape[-1])
    names = ("in_features", "input_size", "in_channels", "num_features")
    return next((int(w) for name in names if isinstance(w := getattr(module, name, None), int)), None)
