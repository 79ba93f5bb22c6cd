"""The batches of somebody else's training, seen as they pass: for a look nothing is read, drawn or collated again."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.data.batches import IGNORED
from sourcewise.diagnosis.measures.forms import Form
from sourcewise.errors import RequestError
from sourcewise.integrations import features
from sourcewise.integrations.collated import LABELS, MASK, READ, TEXT, VECTORS, Collation

Seen = Callable[[Any, bool], None]  # a batch, and whether it is trained on

SPEECH = "input_features"
FORMS = 200  # matrices whose form is looked at
KEPT = 8  # batches of an evaluation, at least, of which some examples are looked at


class Passing:
    """Sees each batch that is trained or evaluated on.

    With a Trainer it is what its `_prepare_inputs` makes of a collated batch, and its losses are what `training_step`
    gives. Without one it is what the model is called with: labels that the Trainer takes out before are not seen.
    """

    def __init__(self, seen: Seen, lost: Callable[[Any], None]) -> None:
        """`seen` is given each batch before the model is, `lost` the loss of each that is trained on."""
        self.seen, self.lost = seen, lost
        self._hook: Any = None
        self._waits = False  # for the batch of a training step
        self._elsewhere = False  # while a look calls the model
        self._latest: Any = None  # the labels of the model's latest call

    def of_trainer(self, trainer: Any) -> None:
        """From now on. What the Trainer's methods are given and return stays as it is."""
        trainer._prepare_inputs = partial(self._prepared, trainer._prepare_inputs)
        trainer.training_step = partial(self._stepped, trainer.training_step)

    def of_model(self, model: Any) -> None:
        """From now on, until `stop`."""
        self.stop()
        self._hook = model.register_forward_pre_hook(self._called, with_kwargs=True)

    def stop(self) -> None:
        """Look at the model's calls no longer."""
        if self._hook is not None:
            self._hook.remove()
        self._hook = None

    def _stepped(self, original: Any, *given: Any, **named: Any) -> Any:
        self._waits = True
        try:
            loss = original(*given, **named)
        finally:
            self._waits = False
        self.lost(loss)
        return loss

    def _prepared(self, original: Any, *given: Any, **named: Any) -> Any:
        batch, training = original(*given, **named), self._waits
        self._waits = False  # whoever prepares a batch again in the same step has been seen
        self.seen(batch, training)
        return batch

    def next_call(self, model: Any, told: Callable[[set[str]], None]) -> None:
        """Say by which names the model is given something, the next time it is called."""

        def called(model: Any, given: Any, named: dict[str, Any]) -> None:
            if not self._elsewhere:
                hook.remove()
                told(set(called_with(model, given, named)))

        hook = model.register_forward_pre_hook(called, with_kwargs=True)

    def next_outputs(self, model: Any, told: Callable[[Tensor, Tensor], None]) -> None:
        """Say what logits a training's next call of the model gives, and the gradient of its loss there."""

        def called(model: Any, given: Any, out: Any) -> None:
            logits = getattr(out, "logits", None)
            if self._elsewhere or not isinstance(logits, Tensor) or not logits.requires_grad:
                return
            hook.remove()
            logits.register_hook(lambda gradient: told(logits.detach(), gradient))

        hook = model.register_forward_hook(called)

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Within: the model is called by a look, not by the training."""
        before, self._elsewhere = self._elsewhere, True
        try:
            yield
        finally:
            self._elsewhere = before

    def _called(self, model: Any, given: Any, named: dict[str, Any]) -> None:
        if not self._elsewhere and LABELS in named and named[LABELS] is not self._latest:
            self._latest = named[LABELS]  # a loss may call the model twice (R-Drop, say)
            self.seen(called_with(model, given, named), model.training)


def called_with(model: Any, given: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call of a module by their names; those that are None are left out."""
    names = list(inspect.signature(model.forward).parameters)
    found = {**dict(zip(names, given, strict=False)), **named}
    return {name: value for name, value in found.items() if value is not None}


def as_tensors(batch: Any) -> dict[str, Any]:
    """A batch as a dict of tensors: lists and arrays become such. Raises RequestError where it is no mapping."""
    if not isinstance(batch, Mapping):
        raise RequestError(f"a batch is a {type(batch).__name__}; its rules read a dict with {TEXT} and {LABELS}")
    return {str(name): _tensor(value) for name, value in batch.items()}


def _tensor(value: Any) -> Any:
    if isinstance(value, (list, tuple, np.ndarray)):
        try:
            return torch.as_tensor(np.asarray(value))
        except (TypeError, ValueError, RuntimeError):
            return value  # rows of different lengths, or texts
    return value


def size_of(batch: Collation) -> int:
    """How many examples a batch has, by its labels or the first tensor of two dimensions; 0 where none tells."""
    labels = batch.get(LABELS)
    if isinstance(labels, Tensor) and labels.ndim:
        return len(labels)
    return next((len(v) for v in batch.values() if isinstance(v, Tensor) and v.ndim > 1), 0)


def some_of(batch: Collation, rows: Sequence[int] | np.ndarray) -> dict[str, Any]:
    """These examples of a batch; what is no tensor with a row an example stays whole."""
    size, chosen = size_of(batch), torch.as_tensor(np.asarray(rows, dtype=np.int64))
    return {
        name: value[chosen.to(value.device)]
        if isinstance(value, Tensor) and value.ndim and len(value) == size
        else value
        for name, value in batch.items()
    }


def spread(count: int, wanted: int) -> np.ndarray:
    """At most `wanted` of so many positions, from the first to the last."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).astype(int)) if count else np.zeros(0, dtype=int)


def joined(batches: Sequence[Collation], pad_id: int) -> Collation:
    """Several batches as one, padded to the longest; the largest of them where they do not fit together."""
    if len(batches) == 1:
        return batches[0]
    fills = {TEXT: pad_id, READ: pad_id, LABELS: IGNORED}
    try:
        return {name: _stacked([batch[name] for batch in batches], fills.get(name, 0)) for name in batches[0]}
    except (KeyError, RuntimeError, TypeError):
        return max(batches, key=size_of)


def _stacked(values: Sequence[Any], fill: int) -> Any:
    if not all(isinstance(value, Tensor) and value.ndim for value in values):
        return values[0]
    if values[0].ndim > 1:
        width = max(value.shape[1] for value in values)
        sides = [(*[0, 0] * (value.ndim - 2), 0, width - value.shape[1]) for value in values]
        values = [F.pad(value, side, value=fill) for value, side in zip(values, sides, strict=True)]
    return torch.cat(list(values))


class First:
    """The first examples that pass, as many as are wanted."""

    def __init__(self, wanted: int, *, slim: bool = False, bands: int | None = None) -> None:
        """`slim`: without all that the rules over pairs do not read; `bands` see `features.kept`."""
        self.wanted, self.slim, self.bands = wanted, slim, bands
        self.batches: list[dict[str, Any]] = []
        self.forms: list[Form] = []  # of the first matrices, if slim

    @property
    def examples(self) -> int:
        """How many there are."""
        return sum(map(size_of, self.batches))

    @property
    def full(self) -> bool:
        """Whether there are enough."""
        return self.examples >= self.wanted

    def add(self, batch: Collation) -> None:
        """Keep of this batch what is still wanted."""
        left = self.wanted - self.examples
        kept = some_of(batch, spread(size_of(batch), left)) if size_of(batch) > left else dict(batch)
        if self.slim and (given := _matrices(kept)) is not None:
            self.forms += features.forms_of(given[: FORMS - len(self.forms)], kept.get(MASK), self.bands)
        self.batches.append(_slim(kept, self.bands) if self.slim else kept)


def _matrices(batch: Collation) -> Tensor | None:
    """The features (batch, frames, dims) that are its sources; None where there are none."""
    if TEXT in batch:
        return None
    return next((batch[n] for n in (VECTORS, SPEECH) if isinstance(batch.get(n), Tensor) and batch[n].ndim == 3), None)


def _slim(batch: Collation, bands: int | None = None) -> dict[str, Any]:
    """Ids, labels and mask on the CPU; of vectors and of features of speech a few mixtures of their dimensions."""
    kept = {name: batch[name] for name in (TEXT, LABELS, MASK, READ) if name in batch}
    if (given := _matrices(batch)) is not None:
        kept[VECTORS], kept[MASK] = features.kept(given.detach(), batch.get(MASK), bands)
    empty = {n: v[:, :0] for n, v in batch.items() if TEXT in batch and isinstance(v, Tensor) and v.ndim > 2}
    kept |= {name: empty.get(name) for name in batch if name not in kept}  # to be named where they are there instead
    return {name: value.detach().cpu() if isinstance(value, Tensor) else value for name, value in kept.items()}


class Spread:
    """Some examples of all that pass, from the first batch to the last, however many there are."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.kept: list[dict[str, Any]] = []
        self._stride, self._passed = 1, 0

    def add(self, batch: Collation) -> None:
        """Every batch is kept until there are twice as many as needed; then every other, and so on."""
        self._passed += 1
        if (self._passed - 1) % self._stride:
            return
        size = size_of(batch)
        self.kept.append(some_of(batch, spread(size, self.wanted)) if size > self.wanted else dict(batch))
        if len(self.kept) > 2 * max(KEPT, math.ceil(self.wanted / max(1, size))):
            self.kept, self._stride = self.kept[::2], 2 * self._stride

    def batches(self) -> list[dict[str, Any]]:
        """As many examples as are wanted, or all."""
        left, found = self.wanted, []
        sizes = [size_of(batch) for batch in self.kept]
        count = min(len(sizes), max(KEPT, math.ceil(self.wanted / max([1, *sizes]))))
        places = spread(len(sizes), count)
        for done, place in enumerate(places):
            rows = spread(sizes[place], math.ceil(left / (len(places) - done)))
            found.append(some_of(self.kept[place], rows))
            left -= len(rows)
        return found
