"""What a loop's own generation says, beside the network that is trained: words never said, words that it would not."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from sourcewise.data.batches import IGNORED
from sourcewise.diagnosis.asked import Said

SURE, FEW = 0.8, 0.5  # of the places of a token that the network knows; of the tokens, that may be barred
ALIKE = 0.9  # of the outputs have one length, where none ends by itself
EVEN = math.log(2)  # nats of a token that is as likely as all others together


@torch.no_grad()
def said_beside(tables: Iterable[tuple[Tensor, Tensor]], outputs: Sequence[Sequence[Any]]) -> Said | None:
    """The outputs of each batch, as ids, beside its references; None where they are texts, or some are missing.

    Of each batch `tables` has log-probabilities (batch, time, vocabulary) and labels (batch, time).
    """
    there: Counter[int] = Counter()
    known: Counter[int] = Counter()
    said: Counter[int] = Counter()
    last: Counter[int] = Counter()
    rows: list[
        tuple[Tensor, list[int], list[int]]
    ] = []  # of each example: log-probabilities, its reference, its output
    for (logs, labels), given in zip(tables, outputs, strict=True):
        ids = [_ids(each) for each in given]
        if any(each is None for each in ids) or len(ids) != len(labels):
            return None
        counts = labels != IGNORED
        nats = -logs.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        there.update(labels[counts].tolist())
        known.update(labels[counts & (nats < EVEN)].tolist())
        said.update(i for each in ids for i in set(each or ()))
        references = [row[real].tolist() for row, real in zip(labels, counts, strict=True)]
        last.update(row[-1] for row in references if row)
        for row, real, reference, each in zip(logs, counts, references, ids, strict=True):
            rows.append((row[real], reference, each or []))
    lengths = Counter(len(output) for *_, output in rows)
    cut = bool(rows) and lengths.most_common(1)[0][1] < ALIKE * len(rows)  # each behind its own end, which is left out
    tokens = [(i, count, known[i], said[i]) for i, count in there.items() if not (cut and count == last[i])]
    barred = {i for i, count, sure, times in tokens if not times and sure >= SURE * count}  # it may be: see OUT018
    barred |= {i for i in last if cut and not said[i]}
    barred = barred if len(barred) <= FEW * len(there) else set()
    return Said(tokens, *_followed(rows, sorted(barred))) if there else None


def _followed(
    rows: Sequence[tuple[Tensor, list[int], list[int]]], barred: Sequence[int]
) -> tuple[float, float, int, int, float]:
    """How far the outputs are the network's: as far as each has said what its reference says, the next tokens of both
    stand behind the same ones. Nats of these tokens of an output, and of drawn ones, both summed over its tokens and
    averaged over outputs; in how many all are the likeliest, and of how many; how many standard errors lie between the
    two, since drawn tokens have as many nats as are expected of them. Without a start token that all repeat, and
    without the tokens that the search may not say.
    """
    begins, firsts = {reference[0] for _, reference, _ in rows if reference}, {said[0] for *_, said in rows if said}
    start = next(iter(firsts)) if len(firsts) == 1 and not firsts & begins else None
    nats, drawn, likeliest = [], [], 0
    for logs, reference, output in rows:
        said = output[1:] if start is not None else output
        same = next((t for t, (a, b) in enumerate(zip(said, reference, strict=False)) if a != b), len(reference))
        behind = [i for i in said[: same + 1] if 0 <= i < logs.shape[1]][: len(logs)]
        if not behind:
            continue
        own = (
            logs[: len(behind)]
            .float()
            .index_fill(1, torch.tensor(barred, dtype=torch.long, device=logs.device), -math.inf)
        )
        own = own.log_softmax(1) if barred else own
        nats.append(float(-own.gather(1, torch.tensor(behind, device=own.device)[:, None]).sum()))
        drawn.append(float(-(own.exp() * own.clamp(min=-50)).sum()))
        likeliest += own.argmax(1).tolist() == behind
    if not nats:
        return math.nan, math.nan, 0, 0, 0.0
    apart = [a - b for a, b in zip(nats, drawn, strict=True)]
    error = statistics.stdev(apart) / len(apart) ** 0.5 if len(apart) > 1 else math.inf
    return fmean(nats), fmean(drawn), likeliest, len(nats), fmean(apart) / max(error, 1e-9)


def _ids(output: Any) -> list[int] | None:
    if isinstance(output, Tensor):
        output = output.tolist()
    if not isinstance(output, (list, tuple)) or not all(isinstance(i, int) for i in output):
        return None
    return list(output)
