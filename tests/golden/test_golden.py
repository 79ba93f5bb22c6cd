"""The code computes, trains, diagnoses and reads old runs as it did when the golden files were made.

fp32 holds to the bit where machine, torch and threads are those of `machine.json`; elsewhere processors differ in the
last digits, and the tolerances below are for that alone. Where one of these tests fails, the code is wrong, unless
CHANGES.md lists the change: see make.py.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import sourcewise
from sourcewise.cli import main
from sourcewise.errors import DataWarning
from sourcewise.native import compiled
from sourcewise.training.run import Run
from tests.golden import computed
from tests.golden.inputs import CONTROLS, FAMILIES, FAULTS, HERE, PRECISIONS, QUICK

# Norm of the difference beside the norm of the golden tensor; a tensor's share of noise counts beside all gradients.
RELATIVE = {"fp32": 1e-5, "bf16": 0.05}
NOISE = {"fp32": 1e-6, "bf16": 0.01}
DRIFT = 1e-3  # of a loss or norm after twenty steps on another processor, relative


def golden(name: str) -> Any:
    return json.loads((HERE / name).read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def plainly_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No native code, which differs from processor to processor; torch's threads stay as they were for others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("SOURCEWISE_COMPILE", "0")
    compiled._loaded.cache_clear()
    yield
    compiled._loaded.cache_clear()
    torch.set_num_threads(threads)


def as_recorded() -> bool:
    """Whether this is the machine that the golden files were made on."""
    return bool(computed.machine() == golden("machine.json"))


# ── figures ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_losses_and_gradients(family: str, precision: str, tmp_path: Path) -> None:
    kept = load_file(HERE / "figures" / f"{family}-{precision}.safetensors")
    found = computed.figures(family, precision, tmp_path)
    assert found.keys() == kept.keys()
    if precision == "fp32" and as_recorded():
        assert [name for name, value in kept.items() if not torch.equal(found[name], value)] == []
    assert far(found, kept, precision) == {}


def far(found: dict[str, Tensor], kept: dict[str, Tensor], precision: str) -> dict[str, float]:
    """Tensors further from the golden ones than rounding explains, and how far: norm of the difference."""
    gradients = [value.double().norm() for name, value in kept.items() if name.startswith("gradient.")]
    noise = NOISE[precision] * float(torch.stack(gradients).norm())
    differ = {}
    for name, value in kept.items():
        assert found[name].shape == value.shape and found[name].dtype == value.dtype, name
        distance = float((found[name].double() - value.double()).norm())
        allowed = RELATIVE[precision] * float(value.double().norm())
        if not distance <= allowed + (noise if name.startswith("gradient.") else 0):
            differ[name] = distance
    return differ


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_tolerance_is_no_pass_for_what_is_wrong(precision: str) -> None:
    kept = load_file(HERE / "figures" / f"t5-{precision}.safetensors")
    scaled = {name: value * (1.1 if precision == "bf16" else 1.0001) for name, value in kept.items()}
    assert {"logits", "nats", "minimised"} <= far(scaled, kept, precision).keys()
    assert sum(name.startswith("gradient.") for name in far(scaled, kept, precision)) > 5


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_has_a_gradient(family: str) -> None:
    """A golden gradient of zeros would hold nothing to anything; zeros are buffers, and biases that cancel out."""
    kept = load_file(HERE / "figures" / f"{family}-fp32.safetensors")
    zeros = {name for name, value in kept.items() if not value.any()}
    assert all(name.endswith((".mean", ".deviation", "final_logits_bias")) for name in zeros), zeros


# ── trainings ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_twenty_steps_of_a_training(family: str, tmp_path: Path) -> None:
    assert_course(computed.curve(family, tmp_path), golden("curves.json")[family])


def assert_course(found: dict[str, Any], kept: dict[str, Any]) -> None:
    if as_recorded():
        assert found == kept
    assert found["step"] == kept["step"]
    for key in ("loss", "gradient_norm", "learning_rate"):
        assert found[key] == pytest.approx(kept[key], rel=DRIFT), key
    assert found["valid"] == pytest.approx(kept["valid"], rel=DRIFT, abs=DRIFT)


# ── diagnoses ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def asked(kind: str, name: str, subject: str) -> None:
    """All that is found, in its order; on another machine, where hundreds of steps end elsewhere, what they hang on."""
    found = computed.diagnosis(kind, name, subject)
    kept = next(row for row in golden("diagnoses.json") if row["question"] == [kind, name, subject])
    if as_recorded():
        assert found == kept
    assert found["cause"] == kept["cause"]
    assert untrained(found) == untrained(kept)


def untrained(row: dict[str, Any]) -> list[dict[str, str]]:
    """What was found in data and wiring."""
    return [finding for finding in row["findings"] if finding["code"].startswith(("DAT", "WIR"))]


@pytest.mark.parametrize(("name", "subject"), QUICK)
def test_faults_that_are_found_before_the_first_step(name: str, subject: str) -> None:
    asked("fault", name, subject)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "subject"), [each for each in FAULTS if each not in QUICK])
def test_faults(name: str, subject: str) -> None:
    asked("fault", name, subject)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "subject"), CONTROLS)
def test_controls(name: str, subject: str) -> None:
    asked("control", name, subject)


# ── runs of before ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["text", "features"])
def old_run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of a run that was made by the code of before, where its recipe finds its data."""
    shutil.copytree(HERE / "old_run", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Run(Path(request.param))


def stored(run: Run) -> list[dict[str, str]]:
    with (run.folder / "translations.tsv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


def test_an_old_run_opens_and_gives_its_outputs_and_figures(old_run: Run) -> None:
    rows, kept = stored(old_run), json.loads((old_run.folder / "metrics.json").read_text())
    evaluation = sourcewise.evaluate(old_run.folder, old_run.recipe.data.test)
    assert evaluation.outputs == [row["output"] for row in rows] and len(set(evaluation.outputs)) > 1
    for figure in ("loss", "loss_shuffled", "source_bits", "bleu", "chrf", "wer", "length_ratio"):
        assert evaluation.metrics[figure] == pytest.approx(kept[figure], rel=DRIFT, abs=DRIFT), figure


def test_an_old_run_goes_on_where_it_left_off(old_run: Run) -> None:
    before = old_run.metrics()
    with pytest.warns(DataWarning, match="80 instead of 60"):  # the learning rate's end is further away
        found = computed.continued(old_run.folder)
    assert old_run.metrics()[: len(before)] == before
    assert_course(found, golden("old_run/continued.json")[old_run.folder.name])


def test_an_old_run_is_reported_and_diagnosed(old_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(old_run.folder)]) == 0
    page = (old_run.folder / "report.html").read_text(encoding="utf-8")
    assert old_run.folder.name in page and all(row["output"] in page for row in stored(old_run)[:3])
    capsys.readouterr()
    main(["diagnose", str(old_run.folder), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert computed.codes(told) == golden("old_run/diagnoses.json")[old_run.folder.name]
