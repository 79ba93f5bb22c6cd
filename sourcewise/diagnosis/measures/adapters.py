"""Of several adapters (LoRA) of a network: which are trained, and which were added after these and hold nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from sourcewise.diagnosis.measures.first_step import Weight

TABLE = re.compile(r"\.lora_(A|B|embedding_A|embedding_B)\.([^.]+)")  # which table, and of which adapter
ZERO = {"B", "embedding_A"}  # tables that begin at zero
UNNAMED = "default"  # the adapter whose name nobody gave


class Idle(NamedTuple):
    """Names of adapters that are not active and hold nothing, of those that are trained, and whether the training may
    be the first of several that train them in turn: those have names, and held nothing either.
    """

    empty: list[str]
    trained: list[str]
    in_turn: bool


def idle_adapters(weights: Sequence[Weight], began: Sequence[Weight]) -> Idle | None:
    """The adapters that were added last and are neither trained nor hold anything; `began` is before the first step."""
    names = list(dict.fromkeys(found[2] for w in weights if (found := TABLE.search(w.name))))  # as they were added
    trained = [name for name in names if any(_is_trained(w) for w in _tables(weights, name))]
    behind = names[names.index(trained[-1]) + 1 :] if trained else []
    empty = [name for name in behind if not _holds(weights, name) and not _holds(began, name)]
    if not empty:
        return None
    return Idle(empty, trained, UNNAMED not in trained and not any(_holds(began, name) for name in trained))


def _tables(weights: Sequence[Weight], name: str) -> list[Weight]:
    return [w for w in weights if (found := TABLE.search(w.name)) and found[2] == name]


def _is_trained(weight: Weight) -> bool:
    return weight.learns and not weight.frozen and weight.gradient is not None


def _holds(weights: Sequence[Weight], name: str) -> bool:
    """Whether it changes what its network computes."""
    return any(w.value > 0 for w in _tables(weights, name) if (found := TABLE.search(w.name)) and found[1] in ZERO)
