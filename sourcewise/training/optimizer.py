"""AdamW over fp32 master weights, while the network computes in its own precision.

The network may hold bf16 weights: gradients arrive in bf16, are added up in fp32, and after each step the
masters are rounded into the network again.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.config import TrainConfig
from sourcewise.errors import RequestError
from sourcewise.model.parts import OTHER, PARTS, ParameterInfo
from sourcewise.model.protocol import Network

LEAST_RMS = 1e-3  # weights at zero must be able to leave it


def freeze(network: Network, parts: Sequence[str]) -> None:
    """Stop these parts (of PARTS) from learning. Raises RequestError for one that is not there."""
    for part in parts:
        if part not in PARTS:
            raise RequestError(f"train.freeze: {part!r} is not one of {', '.join(PARTS)}")
        found = [info.parameter for info in network.parts() if info.part == part]
        if not found:
            raise RequestError(f"train.freeze: this network has no {part}")
        for parameter in found:
            parameter.requires_grad_(False)


def bare(name: str) -> str:
    """A parameter's name in the network, of its name in the objective."""
    return name.removeprefix("network.")


class PlainAdamW(torch.optim.AdamW):
    """torch's AdamW without its wrappers for torch.compile, whose import alone takes most of a second."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class MasterAdamW:
    """torch's fused AdamW on fp32 copies of the trainable parameters."""

    def __init__(
        self, module: nn.Module, train: TrainConfig, precision: torch.dtype, infos: Iterable[ParameterInfo] = ()
    ) -> None:
        """`infos` say which part each parameter of the module belongs to."""
        part_of = {id(info.parameter): info.part for info in infos}
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        if not named:
            raise RequestError("train.freeze: nothing is left to train")
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self.parts = [part_of.get(id(parameter), OTHER) for parameter in self.parameters]
        self.masters = [nn.Parameter(p.detach().float().clone()) for p in self.parameters]
        self.room = [torch.empty_like(m, requires_grad=False) for m in self.masters]  # for their gradients
        self.frozen = {n: (p, p.detach().float()) for n, p in module.named_parameters() if not p.requires_grad}
        for parameter in module.parameters():
            parameter.data = parameter.data.to(precision)
        groups = [{"params": [m], "weight_decay": train.weight_decay if m.ndim > 1 else 0.0} for m in self.masters]
        self.adamw = PlainAdamW(groups, lr=train.learning_rate, betas=(train.beta1, train.beta2), fused=True)
        self.scaled = train.scale_updates
        self.clip = train.clip
        self.zero_grad()

    def zero_grad(self) -> None:
        """Start a step: no gradients."""
        for master in self.masters:
            master.grad = None

    def add(self, gradients: Sequence[Tensor | None]) -> None:
        """Add gradients, one a parameter, to the masters' in fp32; what lies in `room` already is taken as it is."""
        for gradient, master, room in zip(gradients, self.masters, self.room, strict=True):
            if gradient is None:
                continue
            if gradient.data_ptr() == room.data_ptr():
                master.grad = room
            elif master.grad is None:
                master.grad = room.copy_(gradient)
            else:
                master.grad.add_(gradient)

    def step(self, rate: float, factors: Sequence[float] | None = None) -> float:
        """One update at this learning rate, times a factor a parameter; returns the gradient norm before clipping.

        What has the factor 0 stays as it is, and its gradient counts nowhere. A norm that is not finite changes
        nothing.
        """
        for master, factor in zip(self.masters, factors or [], strict=factors is not None):
            if not factor:
                master.grad = None
        grads = [m.grad for m in self.masters if m.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        if not math.isfinite(norm):
            return float(norm)
        # What the gradients are divided by as they are read; `clip_grad_norm_` would pass over them once more.
        excess = (norm + 1e-6) / self.clip if self.clip else norm.new_zeros(())
        self.adamw.grad_scale = excess if excess > 1 else None  # type: ignore[attr-defined]
        groups = zip(self.adamw.param_groups, self.masters, factors or [1.0] * len(self.masters), strict=True)
        for group, master, factor in groups:
            group["lr"] = rate * self._scale(master) * factor
        self.adamw.step()
        self.publish()
        return float(norm)

    def _scale(self, master: Tensor) -> float:
        """What an update is multiplied by: 1, or the root mean square of the weights (Shazeer & Stern 2018, section 8).

        T5's initial weights span 1.0 (embeddings) to 0.01 (queries): one absolute rate does not fit both.
        """
        return max(LEAST_RMS, float(master.detach().norm()) / math.sqrt(master.numel())) if self.scaled else 1.0

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the network."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.copy_(master)

    @contextlib.contextmanager
    def in_full(self) -> Iterator[None]:
        """Within: the network holds the fp32 weights themselves, frozen ones as they came."""
        everything = [*zip(self.parameters, self.masters, strict=True), *self.frozen.values()]
        rounded = [p.data for p, _ in everything]
        for parameter, exact in everything:
            parameter.data = exact.data
        try:
            yield
        finally:
            for (parameter, _), data in zip(everything, rounded, strict=True):
                parameter.data = data

    def exact(self) -> Iterator[tuple[str, Tensor]]:
        """Every weight in fp32 by its name in the network: the masters, and what is frozen."""
        yield from ((bare(name), master) for name, master in zip(self.names, self.masters, strict=True))
        yield from ((bare(name), frozen) for name, (_, frozen) in self.frozen.items())

    def weights(self) -> dict[str, Tensor]:
        """The masters by name."""
        return {n: m.detach() for n, m in zip(self.names, self.masters, strict=True)}

    @torch.no_grad()
    def set_weights(self, weights: dict[str, Tensor]) -> None:
        """Put other values into masters and network."""
        for name, master in zip(self.names, self.masters, strict=True):
            master.copy_(weights[name])
        self.publish()

    def state_dict(self) -> dict[str, Any]:
        """Masters by name, AdamW's moments, and the frozen weights: where those came from may change meanwhile."""
        frozen = {name: exact for name, (_, exact) in self.frozen.items()}
        return {"masters": self.weights(), "adamw": self.adamw.state_dict(), "frozen": frozen}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state and put its weights into the network."""
        self.set_weights(state["masters"])
        self.adamw.load_state_dict(state["adamw"])
        for name, saved in state["frozen"].items():
            parameter, exact = self.frozen[name]
            exact.copy_(saved)
            parameter.copy_(exact)
