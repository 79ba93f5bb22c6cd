"""Figures of parts of a set: of each signer, speaker or recording, and of target texts seen and unseen in training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sourcewise.config import DataConfig, EvaluationConfig
from sourcewise.data.training_targets import training_targets
from sourcewise.evaluation.results import Evaluation, Row
from sourcewise.metrics.counting import Counting
from sourcewise.metrics.outputs import output_metrics
from sourcewise.metrics.texts import plain

KEYS = ("examples", "bleu", "chrf", "wer", "exact_match_pct")
MOST = 20  # groups of a kind that have a row of their own; the others share one
FEWEST = 2.0  # examples a group, on average: else its figures are those of single examples


def add_parts(evaluation: Evaluation, data: DataConfig, measuring: EvaluationConfig) -> None:
    """Add `by_target` and `by_group` to the metrics, as far as groups are named and training texts are there."""
    rows, counting = evaluation.rows, measuring.counting
    evaluation.metrics |= seen_figures(rows, training_targets(data), counting) | group_figures(rows, counting)


def group_figures(rows: Sequence[Row], counting: Counting = Counting()) -> dict[str, Any]:
    """`by_group`: kind (signer, recording, …) → group → its figures, the largest first; `others` are all the rest.

    Empty without groups; a kind with one group, or with a group per example, is left out.
    """
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        for kind, group in row.group.items():
            found.setdefault(kind, {}).setdefault(group, []).append(row)
    tables = {}
    for kind, groups in found.items():
        own = sum(map(len, groups.values()))
        if len(groups) < 2 or own < FEWEST * len(groups):
            continue
        largest = sorted(groups, key=lambda group: -len(groups[group]))
        named = largest if len(largest) <= MOST else largest[: MOST - 1]
        parts = {group: groups[group] for group in named}
        rest = [row for group in largest[len(named) :] for row in groups[group]]
        without = [row for row in rows if kind not in row.group]
        others = {f"{len(largest) - len(named):,} others": rest, f"no {kind}": without}
        tables[kind] = {name: _figures(part, counting) for name, part in (parts | others).items() if part}
    return {"by_group": tables} if tables else {}


def seen_figures(rows: Sequence[Row], targets: Iterable[str] | None, counting: Counting = Counting()) -> dict[str, Any]:
    """`by_target`: the figures of references that are (`seen`) and are not (`unseen`) among the training `targets`.

    Empty where these are not known (None), or all or none of the references are among them.
    """
    if targets is None:
        return {}
    wanted = {plain(row.reference) for row in rows}
    known = {text for text in map(plain, targets) if text in wanted}  # of millions only these are kept
    parts: dict[str, list[Row]] = {"seen": [], "unseen": []}
    for row in rows:
        parts["seen" if plain(row.reference) in known else "unseen"].append(row)
    if not all(parts.values()):
        return {}
    return {"by_target": {name: _figures(part, counting) for name, part in parts.items()}}


def _figures(rows: Sequence[Row], counting: Counting) -> dict[str, Any]:
    references, outputs = [row.references for row in rows], [row.output for row in rows]
    metrics = output_metrics(references, outputs, [row.finished for row in rows], counting)
    return {key: metrics[key] for key in KEYS}
