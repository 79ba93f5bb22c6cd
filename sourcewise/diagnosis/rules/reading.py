"""How does a trained network read? Measured on a set; texts are in `reading_texts.py`."""

from __future__ import annotations

import math

import numpy as np

from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.looked import Looked
from sourcewise.diagnosis.reading import FEWEST, Gains, measure_gains, measure_gaze, measure_memory
from sourcewise.diagnosis.rules.reading_texts import (
    ALIKE,
    ATTENTION_FIXED,
    ATTENTION_STILL,
    FIRST_ONLY,
    FIRST_TOKENS,
    FIXED,
    HEAD,
    LONG_LOST,
    LONG_LOST_RULE,
    MEMORY_ALIKE,
    OPEN,
    RULES,
    SLOTS_ALIKE,
    STILL,
)
from sourcewise.evaluation.source_bits import SourceBits
from sourcewise.evaluation.verdict import SOURCE_BITS

__all__ = ["RULES", "check", "not_checked"]

QUARTER = 8  # examples in each of the two quarters that are compared, at least


def check(looked: Looked) -> list[Finding]:
    """MEM001, MEM002, SRC002, SRC003, ATT001 and ATT002."""
    found = _memory(looked)
    gains = measure_gains(looked.network, looked.encoded)
    if gains is not None:
        found += [*_by_place(gains), *_by_length(gains)]
    return found + _attention(looked)


def not_checked(looked: Looked) -> list[str]:
    """What these rules cannot say of this network and set, in words."""
    missing = []
    if measure_memory(looked.network, looked.batch) is None:
        missing.append("memory alike (MEM001, MEM002): no encoder's outputs, or fewer than 4 examples or slots")
    if measure_gaze(looked.network, looked.batch) is None:
        missing.append("cross-attention (ATT001, ATT002): there is none, or it has fewer than 4 slots or tokens")
    return missing


def _memory(looked: Looked) -> list[Finding]:
    apart = measure_memory(looked.network, looked.batch)
    if apart is None:
        return []
    if apart.examples < ALIKE:
        evidence = (
            f"its vectors are {apart.examples:.2g} of their size apart between examples, {apart.slots:.2g} within one"
        )
        return [MEMORY_ALIKE.finding(f"{evidence} ({apart.rows} examples)")]
    if apart.slots < ALIKE:
        evidence = f"its vectors are {apart.slots:.2g} of their size apart within an example"
        return [SLOTS_ALIKE.finding(f"{evidence}, {apart.examples:.2g} between examples ({apart.rows} of them)")]
    return []


def _attention(looked: Looked) -> list[Finding]:
    gaze = measure_gaze(looked.network, looked.batch)
    if gaze is None:
        return []
    if gaze.fixed >= FIXED:
        evidence = f"each of {gaze.heads} heads has {100 * gaze.fixed:.0f} % or more of its weight on one slot"
        return [ATTENTION_FIXED.finding(f"{evidence} ({gaze.examples} examples)")]
    if gaze.moved < STILL:
        evidence = (
            f"of {gaze.heads} heads none has more than {100 * gaze.moved:.2g} % of its weight elsewhere than usual"
        )
        return [ATTENTION_STILL.finding(f"{evidence} ({gaze.examples} examples)")]
    return []


def _by_place(gains: Gains) -> list[Finding]:
    first, later = gains.bits(gains.places < HEAD), gains.bits(gains.places >= HEAD)
    if len(later.tokens) < FEWEST or later.loss < OPEN:
        return []
    read, unread = first.ci95()[0], later.ci95()[1]
    if read < SOURCE_BITS or unread >= min(SOURCE_BITS, FIRST_ONLY * read):
        return []
    evidence = f"the first {HEAD} tokens gain {_said(first)}, those after them {_said(later)}"
    return [FIRST_TOKENS.finding(f"{evidence}, though their loss is {later.loss:.2f} nats")]


def _by_length(gains: Gains) -> list[Finding]:
    order = np.argsort(gains.lengths, kind="stable")
    count = len(order) // 4
    if count < QUARTER or gains.lengths[order[count - 1]] >= gains.lengths[order[-count]]:
        return []
    rows = np.arange(len(order))[:, None]
    short, long = (gains.bits(np.isin(rows, part) & (gains.places >= 0)) for part in (order[:count], order[-count:]))
    read, unread = short.ci95()[0], long.ci95()[1]
    if read < SOURCE_BITS or unread >= LONG_LOST * read or long.loss < max(OPEN, short.loss):
        return []
    lengths = gains.lengths[order[-count]], gains.lengths[order[count - 1]]
    evidence = f"with sources from {lengths[0]} on, targets gain {_said(long)}; up to {lengths[1]}, {_said(short)}"
    return [LONG_LOST_RULE.finding(f"{evidence}; the loss is {long.loss:.2f} against {short.loss:.2f} nats")]


def _said(bits: SourceBits) -> str:
    low, high = bits.ci95()
    return f"{bits.bits:.3f} bits ({low:.3f} to {high:.3f})" if math.isfinite(bits.bits) else "nothing known"
