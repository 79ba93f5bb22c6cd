"""What a loop's batches mean: which tensor is the source, which the target, how they lie, what pads them.

What is given in words is believed. The rest follows from one step: the gradient at the outputs tells the labels and
which of them count; the tensor of the batch that holds these is the target.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sourcewise.data.batches import IGNORED
from sourcewise.diagnosis.measures.objective import Said
from sourcewise.errors import RequestError
from sourcewise.evaluation.plain_call import LENGTHS, SOURCES, TARGETS, TRUTHS
from sourcewise.integrations.collated import LABELS, MASK, TEXT, VECTORS
from sourcewise.integrations.loop.batches import Named
from sourcewise.integrations.loop.explained import Made, made_of, slices, views
from sourcewise.integrations.loop.watching import Call

Role = str | Callable[[Any], Tensor] | None  # a path in the batch, or what gives it, (batch, time) or with dims
KINDS, SURE = 3, 8  # different labels, and how many of them, by which a part of a target is told
SIDED = ("decoder", "prev_output", "trg", "tgt", "target", "label", "text", "output", "y")  # beginnings of target names


@dataclass(frozen=True, slots=True)
class Asked:
    """What whoever trains has said: where source and target are, and the id of padding."""

    source: Role = None
    target: Role = None
    pad: int | None = None
    logits: Callable[[Any], Tensor] | None = None  # (batch, time, vocabulary)
    generate: Callable[[Any], Any] | None = None  # texts, or ids, of each example


@dataclass(frozen=True)
class Understood:
    """How batches are read: as a collation of `input_ids` or `inputs_embeds` and `labels`, (batch, time)."""

    source: Made | None
    labels: Made | None  # (batch, time), in the place of the outputs that say them
    source_turned: bool  # the source is (time, batch)
    labels_turned: bool
    pad: int | None
    hides_pad: bool  # labels that are padding do not count
    width: int  # labels of an example in the step that was looked at
    vocabulary: int
    words: str

    @property
    def whole(self) -> bool:
        """Whether both the source and the target are known."""
        return self.source is not None and self.labels is not None

    def collation(self, named: Named) -> dict[str, Tensor]:
        """A batch with -100 for labels that do not count. Raises RequestError where one of the two is not known."""
        if self.source is None or self.labels is None:
            side = "source" if self.source is None else "target"
            raise RequestError(f"which tensor is the {side} is not known; say {side}=lambda batch: ...")
        source, labels = self.source.of(named), self.labels.of(named)
        source = source.transpose(0, 1) if self.source_turned else source
        labels = (labels.transpose(0, 1) if self.labels_turned else labels).long()
        if self.pad is not None and self.hides_pad:
            labels = labels.masked_fill(labels == self.pad, IGNORED)
        if source.is_floating_point():
            real = source.flatten(2).abs().sum(-1) > 0
            return {VECTORS: source.flatten(2), MASK: _up_to_last(real), LABELS: labels}
        real = source != self.pad if self.pad is not None else torch.ones_like(source, dtype=torch.bool)
        return {TEXT: source, MASK: real, LABELS: labels}


def _up_to_last(real: Tensor) -> Tensor:
    """(batch, frames) bool: true up to the last true one."""
    return real.flip(1).cumsum(1).flip(1) > 0


def labels_of(saying: Sequence[Call]) -> tuple[Said, Tensor, Tensor, bool] | None:
    """What the outputs say: the first of them, labels and which count, and whether these are one call a token.

    Labels are as the outputs lie: (batch, time), (time, batch), or (tokens,) where they were flattened.
    """
    said = [each for call in saying for each in call.said.values()]
    if not said:
        return None
    if len(said) == 1:
        return said[0], said[0].labels, said[0].counts, False
    flat = [(each.labels.reshape(-1), each.counts.reshape(-1)) for each in said]
    sizes = {len(labels) for labels, _ in flat}
    if len(sizes) > 1:  # outputs of several heads, or of examples one by one
        last = said[-1]
        return last, last.labels, last.counts, False
    return said[0], torch.stack([a for a, _ in flat]), torch.stack([b for _, b in flat]), True


def target_of(named: Named, labels: Tensor, counts: Tensor) -> Made | None:
    """The tensor of a batch that holds the labels where they count, and how it is cut to lie as the outputs do."""
    found: list[tuple[int, Made]] = []
    for path, tensor in named.items():
        if tensor.is_floating_point() or tensor.dtype == torch.bool:
            continue
        for place, (words, make) in enumerate(_flat_views(tensor, labels.ndim)):
            made = make(tensor) if tensor.ndim else tensor
            held = made.to(labels.device)
            if held.shape == labels.shape and bool((held[counts] == labels[counts]).all()):
                found.append((place - 100 * _named(path, (*TRUTHS, *TARGETS, LABELS)), Made(path, words, make)))
                break
    found = found or list(_parts_of(named, labels, counts))
    last = list(reversed(found))  # where a copy is learned, what is said stands behind what is read
    return min(last, key=lambda pair: pair[0])[1] if last else None


def _parts_of(named: Named, labels: Tensor, counts: Tensor) -> Iterator[tuple[int, Made]]:
    """Targets of which the labels are a part: those that a model is given whole, and whose outputs the loop cuts; or
    such as are longer than what is said.
    """
    known = labels[counts]
    if labels.ndim != 2 or len(known) < SURE or len(known.unique()) < KINDS:
        return
    for path, tensor in named.items():
        if tensor.ndim != 2 or tensor.is_floating_point() or tensor.dtype == torch.bool:
            continue
        for turn, table in (("", tensor), (".T", tensor.T)):
            for turned in (False, True):
                other = int(turned)
                if table.shape[other] != labels.shape[other]:
                    continue
                for place, (words, make) in enumerate(slices(table, labels.shape[1 - other], turned)):
                    held = make(table).to(labels.device)
                    if held.shape == labels.shape and bool((held[counts] == labels[counts]).all()):
                        whole: Callable[[Tensor], Tensor] = (lambda t, m=make: m(t.T)) if turn else make  # type: ignore[misc]
                        yield place - 100 * _named(path, (*TRUTHS, *TARGETS, LABELS)), Made(path, turn + words, whole)
                        break


def _flat_views(tensor: Tensor, dims: int) -> Any:
    for words, make in views(tensor):
        if dims == 1 and tensor.ndim > 1:
            yield f"{words} flat", lambda t, m=make: m(t).reshape(-1)  # type: ignore[misc]
        else:
            yield words, make


def _named(path: str, names: Sequence[str]) -> bool:
    return path.rpartition(".")[2].lower() in names


def source_of(named: Named, target: Made | None, calls: Sequence[Call]) -> Made | None:
    """The tensor that is read and is not the target: by name, else what the first call is given, else the first."""
    goal = None if target is None else named[target.path]
    left = {
        path: each
        for path, each in named.items()
        if ((each.ndim == 2 and not each.is_floating_point() and each.dtype != torch.bool) or each.ndim >= 3)
        and each is not goal
        and not _named_target(path)
        and not _is_shifted(each, goal)
        and not _named(path, LENGTHS)
        and "mask" not in path.lower()
    }
    chosen = [path for path in left if _named(path, SOURCES)] or _called_with(left, calls) or list(left)
    return Made(chosen[0], "", lambda t: t) if chosen else None


def of_target(path: str, table: Tensor, goal: Tensor | None, turned: bool) -> bool:
    """Whether a tensor of a batch goes with its target: by its name, as the target shifted, or as its lengths."""
    if _named_target(path) or _is_shifted(table, goal):
        return True
    if goal is None or goal.ndim != 2 or table.is_floating_point() or table.ndim != 1:
        return False
    side = goal.t() if turned else goal
    ends = [int(side[0, -1]), 0]
    return any(torch.equal(table.to(side.device), (side != end).sum(1) + more) for end in ends for more in (0, -1, 1))


def _named_target(path: str) -> bool:
    return path.rpartition(".")[2].lower().startswith(SIDED) and not _named(path, SOURCES)


def _is_shifted(table: Tensor, goal: Tensor | None) -> bool:
    """Whether ids are the target's, shifted by one: what the decoder is fed."""
    if goal is None or table.is_floating_point() or table.ndim != 2 or goal.ndim != 2 or table.shape != goal.shape:
        return False
    shifted = ((table[:, 1:], goal[:, :-1]), (table[1:], goal[:-1]))
    return any(a.numel() > 0 and torch.equal(a, b.to(a.device)) for a, b in shifted)


def _called_with(left: Named, calls: Sequence[Call]) -> list[str]:
    """Those that are given to some call, in that order."""
    found: dict[str, None] = {}
    for call in calls:
        for value in call.arguments.values():
            if isinstance(value, Tensor) and (made := made_of(value, left)):
                found[made.path] = None
    return list(found)


def time_first(source: Tensor | None, labels: Tensor, modules: Sequence[nn.Module], counts: Tensor) -> bool | None:
    """Whether labels are (time, batch): by the sizes, by where padding is, by how the modules lie; None: not told."""
    if source is not None:
        rows, columns = source.shape[0], source.shape[1]
        fits = [labels.shape[0] in (rows, columns), labels.shape[1] in (rows, columns)]
        if fits[0] != fits[1]:
            return fits[1]
    ends = [_ends_in_padding(counts.T), _ends_in_padding(counts)]
    if ends[0] != ends[1]:
        return ends[0]
    told = {
        bool(each.batch_first)
        for module in modules
        for each in module.modules()
        if isinstance(getattr(each, "batch_first", None), bool)
    }
    return not told.pop() if len(told) == 1 else None


def cut_along(target: Made | None) -> bool | None:
    """Whether labels that are cut out of a batch's target are (time, batch), by the axis of the cut; None: not cut."""
    words = "" if target is None else target.words
    found = re.search(r"\[(:, )?(?=\S*\d)", words)
    return None if found is None else found[1] is None


def _ends_in_padding(counts: Tensor) -> bool:
    """Whether every row begins with what counts, and some end with what does not."""
    return bool(counts[:, 0].all()) and not bool(counts.all()) and bool((counts[:, 1:] <= counts[:, :-1]).all())


def pad_of(named: Named, target: Made | None, counts: Tensor, models: Sequence[nn.Module]) -> tuple[int | None, bool]:
    """The id of padding, and whether labels of it do not count: what the labels that do not count are, else by name."""
    if target is not None and not bool(counts.all()):
        hidden = target.of(named).to(counts.device)[~counts]
        hidden = hidden[hidden >= 0] if "and" in target.words else hidden  # but what was filled in behind
        kinds, times = hidden.unique(return_counts=True)
        if len(kinds) and int(times.max()) == int(times.sum()) and int(kinds[0]) >= 0:
            return int(kinds[0]), True
        if len(kinds):
            common = int(kinds[times.argmax()])
            said = bool((target.of(named).to(counts.device)[counts] == common).any())
            mostly = 2 * int(times.max()) >= int(times.sum())
            return (common, True) if common >= 0 and mostly and not said else (_by_embedding(models), False)
    return _by_embedding(models), False


def _by_embedding(models: Sequence[nn.Module]) -> int | None:
    ids = [m.padding_idx for each in models for m in each.modules() if isinstance(m, nn.Embedding)]
    known = {i for i in ids if i is not None}
    return known.pop() if len(known) == 1 else None
