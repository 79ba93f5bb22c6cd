"""What a script does with torch, told as it happens: models called, losses, optimizer steps, batches, targets.

Nothing that is called gets or gives anything else than without. Only the main thread of the process is heard.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.data.dataloader import _BaseDataLoaderIter


class Listener(Protocol):
    """Whoever is told."""

    def called(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """A module is about to be called, from outside of any other."""

    def lost(self, loss: Tensor) -> None:
        """Gradients of this are about to be made."""

    def graded(self) -> None:
        """They are there."""

    def stepping(self, optimizer: Any) -> None:
        """An optimizer is about to move its weights, or to call what makes their gradients."""

    def stepped(self, optimizer: Any) -> None:
        """It has."""

    def loaded(self, batch: Any) -> None:
        """A loader gave a batch."""

    def aimed(self, target: Any) -> None:
        """A loss of one label a token was given its labels."""


class Hooks:
    """Tells a listener, from `install` to `remove`; `make` makes it when the first thing happens."""

    def __init__(self, make: Callable[[], Listener]) -> None:
        self.make = make
        self.told: Listener | None = None
        self._process, self._thread = os.getpid(), threading.get_ident()
        self._depth = 0  # of module calls
        self._quiet = False  # while the listener itself calls
        self._scaled: tuple[Any, Any] = (None, None)  # a loss as a scaler made it, and before
        self._before: list[tuple[Any, str, Any]] = []
        self._handles: list[Any] = []

    def install(self) -> None:
        """From now on."""
        makers: list[tuple[Any, str, Callable[[Any], Any]]] = [
            (nn.Module, "__call__", self._call),
            (torch.autograd, "backward", self._backward),
            (torch.amp.GradScaler, "scale", self._scale),
            (_BaseDataLoaderIter, "__next__", self._next),
            (F, "cross_entropy", self._loss),
            (F, "nll_loss", self._loss),
        ]
        for owner, name, make in makers:
            before = getattr(owner, name)
            self._before.append((owner, name, before))
            setattr(owner, name, functools.wraps(before)(make(before)))
        self._handles = [
            register_optimizer_step_pre_hook(lambda optimizer, *given: self._tell("stepping", optimizer)),
            register_optimizer_step_post_hook(lambda optimizer, *given: self._tell("stepped", optimizer)),
        ]

    def remove(self) -> None:
        """No longer; all is as it was, but what somebody else has put in the place of ours."""
        for owner, name, before in self._before:
            if getattr(getattr(owner, name), "__wrapped__", None) is before:
                setattr(owner, name, before)
        for handle in self._handles:
            handle.remove()
        self._before, self._handles = [], []

    @property
    def _hears(self) -> bool:
        """Whether it is the script's own thread, and neither a worker's process nor a look of ours."""
        return (
            not self._quiet
            and bool(self._before)
            and threading.get_ident() == self._thread
            and os.getpid() == self._process
        )

    def _tell(self, what: str, *given: Any) -> None:
        if not self._hears:
            return
        self._quiet = True
        try:
            self.told = self.told or self.make()
            getattr(self.told, what)(*given)
        finally:
            self._quiet = False

    def _call(self, before: Any) -> Any:
        def called(module: nn.Module, *given: Any, **named: Any) -> Any:
            if torch.compiler.is_compiling() or not self._hears:
                return before(module, *given, **named)
            if self._depth == 0:
                self._tell("called", module, given, named)
            self._depth += 1
            try:
                return before(module, *given, **named)
            finally:
                self._depth -= 1

        return called

    def _backward(self, before: Any) -> Any:
        def backward(tensors: Any, *given: Any, **named: Any) -> Any:
            for each in tensors if isinstance(tensors, (list, tuple)) else [tensors]:
                if isinstance(each, Tensor) and each.numel() == 1:
                    scaled, own = self._scaled
                    self._tell("lost", own if each is scaled else each)
            self._scaled = (None, None)
            self._depth += 1  # layers that are computed again in a backward pass are no batch of their own
            try:
                found = before(tensors, *given, **named)
            finally:
                self._depth -= 1
            self._tell("graded")
            return found

        return backward

    def _scale(self, before: Any) -> Any:
        def scale(scaler: Any, outputs: Any) -> Any:
            found = before(scaler, outputs)
            self._scaled = (found, outputs)
            return found

        return scale

    def _loss(self, before: Any) -> Any:
        def loss(input: Any, target: Any, *given: Any, **named: Any) -> Any:
            if not torch.compiler.is_compiling() and torch.is_grad_enabled():
                self._tell("aimed", target)
            return before(input, target, *given, **named)

        return loss

    def _next(self, before: Any) -> Any:
        def following(iterator: Any) -> Any:
            batch = before(iterator)
            self._tell("loaded", batch)
            return batch

        return following
