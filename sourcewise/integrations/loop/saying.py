"""What a loop's own generation says, beside the network that is trained: words never said, words that it would not."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from sourcewise.data.batches import IGNORED
from sourcewise.diagnosis.asked import Said
from sourcewise.diagnosis.rules.outputs.out018_words_never_said import WordsNeverSaid

FEW = 0.5  # of the tokens, that may be barred
ALIKE = 0.9  # of the outputs have one length, where none ends by itself
EVEN = math.log(2)  # nats of a token that is as likely as all others together
Tables = Callable[[], Iterable[tuple[Tensor, Tensor]]]


@torch.no_grad()
def said_beside(tables: Tables, outputs: Sequence[Sequence[Any]]) -> Said | None:
    """The outputs of each batch, as ids, beside its references; None where they are texts, or some are missing.

    `tables` gives log-probabilities (batch, time, vocabulary) and labels (batch, time) of each batch; they are asked
    for twice, since those of all would fill the memory.
    """
    there: Counter[int] = Counter()
    known: Counter[int] = Counter()
    pairs: list[tuple[list[int], list[int]]] = []  # reference and output of each example
    for (logs, labels), given in zip(tables(), outputs, strict=True):
        ids = [_ids(each) for each in given]
        if any(each is None for each in ids) or len(ids) != len(labels):
            return None
        counts = labels != IGNORED
        nats = -logs.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        there.update(labels[counts].tolist())
        known.update(labels[counts & (nats < EVEN)].tolist())
        references = [row[real].tolist() for row, real in zip(labels, counts, strict=True)]
        pairs += [(reference, each or []) for reference, each in zip(references, ids, strict=True)]
    if not there:
        return None
    said = Counter(i for _, output in pairs for i in set(output))
    last = Counter(reference[-1] for reference, _ in pairs if reference)
    lengths = Counter(len(output) for _, output in pairs)
    cut = lengths.most_common(1)[0][1] < ALIKE * len(pairs)  # each behind its own end, which is left out
    cut = cut or sum(len(output) == len(reference) - 1 for reference, output in pairs) >= ALIKE * len(pairs)
    tokens = [(i, count, known[i], said[i]) for i, count in there.items() if not (cut and count == last[i])]
    sure = WordsNeverSaid.known
    barred = {i for i, count, times, outputs in tokens if not outputs and times >= sure * count}  # it may be
    barred |= {i for i in last if cut and not said[i]}
    return Said(tokens, *_followed(tables, pairs, sorted(barred) if len(barred) <= FEW * len(there) else []))


def _followed(
    tables: Tables, pairs: Sequence[tuple[list[int], list[int]]], barred: Sequence[int]
) -> tuple[float, float, int, int, float]:
    """How far the outputs are the network's: as far as each has said what its reference says, the next tokens of both
    stand behind the same ones. Nats of these tokens of an output, and of drawn ones, both summed over its tokens and
    averaged over outputs; in how many all are the likeliest, and of how many; how many standard errors lie between the
    two, since drawn tokens have as many nats as are expected of them. Without a start token that all repeat, and
    without the tokens that the search may not say.
    """
    begins, firsts = {reference[0] for reference, _ in pairs if reference}, {said[0] for _, said in pairs if said}
    start = len(firsts) == 1 and not firsts & begins
    nats, drawn, likeliest = [], [], 0
    rows = (row[real] for logs, labels in tables() for row, real in zip(logs, labels != IGNORED, strict=True))
    for logs, (reference, output) in zip(rows, pairs, strict=True):
        behind = _behind(output[1:] if start else output, reference, logs.shape[1])
        if not behind:
            continue
        without = torch.tensor(barred, dtype=torch.long, device=logs.device)
        own = logs[: len(behind)].float().index_fill(1, without, -math.inf)
        own = own.log_softmax(1) if barred else own
        nats.append(float(-own.gather(1, torch.tensor(behind, device=own.device)[:, None]).sum()))
        drawn.append(float(-(own.exp() * own.clamp(min=-50)).sum()))
        likeliest += own.argmax(1).tolist() == behind
    if not nats:
        return math.nan, math.nan, 0, 0, 0.0
    apart = [a - b for a, b in zip(nats, drawn, strict=True)]
    error = statistics.stdev(apart) / len(apart) ** 0.5 if len(apart) > 1 else math.inf
    return fmean(nats), fmean(drawn), likeliest, len(nats), fmean(apart) / max(error, 1e-9)


def _behind(said: Sequence[int], reference: Sequence[int], size: int) -> list[int]:
    """The tokens of an output as long as those before are the reference's, and the network has them."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(said, reference, strict=False)))
    return list(takewhile(lambda i: 0 <= i < size, said[: min(same + 1, len(reference))]))


def _ids(output: Any) -> list[int] | None:
    if isinstance(output, Tensor):
        output = output.tolist()
    if not isinstance(output, (list, tuple)) or not all(isinstance(i, int) for i in output):
        return None
    return list(output)
