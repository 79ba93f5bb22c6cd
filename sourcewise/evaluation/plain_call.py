"""Batches of plain training loops: finds sources and targets by name or in a tuple, and how the model is called.

Assumptions are measured where possible: exchanging one source shows the batch axis of the outputs, and exchanging one
target token shows which target token an output predicts.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.errors import NotFinite, RequestError
from sourcewise.evaluation.logits import checked

SOURCES = ("src", "source", "sources", "src_tokens", "input", "inputs", "x")
TARGETS = ("trg", "tgt", "target", "targets", "tgt_tokens", "output", "outputs", "y")
TRUTHS = ("tgt_y", "trg_y", "tgt_out", "trg_out")  # labels beside the decoder's inputs
LENGTHS = ("src_len", "src_lens", "src_length", "src_lengths", "source_lengths", "input_lengths")
FORCING = ("teacher_forcing_ratio", "teacher_forcing", "teacher_force_ratio", "tf_ratio", "teacher_forcing_rate")
FORMS = (
    "model(src, trg), also with lengths, with a teacher_forcing_ratio, and with masks that the batch holds under the "
    "names of the model's parameters; (encoder, decoder) with decoder(outputs, hidden, trg); or a function "
    "batch → logits (batch, time, vocabulary) of a dict with labels"
)


@dataclass
class Loop:
    """A batch of a plain loop: sources and targets in their original layout, and the batch's other values."""

    src: Tensor
    trg: Tensor
    extras: dict[str, Any] = field(default_factory=dict)
    time_first: bool = False  # (time, batch)
    notes: list[str] = field(default_factory=list)

    @property
    def axis(self) -> int:
        """The batch axis of sources and targets."""
        return int(self.time_first)

    @property
    def sources(self) -> Tensor:
        """The sources (batch, positions)."""
        return self.src.t() if self.time_first else self.src

    @property
    def targets(self) -> Tensor:
        """The targets (batch, time)."""
        return self.trg.t() if self.time_first else self.trg


def read(batch: Any) -> Loop:
    """Read a tuple (src, trg), a dict, or an object with such attributes. Raises RequestError for other batches."""
    if isinstance(batch, (tuple, list)):
        if len(batch) != 2:
            what = f"{type(batch).__name__} of {len(batch)}"
            raise RequestError(f"source_bits: a batch is (src, trg) or a dict of tensors, not {what}")
        given: Mapping[str, Any] = {"src": batch[0], "trg": batch[1]}
    else:
        given = batch if isinstance(batch, Mapping) else getattr(batch, "__dict__", {})
    names = [next((n for n in side if n in given), None) for side in (SOURCES, TARGETS)]
    if None in names:
        keys = ", ".join(map(str, given)) or type(batch).__name__
        raise RequestError(f"source_bits: no labels, nor src and trg, among {keys}")
    extras = {k: v for k, v in given.items() if k not in names}
    sides = []
    for name in names:
        value = given[str(name)]
        if isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[0], Tensor):
            extras |= {LENGTHS[0]: value[1]} if name == names[0] else {}
            value = value[0]
        if not isinstance(value, Tensor) or value.ndim != 2 or value.is_floating_point():
            raise RequestError(f"source_bits: {name} is to be a tensor of token ids, (batch, time) or (time, batch)")
        sides.append(value)
    loop = Loop(sides[0], sides[1], extras, _time_first(sides[0], sides[1]))
    order = "(time, batch)" if loop.time_first else "(batch, time)"
    loop.notes.append(f"{names[0]} {tuple(sides[0].shape)} and {names[1]} {tuple(sides[1].shape)} are {order}")
    return loop


def _time_first(src: Tensor, trg: Tensor) -> bool:
    rows, columns = src.shape[0] == trg.shape[0], src.shape[1] == trg.shape[1]
    if rows and columns:  # both fit: all targets begin with the same token along one axis
        starts = [bool((trg.select(axis, 0) == trg[0, 0]).all()) for axis in (1, 0)]
        if starts[0] != starts[1]:
            return starts[1]
    elif rows or columns:
        return columns
    shapes = f"{tuple(src.shape)} and {tuple(trg.shape)}"
    raise RequestError(
        f"source_bits: which dimension of sources and targets {shapes} is the batch cannot be told; give a dict with "
        "input_ids and labels, (batch, time), or a batch of another size"
    )


Run = Callable[[Loop], Tensor]


def call(model: Any, loop: Loop) -> Run:
    """A function that calls the model with a batch. Raises RequestError if its parameters are not understood."""
    if isinstance(model, (tuple, list)):
        return lambda given: _first(_pair(model[0], model[1], given))
    parameters = inspect.signature(model.forward if isinstance(model, nn.Module) else model).parameters
    names: list[str] = []
    for name, parameter in parameters.items():
        known = name in (*FORCING, *LENGTHS) or name in loop.extras or len(names) < 2
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if not known and parameter.default is not parameter.empty:
            continue
        few = len([n for n in names if n not in LENGTHS]) < 2
        if not (few or name in FORCING or name in loop.extras):
            raise RequestError(f"source_bits: {_name(model)} wants {name}, which the batch lacks; understood: {FORMS}")
        names.append(name)
    sides = [n for n in names if n not in (*LENGTHS, *FORCING)][:2]
    if len(sides) < 2:
        raise RequestError(
            f"source_bits: {_name(model)}({', '.join(parameters)}) is not understood; understood: {FORMS}"
        )
    forced = [n for n in names if n in FORCING]
    loop.notes.append(f"the model is called as {_name(model)}({', '.join(names)})" + (", forcing 1" if forced else ""))

    def run(given: Loop) -> Tensor:
        values = {sides[0]: given.src, sides[1]: given.trg} | dict.fromkeys(forced, 1.0)
        values |= {n: _lengths(given) for n in names if n in LENGTHS and n not in given.extras}
        return _first(model(**{n: given.extras[n] if n in given.extras else values[n] for n in names}))

    return run


def _pair(encoder: Any, decoder: Any, given: Loop) -> Any:
    """Call an encoder and a decoder as in PyTorch's tutorial: decoder(outputs, hidden, target)."""
    found = encoder(given.src)
    if not isinstance(found, tuple) or len(found) != 2:
        raise RequestError(f"source_bits: the encoder gives no (outputs, hidden); understood: {FORMS}")
    return decoder(*found, given.trg)


def _lengths(given: Loop) -> Tensor:
    raise RequestError("source_bits: the model wants the sources' lengths; give src as (tensor, lengths), or src_len")


def _first(out: Any) -> Tensor:
    out = getattr(out, "logits", out)
    out = out[0] if isinstance(out, (tuple, list)) and out else out
    if not isinstance(out, Tensor) or out.ndim != 3:
        raise RequestError(
            "source_bits: the model gives no logits (batch, time, vocabulary) or (time, batch, vocabulary)"
        )
    return out


def _name(model: Any) -> str:
    return getattr(model, "__name__", type(model).__name__)


def exchanged(loop: Loop, rows: Tensor) -> Loop:
    """The same targets with the sources, lengths and masks of these rows."""
    size, positions = loop.sources.shape
    extras = dict(loop.extras)
    for name, value in extras.items():
        of_source = name.startswith(("src", "source", "input", "memory")) and isinstance(value, Tensor) and value.ndim
        square = of_source and value.shape == (positions, positions) and "pad" not in name
        if of_source and len(value) == size and not square:
            extras[name] = value[rows.to(value.device)]
    src = loop.src.index_select(loop.axis, rows.to(loop.src.device))
    return Loop(src, loop.trg, extras, loop.time_first, loop.notes)


def aligned(model: Any, loop: Loop, run: Run, other: Tensor) -> tuple[Callable[[Tensor | None], Tensor], Tensor]:
    """A function from rows to logits (batch, time, vocabulary) with their sources, and the labels (batch, time).

    `other` (batch,) is the index of an example with another source, or the example's own. Raises RequestError if
    outputs cannot be aligned with targets: if they are random, independent of earlier targets, or see future ones.
    """
    base = run(loop)
    if bool((torch.isnan(base) | (base == math.inf)).any()):
        raise NotFinite("source_bits: outputs of the model are NaN or infinite although all weights are finite numbers")
    again = run(loop)
    if not torch.allclose(base, again, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise RequestError(
            "source_bits: two calls give different outputs: dropout, or teacher forcing that is drawn and has no "
            "parameter of its own; it is to be 1"
        )
    turn = _batch_axis(base, loop, run, other) == 1
    finish = _generator(model, base)
    place = 1 if loop.targets.shape[1] > 2 else 0
    ahead = _seen_from(base, loop, run, place, turn) - place
    truth = next((loop.extras[n] for n in TRUTHS if isinstance(loop.extras.get(n), Tensor)), None)
    steps, width = base.shape[0 if turn else 1], loop.targets.shape[1]
    if ahead not in (0, 1) or steps not in (width, width - 1 + ahead):
        raise RequestError(f"source_bits: {steps} outputs for {width} target tokens are not understood")
    if truth is not None:
        labels = (truth.t() if loop.time_first else truth).clone()
        cut = slice(0, steps)
        alignment = "outputs are compared with the targets given beside the decoder's inputs"
    elif ahead == 0:  # output t sees target t, so it predicts the next
        labels, cut = loop.targets[:, 1:].clone(), slice(0, width - 1)
        alignment = "output t is compared with target t + 1"
    else:
        first = base[0] if turn else base[:, 0]
        skipped = int(not first.any())  # a row of zeros is at the start token, which is not predicted
        labels, cut = loop.targets[:, skipped:].clone(), slice(skipped, width)
        alignment = "output t is compared with target t" + (", except the first, which is zeros" if skipped else "")
    loop.notes.append(alignment)

    def logits(rows: Tensor | None) -> Tensor:
        out = run(loop if rows is None else exchanged(loop, rows))
        return checked(finish((out.transpose(0, 1) if turn else out)[:, cut]))

    return logits, labels


def _batch_axis(base: Tensor, loop: Loop, run: Run, other: Tensor) -> int:
    """The batch axis of the outputs: the one along which only one entry changes with the source of one example."""
    size = len(other)
    one = int((other != torch.arange(size, device=other.device)).nonzero()[0])
    rows = torch.arange(size, device=other.device)
    rows[one] = other[one]
    change = (run(exchanged(loop, rows)) - base).abs().amax(-1)
    fits = [axis for axis in (0, 1) if base.shape[axis] == size]
    alone = [a for a in fits if _elsewhere(change.amax(1 - a), one) <= 0.05 * float(change.max())]
    if not change.any():
        alone = fits if len(fits) == 1 else [a for a in fits if a == loop.axis]
    if len(alone) == 2:  # a single output changes: the layout of the inputs decides
        alone = [loop.axis]
    if not alone:
        order = "(time, batch)" if loop.time_first else "(batch, time)"
        raise RequestError(
            f"source_bits: outputs {tuple(base.shape)} of other examples change with the source of one, or none of "
            f"their axes is the batch of {size}; are sources and targets {order}?"
        )
    return alone[0]


def _elsewhere(change: Tensor, one: int) -> float:
    others = torch.cat((change[:one], change[one + 1 :]))
    return float(others.max()) if len(others) else 0.0


def _seen_from(base: Tensor, loop: Loop, run: Run, place: int, turn: bool) -> int:
    """Index of the first output that changes with the target token at a position."""
    targets = loop.targets.clone()
    targets[:, place] = targets[:, place].roll(1)
    kinds = targets[:, place:].unique()
    same = targets[:, place] == loop.targets[:, place]
    targets[same, place] = kinds[(torch.searchsorted(kinds, targets[same, place].contiguous()) + 1) % len(kinds)]
    moved = Loop(loop.src, targets.t() if loop.time_first else targets, loop.extras, loop.time_first, loop.notes)
    change = (run(moved) - base).abs().amax(-1)
    steps = change.amax(1) if turn else change.amax(0)
    seen = (steps > 1e-4 * float(steps.max())).nonzero()
    if not steps.any():
        raise RequestError(
            "source_bits: the outputs do not change with the target, as they do under teacher forcing; "
            "its ratio is to be 1"
        )
    if int(seen[0]) < place:
        raise RequestError(
            f"source_bits: output {int(seen[0])} changes with target {place}, which comes after it: the decoder sees "
            "what it is to say; give it a mask of what comes later"
        )
    return int(seen[0])


def _generator(model: Any, base: Tensor) -> Callable[[Tensor], Tensor]:
    """An output head that is not part of the forward pass, such as `generator` of the Annotated Transformer."""
    head = getattr(model, "generator", None)
    linear = (
        next((m for m in head.modules() if isinstance(m, nn.Linear)), None) if isinstance(head, nn.Module) else None
    )
    if linear is None or linear.in_features != base.shape[-1] or linear.out_features == base.shape[-1]:
        return lambda out: out
    return head  # type: ignore[return-value]
