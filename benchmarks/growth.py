"""How time and memory grow with the source's length, with the batch and with the vocabulary, one picture each.

    python benchmarks/growth.py [--json FILE] [--pictures FOLDER] [--quick]

The shape is `small` of train_speed.py; sources are random tokens, targets 32 of them. Training is one batch, forward
and backward in bf16; generation is greedy, 32 tokens a source, in fp32. Each point has a process of its own; from its
peak memory that of one that does nothing is taken off. The exponents are those of the last step: 1 is linear, 2
quadratic, as attention is in the length.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from train_speed import SHAPES

from sourcewise.config import GenerationConfig
from sourcewise.data.batches import Batch, Source
from sourcewise.generation.generate import search
from sourcewise.model.families.transformer import Transformer
from sourcewise.model.network import Seq2Seq
from sourcewise.model.place import place

TARGET = 32  # tokens
REPEATS = 3


@dataclass(frozen=True)
class Point:
    """One size to measure."""

    length: int = 64
    batch: int = 16
    vocabulary: int = 8000


# What grows: its name on the axis, and the points.
GROWTHS = {
    "length": ("source tokens (batch of 4)", [Point(length=64 * 2**i, batch=4) for i in range(7)]),
    "batch": ("sources a batch (of 64 tokens)", [Point(batch=4**i) for i in range(6)]),
    "vocabulary": ("entries of the vocabulary (batch of 16)", [Point(vocabulary=1000 * 4**i) for i in range(5)]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write rows, exponents and machine there")
    parser.add_argument("--pictures", type=Path, help="write growth-*.png into this folder")
    parser.add_argument("--quick", action="store_true", help="only the smallest three of each: a look")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    ratios: dict[str, Any] = {}
    for what, (label, points) in GROWTHS.items():
        for work in ("train", "generate"):
            found = [measured(work, point) for point in (points[:3] if arguments.quick else points)]
            for point, (seconds, peak) in zip(points, found, strict=False):
                size = getattr(point, what)
                rows.append({"work": f"{work} by {what}", "size": size, "seconds": seconds, "peak_mb": peak})
                print(f"{work:8} {what:10} {size:>7,}  {seconds:8.3f} s  {peak:8,.0f} MB", flush=True)
            ratios[f"{work}.{what}"] = exponent(*[row for row in rows if row["work"] == f"{work} by {what}"][-2:], what)
        if arguments.pictures:
            draw(what, label, rows, arguments.pictures / f"growth-{what}.png")
    print(json.dumps(ratios))
    machine = {"cpu": platform.processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    if arguments.json:
        report = {"rows": rows, "ratios": {"exponent": ratios}, "machine": machine}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def measured(work: str, point: Point) -> tuple[float, float]:
    """Seconds, and peak MB above a process that makes the network and does nothing."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        idle = pool.submit(run, "nothing", point).result()[1]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        seconds, peak = pool.submit(run, work, point).result()
    return seconds, max(peak - idle, 1.0)


def run(work: str, point: Point) -> tuple[float, float]:
    """In a process of its own: median seconds, and peak MB."""
    torch.manual_seed(0)
    network = Seq2Seq(Transformer(replace(SHAPES["small"], vocabulary=point.vocabulary)))
    works: dict[str, Callable[[Seq2Seq, Point], None]] = {"train": train, "generate": generate}
    taken = []
    for _ in range(REPEATS if work in works else 0):
        started = time.perf_counter()
        works[work](network, point)
        taken.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return statistics.median(taken[1:]) if taken else 0.0, peak


def train(network: Seq2Seq, point: Point) -> None:
    """Forward and backward of one batch."""
    place(network, "cpu", torch.bfloat16).train()
    labels = torch.randint(3, point.vocabulary, (point.batch, TARGET))
    found = network(Batch(sources(point), labels, list(range(point.batch))))
    (found.minimised / found.tokens).backward()  # type: ignore[no-untyped-call]


@torch.inference_mode()
def generate(network: Seq2Seq, point: Point) -> None:
    """Greedy outputs of one batch."""
    network.eval()
    options = GenerationConfig(beams=1, max_new_tokens=TARGET, min_new_tokens=TARGET)
    search(network, [(list(range(point.batch)), network.encode(sources(point)))], options)


def sources(point: Point) -> Source:
    """Random tokens, none padded."""
    tokens = torch.randint(3, point.vocabulary, (point.batch, point.length))
    return Source(tokens, torch.full((point.batch,), point.length))


def exponent(before: dict[str, Any], after: dict[str, Any], what: str) -> dict[str, float]:
    """Of time and memory between the last two sizes."""
    step = math.log(after["size"] / before["size"])
    return {key: round(math.log(after[key] / before[key]) / step, 2) for key in ("seconds", "peak_mb")}


def draw(what: str, label: str, rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds and megabytes beside each other, both axes logarithmic, with lines of slope 1 and 2 to compare with."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2), ("seconds", "peak_mb"), strict=True):
        for work, colour in (("train", "#1f77b4"), ("generate", "#d95f02")):
            own = [row for row in rows if row["work"] == f"{work} by {what}"]
            sizes = [row["size"] for row in own]
            axes.loglog(sizes, [row[key] for row in own], "o-", color=colour, label=work)
            if work == "train":
                for slope, style in ((1, ":"), (2, "--")):
                    line = [own[-1][key] * (size / sizes[-1]) ** slope for size in sizes]
                    axes.loglog(sizes, line, style, color="0.6", linewidth=1, label=f"slope {slope}")
        axes.set(xlabel=label, ylabel={"seconds": "seconds", "peak_mb": "MB at the peak"}[key])
        axes.grid(alpha=0.3)
    figure.axes[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
