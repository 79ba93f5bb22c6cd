"""What the golden files hold, computed by the code as it is."""

from __future__ import annotations

import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file
from torch import Tensor

import sourcewise
from sourcewise.config import TrainConfig
from sourcewise.model.place import place
from sourcewise.model.protocol import shift_right
from sourcewise.model.weights.checkpoint import load_network, save_network
from sourcewise.training.objective import Objective
from sourcewise.training.run import Run
from tests.golden.inputs import BENCHMARKS, HERE, PRECISIONS, batch, recipe

NUMBER = re.compile(r"[-−+]?\b\d(?:[\d,.]*\d)?(?:e[-+]?\d+)?")
SCRATCH = re.compile(r"/\S*?planted-[^/\s]+/")  # the folder of a question
NO_REPORT = mock.patch("sourcewise.api.LiveReport", mock.MagicMock)  # drawing takes longer than the steps
CURVE = ("step", "loss", "gradient_norm", "learning_rate")


def machine() -> dict[str, Any]:
    """All that the last bits of a figure hang on; where it is as recorded, fp32 is compared to the bit."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return {
        "processor": next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), ""),
        "architecture": platform.machine(),
        "flags": sorted(flag for flag in flags if flag.startswith(("avx", "amx", "fma"))),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "data": {name: version(name) for name in ("numpy", "babel", "scikit-learn")},  # they draw and write it
        "threads": torch.get_num_threads(),
    }


def figures(family: str, precision: str, scratch: Path) -> dict[str, Tensor]:
    """`logits`, `nats` and `minimised` of the fixed batch, and `gradient.NAME` of each weight of the checkpoint.

    Names are those of the files that a run leaves, which other tools read: they outlive the names in the code.
    """
    network: Any = place(load_network(HERE / "models" / family), "cpu", PRECISIONS[precision])
    given = batch(family)
    with torch.inference_mode():
        tokens = shift_right(given.labels, network.start_id, network.pad_id)
        logits = network.decode(tokens, network.encode(given.source))
    network.train()
    minimised, nats = Objective(network, TrainConfig(label_smoothing=0.1))(given)
    minimised.backward()
    found = {"logits": logits, "nats": nats, "minimised": minimised}
    found |= {f"gradient.{name}": value for name, value in _gradients(network, scratch).items()}
    return {name: value.detach().to(PRECISIONS[precision]).contiguous().clone() for name, value in found.items()}


def _gradients(network: Any, scratch: Path) -> dict[str, Tensor]:
    """Saved as if they were the weights, so that they get the names and shapes of the files."""
    with torch.no_grad():
        for buffer in network.buffers():
            buffer.zero_()
        for parameter in network.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    save_network(network, scratch / "gradients")
    files = sorted((scratch / "gradients").glob("*.safetensors"))
    return {f"{file.stem}.{name}": value for file in files for name, value in load_file(file).items()}


def curve(family: str, output: Path) -> dict[str, Any]:
    """The course of a training of twenty steps, a figure a step, and its evaluation."""
    with NO_REPORT:
        return course(sourcewise.train(recipe(family, output)))


def continued(folder: Path) -> dict[str, Any]:
    """The course of a run of 60 steps as it goes on to 80."""
    with NO_REPORT:
        return course(sourcewise.train(folder, {"train.steps": 80}, resume=True), after=60)


def course(run: Run, after: int = 0) -> dict[str, Any]:
    """Of the steps after one: the figures of each, and the loss and source bits of the last evaluation."""
    lines = [line for line in run.metrics() if line["step"] > after]
    told: dict[str, Any] = {key: [line[key] for line in lines if line["kind"] == "train"] for key in CURVE}
    last = [line for line in lines if line["kind"] == "evaluation"][-1]
    return told | {"valid": {key: last[key] for key in ("loss", "loss_shuffled", "source_bits")}}


def diagnosis(kind: str, name: str, subject: str) -> dict[str, Any]:
    """What the doctor says of a question of the exam, numbers in its evidence left out."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from planted import exam
    finally:
        sys.path.remove(str(BENCHMARKS))
    row = exam.answer(exam.Question(kind, name, subject))  # type: ignore[arg-type]
    assert row["error"] is None and row["skipped"] is None, row["error"] or row["skipped"]
    found = [{key: f[key] for key in ("code", "level", "name")} | {"evidence": _plain(f)} for f in row["findings"]]
    grave = [f["code"] for f in found if f["level"] != "note"]
    ill = any(f["level"] == "error" for f in found)
    return {"question": [kind, name, subject], "cause": grave[0] if ill else None, "findings": found}


def codes(told: dict[str, Any]) -> dict[str, Any]:
    """Of `diagnose --json` the cause, and the codes and levels in their order."""
    return {"cause": told["cause"], "findings": [f"{f['code']} {f['level']}" for f in told["findings"]]}


def _plain(finding: dict[str, str]) -> str:
    return NUMBER.sub("#", SCRATCH.sub("FOLDER/", finding["evidence"]))
