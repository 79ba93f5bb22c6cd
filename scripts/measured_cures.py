"""Takes the effects of finished comparisons of cures into measured.json, from which the rules quote them.

    python scripts/measured_cures.py runs/compare_cures_few runs/compare_cures_deep …

A comparison that is not named keeps what it has there.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from sourcewise.comparison.table import Difference
from sourcewise.diagnosis import measured
from sourcewise.diagnosis.measured import ILLNESSES, Effect, effects
from sourcewise.errors import RequestError
from sourcewise.figures import figures
from sourcewise.runtime.files import write_atomically

JUDGED: dict[int, Literal["better", "worse", "chance"]] = {1: "better", -1: "worse", 0: "chance"}


def effects_of(folder: Path) -> list[Effect]:
    """Of a finished comparison, against its first row. Raises RequestError for one not finished, or not known."""
    try:
        found = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{folder}/comparison.json: {error}") from None
    if found["name"] not in ILLNESSES or any(line["missing"] for line in found["lines"]):
        raise RequestError(f"{folder}: not one of {', '.join(ILLNESSES)}, or trainings are missing")
    none, *others = found["lines"]
    return [_effect(found["name"], found["metric"], none["figures"], line) for line in others]


def _effect(name: str, metric: str, none: dict[str, Any], line: dict[str, Any]) -> Effect:
    difference, cured = line["differences"][metric], line["figures"]
    sign = Difference(**difference).sign * figures()[metric].sign
    before, after = ({key: round(side[key]["mean"], 4) for key in (metric, "source_bits")} for side in (none, cured))
    bits = before["source_bits"], after["source_bits"]
    return Effect(name, line["changes"], metric, before[metric], after[metric], *bits, JUDGED[sign])


def main(folders: list[str]) -> None:
    """Take these comparisons' effects in."""
    fresh = [effect for folder in folders for effect in effects_of(Path(folder))]
    kept = (
        [e for e in effects() if e.comparison not in {f.comparison for f in fresh}] if measured.FILE.is_file() else []
    )
    order = list(ILLNESSES)
    everything = sorted([*kept, *fresh], key=lambda e: order.index(e.comparison))
    lines = ",\n".join(json.dumps(asdict(effect), ensure_ascii=False) for effect in everything)
    write_atomically(measured.FILE, f"[\n{lines}\n]\n")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except RequestError as problem:
        sys.exit(str(problem))
