"""Were the sources of somebody else's training cut? Their ids tell, where they end otherwise than whole texts do."""

from __future__ import annotations

from typing import Any

import numpy as np

from sourcewise.diagnosis.finding import Finding, Level
from sourcewise.diagnosis.pairs import named
from sourcewise.diagnosis.rules.data.dat007_cut_examples import CutExamples
from sourcewise.integrations.collated import Collated

CURE = "Let the tokenizer keep more of a source:\n  tokenizer(text, truncation=True, max_length=512)"


def check_cut(encoded: Collated, processing: Any) -> list[Finding]:
    """DAT007 of sources that are ids already; `processing` is the tokenizer that made them, if any did."""
    if encoded.sources is None:
        return []
    longest = int(encoded.source_lengths.max())
    full = encoded.source_lengths == longest
    why = "as many as the tokenizer's model_max_length"
    if longest != getattr(processing, "model_max_length", None):
        if not ends_texts(processing):
            return []
        ends = (encoded.tokenizer.eos_id, encoded.tokenizer.pad_id)  # padding that no mask hides is no text cut off
        full &= np.array([int(ids[-1]) not in ends for ids in encoded.sources])
        why = "the most there are, and not the end of text, which the tokenizer gives each text"
    share = float(full.mean())
    if share < CutExamples.warning:
        return []
    said = float(encoded.target_lengths.mean())
    evidence = f"{100 * share:.0f} % of {len(full)} sources have {longest} tokens, {why}; targets have {said:.1f}"
    level: Level = "error" if share >= CutExamples.error and longest < said else "warning"
    return [CutExamples.finding(named(encoded, f"{evidence} on average"), level, CURE)]


def ends_texts(processing: Any) -> bool:
    """Whether this tokenizer puts an end of text behind what it makes of a text."""
    end = getattr(processing, "eos_token_id", None)
    if end is None or not callable(processing):
        return False
    ids = processing("a")["input_ids"]
    return bool(ids) and ids[-1] == end
