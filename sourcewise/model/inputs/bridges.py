"""Bridges: features (batch, frames, dims) → slots (batch, slots, d_model) of encoder width.

Every bridge hides padded frames, so that a slot never depends on how long its neighbours in the batch are.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sourcewise.config import BridgeConfig, FeatureEncoderConfig
from sourcewise.config.model import BRIDGES as GROUP
from sourcewise.config.model import bridge_kinds
from sourcewise.data.layout import Layout
from sourcewise.errors import RequestError
from sourcewise.model.blocks.positions import SinusoidalPositions
from sourcewise.model.inputs.feature_encoder import FeatureEncoder, attach
from sourcewise.runtime.plugins import plugins


class Bridge(nn.Module):
    """Normalises features, maps them to slots, adds positions. Subclasses fill in `slots`.

    That of a plug-in says its `kind`, which is the name of its entry point.
    """

    kind: str
    mean: Tensor  # (dims,) float32, whatever the precision of the weights
    deviation: Tensor
    encoder: FeatureEncoder | None

    def __init__(self, config: BridgeConfig, dims: int, d_model: int, p: float) -> None:
        super().__init__()
        self.config, self.dims, self.d_model, self.p = config, dims, d_model, p
        self.register_buffer("mean", torch.zeros(dims))
        self.register_buffer("deviation", torch.ones(dims))
        self.encoder = None
        self.norm = nn.LayerNorm(d_model)
        self.place, self.dropout = SinusoidalPositions(d_model), nn.Dropout(p)

    def forward(self, features: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """Features (batch, frames, dims) float32 → slots (batch, slots, d_model), and how these lie."""
        x = (features - self.mean).div_(self.deviation)
        x = _hide_padding(x, layout)
        x = x.to(self.norm.weight.dtype)
        slots, layout = self.slots(x if self.encoder is None else self.encoder(x, layout), layout)
        slots = self.norm(slots)
        if self.config.positions:
            slots = self.place(slots)
        return _hide_padding(slots, layout), layout

    def slots(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """Normalised features, zero where padded → slots and how they lie."""
        raise NotImplementedError

    def spans(self, frames: int) -> list[tuple[int, int]] | None:
        """The frames [start, stop) that each slot stands for; None where slots are not places in time."""
        stride = self.config.stride
        return [(start, min(start + stride, frames)) for start in range(0, frames, stride)]

    def windows(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout, Tensor]:
        """Cut time into stretches of `stride` frames: (batch, slots, stride, dims), how slots lie, frame mask."""
        stride = self.config.stride
        x = F.pad(x, (0, 0, 0, -x.shape[1] % stride))
        mask = layout.widened(x.shape[1]).on(x.device).mask
        shape = (x.shape[0], x.shape[1] // stride, stride)
        return x.view(*shape, x.shape[2]), strided(layout, stride), mask.view(shape)


class Projection(Bridge):
    """`stride` frames side by side through one linear layer."""

    def __init__(self, config: BridgeConfig, dims: int, d_model: int, p: float) -> None:
        super().__init__(config, dims, d_model, p)
        self.linear = nn.Linear(dims * config.stride, d_model)

    def slots(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """See Bridge."""
        windows, layout, _ = self.windows(x, layout)
        return self.linear(windows.flatten(2)), layout


class AttentionPooling(Bridge):
    """A learned query reads each stretch of `stride` frames, one head a 64 dims."""

    def __init__(self, config: BridgeConfig, dims: int, d_model: int, p: float) -> None:
        super().__init__(config, dims, d_model, p)
        self.heads = max(1, d_model // 64)
        while d_model % self.heads:
            self.heads -= 1
        self.value = nn.Linear(dims, d_model)
        self.score = nn.Linear(dims, self.heads)
        self.prior = nn.Parameter(torch.zeros(config.stride, self.heads))  # where in the stretch to look
        self.offset = nn.Parameter(torch.randn(config.stride, d_model) * 0.5)  # tells the places apart
        self.out = nn.Linear(d_model, d_model)

    def slots(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """See Bridge."""
        windows, layout, mask = self.windows(x, layout)
        batch, slots, stride, _ = windows.shape
        scores = (self.score(windows) + self.prior).masked_fill(~mask[..., None], -1e9)
        weights = torch.softmax(scores, dim=2)[..., None]  # (batch, slots, stride, heads, 1)
        values = F.gelu(self.value(windows) + self.offset).view(batch, slots, stride, self.heads, -1)
        return self.out((weights * values).sum(2).flatten(2)), layout


class Convolution(Bridge):
    """Convolutions in time, halving until `stride` frames share a slot, and one that keeps the length."""

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
            right = kernel - stride - left - x.shape[1] % -stride  # the last frames fill a stride of their own
            x = convolution(F.pad(x, (0, 0, left, right)).transpose(1, 2)).transpose(1, 2)
            layout = strided(layout, stride)
            x = self.dropout(F.gelu(norm(x)))
            x = _hide_padding(x, layout)  # the next layer sees zeros, as at the end of a lone clip
        return self.last(x), layout


class Perceiver(Bridge):
    """N learned latents read all frames (Perceiver resampler: Jaegle et al. 2021, Alayrac et al. 2022)."""

    def __init__(self, config: BridgeConfig, dims: int, d_model: int, p: float) -> None:
        super().__init__(config, dims, d_model, p)
        self.latents = nn.Parameter(torch.randn(config.latents, d_model) * 0.5)
        self.embed = nn.Linear(dims, d_model)
        self.frame_norm = nn.LayerNorm(d_model)
        self.blocks = nn.ModuleList(_Resampler(d_model, p) for _ in range(config.layers))

    def slots(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """See Bridge; the slots are the latents, all of them real."""
        keys = self.place(self.frame_norm(self.embed(x)))
        latents = self.latents.expand(len(x), -1, -1)
        mask = layout.on(x.device).mask
        for block in self.blocks:
            latents = block(latents, keys, mask)
        return latents, Layout.whole(len(x), latents.shape[1])

    def spans(self, frames: int) -> None:
        """None: every latent reads all frames."""


class _Resampler(nn.Module):
    """Latents read frames and themselves, then a feed-forward."""

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
        scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~seen, -1e9)
        mixed = (torch.softmax(scores, dim=-1) @ v).transpose(1, 2).flatten(2)
        latents = latents + self.dropout(self.out(mixed))
        out: Tensor = latents + self.dropout(self.feedforward(self.norm2(latents)))
        return out


def strided(layout: Layout, stride: int) -> Layout:
    """How the slots lie that so many frames each fill, the last perhaps in part."""
    return Layout(-(-layout.lengths // stride), -(-layout.width // stride))


def _hide_padding(x: Tensor, layout: Layout) -> Tensor:
    """Zero (batch, time, width) where it is padded. A mask in x's own dtype: CPUs multiply by bools slowly."""
    return x * layout.on(x.device).mask.to(x.dtype)[..., None]


def _factors(stride: int) -> list[int]:
    """Strides of successive layers: twos first, then what is left."""
    factors = []
    while stride > 1:
        factor = next(f for f in (2, 3, 5, stride) if stride % f == 0)
        factors.append(factor)
        stride //= factor
    return factors


BRIDGES: dict[str, type[Bridge]] = {
    "projection": Projection,
    "attention": AttentionPooling,
    "perceiver": Perceiver,
    "convolution": Convolution,
}


@functools.cache
def bridges() -> dict[str, type[Bridge]]:
    """Every bridge by its kind, those of plug-ins (`sourcewise.bridges`) last."""
    return BRIDGES | {bridge.kind: bridge for bridge in plugins(GROUP, _taken)}


def _taken(found: object) -> type[Bridge]:
    """A plug-in's bridge. Raises TypeError or ValueError where it is none, or its kind is taken."""
    if not (isinstance(found, type) and issubclass(found, Bridge)):
        raise TypeError(f"it is no subclass of sourcewise.model.inputs.bridges.Bridge but {found!r}")
    kind = getattr(found, "kind", None)
    if not isinstance(kind, str) or kind in BRIDGES or kind not in bridge_kinds():
        raise ValueError(f"its kind is {kind!r}: it should be the name of its entry point, and none of ours")
    return found


def build_bridge(
    config: BridgeConfig, dims: int, d_model: int, p: float, encoder: FeatureEncoderConfig | None = None
) -> Bridge:
    """The bridge a recipe asks for, behind an encoder of the features where that has layers.

    Raises RequestError where it is that of a plug-in which cannot be loaded.
    """
    known = bridges()
    if config.kind not in known:
        raise RequestError(f"model.bridge.kind: {config.kind}: its plug-in cannot be loaded")
    if encoder is None or not encoder.layers:
        return known[config.kind](config, dims, d_model, p)
    bridge = known[config.kind](config, encoder.width, d_model, p)
    attach(bridge, encoder, dims, p)
    return bridge
