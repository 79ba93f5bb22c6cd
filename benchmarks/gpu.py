"""One run on a GPU that says all: is it right, how fast are training and generation, and beside whom.

    python benchmarks/gpu.py [--minutes 10] [--json FILE] [--only correct|train|generate|profile]
    python benchmarks/gpu.py --device cpu --tiny      # whether it runs, without a GPU

It fetches nothing: weights and batches are random. First comes whether a step is right (against Hugging Face's class in
fp32, attention against fp64, nothing read from the device, the same steps twice), then T5 v1.1 *small*, *base* and a
quarter of *XL* in bf16, 512 source and 114 target tokens, beside transformers with SDPA and FlexAttention, with and
without torch.compile, then generation, then a profile. A speed is the median of five stretches after a warm-up; the
share of the peak is matrix-product work over the bf16 product of 8192³ measured in the same run. A part that time runs
out for says so.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from on_gpu import correct, generation, training
from on_gpu.machine import Device, ceilings, described
from on_gpu.shapes import LOADS, SHAPES, TINY, TINY_LOADS, Load, Shape

PARTS = ("correct", "train", "generate", "profile")
SHARE = {"correct": 0.2, "train": 0.65, "generate": 0.9, "profile": 1.0}  # of the time, by when a part is over
KERNELS = 25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda (default), cuda:1, cpu")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes: a look at whether all of it runs")
    parser.add_argument("--minutes", type=float, default=10.0, help="in all; what does not fit is left out, and said")
    parser.add_argument("--only", action="append", choices=PARTS, help="may be repeated; default: all")
    parser.add_argument("--json", type=Path, help="write everything there, too")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device here; --device cpu --tiny shows whether the script runs")
    warnings.filterwarnings("ignore")
    report = run(Device(device), arguments.tiny, 60 * arguments.minutes, arguments.only or PARTS, arguments.json)
    sys.exit(any(not row["right"] for row in report["correct"]))


def run(on: Device, tiny: bool, seconds: float, parts: Any, to: Path | None) -> dict[str, Any]:
    """All parts in order; the report is written after each, so that what was measured stays if the rest dies."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    started = time.monotonic()
    report: dict[str, Any] = {**described(on), **ceilings(on, tiny), "correct": [], "rows": [], "profile": []}
    print(json.dumps({key: value for key, value in report.items() if value != []}), flush=True)
    with tempfile.TemporaryDirectory() as name:
        for part in parts:

            def left(part: str = part) -> float:
                return started + seconds * SHARE[part] - time.monotonic()

            kept = report["correct" if part == "correct" else "profile" if part == "profile" else "rows"]
            for row in _part(part, on, tiny, Path(name), report["bf16_tflops"], left):
                kept.append(row)
                print(shown(row), flush=True)
                if to:
                    to.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def _part(part: str, on: Device, tiny: bool, folder: Path, peak: float, left: Any) -> Iterator[dict[str, Any]]:
    """The rows of one part."""
    if part == "correct":
        # In fp32 and small: what is compared is the formula, not the speed.
        shape, load = (TINY if tiny else SHAPES["small"]), Load(8, 64, 32, fixed=False)
        yield from correct.checks(shape, load, training.written(shape, folder / "small"), on)
    elif part == "train":
        for name in ("base", "small", "a quarter of XL"):
            shape, load = _of(name, tiny)
            yield from training.rows(name, shape, load, training.written(shape, folder / name), on, peak, left)
    elif part == "generate":
        shape, load = _of("base", tiny)
        yield from generation.rows(shape, load, training.written(shape, folder / "base"), on, tiny, left)
    else:
        shape, load = _of("base", tiny)
        yield from profiled(shape, load, training.written(shape, folder / "base"), on)


def _of(name: str, tiny: bool) -> tuple[Shape, Load]:
    return (TINY, TINY_LOADS[name]) if tiny else (SHAPES[name], LOADS[name])


def profiled(shape: Shape, load: Load, folder: Path, on: Device) -> Iterator[dict[str, Any]]:
    """Where three of our steps spend the device's time, the longest kernels first."""
    from torch.profiler import ProfilerActivity, profile

    step = training.ours(shape, load, folder, on)
    step()
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on.device.type == "cuda" else [])]
    with profile(activities=kinds) as found:
        for _ in range(3):
            step()
        on.wait()
    own = "self_device_time_total" if on.device.type == "cuda" else "self_cpu_time_total"
    events = sorted(found.key_averages(), key=lambda event: -getattr(event, own))
    total = sum(getattr(event, own) for event in events) or 1.0
    for event in events[:KERNELS]:
        spent = getattr(event, own)
        yield {"kernel": event.key[:70], "ms": spent / 1000, "share": spent / total, "calls": event.count}


def shown(row: dict[str, Any]) -> str:
    """A row in a line."""
    words = []
    for key, value in row.items():
        words.append(f"{key} {value:,.4g}" if isinstance(value, float) else str(value) if key != "found" else "")
    return "  ".join(word for word in words if word and word != "None")


if __name__ == "__main__":
    main()
