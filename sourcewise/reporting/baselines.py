"""The baselines of an evaluation as a table, for the terminal, the report and comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sourcewise.baselines.measure import ALWAYS, NAMES
from sourcewise.figures import Figure, figures, written

MODEL = "this model"
GAINED = "model above it"


def baseline_table(metrics: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows: each baseline and the model, by the set's own figure with its interval, then by the others.

    Empty where an evaluation has no baselines.
    """
    baselines = metrics.get("baselines")
    if not baselines:
        return [], []
    keys = baseline_keys(baselines)
    rows = [[name, *_cells(baselines[name], keys), _gained(baselines[name], keys[0])] for name in NAMES]
    rows.append([MODEL, *_cells({**metrics, **baselines["outputs"]}, keys), ""])
    return ["baseline", *(_figure(key).heading for key in keys), GAINED], rows


def baseline_note(metrics: Mapping[str, Any]) -> str:
    """What the baselines were taken from, and how sources were compared; empty without baselines."""
    baselines = metrics.get("baselines")
    return f"from {baselines['taken_from']}; copied by {baselines['copied_by']}" if baselines else ""


def baseline_keys(baselines: Mapping[str, Any]) -> list[str]:
    """The figures of baselines, the set's own first."""
    return list(dict.fromkeys((str(baselines["metric"]), *ALWAYS)))


def _cells(found: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    own, *others = keys
    return [_with_interval(found, own), *(written(_figure(key).number, found.get(key)) for key in others)]


def _with_interval(found: Mapping[str, Any], key: str) -> str:
    form = _figure(key).number
    interval = found.get(f"{key}_ci95")
    return written(form, found.get(key)) + (f" [{_ends(form, interval)}]" if interval and None not in interval else "")


def _gained(found: Mapping[str, Any], key: str) -> str:
    if found.get("difference") is None:
        return "unknown"
    form = _figure(key).number.replace("{:", "{:+")
    return f"{form.format(found['difference'])} [{_ends(form, found['difference_ci95'])}]"


def _ends(form: str, interval: Sequence[float]) -> str:
    return ", ".join(form.format(end) for end in interval)


def _figure(key: str) -> Figure:
    return figures().get(key) or Figure(key=key, label=key)  # of a plug-in that is no longer installed
