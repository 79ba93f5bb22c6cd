"""Units of frames: the distinct frames of a training set or, if there are too many, the centres of its clusters."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from sourcewise.data.layout import Layout

ROUNDS = 10  # of k-means
FRAMES_A_UNIT = 32  # frames drawn for k-means, per unit
AT_ONCE = 4096  # frames compared with all units at a time


def find_units(matrices: Callable[[], Iterable[np.ndarray]], widths: Sequence[int], most: int) -> list[Tensor]:
    """Units of each stream of (frames, dims) float32 matrices: (units, width).

    Streams are `widths` dims wide, one beside the other. The units of one are its distinct vectors, in the order of
    their first occurrence, if these are `most` at most; else as many centres of clusters (k-means). Uses torch's global
    random state.
    """
    ends = np.cumsum(widths)
    spans = [slice(end - width, end) for width, end in zip(widths, ends, strict=True)]
    distinct: list[dict[bytes, None]] = [{} for _ in spans]
    for matrix in matrices():
        for span, known in zip(spans, distinct, strict=True):
            if len(known) <= most:
                part = matrix[:, span]
                new = np.r_[True, (part[1:] != part[:-1]).any(1)]  # tells most rows that are known already
                known.update(dict.fromkeys(map(bytes, np.ascontiguousarray(part[new]))))
    return [
        torch.from_numpy(np.frombuffer(b"".join(known), np.float32).reshape(len(known), -1).copy())
        if len(known) <= most
        else _k_means(_sample((matrix[:, span] for matrix in matrices()), most * FRAMES_A_UNIT), most)
        for span, known in zip(spans, distinct, strict=True)
    ]


def _sample(parts: Iterable[np.ndarray], size: int) -> Tensor:
    """At most `size` rows, in random order, all as likely: those that draw the least numbers."""
    draw = np.random.default_rng(int(torch.randint(2**62, ())))
    rows, keys, bound = [], [], 1.0
    for part in parts:
        drawn = draw.random(len(part))
        rows.append(part[drawn < bound])
        keys.append(drawn[drawn < bound])
        if sum(map(len, keys)) > 2 * size:
            (rows, keys) = _least(rows, keys, size)
            bound = float(keys[0][-1])
    return torch.from_numpy(_least(rows, keys, size)[0][0])


def _least(rows: list[np.ndarray], keys: list[np.ndarray], size: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The rows with the least keys, in their order, and these keys."""
    every, drawn = np.concatenate(rows), np.concatenate(keys)
    order = np.argsort(drawn)[:size]
    return [every[order]], [drawn[order]]


def _k_means(rows: Tensor, count: int) -> Tensor:
    """`count` centres by Lloyd's algorithm, from the first rows on; a centre without rows stays where it is."""
    centres = rows[:count].clone()
    for _ in range(ROUNDS):
        own = nearest(rows, centres)
        sizes = torch.bincount(own, minlength=count)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, own, rows)
        centres = torch.where(sizes > 0, sums / sizes.clamp(min=1), centres)
    return centres


def nearest(rows: Tensor, centres: Tensor) -> Tensor:
    """The centre (units, width) with the least Euclidean distance from each row (n, width): (n,) int64."""
    centres = centres.float()
    half = centres.square().sum(1) / 2
    return torch.cat([(part.float() @ centres.T - half).argmax(1) for part in rows.split(AT_ONCE)])


def changes(rows: Tensor) -> Tensor:
    """(n,) bool: true for the first row (n, …), and for each that differs from the one before it."""
    new = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    new[1:] = (rows[1:] != rows[:-1]).flatten(1).any(1)
    return new


def sequences(parts: Iterable[np.ndarray], centres: Tensor) -> Iterator[list[int]]:
    """The units of each clip of a stream, (frames, width) matrices, equal neighbours taken as one."""
    held: list[np.ndarray] = []
    for part in itertools.chain(parts, [None]):
        if held and (part is None or sum(map(len, held)) >= AT_ONCE):  # few large products instead of many small ones
            units = nearest(torch.from_numpy(np.concatenate(held)), centres)
            for each in units.split([len(clip) for clip in held]):
                yield each[changes(each[:, None])].tolist()
            held = []
        if part is not None:
            held.append(part[np.r_[True, (part[1:] != part[:-1]).any(1)]])


def link_units(sequences: Iterable[Sequence[int]], count: int, share: float) -> tuple[Tensor, Tensor]:
    """Chains of units that belong together, as the states of a sign or a phone do.

    Sequences are the units of clips, equal neighbours taken as one. Two units are linked if the second follows in at
    least `share` (above a half) of the first one's occurrences, and the first precedes in that share of the second's.
    Returns the chain of each of `count` units, numbered from 0, and its place in it from 0, both (count,) int64.
    """
    singles, pairs = Counter[int](), Counter[tuple[int, int]]()
    for ids in sequences:
        singles.update(ids)
        pairs.update(itertools.pairwise(ids))
    follows = {a: b for (a, b), n in pairs.items() if n >= share * max(singles[a], singles[b])}
    chains, places, number = torch.full((count,), -1), torch.zeros(count, dtype=torch.long), 0
    later = set(follows.values())
    # From the chains' beginnings; then the units of rings, which have none.
    for first in [*(unit for unit in range(count) if unit not in later), *range(count)]:
        unit: int | None = first
        if chains[first] < 0:
            place = 0
            while unit is not None and chains[unit] < 0:
                chains[unit], places[unit], place = number, place, place + 1
                unit = follows.get(unit)
            number += 1
    return chains, places


def runs(chains: Tensor, places: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
    """Where runs of a chain begin: (runs,) indices of frames, and the layout of runs.

    `chains` and `places` are those of the packed frames' units (rows,). A run ends where the chain changes or begins
    anew.
    """
    begins = changes(chains[:, None])
    begins[1:] |= places[1:] < places[:-1]
    there = begins.numpy(force=True)  # how many there are decides the shape of all that follows
    there[layout.starts[:-1]] = True
    first = np.flatnonzero(there)
    lengths = np.diff(np.searchsorted(first, layout.starts))
    found = torch.from_numpy(first).to(chains.device, non_blocking=True)
    return found, Layout(lengths, int(lengths.max(initial=0)))
