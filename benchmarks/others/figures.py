"""The figure of a case without the doctor: is it at fault at all?"""

from __future__ import annotations

from pathlib import Path

import sourcewise
from others.case import Case
from others.hosts import Nobody, unchecked


def alone(case: Case, broken: bool, seed: int, folder: Path) -> float:
    """Train or build the case, and take its figure."""
    if case.host == "trainer":
        made = case.make(broken, seed, folder)
        made.trainer.train()
        return float(made.figure())
    if case.host == "loop":
        return float(case.make(broken, seed, folder, lambda *_, **__: Nobody())[1])
    made = case.make(broken, seed, folder)
    if case.host == "lightning":
        made.fit()
        return float(made.figure())
    if case.host == "diagnose":
        return float(made.figure())
    return float(made.figure(sourcewise.train(unchecked(made.recipe))))
