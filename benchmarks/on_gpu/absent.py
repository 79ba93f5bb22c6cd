"""A device that is not there: its tensors have shapes, types and a place, but no values.

What is on it cannot be read, so whoever waits for an accelerator is found without one. Tensors on the host are real, so
lengths and labels are read there as always. Only for a process of its own: the device's name is known in all of it.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "absent"
COPIES = ("_to_copy", "copy_")
READS = (DataDependentOutputException, DynamicOutputShapeException)


def _gru(gates: Tensor, hidden: Tensor, state: Tensor, *biases: Tensor) -> tuple[Tensor, ...]:
    return torch.empty_like(state), state.new_empty(len(state), 5 * state.shape[1])


def _gru_backward(grad: Tensor, kept: Tensor, biased: bool) -> tuple[Tensor, ...]:
    rows, width = grad.shape
    return (*(grad.new_empty(rows, 3 * width) for _ in range(2)), torch.empty_like(grad), *_biases(grad, 3 * width))


def _lstm(gates: Tensor, hidden: Tensor, state: Tensor, *biases: Tensor) -> tuple[Tensor, ...]:
    return torch.empty_like(state), torch.empty_like(state), state.new_empty(len(state), 4 * state.shape[1])


def _lstm_backward(grad: Tensor | None, carried: Tensor | None, state: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    gates = state.new_empty(len(state), 4 * state.shape[1])
    return gates, torch.empty_like(state), gates.new_empty(gates.shape[1])


def _biases(grad: Tensor, size: int) -> tuple[Tensor, Tensor]:
    return grad.new_empty(size), grad.new_empty(size)


def _ctc(log_p: Tensor, labels: Tensor, *lengths: Any) -> tuple[Tensor, Tensor]:
    return log_p.new_empty(log_p.shape[1]), log_p.new_empty(log_p.shape[1], log_p.shape[0], 2 * labels.shape[-1] + 1)


def _ctc_backward(grad: Tensor, log_p: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(log_p)


KNOWN = {  # operators that torch gives no shape for where there are no values
    "_fused_adamw_": lambda *tensors: None,
    "_ctc_loss": _ctc,
    "_ctc_loss_backward": _ctc_backward,
    "_thnn_fused_gru_cell": _gru,
    "_thnn_fused_gru_cell_backward": _gru_backward,
    "_thnn_fused_lstm_cell": _lstm,
    "_thnn_fused_lstm_cell_backward_impl": _lstm_backward,
}


class _Module(_DummyBackendModule):
    """What torch asks of the module of a device."""

    def manual_seed(self, seed: int) -> None:
        """The numbers that it would draw."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """The precisions of its products."""
        return [torch.bfloat16]

    def max_memory_allocated(self, device: Any = None) -> int:
        """None is allocated."""
        return 0


def register() -> torch.device:
    """Make the device known to torch in this process."""
    _setup_privateuseone_for_python_backend(NAME, _Module())
    return torch.device(NAME, 0)


class OnAbsent(TorchDispatchMode):
    """Within: tensors can be on the device; `waits` has each place that waited for it, as file:line, what.

    A read that cannot be answered raises its error, too. A copy to or from the device is a wait unless it is
    `non_blocking`.
    """

    def __init__(self, device: torch.device, root: str = "sourcewise") -> None:
        super().__init__()
        self.device, self.root = device, root
        self.waits: list[str] = []
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.moved: dict[int, tuple[Tensor, nn.Parameter]] = {}  # parameter on the host → it, and what it is there

    def __enter__(self) -> Any:
        self._usual = nn.Module._apply
        nn.Module._apply = lambda module, change, recurse=True: self._applied(module, change)  # type: ignore[method-assign]
        return super().__enter__()

    def __exit__(self, *given: Any) -> None:
        nn.Module._apply = self._usual  # type: ignore[method-assign]
        super().__exit__(*given)

    def _applied(self, module: nn.Module, change: Any) -> nn.Module:
        """As `_apply`, for parameters whose values go away; one of several modules stays one."""
        for child in module.children():
            child._apply(change)
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            new = change(parameter.detach())
            if new.device == parameter.device:
                parameter.data = new
            else:
                kept = self.moved.setdefault(id(parameter), (parameter, nn.Parameter(new, parameter.requires_grad)))
                module._parameters[name] = kept[1]
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else change(buffer)
        return module

    def __torch_dispatch__(self, function: Any, kinds: Any, given: Any = (), named: Any = None) -> Any:
        named = named or {}
        tensors = [each for each in tree_leaves((given, named)) if isinstance(each, Tensor)]
        there = any(each.device.type == NAME for each in tensors)
        to = named.get("device")
        if not there and (to is None or torch.device(to).type != NAME):
            return function(*given, **named)
        self._look_at_copy(function, tensors, given, named, there)
        name = function.overloadpacket.__name__
        if not there and name == "_to_copy":
            (source,) = tensors
            with self.fake:
                kind = named.get("dtype") or source.dtype
                made = torch.empty_strided(source.shape, source.stride(), dtype=kind, device=self.device)
            made.was = source  # type: ignore[attr-defined]
            return made
        if there and name == "_to_copy" and torch.device(to or self.device).type != NAME:
            return getattr(tensors[0], "was", torch.zeros(tensors[0].shape)).to(to, named.get("dtype"), copy=True)
        if (known := KNOWN.get(name)) is not None:
            return known(*given)
        try:
            with self.fake:
                return function(*given, **named)
        except READS:
            self.waits.append(f"{self._where()}: {function.overloadpacket.__name__}")
            raise

    def _look_at_copy(self, function: Any, tensors: list[Tensor], given: Any, named: Any, there: bool) -> None:
        name = function.overloadpacket.__name__
        if name not in COPIES:
            return
        target = tensors[0].device if name == "copy_" else torch.device(named.get("device") or tensors[0].device)
        source = tensors[-1].device
        free = named.get("non_blocking", len(given) > 2 and given[2])
        if target.type != source.type and (target.type != NAME or not free) and not (name == "copy_" and free):
            self.waits.append(f"{self._where()}: {source.type} → {target.type}")

    def _where(self) -> str:
        """The innermost line of ours."""
        frames = [f for f in traceback.extract_stack(sys._getframe(1)) if f"/{self.root}/" in f.filename]
        if not frames:
            return "?"
        return f"{frames[-1].filename.partition(f'/{self.root}/')[2]}:{frames[-1].lineno}"
