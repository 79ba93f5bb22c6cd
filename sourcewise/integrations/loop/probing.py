"""What moves the outputs of a loop's modules, later words or padding, say; and what their masks hide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sourcewise.data.batches import IGNORED
from sourcewise.diagnosis.measures.choices import choices_in
from sourcewise.diagnosis.measures.company import FEWEST, kept, twins, where_rows_mix
from sourcewise.diagnosis.measures.scrambled import scrambled_in
from sourcewise.diagnosis.measures.wiring import LEAK
from sourcewise.diagnosis.observed import Moves
from sourcewise.diagnosis.wiring import Hidden
from sourcewise.integrations.collated import LABELS, MASK, TEXT, VECTORS
from sourcewise.integrations.loop.batches import Named, exchanged, tensors_of
from sourcewise.integrations.loop.evaluating import Reader, source_effect, turned_sources
from sourcewise.integrations.loop.explained import begin_of
from sourcewise.integrations.loop.places import of_quarters, of_single_places
from sourcewise.integrations.loop.understood import Understood, of_target
from sourcewise.integrations.loop.watching import Watching

TWO = 2  # places that sources are wider by in a pass of another width; targets by one
WIDER = 4  # padded positions that are added
OF_ORDER = (nn.RNNBase, nn.RNNCellBase, nn.Conv1d, nn.Conv2d)  # what reads padding, as is usual and does little harm
HIDDEN = 0.02, 4  # of the words of a batch, and words, that no mask of their padding hides
PASSES = 8  # in which a decoder is fed its targets at least once, where it is so in half of the batches
TRIED = 3  # passes, in which no word moves the output that says the next
MOST_SUBSAMPLED = 16  # frames that a place of a memory stands for
STACKS = (nn.TransformerEncoder, nn.TransformerDecoder)


@torch.no_grad()
def moves_of(reader: Reader, batch: Any, named: Named, modules: Sequence[nn.Module], *, fresh: bool = False) -> Moves:
    """How far the outputs of a batch move, over the largest, when one thing of it is other than it was.

    In a `fresh` network nothing is sharp yet: there it is seen, too, which outputs a single place of a source moves.
    """
    collation = reader.understood.collation(named)
    labels = collation[LABELS].to(reader.device)
    real = labels != IGNORED
    usual = reader.table(batch, named, labels)
    centred = usual - usual.mean(-1, keepdim=True)
    size = float(centred[real].abs().max())
    if size == 0:
        return Moves()

    def moved(other: Any, tensors: Named) -> Tensor:
        """(time,) how far, at each place of the targets."""
        found = (reader.table(other, tensors or named, labels) - usual).abs().amax(-1) * real
        return found.amax(0) / size

    itself = float(moved(batch, named).max())
    source = source_effect(reader, batch, named)
    future, own, past = _of_later(reader.understood, batch, named, labels, moved)
    skipped = past is not None and not future and not own and _skips(reader.understood, batch, named, labels, moved)
    padding = None
    if not any(isinstance(each, OF_ORDER) for module in modules for each in module.modules()):
        padding = _of_padding(reader.understood, batch, named, collation, moved)
    company, mixed, place = _of_company(reader, batch, named, labels, usual, modules)
    unreached, dead = None, None
    if fresh and itself == 0 and not torch.equal(usual.bfloat16().float(), usual):  # which rounds small moves away
        unreached, dead = of_single_places(reader, batch, named, labels, usual, modules)
        dead = dead or of_quarters(reader, batch, named, labels, usual, modules)
    held = tensors_of(batch) if reader.logits is not None else named  # what the loop itself reads
    choiceless, sharp = _of_scores(reader, batch, named, labels, collation[MASK].shape[1], fresh=fresh)
    return Moves(
        itself=itself,
        source=source,
        future=future,
        own=own,
        past=past,
        skipped=skipped,
        padding=padding,
        company=company,
        mixed=mixed,
        place=place,
        unreached=unreached,
        dead=dead,
        order=_of_order(reader.understood, batch, named, held, moved),
        text=TEXT in collation,
        unread=_unread(reader.understood, batch, named, held, moved) if past is None else 0,
        choiceless=choiceless,
        sharp=sharp,
        scrambled=_of_views(reader, batch, named, labels, modules),
    )


def _of_views(reader: Reader, batch: Any, named: Named, labels: Tensor, modules: Sequence[nn.Module]) -> str:
    """Where numbers are viewed as if that turned their axes, in a pass as it is, and in one that is wider."""
    return scrambled_in(modules, lambda: reader.table(batch, named, labels), lambda: _wider_pass(reader, batch, named))


def _wider_pass(reader: Reader, batch: Any, named: Named) -> Tensor:
    """The outputs of a batch whose sources are two places wider, and whose targets one."""
    known = reader.understood
    assert known.source is not None and known.labels is not None
    source, goal = named[known.source.path], named[known.labels.path]
    wide = source.shape[int(not known.source_turned)]

    def change(path: str, each: Tensor) -> Tensor:
        of = each is goal or path == known.labels.path or of_target(path, each, goal, known.labels_turned)  # type: ignore[union-attr]
        axis = int(not (known.labels_turned if of else known.source_turned))
        if each.ndim < 2 or (not of and each.shape[axis] != wide):
            return each
        last = each.narrow(axis, each.shape[axis] - 1, 1)
        filled = known.pad is not None and not each.is_floating_point() and each.dtype != torch.bool
        more = torch.full_like(last, known.pad) if filled else last  # type: ignore[arg-type]
        return torch.cat([each, *[more] * (1 if of else TWO)], axis)

    tensors = {path: change(path, each) for path, each in named.items()}
    labels = known.collation(tensors)[LABELS].to(reader.device)
    return reader.table(exchanged(batch, change), tensors, labels)


def _of_scores(
    reader: Reader, batch: Any, named: Named, labels: Tensor, slots: int, *, fresh: bool
) -> tuple[str, float]:
    """What `choices_in` tells; the spread of scores by the wider pass, where sources were as wide as targets."""
    found, spread = choices_in(lambda: reader.table(batch, named, labels), slots)
    if fresh and math.isnan(spread):
        try:
            spread = choices_in(lambda: _wider_pass(reader, batch, named), slots + TWO)[1]
        except Exception:  # the loop made something for just this width, or there are no positions for more
            spread = math.nan
    return found, spread if fresh else math.nan


def _of_order(known: Understood, batch: Any, named: Named, held: Named, moved: Any) -> float | None:
    """How far outputs move with sources turned from end to beginning; None where these are not read, or have no order.

    Regions of a picture have none: as many for each.
    """
    assert known.source is not None
    collation = known.collation(named)
    lengths = collation[MASK].sum(1)
    varied = TEXT in collation or bool((lengths != lengths[0]).any())
    other = turned_sources(known, batch, named, collation, 0) if varied and known.source.path in held else None
    return None if other is None else float(moved(*other).max())


def _others_read(known: Understood, named: Named) -> bool:
    """Whether a batch has other tensors that a decoder may read in the place of its targets."""
    assert known.source is not None and known.labels is not None
    own, goal = (known.source.path, known.labels.path), named[known.labels.path]
    return any(
        each.ndim > 1 and each.dtype != torch.bool and not of_target(path, each, goal, known.labels_turned)
        for path, each in named.items()
        if path not in own
    )


def _unread(known: Understood, batch: Any, named: Named, held: Named, moved: Any) -> int:
    """Passes with other words in the targets, none of which moved an output; 0 where any did, or that cannot be told.

    A decoder that is fed its own words in some batches, by chance, reads its targets in the others.
    """
    assert known.labels is not None
    labels = known.collation(named)[LABELS]
    alone = known.labels.path in held and not _others_read(known, named)
    if not alone or "flat" in known.labels.words or labels.shape[1] <= 2:
        return 0
    for _ in range(PASSES):
        if _of_later(known, batch, named, labels, moved)[2] is not None:
            return 0
    return PASSES


def _of_company(
    reader: Reader, batch: Any, named: Named, labels: Tensor, usual: Tensor, modules: Sequence[nn.Module]
) -> tuple[float | None, str, float | None]:
    """How far rows move with others beside them, where they begin to read each other, and how far they move when they
    change places; None where not known.
    """
    size = len(labels)
    other, tensors = chosen(reader.understood, batch, named, twins(size))
    if size < FEWEST or all(torch.equal(tensors[path], each) for path, each in named.items()):
        return None, "", None
    real, turned = labels != IGNORED, torch.arange(size).roll(1)
    try:
        found = reader.table(other, tensors, labels)
        there = reader.table(*chosen(reader.understood, batch, named, turned), labels[turned.to(labels.device)])
    except Exception:  # the loop made something for just these rows
        return None, "", None
    largest = (usual - usual.mean(-1, keepdim=True))[real].abs().max()
    place = float((there.roll(-1, 0) - usual)[real].abs().max() / largest)
    apart = kept((found - usual).abs().amax(-1) * real)
    moved = float(apart.max() / largest)
    if moved <= LEAK:
        return moved, "", place
    passes = [lambda: reader.table(batch, named, labels), lambda: reader.table(other, tensors, labels)]
    return moved, where_rows_mix(_paths(modules), passes, size), None


def chosen(known: Understood, batch: Any, named: Named, rows: Tensor) -> tuple[Any, Named]:
    """A batch of these rows of a batch, all that goes with them, too; and its tensors."""
    size = len(rows)
    assert known.source is not None and known.labels is not None

    def change(path: str, tensor: Tensor) -> Tensor:
        turned = known.source_turned if path == known.source.path else known.labels_turned  # type: ignore[union-attr]
        axes = [axis for axis in ((1, 0) if turned else (0, 1)) if axis < tensor.ndim and tensor.shape[axis] == size]
        return tensor.index_select(axes[0], rows.to(tensor.device)) if axes else tensor

    return exchanged(batch, change), {path: change(path, each) for path, each in named.items()}


def _paths(modules: Sequence[nn.Module]) -> list[tuple[str, nn.Module]]:
    """All modules by their paths; of several that were given, with the class of each before."""
    several = len(modules) > 1
    return [
        (".".join(filter(None, (type(each).__name__ if several else "", path))) or type(each).__name__, inner)
        for each in modules
        for path, inner in each.named_modules()
    ]


def _of_later(
    understood: Understood, batch: Any, named: Named, labels: Tensor, moved: Any
) -> tuple[float | None, float | None, float | None]:
    """Other words in the later half of the targets: before them, at the first of them, behind it."""
    assert understood.labels is not None
    width = int((labels != IGNORED).any(0).nonzero().max()) + 1
    middle = width // 2
    if middle < 1 or width < 3 or "flat" in understood.labels.words:
        return None, None, None
    by_place = _moved_from(understood, batch, named, labels, moved, middle)
    future, own, past = (
        float(by_place[part].max()) for part in (slice(middle), slice(middle, middle + 1), slice(middle + 1, None))
    )
    return (future, own, past) if max(future, own, past) > 0 else (None, None, None)


def _moved_from(understood: Understood, batch: Any, named: Named, labels: Tensor, moved: Any, place: int) -> Tensor:
    """(time,) how far outputs move with other words in the targets from the label at this place on."""
    assert understood.labels is not None
    made = understood.labels
    goal, axis, cut = named[made.path], int(understood.labels_turned == (".T" in made.words)), begin_of(made.words)

    def change(path: str, tensor: Tensor) -> Tensor:
        own = path == made.path
        shifted = not own and tensor.ndim == 2 and not tensor.is_floating_point() and tensor.shape == goal.shape
        if not own and not (shifted and of_target(path, tensor, goal, understood.labels_turned)):
            return tensor
        return _others(tensor, axis, place + (cut if own else 1), understood.pad)

    found: Tensor = moved(exchanged(batch, change), {path: change(path, each) for path, each in named.items()})
    return found


def _skips(understood: Understood, batch: Any, named: Named, labels: Tensor, moved: Any) -> bool:
    """Whether no output is moved by the word before the one that it is to say, and those behind are by that before:
    at two places, in some passes, since a decoder may be fed its own words at some places by chance.
    """
    real = (labels != IGNORED).any(0)
    middle = (int(real.nonzero().max()) + 1) // 2
    places = [place for place in (middle - 1, middle) if place >= 1 and bool(real[place + 1 : place + 3].sum() == 2)]
    if len(places) < 2:
        return False
    for _ in range(TRIED):
        for place in places:
            by_place = _moved_from(understood, batch, named, labels, moved, place)
            if float(by_place[: place + 2].max()) > 0 or float(by_place[place + 2 :].max()) == 0:
                return False
    return True


def _others(ids: Tensor, axis: int, begin: int, pad: int | None) -> Tensor:
    """Ids, from a place on each the next larger one that there is; padding stays."""
    known = ids.unique()
    known = known[known != pad] if pad is not None else known
    place = torch.searchsorted(known, ids.contiguous()).clamp(max=len(known) - 1)
    other = known[(place + 1) % len(known)]
    later = torch.arange(ids.shape[axis], device=ids.device) >= begin
    later = later[None] if axis == 1 else later[:, None]
    return torch.where(later & (ids != pad if pad is not None else torch.ones_like(later)), other, ids)


def _of_padding(
    understood: Understood, batch: Any, named: Named, collation: dict[str, Tensor], moved: Any
) -> float | None:
    """More padding behind the sources; None where there is none, or another tensor goes with them."""
    assert understood.source is not None
    path, tensor = understood.source.path, named[understood.source.path]
    beside = [p for p, each in named.items() if p != path and each.shape[:2] == tensor.shape[:2]]
    goal = named[understood.labels.path] if understood.labels is not None else None
    beside = [p for p in beside if not of_target(p, named[p], goal, understood.labels_turned) and named[p] is not goal]
    if (understood.pad is None and TEXT in collation) or bool(collation[MASK].all()) or beside:
        return None
    fill = 0 if VECTORS in collation else understood.pad
    sides = [0, 0] * (tensor.ndim - 2) + ([0, 0, 0, WIDER] if understood.source_turned else [0, WIDER])
    wider = F.pad(tensor, sides, value=fill)  # type: ignore[arg-type]

    def change(name: str, each: Tensor) -> Tensor:
        return wider if name == path else each

    try:
        by_place = moved(exchanged(batch, change), {name: change(name, each) for name, each in named.items()})
    except Exception:  # the loop made something for just this width, or there are no positions for more
        return None
    return float(by_place.max())


def hidden_by(seen: Watching, collation: dict[str, Tensor]) -> Hidden | None:
    """What padding masks of torch's own attention hide of the sources: most of them, or nothing; else None."""
    real, bare = collation[MASK].bool(), None
    for call in (*seen.calls, *seen.inner):
        if isinstance(call.module, STACKS) and not any(_hides(v) for n, v in call.arguments.items() if _of_source(n)):
            bare = Hidden(int(real.sum()), 0, int((~real).sum()), int((~real).sum()), False)
        for name, value in call.arguments.items():
            if not _of_source(name) or not isinstance(value, Tensor):
                continue
            if value.ndim != 2 or len(value) != len(real) or MOST_SUBSAMPLED * value.shape[1] < real.shape[1]:
                continue
            held = _as_wide(real, value.shape[1]).to(value.device)
            hides = value if value.dtype == torch.bool else value < 0
            wrong, same = (
                int((hides & held).sum()),
                TEXT in collation and value.shape == real.shape and not bool(real.all()),
            )
            if 2 * wrong > int(held.sum()) or (same and wrong >= max(HIDDEN[1], HIDDEN[0] * int(held.sum()))):
                shown = int((~hides & ~held).sum())
                return Hidden(int(held.sum()), int((hides & held).sum()), int((~held).sum()), shown, True)
    return bare if bare is not None and bare.padding else None


def _as_wide(real: Tensor, width: int) -> Tensor:
    """Which places (batch, width) of a memory hold something, of sources (batch, time) that it may be subsampled of."""
    if width >= real.shape[1]:
        return F.pad(real, (0, width - real.shape[1]))
    return F.adaptive_max_pool1d(real[:, None].float(), width)[:, 0].bool()


def _of_source(name: str) -> bool:
    return "key_padding_mask" in name and not name.startswith("tgt")


def _hides(mask: Any) -> bool:
    return isinstance(mask, Tensor) and bool((mask if mask.dtype == torch.bool else mask < 0).any())
