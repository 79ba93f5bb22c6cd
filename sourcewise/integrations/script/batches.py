"""The batches of a script: as its loader gave them, or put together of what its modules and its loss were given."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.data.batches import IGNORED
from sourcewise.integrations.loop import LoopDoctor
from sourcewise.integrations.loop.batches import Named, examples_in, raw_tensors, tensors_of
from sourcewise.integrations.loop.explained import made_of
from sourcewise.integrations.loop.modules import Named as Modules
from sourcewise.integrations.loop.understood import labels_of, target_of
from sourcewise.integrations.loop.watching import Call

AHEAD = 4  # batches that a loader may give before they are used
CALLS = 400  # of a batch, that are looked at
KEPT = 96  # examples, for an evaluation
TARGET = "target"  # what the labels of a loss are called


class Batches:
    """What was given in the batch that goes on, and batches to evaluate on."""

    def __init__(self) -> None:
        self.trained: deque[Any] = deque()  # the latest that were trained on
        self.held_out: deque[Any] = deque()  # the latest of evaluations of the script's own
        self._recent: deque[Any] = deque(maxlen=AHEAD)
        self._calls: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any]]] = []
        self._aims: list[Tensor] = []
        self._composed = False  # whether what the loader gives does not hold all that is needed
        self._stacked = False  # whether a loss is of one token of each example

    def loaded(self, batch: Any) -> None:
        """A loader gave it, perhaps ahead of its use."""
        self._recent.append(batch)

    def called(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """A module is given this."""
        if len(self._calls) < CALLS:
            self._calls.append((module, given, named))

    def aimed(self, target: Any) -> None:
        """A loss is given these labels."""
        if isinstance(target, Tensor) and not target.is_floating_point() and len(self._aims) < CALLS:
            self._aims.append(target.detach())

    def evaluated(self) -> None:
        """The latest batch is one of an evaluation."""
        if self._recent and (not self.held_out or self.held_out[-1] is not self._recent[-1]):
            _keep(self.held_out, self._recent[-1])

    def over(self) -> None:
        """The batch is over."""
        self._calls, self._aims = [], []

    def of(self, doctor: LoopDoctor) -> Any:
        """The batch that goes on, as the loader gave it where it did; None where nothing was given."""
        given = self._given(doctor.modules)
        batch = None if self._composed else self._loaded(given)
        if batch is None:
            batch = self._compose(given, doctor) or None
        if batch is not None:
            _keep(self.trained, batch)
        return batch

    def told(self, doctor: LoopDoctor) -> None:
        """The doctor was told of it. Where it did not find all in what the loader gave, more is put to that."""
        known = doctor.understood
        if known is None or self._composed or (known.source is not None and known.labels is not None):
            return
        self._composed, doctor.understood = True, None
        self.trained.clear()

    def to_evaluate(self, doctor: LoopDoctor) -> list[Any]:
        """Those that the script evaluated on, else the latest that it trained on: such as hold what is read."""
        known = doctor.understood
        wanted = set() if known is None else {each.path for each in (known.source, known.labels) if each is not None}
        return [batch for batch in self.held_out or self.trained if wanted <= tensors_of(batch).keys()]

    def _loaded(self, given: Named) -> Any:
        """The batch of the loader that this was made of."""
        asked = [each for each in given.values() if each.numel() > 1 and each.dtype != torch.bool][:AHEAD]
        for batch in reversed(self._recent):
            tensors = tensors_of(batch)
            if tensors and any(made_of(each, tensors) is not None for each in asked):
                return batch
        return None

    def _given(self, modules: Modules) -> Named:
        """Tensors that modules were given from outside, by name; those of many calls as one, tokens first."""
        names = {id(each): path or top for top, m in modules for path, each in m.named_modules()}
        found: dict[str, list[Tensor]] = {}
        for module, given, named in self._calls:
            if id(module) not in names:
                continue
            last = names[id(module)].rpartition(".")[2]
            call = Call(module, last, given, named)
            for name, value in call.arguments.items():
                for path, tensor in raw_tensors(value, name):
                    if _is_content(tensor):
                        found.setdefault(
                            path if len(modules) == 1 and last == "model" else f"{last}_{path}", []
                        ).append(tensor)
        return {path: several[0] if len(several) == 1 else _stacked(several) for path, several in found.items()}

    def _compose(self, given: Named, doctor: LoopDoctor) -> Named:
        """What modules were given, and the labels of the loss beside them."""
        known = labels_of(doctor.watching.saying) if doctor.watching.on or doctor.watching.saying else None
        if known is not None:
            _, labels, counts, self._stacked = known
            if target_of(given, labels, counts) is not None:
                return given
            aims = self._aims_like(labels)
            if aims is None and labels.ndim > 1:
                aims = labels.masked_fill(~counts, IGNORED)
            return given if aims is None else {**given, TARGET: aims}
        aims = self._aims_of(doctor, given)
        return given if aims is None else {**given, TARGET: aims}

    def _aims_like(self, labels: Tensor) -> Tensor | None:
        """The labels that the loss was given, as the outputs lie."""
        if self._stacked and len({each.shape for each in self._aims}) == 1:
            flat = torch.stack([each.reshape(-1) for each in self._aims])
            return flat if flat.shape == labels.shape else None
        fits = [each for each in self._aims if each.numel() == labels.numel()]
        return fits[-1].reshape(labels.shape) if fits else None

    def _aims_of(self, doctor: LoopDoctor, given: Named) -> Tensor | None:
        """The same in a batch that is not watched, by what is known of those that were."""
        known = doctor.understood
        if known is None or known.labels is None or known.labels.path != TARGET or not self._aims:
            return None
        if self._stacked:
            same = len({each.shape for each in self._aims}) == 1
            return torch.stack([each.reshape(-1) for each in self._aims]) if same else None
        source = None if known.source is None else given.get(known.source.path)
        if source is None:
            return None
        size = source.shape[1 if known.source_turned else 0]
        flat = self._aims[-1].reshape(-1)
        if flat.numel() % max(1, size):
            return None
        return flat.reshape(-1, size) if known.labels_turned else flat.reshape(size, -1)


def _is_content(tensor: Tensor) -> bool:
    """Whether it may come of a batch: no state that a loop begins with, nothing that some module made."""
    if tensor.requires_grad or not tensor.ndim or not tensor.numel():
        return False
    return not tensor.is_floating_point() or (tensor.ndim > 2 and bool((tensor != tensor.flatten()[0]).any()))


def _stacked(several: list[Tensor]) -> Tensor:
    """Tokens of an example, or of each, from calls of one token each: (time, batch)."""
    if len({each.shape for each in several}) > 1 or several[0].is_floating_point():
        return several[0]
    return (
        torch.stack([each.reshape(-1) for each in several])
        if several[0].numel() == max(several[0].shape)
        else several[0]
    )


def _keep(kept: deque[Any], batch: Any) -> None:
    """The latest batches, as many as hold enough examples."""
    kept.append(batch)
    sizes = list(_sizes(kept))
    while sum(sizes[1:]) >= KEPT:
        kept.popleft()
        sizes = sizes[1:]


def _sizes(kept: deque[Any]) -> Iterator[int]:
    for batch in kept:
        yield max(1, examples_in(tensors_of(batch)))
