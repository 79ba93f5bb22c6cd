"""Sufficient statistics of figures per example, so that bootstrap resamples need not read the texts again.

BLEU, chrF and WER are functions of sums over examples: of matching n-grams, of words, of errors. The figures are those
of `metrics.json` up to rounding.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sourcewise.evaluation.results import Row
from sourcewise.metrics.counting import bleu_tokenizer
from sourcewise.metrics.texts import plain, words

BLEU_ORDER = 4
CHRF_ORDER = 6
CHRF_BETA = 2


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts (examples, parts) of one figure, and the function from sums (…, parts) to the figure (…)."""

    of: np.ndarray
    figure: Callable[[np.ndarray], np.ndarray]


def counts(rows: Sequence[Row]) -> dict[str, Counts]:
    """Figure → counts, from an evaluation's rows; loss and source bits only if the rows hold nats."""
    references, outputs = [r.reference for r in rows], [r.output for r in rows]
    pairs = list(zip(references, outputs, strict=True))
    same = [[plain(r) == plain(o), 1] for r, o in pairs]
    found = {
        "bleu": Counts(_bleu_counts(references, outputs), _bleu),
        "chrf": Counts(np.array([_shared_ngrams(o, r) for r, o in pairs], dtype=np.float64), _chrf),
        "wer": Counts(_word_errors(references, outputs), _ratio),
        "exact_match_pct": Counts(np.array(same, dtype=np.float64) * [100, 1], _ratio),
    }
    gained = [[r.nats_shuffled - r.nats, r.tokens * math.log(2)] for r in rows]
    bits = np.array([[0.0, 0.0] if math.isnan(g[0]) else g for g in gained])
    loss = np.array([[r.nats, r.tokens] for r in rows])
    found |= {"loss": Counts(loss, _ratio)} if loss[:, 1].all() else {}
    return found | ({"source_bits": Counts(bits, _ratio)} if bits[:, 1].any() else {})


def _ratio(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[..., 0] / np.maximum(sums[..., 1], 1e-300))


def _bleu_counts(references: Sequence[str], outputs: Sequence[str]) -> np.ndarray:
    """(examples, 10), as in sacrebleu: matching and all n-grams of the output (n = 1 to 4), words of both sides."""
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU(tokenize=bleu_tokenizer(references), force=True, effective_order=True)
    scores = [metric.sentence_score(o, [r]) for r, o in zip(references, outputs, strict=True)]
    return np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in scores], dtype=np.float64)


def _bleu(sums: np.ndarray) -> np.ndarray:
    """BLEU (Papineni et al. 2002) as in sacrebleu: the k-th order without a match counts as 1 / 2^k matches."""
    correct, total = sums[..., :BLEU_ORDER], sums[..., BLEU_ORDER : 2 * BLEU_ORDER]
    spoken, expected = sums[..., -2], sums[..., -1]
    missed = (correct == 0).cumsum(-1)
    matches = np.where(correct == 0, 0.5**missed, correct)
    with np.errstate(divide="ignore", invalid="ignore"):
        brevity = np.where(spoken < expected, np.exp(1 - expected / spoken), 1.0)
        score = 100 * brevity * np.exp(np.log(matches / total).mean(-1))
    never = (total == 0).any(-1) | (correct == 0).all(-1)
    return np.where(never, 0.0, np.minimum(100.0, score))


def _shared_ngrams(output: str, reference: str) -> list[int]:
    """(18,): for orders 1 to 6, character n-grams of the output, of the reference and of both; no spaces."""
    sides = ["".join(text.split()) for text in (output, reference)]
    found = []
    for n in range(1, CHRF_ORDER + 1):
        given, wanted = (Counter(text[i : i + n] for i in range(len(text) - n + 1)) for text in sides)
        # Where a reference is too short for an order, the output's do not count either, as in sacrebleu.
        found += [given.total() if wanted else 0, wanted.total(), (given & wanted).total()]
    return found


def _chrf(sums: np.ndarray) -> np.ndarray:
    """chrF2 (Popović 2015) as in sacrebleu: precision and recall averaged over the orders that both sides have."""
    of_output, of_reference, shared = (sums[..., i::3] for i in range(3))
    both = (of_output > 0) & (of_reference > 0)
    orders = np.maximum(both.sum(-1), 1)
    precision = (both * shared / np.maximum(of_output, 1)).sum(-1) / orders
    recall = (both * shared / np.maximum(of_reference, 1)).sum(-1) / orders
    square = CHRF_BETA**2
    return np.asarray(100 * (1 + square) * precision * recall / np.maximum(square * precision + recall, 1e-300))


def _word_errors(references: Sequence[str], outputs: Sequence[str]) -> np.ndarray:
    """(examples, 2): word errors by jiwer's alignment, and words of the reference."""
    import jiwer

    found = jiwer.process_words([" ".join(words(r)) for r in references], [" ".join(words(o)) for o in outputs])
    errors = [
        sum(
            max(part.ref_end_idx - part.ref_start_idx, part.hyp_end_idx - part.hyp_start_idx)
            for part in aligned
            if part.type != "equal"
        )
        for aligned in found.alignments
    ]
    return np.array([[e, len(words(r))] for e, r in zip(errors, references, strict=True)], dtype=np.float64)
