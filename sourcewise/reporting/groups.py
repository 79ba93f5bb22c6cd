"""The figures of groups, and of seen and unseen target texts, as tables for the terminal and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sourcewise.figures import FIGURES, written

COLUMNS = ("examples", "BLEU", "chrF", "WER", "exactly right")
KEYS = ("examples", "bleu", "chrf", "wer", "exact_match_pct")
SEEN = {"seen": "seen in training", "unseen": "not seen"}

Grid = tuple[str, tuple[str, ...], list[tuple[str, ...]]]  # title, columns, rows


def group_tables(metrics: Mapping[str, Any]) -> list[Grid]:
    """One table per kind of group, and one of target texts; empty where an evaluation has none."""
    tables = []
    targets = metrics.get("by_target")
    if isinstance(targets, Mapping):
        named = {SEEN.get(str(name), str(name)): each for name, each in targets.items()}
        tables.append(_table("Target texts", "target text", named))
    for kind, groups in (metrics.get("by_group") or {}).items():
        tables.append(_table(f"By {kind}", kind, groups))
    return tables


def _table(title: str, first: str, parts: Mapping[str, Mapping[str, Any]]) -> Grid:
    rows = [
        (str(name), *(written(FIGURES[key].format, figures.get(key)) for key in KEYS))
        for name, figures in parts.items()
    ]
    return title, (first, *COLUMNS), rows
