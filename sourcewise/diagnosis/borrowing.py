"""A network as exact as it can be, for the length of a measurement: two ways to the same figure must give the same.

Trainings round: autocast, weights in bf16, matrix products in TF32. Within `borrowed` nothing of that is in use. What a
network rounds by itself (layers that compute in bf16 whatever their weights are) is noted by `rounding`.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, backends, nn

from sourcewise.model.protocol import Network
from sourcewise.runtime.random import draws_kept, random_states

_BACKENDS: tuple[Any, ...] = (backends.mkldnn, backends.cudnn, backends.cuda)
PRODUCTS = tuple(  # whose fp32 may be less: bf16 on CPUs, TF32 on GPUs
    getattr(backend, kind) for backend in _BACKENDS for kind in ("matmul", "conv", "rnn") if hasattr(backend, kind)
)
_AUTOCAST = threading.RLock()  # one look at a time exchanges what torch.autocast does


@contextlib.contextmanager
def borrowed(network: Network) -> Iterator[None]:
    """Within: copies of the weights in fp32, exact, no dropout; afterwards all is as before, random states too."""
    assert isinstance(network, nn.Module)
    modes = {module: module.training for module in network.modules()}
    kept = [(p, p.data, p.requires_grad, p.grad) for p in network.parameters()]
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    with draws_kept(), exact(network.device.type):
        try:
            for parameter, data, *_ in kept:
                parameter.data = data.to(torch.float32 if data.is_floating_point() else data.dtype, copy=True)
            network.eval()
            yield
        finally:
            for parameter, data, learns, gradient in kept:
                parameter.data, parameter.grad = data, gradient
                parameter.requires_grad_(learns)
            for buffer, data in buffers:
                put_back(buffer, data)  # running means of what does not heed eval()
            for module, mode in modes.items():
                module.training = mode


@torch.no_grad()
def put_back(buffer: Tensor, data: Tensor) -> None:
    """Give a buffer its former values, in place; one that was made in inference mode can be changed there alone."""
    with torch.inference_mode(buffer.is_inference()):
        buffer.copy_(data)


@contextlib.contextmanager
def exact(device: str) -> Iterator[None]:
    """Within: fp32 is computed as such. No autocast, not even one that the network enters; nothing that was compiled.

    Other threads' autocast is left alone.
    """
    with contextlib.ExitStack() as put_back:
        for place in PRODUCTS:
            put_back.callback(setattr, place, "fp32_precision", place.fp32_precision)
            place.fp32_precision = "ieee"
        put_back.enter_context(_no_autocast())
        put_back.enter_context(torch.autocast(device, enabled=False))
        if "torch._dynamo" in sys.modules:  # a compiled graph keeps the autocast it was compiled with
            put_back.enter_context(torch.compiler.set_stance("force_eager"))
        yield


@contextlib.contextmanager
def _no_autocast() -> Iterator[None]:
    """Within, in this thread: `torch.autocast(...)` switches it off, whatever it is asked for."""
    own = threading.get_ident()

    def entered(asked: Any) -> Any:
        if threading.get_ident() != own:
            return usual(asked)
        wanted, asked._enabled = asked._enabled, False
        try:
            return usual(asked)
        finally:
            asked._enabled = wanted

    with _AUTOCAST:
        usual = torch.autocast.__enter__
        torch.autocast.__enter__ = entered  # type: ignore[method-assign]
        try:
            yield
        finally:
            torch.autocast.__enter__ = usual  # type: ignore[method-assign]


def draws() -> tuple[bytes, ...]:
    """Where the random numbers of torch, numpy and Python stand: the same, where nothing was drawn in between."""
    states = random_states()
    of_torch = [state for held in states.values() for state in (held if isinstance(held, list) else [held])]
    numbers = np.random.get_state(legacy=False)  # noqa: NPY002
    return (*(s.numpy().tobytes() for s in of_torch), repr(numbers).encode(), repr(random.getstate()).encode())


@dataclass(slots=True)
class Rounding:
    """The coarsest floating-point numbers that a network's modules were seen to give."""

    epsilon: float = torch.finfo(torch.float32).eps  # the step from 1 to the next number

    @property
    def coarse(self) -> bool:
        """Whether anything was less than fp32."""
        return self.epsilon > torch.finfo(torch.float32).eps

    def note(self, module: nn.Module, given: Any, out: Any) -> None:
        """A forward hook."""
        if isinstance(out, Tensor) and out.dtype.is_floating_point:
            self.epsilon = max(self.epsilon, torch.finfo(out.dtype).eps)


@contextlib.contextmanager
def rounding(network: Network) -> Iterator[Rounding]:
    """Within: what the network's innermost modules give is looked at."""
    assert isinstance(network, nn.Module)
    seen = Rounding()
    with contextlib.ExitStack() as hooks:
        for module in network.modules():
            if next(module.children(), None) is None:
                hooks.callback(module.register_forward_hook(seen.note).remove)
        yield seen
