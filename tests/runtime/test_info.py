"""What is told of a machine: to a run, and to `sourcewise info`."""

from __future__ import annotations

import html
import importlib.metadata
import json
from pathlib import Path

import pytest
import torch

import sourcewise
from sourcewise.cli import main
from sourcewise.errors import Notice
from sourcewise.native.codes import Code, of_training
from sourcewise.runtime.info import info, machine
from tests.training.recipes import recipe

pytestmark = pytest.mark.pages


def test_versions_and_hardware_are_told() -> None:
    told = machine(torch.device("cpu"), "fp32", 1)
    assert told["torch"] == torch.__version__ and told["sourcewise"] == importlib.metadata.version("sourcewise")
    assert told["device"].startswith("cpu (") and "thread" in told["device"] and "cores" in told["machine"]
    assert told["native code"] == "none (it is for bf16, not fp32)"
    assert all(isinstance(value, str) and value for value in told.values())


def test_what_is_used_of_the_native_code_and_why_the_rest_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Code, "why_not", lambda code: "no AMX" if code.name == "tiles" else None)
    assert of_training("cpu", "bf16", 1) == "kernels, attention (without tiles: no AMX)"
    assert of_training("cuda", "bf16", 1) == "none (it is for the CPU, not cuda)"
    monkeypatch.setattr(Code, "why_not", lambda code: None)
    assert of_training("cpu", "bf16", 1) == "kernels, attention, tiles"
    assert of_training("cpu", "bf16", 4).startswith("kernels, attention (without tiles: a part of a step has 4 threads")
    monkeypatch.setattr(Code, "why_not", lambda code: "no C++ compiler (c++)")
    assert of_training("cpu", "bf16", 1) == "none (without kernels, attention, tiles: no C++ compiler (c++))"


def test_info_is_shown_and_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    assert {"versions", "extras", "plug-ins", "hardware", "native code"} <= set(shown.splitlines())
    assert f"  torch             {torch.__version__}" in shown
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == info() and found["native code"].keys() == {"kernels", "attention", "tiles", "search"}
    assert found["versions"]["sourcewise"] == importlib.metadata.version("sourcewise")


def test_a_run_says_which_native_code_it_uses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = sourcewise.train(recipe(tmp_path, train__steps=2, train__precision="bf16"))
    said = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("training "))
    noted = run.metrics()[0]["native code"]
    assert said.endswith(f"; native code: {noted}") and noted != "none"
    assert noted in html.unescape((run.folder / "report.html").read_text())


def test_a_run_that_goes_on_elsewhere_says_so(tmp_path: Path) -> None:
    run = sourcewise.train(recipe(tmp_path, train__steps=4, train__evaluate_every=4))
    lines = run.metrics()
    lines[0]["device"] = "cuda (a GPU), 16 threads"
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.warns(
        Notice, match=r"resumed elsewhere than it began: device cpu \(.*\), .* instead of cuda \(a GPU\), 16"
    ):
        sourcewise.train(run.folder, {"train.steps": 6}, resume=True)
