"""What takes the place of a module's `forward` on a CPU; where it cannot, the module's own class computes.

Here alone is asked what a processor, a precision, a thread or a count of rows allows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sourcewise.native.training import attention as heads
from sourcewise.native.training import attention_part, composed, kernels, sublayers
from sourcewise.native.training.draws import draw_seed
from sourcewise.native.training.lookups import embedding


def rms_norm(module: Any, x: Tensor) -> Tensor:
    """nn.RMSNorm."""
    if kernels.takes(x):
        return kernels.rms_norm(x, module.weight, module.eps)
    return composed.rms_norm(x, module.weight, module.eps) if x.is_cpu else _plainly(module, x)


def dropout(module: Any, x: Tensor) -> Tensor:
    """nn.Dropout."""
    if not module.training or module.p == 0:
        return x
    if kernels.takes(x):
        return kernels.add_dropped(None, x, module.p, draw_seed())
    return composed.add_dropped(None, x, module.p) if x.is_cpu else _plainly(module, x)


def linear(module: Any, x: Tensor) -> Tensor:
    """nn.Linear."""
    if sublayers.takes(x, module.weight):
        return sublayers.entering(x, None, module.weight, module.bias, 0.0)[0]
    return F.linear(x, module.weight, module.bias)


def activation(module: Any, hidden: Tensor) -> Tensor:
    """Activation: relu and dropout in one pass."""
    if module.kind != "relu" or module.gated or not hidden.is_cpu:
        return _plainly(module, hidden)
    p = _share(module.dropout)
    if p == 0:
        return F.relu(hidden, inplace=not torch.is_grad_enabled())
    if kernels.takes(hidden):
        return kernels.relu_dropout(hidden, p, draw_seed())
    return composed.relu_dropout(hidden, p)


def attention(module: Any, q: Tensor, k: Tensor, v: Tensor, own: Any, other: Any, bias: Tensor | None) -> Tensor:
    """Attention, of padded heads."""
    plain = own.packed or other.packed or q.dtype != k.dtype
    if plain or not all(heads.takes(x, x.shape[2], x.shape[3]) for x in (q, k)):
        return _plainly(module, q, k, v, own, other, bias)
    p = _share(module.dropout)
    return heads.attention(q, k, v, bias, p, draw_seed() if p else 0)


def split_heads(module: Any, x: Tensor) -> tuple[Tensor, ...]:
    """SplitHeads: views, where attention takes heads as they lie."""
    split = x.unflatten(-1, (module.parts, module.heads, -1))
    if heads.takes(x, x.shape[-2], split.shape[-1]):
        return tuple(part.transpose(-3, -2) for part in split.unbind(-3))
    plain: tuple[Tensor, ...] = _plainly(module, x) if not x.is_cpu else ()
    return plain or composed.split_heads(x, module.parts, module.heads)


def for_decoding(module: Any, heads: Tensor) -> Tensor:
    """ForDecoding: converts keys or values for cached decoding; with one query per step, fp32 is 1.5 times as fast."""
    return heads.float().contiguous() if heads.is_cpu and torch.is_inference_mode_enabled() else heads


def arrangement(module: Any, x: Tensor, layout: Any) -> tuple[Tensor, Any]:
    """Arrangement, of a network whose blocks can do without padding: `install` says the width of its heads."""
    if not attention_part.takes(x, module.d_kv, layout.width) or not layout.lengths.min(initial=1):
        return x, layout
    layout = layout.compact()
    return layout.pack(x), layout


def residual(module: Any, x: Tensor, norm: nn.Module, layer: Any, *given: Any) -> Tensor:
    """Residual: what stands side by side is one pass."""
    if not x.is_cpu:
        return _plainly(module, x, norm, layer, *given)
    first_norm, p = module.norm_first, _share(module.dropout)
    if not sublayers.takes(x, layer.projections[0].weight) or _watched(norm, layer, *layer.projections):
        x = _added(x, layer(norm(x) if first_norm else x, *given), p)
    else:
        rms = first_norm and isinstance(norm, nn.RMSNorm)
        whole = WHOLE.get(type(layer).__name__) if rms else None
        found = None if whole is None else whole(x, norm, layer, p, *given)
        if found is not None:
            return found
        x = _in_two(x, norm, layer, p, rms, first_norm, given)
    return x if first_norm else norm(x)  # type: ignore[no-any-return]


def _in_two(x: Tensor, norm: Any, layer: Any, p: float, rms: bool, first_norm: bool, given: Any) -> Tensor:
    """What a sub-layer begins with, norm and projection; and what it ends with, projection, dropout and sum."""
    first, last = layer.projections
    if rms:
        projected, x = sublayers.entering(x, norm.weight, first.weight, first.bias, norm.eps)
    else:
        projected = first(norm(x) if first_norm else x)
    inner = layer.between(projected, *given)
    if sublayers.takes(inner, last.weight):
        return sublayers.leaving(x, inner, last.weight, last.bias, p, draw_seed() if p else 0)
    return _added(x, last(inner), p)


def _feed(x: Tensor, norm: Any, layer: Any, p: float) -> Tensor | None:
    inner, wi, wo = layer.inner, layer.wi, layer.wo
    plain = inner.kind == "relu" and not inner.gated and wi.bias is None
    if not plain or not sublayers.takes(x, wi.weight, wo.weight):
        return None
    seeds = draw_seed(), draw_seed()
    return sublayers.feedforward(x, norm.weight, wi.weight, wo.weight, norm.eps, (_share(inner.dropout), p), seeds)


def _self_attention(
    x: Tensor, norm: Any, layer: Any, p: float, layout: Any, bias: Tensor, extend: Any = None
) -> Tensor | None:
    if not layout.packed or extend is not None or not _fits(x, layer, layout):
        return None
    own = attention_part.pieces(layout)
    settings = _settings(own, own, norm, layer, p)
    return attention_part.attention_part(x, norm.weight, layer.qkv.weight, layer.out.weight, bias, None, settings)


def _cross_attention(
    x: Tensor, norm: Any, layer: Any, p: float, layout: Any, memory: Any, place: int, seen: Any = None
) -> Tensor | None:
    packed = layout.packed and memory.layout.packed and seen is None and not memory.keys_values
    if not packed or not _fits(x, layer, layout) or not _fits(memory.states, layer, memory.layout):
        return None
    (keys_values,) = attention_part.to_heads(memory.states, [layer.kv.weight], layer.d_kv)
    settings = _settings(attention_part.pieces(layout), attention_part.pieces(memory.layout), norm, layer, p)
    weights = norm.weight, layer.q.weight, layer.out.weight
    return attention_part.attention_part(x, *weights, None, keys_values, settings)


WHOLE: dict[str, Callable[..., Tensor | None]] = {
    "FeedForward": _feed,
    "SelfAttention": _self_attention,
    "CrossAttention": _cross_attention,
}


def _fits(x: Tensor, layer: Any, layout: Any) -> bool:
    plain = layer.scale == 1 and layer.out.bias is None
    return plain and attention_part.takes(x, layer.d_kv, layout.width)


def _settings(own: Any, source: Any, norm: Any, layer: Any, p: float) -> attention_part.Settings:
    ps = _share(layer.attend.dropout), p
    return attention_part.Settings(own, source, layer.d_kv, norm.eps, ps, (draw_seed(), draw_seed()))


def _added(x: Tensor, branch: Tensor, p: float) -> Tensor:
    """x + dropout(branch)."""
    if p == 0:
        return x + branch
    if kernels.takes(x) and kernels.takes(branch):
        return kernels.add_dropped(x, branch, p, draw_seed())
    return composed.add_dropped(x, branch, p)


def _share(module: Any) -> float:
    """What a dropout drops now."""
    return float(module.p) if module.training else 0.0


def _watched(*modules: nn.Module) -> bool:
    """Whether somebody hooked one of these, so that it is to be called itself."""
    return any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks for m in modules)


def _plainly(module: Any, *given: Any) -> Any:
    return type(module).forward(module, *given)


FORWARDS: dict[str, Callable[..., Any]] = {
    "RMSNorm": rms_norm,
    "Dropout": dropout,
    "Embedding": embedding,
    "Linear": linear,
    "Activation": activation,
    "SplitHeads": split_heads,
    "Attention": attention,
    "ForDecoding": for_decoding,
    "Residual": residual,
}
