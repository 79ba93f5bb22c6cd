"""What the rules say of measured cures is what the comparisons measured."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sourcewise.config import Recipe
from sourcewise.config.messages import field_at
from sourcewise.diagnosis import measured
from sourcewise.diagnosis.cure import Cure
from sourcewise.diagnosis.rules import RULES
from sourcewise.errors import RequestError

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results.md"


@pytest.fixture(scope="module")
def measuring() -> ModuleType:
    """The script that takes the effects in."""
    spec = importlib.util.spec_from_file_location("measured_cures", ROOT / "scripts" / "measured_cures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def line(variant: str, wer: float, bits: float, interval: tuple[float, float] | None, **changes: Any) -> dict[str, Any]:
    figures = {"wer": {"mean": wer}, "source_bits": {"mean": bits}}
    differences = {"wer": {"mean": sum(interval) / 2, "seeds": interval, "examples": interval}} if interval else {}
    return {"variant": variant, "changes": changes, "missing": 0, "figures": figures, "differences": differences}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [
        line("none", 0.9, 0.5, None),
        line("ctc", 0.2, 6.0, (-0.8, -0.6), **{"train.ctc_weight": 0.3}),
        line("focal", 0.95, 0.4, (0.01, 0.1), **{"train.focal": 2.0}),
        line("clipping", 0.9, 0.5, (-0.1, 0.1), **{"train.clip": 1.0}),
    ]
    (tmp_path / "comparison.json").write_text(
        json.dumps({"name": "compare_cures_few", "metric": "wer", "lines": lines}), encoding="utf-8"
    )
    return tmp_path


def test_effects_are_judged_by_the_intervals(measuring: ModuleType, folder: Path) -> None:
    assert [e.effect for e in measuring.effects_of(folder)] == ["better", "worse", "chance"]
    assert str(measuring.effects_of(folder)[0]) == "train.ctc_weight 0.3: WER 0.90 → 0.20, source bits 0.50 → 6.00"
    assert "(may be chance)" in str(measuring.effects_of(folder)[2])


def test_a_comparison_replaces_its_own(
    measuring: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(measured, "FILE", tmp_path / "measured.json")
    measured.effects.cache_clear()
    measuring.main([str(folder)])
    measured.effects.cache_clear()
    measuring.main([str(folder)])
    measured.effects.cache_clear()
    assert len(measured.effects()) == 3
    told = measured.told([Cure("Try", {"train.ctc_weight": 0.5})])
    assert told.startswith("On 300 recordings") and "WER 0.90 → 0.20" in told and "clip" not in told
    measured.effects.cache_clear()


def test_what_is_not_finished_is_refused(measuring: ModuleType, folder: Path) -> None:
    path = folder / "comparison.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    found["lines"][2]["missing"] = 1
    path.write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(RequestError, match="missing"):
        measuring.effects_of(folder)
    with pytest.raises(RequestError, match=r"comparison\.json"):
        measuring.effects_of(folder / "nowhere")


def test_what_is_quoted_stands_in_the_results() -> None:
    text = RESULTS.read_text(encoding="utf-8")
    for effect in measured.effects():
        assert f"sourcewise compare {effect.comparison}" in text
        shown = f"{effect.after:.3f}" if effect.metric == "wer" else f"{effect.after:.2f}"
        assert re.search(rf"\| [^|]*{re.escape(shown)} ±", text), effect
        assert all(field_at(Recipe, key.split(".")) is not None for key in effect.changes)


def test_rules_quote_the_cures_they_name() -> None:
    quoted = 0
    for rule in RULES.values():
        page = " ".join(rule.page().split())
        for effect in measured.effects():
            if any(f"--{key} " in rule.cure for key in effect.changes):
                assert str(effect) in page
                quoted += 1
    assert quoted >= 5
