"""`evaluate --require 'bleu>=20'`: a bound that a figure has to reach."""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sourcewise.errors import RequestError
from sourcewise.figures import figures

_COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
    "==": operator.eq,
}
_FORM = re.compile(r"\s*(\w+)\s*(>=|<=|==|>|<|=)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One figure, a comparison and a bound."""

    key: str
    compare: str
    bound: float

    def met_by(self, metrics: Mapping[str, Any]) -> bool:
        """Whether the figure exists and meets the bound; false for NaN."""
        value = metrics.get(self.key)
        return isinstance(value, (int, float)) and bool(_COMPARE[self.compare](value, self.bound))

    def __str__(self) -> str:
        return f"{self.key}{self.compare}{self.bound:g}"


def parse_requirement(text: str) -> Requirement:
    """`"bleu>=20"` → a Requirement. Raises RequestError for another form or an unknown figure."""
    form = _FORM.fullmatch(text)
    if not form:
        raise RequestError(f"--require {text}: not understood; give a figure, a comparison and a number: 'bleu>=20'")
    key, compare, bound = form.groups()
    if key not in figures():
        near = difflib.get_close_matches(key, figures(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(figures())}"
        raise RequestError(f"--require {text}: no figure {key}; {hint}")
    try:
        return Requirement(key, compare, float(bound))
    except ValueError:
        raise RequestError(f"--require {text}: {bound} is not a number") from None
