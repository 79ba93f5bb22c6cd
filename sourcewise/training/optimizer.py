"""AdamW on fp32 master weights, while the network computes in its own precision.

The network may hold bf16 weights: bf16 gradients are summed in fp32, and after each step the rounded master weights
are copied into the network.
"""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.config import TrainConfig
from sourcewise.errors import RequestError
from sourcewise.model.parts import OTHER, ParameterInfo
from sourcewise.runtime.device import is_host

LEAST_RMS = 1e-3  # so that weights at zero can change


def bare(name: str) -> str:
    """A parameter's name in the network, from its name in the objective."""
    return name.removeprefix("network.")


class PlainAdamW(torch.optim.AdamW):
    """torch's AdamW without the wrappers for torch.compile, whose import takes most of a second."""

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class MasterAdamW:
    """torch's fused AdamW on fp32 copies of the trainable parameters."""

    def __init__(
        self,
        module: nn.Module,
        train: TrainConfig,
        precision: torch.dtype,
        infos: Iterable[ParameterInfo] = (),
        borrowed: Iterable[nn.Parameter] = (),
    ) -> None:
        """`infos` name the part of each parameter of the module.

        `borrowed` are frozen ones that another folder keeps, of which no copy is made.
        """
        part_of = {id(info.parameter): info.part for info in infos}
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        if not named:
            raise RequestError("train.freeze: nothing is left to train")
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self.parts = [part_of.get(id(parameter), OTHER) for parameter in self.parameters]
        self.masters = [nn.Parameter(self._own(p)) for p in self.parameters]
        lent = {id(parameter) for parameter in borrowed}
        frozen = {n: p for n, p in module.named_parameters() if not p.requires_grad}
        self.borrowed = {n: p for n, p in frozen.items() if id(p) in lent}
        self.frozen = {n: (p, self._own(p)) for n, p in frozen.items() if n not in self.borrowed}
        self._make_room(module, precision)
        self.clip, self.scaled = train.clip, train.scale_updates
        self.groups = self._groups(train)
        self.adamw = PlainAdamW(
            [{"params": [self.masters[i] for i in group], "weight_decay": decay} for group, decay in self.groups],
            lr=train.learning_rate,
            betas=(train.beta1, train.beta2),
            fused=True,
        )
        device = self.masters[0].device
        self.lazy = not is_host(device)  # steps do not wait for the device's answer whether a gradient is finite
        self.lost = torch.zeros((), device=device)  # if lazy: 1 after the first gradient that was not finite
        self.zero_grad()

    def _own(self, parameter: Tensor) -> Tensor:
        """The fp32 weights of a parameter that this process updates."""
        return parameter.detach().float().clone()

    def _make_room(self, module: nn.Module, precision: torch.dtype) -> None:
        self.room = [torch.empty_like(m, requires_grad=False) for m in self.masters]  # for their gradients
        for parameter in module.parameters():
            if parameter.is_floating_point():  # quantised ones are whole numbers
                parameter.data = parameter.data.to(precision)

    def _groups(self, train: TrainConfig) -> list[tuple[list[int], float]]:
        """Indices of the tensors of each group of AdamW, and its decay; one group per tensor if rates differ."""
        decays = [train.weight_decay if master.ndim > 1 else 0.0 for master in self.masters]
        if train.scale_updates or train.unfreeze.begins:
            return [([i], decay) for i, decay in enumerate(decays)]
        return [([i for i, own in enumerate(decays) if own == decay], decay) for decay in dict.fromkeys(decays)]

    def zero_grad(self) -> None:
        """Clear the gradients at the start of a step."""
        for master in self.masters:
            master.grad = None

    def add(self, gradients: Sequence[Tensor | None]) -> None:
        """Add gradients, one per parameter, to those of the masters in fp32; tensors of `room` are used in place."""
        for gradient, master, room in zip(gradients, self.masters, self.room, strict=True):
            if gradient is None:
                continue
            if gradient is room:
                master.grad = room
            elif master.grad is None:
                master.grad = room.copy_(gradient)
            else:
                master.grad.add_(gradient)

    def step(self, rate: float, factors: Sequence[float] | None = None) -> Tensor:
        """One update at a learning rate, with a factor per parameter; returns the gradient norm before clipping.

        Parameters with the factor 0 are unchanged, and their gradients do not count. A norm that is not finite changes
        no weight; if lazy, nor do the steps after it.
        """
        for master, factor in zip(self.masters, factors or [], strict=factors is not None):
            if not factor:
                master.grad = None
        norm = self.norm([m.grad for m in self.masters if m.grad is not None])
        if not self.lazy and not bool(norm.isfinite()):
            return norm
        self._scale_gradients(norm)
        scales = self._scales()
        for group, (places, _) in zip(self.adamw.param_groups, self.groups, strict=True):
            first = places[0]
            group["lr"] = scales[first] * (rate * (factors[first] if factors else 1.0))
        self.adamw.step()
        self.publish()
        return norm

    def _scale_gradients(self, norm: Tensor) -> None:
        """The divisor by which AdamW clips gradients as it reads them, which saves the pass of `clip_grad_norm_`."""
        excess = (norm + 1e-6) / self.clip if self.clip else None
        if self.lazy:
            self.lost = torch.maximum(self.lost, (~norm.isfinite()).to(self.lost.dtype))
            self.adamw.found_inf = self.lost  # type: ignore[attr-defined]
            excess = None if excess is None else excess.clamp(min=1)
        elif excess is not None and not excess > 1:
            excess = None
        self.adamw.grad_scale = excess  # type: ignore[attr-defined]

    def norm(self, tensors: Sequence[Tensor]) -> Tensor:
        """The norm of gradients as a whole."""
        return torch.nn.utils.get_total_norm(tensors)

    def norms(self, tensors: Sequence[Tensor]) -> Tensor:
        """(tensors,) the norm of each."""
        return torch.stack([tensor.norm() for tensor in tensors])

    def _scales(self) -> Sequence[Any]:
        """Factor on the update of each tensor: 1, or the root mean square of the weights (Shazeer & Stern 2018, 8).

        T5's initial weights range from 0.01 (queries) to 1.0 (embeddings), so that no absolute rate fits both. If lazy,
        they stay on the device.
        """
        if not self.scaled:
            return [1.0] * len(self.masters)
        norms, sizes = self.norms([master.detach() for master in self.masters]), [p.numel() for p in self.parameters]
        if self.lazy:
            each = zip(norms.unbind(0), sizes, strict=True)
            return [(norm / math.sqrt(size)).clamp(min=LEAST_RMS) for norm, size in each]
        return [max(LEAST_RMS, n / math.sqrt(size)) for n, size in zip(norms.tolist(), sizes, strict=True)]

    @torch.no_grad()
    def publish(self) -> None:
        """Copy the rounded master weights into the network."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.copy_(master)

    @contextlib.contextmanager
    def in_full(self) -> Iterator[None]:
        """Within: the network holds the fp32 master weights; frozen weights are unchanged."""
        everything = [*zip(self.parameters, self.masters, strict=True), *self.frozen.values()]
        rounded = [p.data for p, _ in everything]
        for parameter, exact in everything:
            parameter.data = exact.data
        try:
            yield
        finally:
            for (parameter, _), data in zip(everything, rounded, strict=True):
                parameter.data = data

    @contextlib.contextmanager
    def rounded(self) -> Iterator[None]:
        """Within: the network holds whole weights in its own precision, as always."""
        yield

    def exact(self) -> Iterator[tuple[str, Tensor]]:
        """Name in the network → weight: the fp32 masters, and frozen weights."""
        yield from ((bare(name), master) for name, master in zip(self.names, self.masters, strict=True))
        yield from ((bare(name), frozen) for name, (_, frozen) in self.frozen.items())

    def weights(self) -> dict[str, Tensor]:
        """Name → master weight."""
        return {n: m.detach() for n, m in zip(self.names, self.masters, strict=True)}

    @torch.no_grad()
    def set_weights(self, weights: dict[str, Tensor]) -> None:
        """Set masters and network to other weights."""
        for name, master in zip(self.names, self.masters, strict=True):
            master.copy_(weights[name])
        self.publish()

    def state_dict(self) -> dict[str, Any]:
        """Masters and AdamW's moments by name, and frozen weights, since their source may change before a resume.

        Borrowed ones are left out: a digest of them is compared instead.
        """
        moments = {name: dict(self.adamw.state[m]) for name, m in zip(self.names, self.masters, strict=True)}
        frozen = {name: exact for name, (_, exact) in self.frozen.items()}
        return {"masters": self.weights(), "moments": moments, "frozen": frozen}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a saved state, and copy its weights into the network."""
        self.set_weights(state["masters"])
        moments = moments_of(state)
        for name, master in zip(self.names, self.masters, strict=True):
            own = moments.get(name, {}).items()
            self.adamw.state[master] = {key: self.cut(value).to(master.device) for key, value in own}
        for name, saved in state["frozen"].items():  # those of older versions have borrowed weights, too
            (self.borrowed[name] if name in self.borrowed else self.frozen[name][1]).copy_(self.cut(saved))
        self._publish_frozen()

    def tensors(self, steps: Mapping[str, float] | None = None) -> dict[str, Tensor]:
        """All tensors of the state by name, to be written; with the `steps` of a saved one, to be filled from it."""
        for name, master in zip(self.names, self.masters, strict=True) if steps is not None else ():
            moments = {key: torch.zeros_like(master, requires_grad=False) for key in ("exp_avg", "exp_avg_sq")}
            known = steps is not None and name in steps
            self.adamw.state[master] = {"step": torch.tensor(steps[name]), **moments} if steps and known else {}
        found = {}
        for name, master in zip(self.names, self.masters, strict=True):
            moments = {key: value for key, value in self.adamw.state[master].items() if key != "step"}
            for key, value in {"masters": master.detach(), **moments}.items():
                found[f"{key}.{name}"] = self.spread(name, value)
        return found | {f"frozen.{name}": self.spread(name, exact) for name, (_, exact) in self.frozen.items()}

    def steps(self) -> dict[str, float]:
        """Parameter → number of its updates, of those that had any."""
        states = {name: self.adamw.state.get(m, {}) for name, m in zip(self.names, self.masters, strict=True)}
        return {name: float(state["step"]) for name, state in states.items() if "step" in state}

    def filled(self) -> None:
        """After `tensors` were filled: copy the weights into the network."""
        self.publish()
        self._publish_frozen()

    def spread(self, name: str, own: Tensor) -> Tensor:
        """A tensor of this process as what it is of all processes: the whole."""
        return own

    def cut(self, whole: Tensor) -> Tensor:
        """What this process updates of a whole tensor: all of it."""
        return whole

    @torch.no_grad()
    def _publish_frozen(self) -> None:
        for parameter, exact in self.frozen.values():
            parameter.copy_(exact)


def moments_of(state: dict[str, Any]) -> dict[str, dict[str, Tensor]]:
    """Parameter → AdamW's moments, of a saved state; older states number them in the order of the masters."""
    if "moments" in state:
        return dict(state["moments"])
    names = list(state["masters"])
    return {names[i] if i < len(names) else str(i): moments for i, moments in state["adamw"]["state"].items()}
