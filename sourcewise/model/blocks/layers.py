"""The small parts of a Transformer: normalisation, dropout, feed-forward.

Each has a CPU form: measured on two cores, PyTorch's own RMSNorm backward and dropout took more time than all
matrix products of a small model. In bf16 that is compiled code (`native/training/`); for fp32, and where nothing can be
compiled, it is made of torch's operations.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sourcewise.native import training as kernels
from sourcewise.native.training import sublayers


def _normalised(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x / rms(x) · weight, and 1 / rms(x) in fp32: whole passes in fp32, where a mixed product is ten times slower."""
    wide = x.float()
    rstd = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    return (wide * rstd).mul_(weight.float()).to(x.dtype), rstd


class _RMSNorm(torch.autograd.Function):
    """RMSNorm whose backward is LayerNorm's fused kernel, given a mean of zero, plus the term that cancels its mean."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        out, rstd = _normalised(x, weight, eps)
        ctx.save_for_backward(x, weight, rstd)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, rstd = ctx.saved_tensors
        grad = grads[0].contiguous()
        zero, scale = torch.zeros_like(rstd), weight.float()
        dx, dweight, _ = torch.ops.aten.native_layer_norm_backward(
            grad, x, [x.shape[-1]], zero, rstd, scale, scale, [True, True, False]
        )
        # LayerNorm's gradient has −rstd·mean(grad·weight) for the mean it subtracts; RMSNorm subtracts none.
        dx += ((grad @ weight).unsqueeze(-1) * rstd / x.shape[-1]).to(dx.dtype)
        return dx, dweight.to(weight.dtype), None


class RMSNorm(nn.Module):
    """x / rms(x) · weight over the last axis (Zhang & Sennrich 2019); T5's layer norm."""

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) → the same shape."""
        if kernels.takes(x):
            return kernels.rms_norm(x, self.weight, self.eps)
        if x.device.type == "cpu":
            return _RMSNorm.apply(x, self.weight, self.eps)
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


_LANES = {2: torch.int16, 4: torch.int32}  # integers as wide as an element


_drawn = threading.local()


@contextlib.contextmanager
def dropout_seed(seed: int) -> Iterator[None]:
    """Within, on this thread: dropout draws from this seed, whatever other threads do."""
    _drawn.stream = np.random.SFC64(seed)
    try:
        yield
    finally:
        del _drawn.stream


def _stream() -> np.random.SFC64:
    """Where masks come from: numpy's SFC64, four times as fast as torch's generator, which gives the seed."""
    stream: np.random.SFC64 | None = getattr(_drawn, "stream", None)
    return stream or np.random.SFC64(int(torch.empty((), dtype=torch.int64).random_()))


def draw_seed() -> int:
    """What compiled code draws from, drawn where dropout draws."""
    return int(_stream().random_raw()) >> 1  # torch's profiler takes no larger integers than int64


def uniform(shape: Sequence[int]) -> Tensor:
    """Numbers in [0, 1), float64 on the CPU, from where dropout draws."""
    return torch.from_numpy(np.random.Generator(_stream()).random(tuple(shape)))


def _keep_mask(x: Tensor, p: float) -> tuple[Tensor, float]:
    """Integers of x's shape, all ones where an element stays and zero where it goes, and the scale of those that stay.

    One random byte an element: p is rounded to 1/256, and the scale follows it exactly.
    """
    dropped = min(max(1, round(p * 256)), 255)
    draws = _stream().random_raw((x.numel() + 7) // 8).view(np.int8)[: x.numel()]
    lanes = torch.from_numpy(draws).to(_LANES[x.element_size()]).view(x.shape)
    # −128 … 127 minus a threshold: the sign bit, spread over the lane, is the mask.
    mask = lanes.sub_(128 - dropped).bitwise_right_shift_(8 * x.element_size() - 1)
    return mask, 256 / (256 - dropped)


def _masked(x: Tensor, mask: Tensor) -> Tensor:
    return (x.contiguous().view(mask.dtype) & mask).view(x.dtype)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        mask, ctx.scale = _keep_mask(x, p)
        ctx.save_for_backward(mask)
        return _masked(x, mask).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _masked(grads[0], *ctx.saved_tensors).mul_(ctx.scale), None


class _ReluDropout(torch.autograd.Function):
    """dropout(relu(x)): where its output is zero no gradient passes, so the output is all it keeps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        mask, ctx.scale = _keep_mask(x, p)
        out = F.relu(x)
        out.view(mask.dtype).bitwise_and_(mask)
        ctx.save_for_backward(out.mul_(ctx.scale))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return torch.ops.aten.threshold_backward(grads[0], *ctx.saved_tensors, 0).mul_(ctx.scale), None


class _AddDropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, branch: Tensor, p: float) -> Tensor:
        mask, ctx.scale = _keep_mask(branch, p)
        ctx.save_for_backward(mask)
        return torch.add(x, _masked(branch, mask), alpha=ctx.scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        return grads[0], _masked(grads[0], *ctx.saved_tensors).mul_(ctx.scale), None


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero a share p of the elements and scale the rest by 1/(1−p), while training."""
    if not training or p == 0:
        return x
    if kernels.takes(x):
        return kernels.dropout(x, p, draw_seed())
    if x.device.type == "cpu":
        return _Dropout.apply(x, p)
    return F.dropout(x, p)


def relu_dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """dropout(relu(x))."""
    if training and p > 0 and kernels.takes(x):
        return kernels.relu_dropout(x, p, draw_seed())
    if training and p > 0 and x.device.type == "cpu":
        return _ReluDropout.apply(x, p)
    return dropout(F.relu(x, inplace=not torch.is_grad_enabled()), p, training)


def add_dropped(x: Tensor, branch: Tensor, p: float, training: bool) -> Tensor:
    """x + dropout(branch): the residual connection."""
    if not training or p == 0:
        return x + branch
    if kernels.takes(x) and kernels.takes(branch):
        return kernels.add_dropped(x, branch, p, draw_seed())
    if x.device.type == "cpu":
        return _AddDropped.apply(x, branch, p)
    return x + F.dropout(branch, p)


class Linear(nn.Linear):
    """torch's layer, compiled where that is faster (`native/training/sublayers.py`)."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) → (..., outputs)."""
        if sublayers.takes(x, self.weight):
            return sublayers.entering(x, None, self.weight, self.bias)[0]
        return super().forward(x)


class Lookup(NamedTuple):
    """Rows of an embedding that were looked up, as a leaf: what its gradient is put into is the embedding's."""

    weight: Tensor  # (vocabulary, width)
    tokens: Tensor  # (...)
    vectors: Tensor  # (..., width)


_looked_up = threading.local()


@contextlib.contextmanager
def lookups() -> Iterator[list[Lookup]]:
    """Within, on this thread: bf16 embeddings on a CPU note what is looked up in them, to be given to `put_lookups`.

    autograd would make the gradient of a whole matrix of each, and add it to that of a tied head in a third, all in
    bf16, in which frequent tokens get lost.
    """
    _looked_up.found = []
    try:
        yield _looked_up.found
    finally:
        del _looked_up.found


def put_lookups(found: Sequence[Lookup], gradients: Sequence[Tensor], weight: Tensor, to: Tensor | None) -> Tensor:
    """The gradient by `weight`, with those by what was looked up in it; `to`, which is changed, is what it had else.

    The rows' sums are fp32, rounded once.
    """
    of = [(look.tokens.flatten(), g.flatten(0, -2)) for look, g in zip(found, gradients, strict=True)]
    tokens, rows = (torch.cat(each) for each in zip(*of, strict=True))
    met, place = tokens.unique(return_inverse=True)
    to = torch.zeros_like(weight) if to is None else to.contiguous()
    sums = to.index_select(0, met).float().index_add_(0, place, rows.float())
    return to.index_copy_(0, met, sums.to(to.dtype))


class Embedding(nn.Embedding):
    """torch's layer, which notes what is looked up within `lookups`."""

    def forward(self, tokens: Tensor) -> Tensor:
        """(...) → (..., width)."""
        weight = self.weight
        found: list[Lookup] | None = getattr(_looked_up, "found", None)
        learns = weight.requires_grad and torch.is_grad_enabled()
        if found is None or not learns or weight.dtype != torch.bfloat16 or weight.device.type != "cpu":
            return super().forward(tokens)
        vectors = F.embedding(tokens, weight.detach()).requires_grad_()
        found.append(Lookup(weight, tokens, vectors))
        return vectors


class FeedForward(nn.Module):
    """Two products and an activation between them, or gated (Shazeer 2020) with gate and value in one product."""

    def __init__(self, d_model: int, d_ff: int, activation: str, p: float, *, biases: bool = False) -> None:
        super().__init__()
        self.gated = activation.startswith("gated-")
        self.activation = activation.removeprefix("gated-")
        self.d_ff, self.p, self.biases = d_ff, p, biases
        self.wi = Linear(d_model, d_ff * (2 if self.gated else 1), bias=biases)
        self.wo = Linear(d_ff, d_model, bias=biases)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_model) → (..., d_model)."""
        out: Tensor = self.wo(self.inner(self.wi(x)))
        return out

    def inner(self, hidden: Tensor) -> Tensor:
        """What stands between the products: (..., d_ff, or twice that where it is gated) → (..., d_ff)."""
        if self.activation == "relu" and not self.gated:
            return relu_dropout(hidden, self.p, self.training)
        if self.gated:
            gate, value = hidden.split(self.d_ff, dim=-1)
            hidden = self._act(gate) * value
        else:
            hidden = self._act(hidden)
        return dropout(hidden, self.p, self.training)

    def _act(self, x: Tensor) -> Tensor:
        if self.activation == "relu":
            return F.relu(x)
        if self.activation == "silu":
            return F.silu(x)
        return F.gelu(x, approximate="tanh" if self.gated else "none")  # T5's gate is gelu_new, BART's gelu exact


class SinusoidalPositions(nn.Module):
    """Adds `sinusoids` to vectors; the table grows when a longer sequence comes."""

    table: Tensor  # (positions, width) float32

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("table", sinusoids(64, width), persistent=False)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """(batch, time, width), the first vector being at position `start` → the same shape."""
        end = start + x.shape[1]
        if end > len(self.table):
            self.table = sinusoids(2 * end, x.shape[2], self.table.device)
        return x + self.table[start:end].to(x.dtype)


class Positions(nn.Module):
    """Adds a vector to each of the first `count` positions: a learned one, or a sinusoid as Marian has it."""

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

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """(batch, time, width), the first vector being at position `start` → the same shape."""
        first = self.offset + start
        return x + self.weight[first : first + x.shape[1]].to(x.dtype)

    def at(self, places: Tensor) -> Tensor:
        """Positions (...) → vectors (..., width)."""
        return F.embedding(places + self.offset, self.weight)


def sinusoids(length: int, width: int, device: torch.device | None = None) -> Tensor:
    """(length, width) float32 sinusoidal positions (Vaswani et al. 2017), sines then cosines."""
    half = (width + 1) // 2
    rates = torch.exp(-torch.arange(half, device=device) * (torch.log(torch.tensor(10000.0)) / max(half - 1, 1)))
    angles = torch.arange(length, device=device)[:, None] * rates
    return torch.cat((angles.sin(), angles.cos()), dim=1)[:, :width]
