"""OUT013: outputs that fit the reference of another row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.outputs import Outputs
from sourcewise.diagnosis.rules import look
from sourcewise.evaluation.results import Evaluation, Row
from tests.baselines.sets import sentences

REFERENCES = [" ".join(each) for each in sentences(200)]
LABELS = [str(np.random.default_rng(i).choice(["cat", "horse", "elephant", "mouse", "giraffe"])) for i in range(200)]


def model(references: Sequence[str], right: float, seed: int = 0) -> list[str]:
    """What a model says that gets so many words right."""
    rng = np.random.default_rng(seed)
    pool = [word for text in references for word in text.split()]
    return [" ".join(w if rng.random() < right else str(rng.choice(pool)) for w in t.split()) for t in references]


def found(references: Sequence[str], outputs: Sequence[str]) -> list[Finding]:
    rows = [Row(str(i), "", r, o) for i, (r, o) in enumerate(zip(references, outputs, strict=True))]
    return list(look(Outputs(Evaluation({}, rows)), codes="OUT013").findings)


@pytest.mark.parametrize("right", [0.6, 0.9])
@pytest.mark.parametrize("shift", [-2, -1, 1, 3])
@pytest.mark.parametrize("texts", [REFERENCES, LABELS])
def test_all_are_off(right: float, shift: int, texts: list[str]) -> None:
    outputs = model(texts, 1.0 if texts is LABELS else right)
    (finding,) = found(texts, [*outputs[shift:], *outputs[:shift]])
    where = f"{abs(shift)} row{'s' * (abs(shift) > 1)} {'later' if shift > 0 else 'earlier'}"
    assert where in finding.evidence and finding.level == "error"


@pytest.mark.parametrize("start", [80, 120, 160])
def test_from_some_row_on(start: int) -> None:
    """A line was lost in the references: from there on they are those of the next row."""
    outputs = model(REFERENCES, 0.8)
    moved = [*REFERENCES[:start], *REFERENCES[start + 1 :], REFERENCES[0]]
    (finding,) = found(moved, outputs)
    assert "1 row earlier" in finding.evidence and f"of row {start + 1}," in finding.evidence


@pytest.mark.parametrize("right", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_where_it_belongs(right: float, seed: int) -> None:
    assert found(REFERENCES, model(REFERENCES, right, seed)) == []
    assert found(LABELS, model(LABELS, right, seed)) == []
    assert found(sorted(LABELS), model(sorted(LABELS), right, seed)) == []
    captions = [text for text in REFERENCES[:40] for _ in range(5)]  # five in a row are of one picture
    assert found(captions, model(captions, right, seed)) == []


def test_a_constant_output_is_none() -> None:
    assert found(REFERENCES, [REFERENCES[3]] * len(REFERENCES)) == []
