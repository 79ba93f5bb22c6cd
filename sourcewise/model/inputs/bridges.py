"""Bridges (adapters, projectors): features (batch, frames, dims) → vectors (batch, positions, d_model).

Here a position is called a slot. Every bridge masks padding, so that a slot never depends on other examples' lengths.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sourcewise.config import BridgeConfig, FeatureEncoderConfig
from sourcewise.data.examples import Dataset
from sourcewise.data.layout import Layout
from sourcewise.errors import RequestError
from sourcewise.model.attention import MASKED
from sourcewise.model.blocks.positions import SinusoidalPositions
from sourcewise.model.inputs.units import changes, find_units, link_units, nearest, runs, sequences

TABLES = (("centres", ""), ("vectors.", ".weight"))  # of units, by stream: names of the tensors


class FeatureEncoder(nn.Module):
    """A trainable encoder of the features before the bridge, which keeps the number of frames.

    Residual convolutions in time whose receptive field doubles with every block (Bai et al. 2018). It may be taken from
    another run (`model.feature_encoder.weights`), frozen (`train.freeze: features`), and unfrozen later
    (`train.unfreeze.features`).
    """

    exact = False  # whether it needs the features in float32

    def __init__(self, config: FeatureEncoderConfig, dims: int, p: float) -> None:
        super().__init__()
        self.width = config.width
        self.config, self.dims, self.dropout = config, dims, nn.Dropout(p)
        self.enter = nn.Linear(dims, config.width)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(config.layers))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.width, config.width, config.kernel, padding="same", dilation=2**layer)
            for layer in range(config.layers)
        )
        self.out = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(config.layers))

    def positions(self, features: Tensor) -> int:
        """Number of vectors of one source, features (frames, dims)."""
        return len(features)

    def forward(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """Features (batch, frames, dims) → (batch, frames, width), both zero at padding, and their layout."""
        real = layout.on(x.device).mask.to(x.dtype)[..., None]
        x = self.enter(x) * real
        for norm, convolution, out in zip(self.norms, self.convolutions, self.out, strict=True):
            seen = convolution((norm(x) * real).transpose(1, 2)).transpose(1, 2)
            x = x + self.dropout(out(F.gelu(seen))) * real
        return x, layout


class Bridge(nn.Module):
    """Normalises features, maps them to slots, and adds positions; subclasses define `slots`.

    A plug-in's bridge has a `kind`, the name of its entry point.
    """

    kind: str
    exact = False  # whether `slots` needs the features in float32, whatever the precision of the weights
    mean: Tensor  # (dims,) float32, whatever the precision of the weights
    deviation: Tensor
    encoder: Any  # before it: FeatureEncoder, SourceEncoder, or None

    def __init__(self, config: BridgeConfig, dims: int, d_model: int, p: float) -> None:
        super().__init__()
        self.config, self.dims, self.d_model, self.p = config, dims, d_model, p
        self.register_buffer("mean", torch.zeros(dims))
        self.register_buffer("deviation", torch.ones(dims))
        self.encoder = None
        self.norm = nn.LayerNorm(d_model)
        self.place, self.dropout = SinusoidalPositions(d_model), nn.Dropout(p)

    def forward(self, features: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """Features (batch, frames, dims) float32 → slots (batch, slots, d_model) and their layout."""
        x = (features - self.mean).div_(self.deviation)
        x = _hide_padding(x, layout)
        if self.encoder is not None:
            x, layout = self.encoder(x if self.encoder.exact else x.to(self.norm.weight.dtype), layout)
        slots, layout = self.slots(x if self.exact else x.to(self.norm.weight.dtype), layout)
        slots = self.norm(slots)
        if self.config.positions:
            slots = self.place(slots)
        return _hide_padding(slots, layout), layout

    def slots(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """Normalised features, zero at padding → slots and their layout."""
        raise NotImplementedError

    def prepare(self, dataset: Dataset) -> None:
        """Take from the training set what a bridge needs before training; mean and deviation are set: nothing more."""

    def spans(self, features: Tensor) -> list[tuple[int, int]] | None:
        """The frames [start, stop) of each slot of features (frames, dims); None if slots have no place in time."""
        stride, frames = self.config.stride, len(features)
        read = frames if self.encoder is None else self.encoder.positions(features)
        starts, each = range(0, read, stride), frames / read
        return [(int(i * each), min(frames, math.ceil((i + stride) * each))) for i in starts]

    def windows(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout, Tensor]:
        """Cut time into windows of `stride` frames: (batch, slots, stride, dims), layout of slots, frame mask."""
        stride = self.config.stride
        x = F.pad(x, (0, 0, 0, -x.shape[1] % stride))
        mask = layout.widened(x.shape[1]).on(x.device).mask
        shape = (x.shape[0], x.shape[1] // stride, stride)
        return x.view(*shape, x.shape[2]), strided(layout, stride), mask.view(shape)


class Projection(Bridge):
    """A linear projection of `stride` concatenated frames."""

    def __init__(self, config: BridgeConfig, dims: int, d_model: int, p: float) -> None:
        super().__init__(config, dims, d_model, p)
        self.linear = nn.Linear(dims * config.stride, d_model)

    def slots(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """See Bridge."""
        windows, layout, _ = self.windows(x, layout)
        return self.linear(windows.flatten(2)), layout


class AttentionPooling(Bridge):
    """Attention pooling of each window of `stride` frames by a learned query, with one head per 64 dims."""

    def __init__(self, config: BridgeConfig, dims: int, d_model: int, p: float) -> None:
        super().__init__(config, dims, d_model, p)
        self.heads = next(heads for heads in range(max(1, d_model // 64), 0, -1) if d_model % heads == 0)
        self.value = nn.Linear(dims, d_model)
        self.score = nn.Linear(dims, self.heads)
        self.prior = nn.Parameter(torch.zeros(config.stride, self.heads))  # learned preference of places in the window
        self.offset = nn.Parameter(torch.randn(config.stride, d_model) * 0.5)  # position within the window
        self.out = nn.Linear(d_model, d_model)

    def slots(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """See Bridge."""
        windows, layout, mask = self.windows(x, layout)
        batch, slots, stride, _ = windows.shape
        scores = (self.score(windows) + self.prior).masked_fill(~mask[..., None], MASKED)
        weights = torch.softmax(scores, dim=2)[..., None]  # (batch, slots, stride, heads, 1)
        values = F.gelu(self.value(windows) + self.offset).view(batch, slots, stride, self.heads, -1)
        return self.out((weights * values).sum(2).flatten(2)), layout


class Convolution(Bridge):
    """Convolutions in time that downsample to `stride` frames per slot, and one that keeps the length."""

    def __init__(self, config: BridgeConfig, dims: int, d_model: int, p: float) -> None:
        super().__init__(config, dims, d_model, p)
        strides = _factors(config.stride) or [1]
        widths = [dims, *[d_model] * len(strides)]
        self.layers = nn.ModuleList(
            nn.Conv1d(before, d_model, max(config.kernel, s), stride=s)
            for before, s in zip(widths, strides, strict=False)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in strides)
        self.last = nn.Linear(d_model, d_model)

    def slots(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """See Bridge."""
        for convolution, norm in zip(self.layers, self.norms, strict=True):
            assert isinstance(convolution, nn.Conv1d)
            stride, kernel = convolution.stride[0], convolution.kernel_size[0]
            left = (kernel - stride) // 2
            right = kernel - stride - left - x.shape[1] % -stride  # the last frames are padded to a full stride
            x = convolution(F.pad(x, (0, 0, left, right)).transpose(1, 2)).transpose(1, 2)
            layout = strided(layout, stride)
            x = self.dropout(F.gelu(norm(x)))
            x = _hide_padding(x, layout)  # the next layer sees zeros, as behind the end of a single clip
        return self.last(x), layout


class Perceiver(Bridge):
    """Perceiver resampler: N learned latents attend to all frames (Jaegle et al. 2021, Alayrac et al. 2022)."""

    def __init__(self, config: BridgeConfig, dims: int, d_model: int, p: float) -> None:
        super().__init__(config, dims, d_model, p)
        self.latents = nn.Parameter(torch.randn(config.latents, d_model) * 0.5)
        self.embed = nn.Linear(dims, d_model)
        self.frame_norm = nn.LayerNorm(d_model)
        self.blocks = nn.ModuleList(_Resampler(d_model, p) for _ in range(config.layers))

    def slots(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """See Bridge; the slots are the latents, without padding."""
        keys = self.place(self.frame_norm(self.embed(x)))
        latents = self.latents.expand(len(x), -1, -1)
        mask = layout.on(x.device).mask
        for block in self.blocks:
            latents = block(latents, keys, mask)
        return latents, Layout.whole(len(x), latents.shape[1])

    def spans(self, features: Tensor) -> None:
        """None: every latent attends to all frames."""


class Units(Bridge):
    """Discrete units: a frame is the unit nearest to it, a run of one unit is a slot, and each unit has its own vector.

    For features that are ids laid out as vectors, such as a recogniser's classes, and for vectors that may be rounded
    to such (Lakhotia et al. 2021). Each of the streams, the parts of a frame, has units of its own; those of the first
    decide where slots end, and the vectors of the others are averaged over the slot. With `link`, units that nearly
    always follow one another have one vector, and their runs one slot. Unit 0 is the mean of all frames, which masked
    frames have.
    """

    exact = True
    chains: Tensor  # (units,) int64: which vector a unit of the first stream has
    places: Tensor  # (units,) int64: its place among the units of that vector

    def __init__(self, config: BridgeConfig, dims: int, d_model: int, p: float) -> None:
        super().__init__(config, dims, d_model, p)
        self.widths = config.streams or [dims]
        if sum(self.widths) != dims:
            told = f"{' + '.join(map(str, self.widths))} dims, but the features have {dims}"
            raise RequestError(f"model.bridge.streams: {told}; name the width of each part of a frame")
        self.make([1] * len(self.widths), [1] * len(self.widths))

    def make(self, units: Sequence[int], vectors: Sequence[int]) -> None:
        """New tables for these numbers of units and vectors of each stream."""
        self.vectors = nn.ModuleList(nn.Embedding(count, self.d_model) for count in vectors)
        for k, (count, width) in enumerate(zip(units, self.widths, strict=True)):
            self.register_buffer(f"centres{k}", torch.zeros(count, width))
        for name in ("chains", "places"):
            self.register_buffer(name, torch.zeros(units[0], dtype=torch.long))

    def prepare(self, dataset: Dataset) -> None:
        """See Bridge: finds the units and links them."""

        mean, deviation = self.mean.numpy(), self.deviation.numpy()

        def matrices() -> Iterator[np.ndarray]:
            for i in range(len(dataset)):
                yield (dataset.features(i) - mean) / deviation

        found = find_units(matrices, self.widths, self.config.units)
        found = [torch.cat((torch.zeros(1, units.shape[1]), units)) for units in found]
        chains, places = torch.arange(len(found[0])), torch.zeros(len(found[0]), dtype=torch.long)
        if self.config.link:
            first = (matrix[:, : self.widths[0]] for matrix in matrices())
            chains, places = link_units(sequences(first, found[0]), len(found[0]), self.config.link)
        self.make([len(units) for units in found], [int(chains.max()) + 1, *map(len, found[1:])])
        self.chains.copy_(chains)
        self.places.copy_(places)
        for k, units in enumerate(found):
            self.get_buffer(f"centres{k}").copy_(units)

    def slots(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """See Bridge; `x` is float32."""
        frames = layout.compact()
        units = [self.nearest(k, part) for k, part in enumerate(frames.pack(x).split(self.widths, dim=1))]
        first, layout = runs(self.chains[units[0]], self.places[units[0]], frames)
        units[0] = self.chains[units[0]]
        tables = [table.weight for table in self.vectors if isinstance(table, nn.Embedding)]
        vectors = [F.embedding_bag(u, table, first, mode="mean") for u, table in zip(units, tables, strict=True)]
        return self.dropout(layout.compact().pad(torch.stack(vectors).sum(0))), layout

    def nearest(self, stream: int, x: Tensor) -> Tensor:
        """The units of normalised frames (rows, width) of a stream: (rows,) int64."""
        new = changes(x)  # equal neighbours are looked up once
        return nearest(x[new], self.get_buffer(f"centres{stream}"))[new.cumsum(0) - 1]

    def spans(self, features: Tensor) -> list[tuple[int, int]]:
        """See Bridge: a slot is a run of frames."""
        units = self.nearest(0, ((features - self.mean) / self.deviation)[:, : self.widths[0]])
        first, _ = runs(self.chains[units], self.places[units], Layout.whole(1, len(units)).compact())
        return list(itertools.pairwise([*first.tolist(), len(features)]))

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """As torch, with tables of the sizes that the state has."""
        names = [[f"{name}{k}{end}" for k in range(len(self.widths))] for name, end in TABLES]
        found = [[state.get(prefix + name) for name in each] for each in names]
        if all(isinstance(table, Tensor) and table.dim() == 2 for each in found for table in each):
            self.make(*([len(table) for table in each if table is not None] for each in found))
        super()._load_from_state_dict(state, prefix, *rest)
        if not 0 <= int(self.chains.min()) <= int(self.chains.max()) < len(self.vectors[0].get_parameter("weight")):
            rest[-1].append(f"{prefix}chains names vectors that are not there")


class _Resampler(nn.Module):
    """Cross-attention of latents to frames and latents, then a feed-forward."""

    def __init__(self, d_model: int, p: float) -> None:
        super().__init__()
        self.heads = next(h for h in (8, 6, 4, 3, 2, 1) if d_model % h == 0)
        self.dropout = nn.Dropout(p)
        self.norm, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.q, self.kv = nn.Linear(d_model, d_model), nn.Linear(d_model, 2 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.feedforward = nn.Sequential(nn.Linear(d_model, 4 * d_model), nn.GELU(), nn.Linear(4 * d_model, d_model))

    def forward(self, latents: Tensor, frames: Tensor, mask: Tensor) -> Tensor:
        """Latents (batch, n, d), frames (batch, time, d), mask (batch, time) → latents."""
        read = self.norm(latents)
        k, v = self.kv(torch.cat((frames, read), dim=1)).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.q(read), k, v))
        seen = torch.cat((mask, mask.new_ones(read.shape[:2])), dim=1)[:, None, None]
        scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~seen, MASKED)
        mixed = (torch.softmax(scores, dim=-1) @ v).transpose(1, 2).flatten(2)
        latents = latents + self.dropout(self.out(mixed))
        return latents + self.dropout(self.feedforward(self.norm2(latents)))


def strided(layout: Layout, stride: int) -> Layout:
    """The layout of slots of `stride` frames each, of which the last may be incomplete."""
    return Layout(-(-layout.lengths // stride), -(-layout.width // stride))


def _hide_padding(x: Tensor, layout: Layout) -> Tensor:
    """Set padding of (batch, time, width) to zero, by a mask in x's dtype, since CPUs multiply slowly by bools."""
    return x * layout.on(x.device).mask.to(x.dtype)[..., None]


def _factors(stride: int) -> list[int]:
    """Strides of successive layers: twos first, then the remaining factor."""
    factors = []
    while stride > 1:
        factor = next(f for f in (2, 3, 5, stride) if stride % f == 0)
        factors.append(factor)
        stride //= factor
    return factors
