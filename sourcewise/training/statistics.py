"""Statistics of a step for the log, per part of the network: gradient norms and update ratios."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sourcewise.data.encoding import ExampleSet

ENTRIES = 16_384  # entries per tensor for the update ratio
EXAMPLES = 5_000  # examples whose target tokens are counted


def gradient_norms(
    parts: Sequence[str],
    gradients: Sequence[Tensor | None],
    norm: Callable[[Sequence[Tensor]], Tensor] = torch.nn.utils.get_total_norm,
) -> dict[str, float]:
    """Part → norm of its gradient; `parts` has the part of each tensor, `norm` knows shards of other processes."""
    found: dict[str, list[Tensor]] = {part: [] for part in parts}
    for part, gradient in zip(parts, gradients, strict=True):
        if gradient is not None:
            found[part].append(gradient)
    return {part: float(norm(grads)) for part, grads in found.items()}


@torch.no_grad()
def update_ratios(parts: Sequence[str], weights: Sequence[Tensor], adam: torch.optim.Optimizer) -> dict[str, float]:
    """Part → size of Adam's last update relative to its weights.

    Root mean square of the update divided by that of the tensor, the median over the tensors of a part; without weight
    decay, from up to `ENTRIES` entries spread over each tensor. Tensors of zeros are left out. Of a network in shards
    they are those of this process's.
    """
    found: dict[str, list[float]] = {part: [] for part in parts}
    groups = {id(weight): group for group in adam.param_groups for weight in group["params"]}
    for part, weight in zip(parts, weights, strict=True):
        state, group = adam.state.get(weight), groups[id(weight)]
        size = _rms(_some(weight))
        if not size or not state:
            continue
        steps, (beta1, beta2) = float(state["step"]), group["betas"]
        first = _some(state["exp_avg"]) / (1 - beta1**steps)
        second = (_some(state["exp_avg_sq"]) / (1 - beta2**steps)).sqrt_().add_(group["eps"])
        found[part].append(float(group["lr"]) * _rms(first / second) / size)
    return {part: statistics.median_high(ratios or [0.0]) for part, ratios in found.items()}


def target_entropy(examples: ExampleSet) -> float:
    """Entropy of the target tokens' frequencies in nats: the loss of a model that knows only these frequencies.

    Counted over `EXAMPLES` examples spread over the set.
    """
    chosen = range(0, len(examples), max(1, len(examples) // EXAMPLES))
    counts = Counter(int(token) for i in chosen for token in examples.targets[i])
    total = sum(counts.values())
    return -sum(n / total * math.log(n / total) for n in counts.values()) if total else 0.0


def _some(tensor: Tensor) -> Tensor:
    """Up to `ENTRIES` entries, in odd steps, so that they come from all columns."""
    flat = tensor.detach().flatten()
    return flat[:: max(1, flat.numel() // ENTRIES) | 1]


def _rms(tensor: Tensor) -> float:
    return float(tensor.norm()) / math.sqrt(tensor.numel()) if tensor.numel() else 0.0
