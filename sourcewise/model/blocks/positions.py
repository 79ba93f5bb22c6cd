"""Position encodings: relative biases of the attention scores, or absolute vectors that are added."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RelativePositions(nn.Module):
    """T5's learned bias for the distance between query and key (Raffel et al. 2020, section 2.1)."""

    def __init__(self, buckets: int, distance: int, heads: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(buckets, heads)
        self.distance, self.bidirectional = distance, bidirectional

    def forward(self, relative: Tensor) -> Tensor:
        """Key positions − query positions (queries, keys) → bias (heads, queries, keys), float32."""
        return F.embedding(self.bucket(relative), self.table.weight).float().permute(2, 0, 1)

    def bucket(self, relative: Tensor) -> Tensor:
        """Key position − query position → bucket: exact when near, logarithmic when far."""
        buckets = self.table.num_embeddings
        if self.bidirectional:
            buckets //= 2
            offset = (relative > 0).long() * buckets
            relative = relative.abs()
        else:
            offset = torch.zeros_like(relative)
            relative = (-relative).clamp(min=0)
        exact = buckets // 2
        share = torch.log(relative.float() / exact) / math.log(self.distance / exact)
        far = (exact + (share * (buckets - exact)).long()).clamp(max=buckets - 1)
        return offset + torch.where(relative < exact, relative, far)


class SinusoidalPositions(nn.Module):
    """Adds sinusoidal positions to vectors; the table grows with the longest sequence."""

    table: Tensor  # (positions, width) float32

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("table", sinusoids(64, width), persistent=False)

    def forward(self, x: Tensor, start: int | Tensor = 0) -> Tensor:
        """(batch, time, width), with the first vector at position `start` → the same shape.

        Where only the device knows it, `start` is a tensor (1,), below what was reserved, and time is 1.
        """
        if isinstance(start, Tensor):
            return x + self.table.index_select(0, start).to(x.dtype)
        end = start + x.shape[1]
        self.reserve(end)
        return x + self.table[start:end].to(x.dtype)

    def reserve(self, end: int) -> None:
        """Make the table long enough for so many positions."""
        if end > len(self.table):
            with torch.inference_mode(False):  # trainings and measurements use it afterwards
                self.table = sinusoids(2 * end, self.table.shape[1], self.table.device)


class Positions(nn.Module):
    """Absolute positions up to `count`: adds learned vectors, or Marian's sinusoids."""

    weight: Tensor  # (rows, width)

    def __init__(self, count: int, width: int, *, learned: bool) -> None:
        super().__init__()
        self.count = count
        self.offset = 2 if learned else 0  # BART never uses the first rows
        if learned:
            self.weight = nn.Parameter(torch.empty(self.offset + count, width))
        else:
            rates = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
            angles = torch.arange(count)[:, None] * rates
            table = torch.cat((angles.sin(), angles.cos()), dim=1)[:, :width]
            self.register_buffer("weight", table.float(), persistent=False)

    def forward(self, x: Tensor, start: int | Tensor = 0, places: Tensor | None = None) -> Tensor:
        """x (batch, time, width), from position `start` on or at `places` (batch, time) → the same shape.

        Where only the device knows it, `start` is a tensor (1,), and time is 1.
        """
        if isinstance(start, Tensor):
            places = start[None]
        if places is not None:
            return x + F.embedding(places + self.offset, self.weight).to(x.dtype)
        first = self.offset + start
        return x + self.weight[first : first + x.shape[1]].to(x.dtype)


def sinusoids(length: int, width: int, device: torch.device | None = None) -> Tensor:
    """(length, width) float32 sinusoidal positions (Vaswani et al. 2017), sines then cosines."""
    half = (width + 1) // 2
    rates = torch.exp(-torch.arange(half, device=device) * (torch.log(torch.tensor(10000.0)) / max(half - 1, 1)))
    angles = torch.arange(length, device=device)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), dim=1)[:, :width]


def distances(queries: int, keys: int, device: torch.device) -> Tensor:
    """Key position − query position (queries, keys), both from 0."""
    return torch.arange(keys, device=device)[None, :] - torch.arange(queries, device=device)[:, None]
