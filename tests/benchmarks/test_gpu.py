"""All that is measured on a GPU, in small on a CPU, so that nothing in it is tried for the first time on one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from sourcewise.data.batches import IGNORED
from tests.commands import ENVIRONMENT

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def shapes() -> Iterator[ModuleType]:
    """The module `on_gpu.shapes`, as the script sees it."""
    sys.path.insert(0, str(BENCHMARKS))
    import on_gpu.shapes

    yield on_gpu.shapes
    sys.path.remove(str(BENCHMARKS))


@pytest.mark.slow
def test_every_part_runs_in_small(tmp_path: Path) -> None:
    words = ["--device", "cpu", "--tiny", "--minutes", "20", "--json", str(tmp_path / "report.json")]
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(report["correct"]) == 11 and all(row["right"] for row in report["correct"])
    engines = {(row["work"].split()[0], row["engine"]) for row in report["rows"]}
    assert len(engines) == 9
    assert [row["left_out"] for row in report["rows"] if "left_out" in row] == []
    assert all(row["tokens_per_s"] > 0 for row in report["rows"])
    assert {row["equal"] for row in report["rows"] if "equal" in row} == {1.0}
    assert sum(row["share"] for row in report["profile"]) > 0.5


def test_without_a_gpu_it_says_what_runs_here() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run([sys.executable, str(BENCHMARKS / "gpu.py")], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 1
    assert done.stderr == "no CUDA device here; --device cpu --tiny shows whether the script runs\n"


def test_batches_have_the_lengths_of_their_load(shapes: ModuleType) -> None:
    shape, load = shapes.TINY, shapes.Load(6, 20, 9, fixed=False)
    made = shapes.batches(shape, load)
    one, other = next(made), next(made)
    assert not torch.equal(one.source.tokens[:, :5], other.source.tokens[:, :5])
    for batch in (one, other):
        assert len(batch) == 6 and batch.source.lengths.min() >= 10 and batch.source.lengths.max() <= 20
        assert shapes.counted(batch) == int((batch.source.tokens > 0).sum() + (batch.labels != IGNORED).sum())


def test_the_work_of_a_step_is_six_flops_a_parameter_and_token_and_attention(shapes: ModuleType) -> None:
    """Short texts need no attention worth counting: 6 per weight and token (Kaplan et al. 2020)."""
    from transformers import T5ForConditionalGeneration

    shape, load = shapes.Shape(50, 64, 128, 2, 3, 32), shapes.Load(10, 2, 2)
    model = T5ForConditionalGeneration(shape.config())
    encoder, decoder = (sum(p.numel() for b in s.block for p in b.parameters()) for s in (model.encoder, model.decoder))
    cross = sum(p.numel() for b in model.decoder.block for p in (b.layer[1].EncDecAttention.k.weight,) * 2)
    head = model.lm_head.weight.numel()
    plain = 6 * 10 * (2 * encoder + 2 * (decoder - cross) + 2 * cross + 2 * head)
    assert plain == pytest.approx(shapes.flops(shape, load), rel=0.05)
