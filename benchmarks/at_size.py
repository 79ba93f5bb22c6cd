"""Sets at size: seconds to the first step, again with what is kept, peak memory, and the share of reading in a step.

    python benchmarks/at_size.py --pairs 5000000                 # one made .tsv, first and second time
    python benchmarks/at_size.py --pairs 20000000 --stream       # Parquet, streamed
    options: --folder FOLDER  --steps 50  --shape small|tiny  --json FILE

Seconds of processors are those until the first step ended: of the process, and of those that it started. On two cores
with nothing else to do, the first step comes after those of the process and half of the others.

The pairs are made: words drawn by Zipf's law, the target has them in the other order. Memory is that of the process and
of those it starts, sampled four times a second; pages of files are not counted, since the system takes them back.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = {  # small is that of docs/performance.md
    "tiny": {"d_model": 32, "d_ff": 64, "heads": 2, "encoder_layers": 1, "decoder_layers": 1},
    "small": {"d_model": 256, "d_kv": 64, "d_ff": 1024, "heads": 4, "encoder_layers": 4, "decoder_layers": 4},
}
WORDS, BLOCK = 50_000, 50_000
DISTINCT = 20  # blocks of a Parquet file, which come again and again: a stream keeps none of them


def main() -> None:
    """Measure each training in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--stream", action="store_true", help="from Parquet, streamed")
    parser.add_argument("--folder", type=Path, default=Path("at_size"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(trained(options)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    made(options.folder / "valid.tsv", 200, seed=1)
    path = options.folder / f"{options.pairs}.{'parquet' if options.stream else 'tsv'}"
    if not path.exists():
        made(path, options.pairs)
    print(f"{options.pairs:,} pairs, {path.stat().st_size / 1e6:,.0f} MB; load {os.getloadavg()[0]:.1f}", flush=True)
    found = {}
    for name in ("streamed",) if options.stream else ("first", "again"):
        words = [sys.executable, __file__, *sys.argv[1:], "--one", name]
        started = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        peak = watched(started.pid)
        said, _ = started.communicate()
        found[name] = json.loads(said.splitlines()[-1]) | {"peak_mb": round(peak(), 0), "load": os.getloadavg()[0]}
        print(name, json.dumps(found[name]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def trained(options: argparse.Namespace) -> dict[str, Any]:
    """Train so many steps; seconds from the start of the process."""
    import sourcewise
    from sourcewise.config import Recipe
    from sourcewise.training.plan import Plan

    seconds, first = {"reading": 0.0}, list[float]()
    timed(Plan, "batch", seconds)
    timed(Plan, "batches", seconds)
    tree: dict[str, Any] = {
        "name": options.one,
        "output": str(options.folder / "runs"),
        "data": {
            "train": {"pairs": str(options.folder / f"{options.pairs}.{'parquet' if options.stream else 'tsv'}")},
            "valid": {"pairs": str(options.folder / "valid.tsv"), "limit": 20},
            "store": str(options.folder / "store"),
        },
        "model": SHAPES[options.shape],
        "train": {"steps": options.steps, "evaluate_every": options.steps, "log_every": 10},
    }
    tree["data"]["train"]["stream"] = options.stream
    watch = FirstStep(first, seconds)
    sourcewise.train(Recipe.model_validate(tree), overwrite=True, listeners=[watch])
    steps = watch.last - first[0]
    return {
        "first_step_s": round(first[0] - began(), 1),
        "processor_s": watch.processor,
        "step_s": round(steps / (options.steps - 1), 3),
        "reading_share": round((seconds["reading"] - watch.before) / steps, 4),
    }


class FirstStep:
    """A listener that notes when the first and the last step ended, and the seconds of processors until the first."""

    def __init__(self, first: list[float], seconds: dict[str, float]) -> None:
        self.first, self.seconds, self.last, self.before = first, seconds, 0.0, 0.0
        self.processor: dict[str, float] = {}

    def started(self, run: Any, step: int, total: int) -> None:
        """See Listener."""

    def stepped(self, step: int, line: Any) -> None:
        """See Listener."""
        self.last = time.time()
        if not self.first:
            self.first.append(self.last)
            self.before = self.seconds["reading"]
            used = {"own": resource.RUSAGE_SELF, "started": resource.RUSAGE_CHILDREN}
            spent = {name: resource.getrusage(whose) for name, whose in used.items()}
            self.processor = {name: round(each.ru_utime + each.ru_stime, 1) for name, each in spent.items()}

    def evaluated(self, line: Any) -> None:
        """See Listener."""

    def stopped(self, run: Any, finished: bool) -> None:
        """See Listener."""


def timed(owner: type, name: str, seconds: dict[str, float]) -> None:
    """Add the time of a method to the seconds of reading."""
    method = getattr(owner, name)

    def measured(*words: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return method(*words, **options)
        finally:
            seconds["reading"] += time.perf_counter() - start

    setattr(owner, name, measured)


def began() -> float:
    """When this process started."""
    ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    up = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - up + ticks / os.sysconf("SC_CLK_TCK")


def watched(root: int) -> Callable[[], float]:
    """A function that gives the peak memory in MB of a process and all that it started, once it has ended."""
    most = [0.0]

    def look() -> None:
        while (now := sum(anonymous(each) for each in family(root))) or Path(f"/proc/{root}").exists():
            most[0] = max(most[0], now / 1024)
            if not now:
                return
            time.sleep(0.25)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    return lambda: (thread.join(2), most[0])[1]


def family(root: int) -> Iterator[int]:
    """A process and its descendants."""
    yield root
    try:
        children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from family(int(child))


def anonymous(process: int) -> int:
    """Memory of a process in kB that is its own: forked processes share most of theirs, so each has its part of it."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))


def made(path: Path, count: int, seed: int = 0) -> None:
    """Write made pairs as .tsv or .parquet."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinsrhldcumfpgwybvkxäöüé"))
    spelling = np.random.default_rng(7)
    words = ["".join(spelling.choice(letters, spelling.integers(2, 10))) for _ in range(WORDS)]
    part = path.with_suffix(".part")
    sizes = [min(BLOCK, count - start) for start in range(0, count, BLOCK)]
    if path.suffix == ".tsv":
        with part.open("w", encoding="utf-8") as file:
            file.write("source\ttarget\n")
            for size in sizes:
                file.writelines(f"{source}\t{target}\n" for source, target in pairs(rng, words, size))
    else:
        import pyarrow
        import pyarrow.parquet

        schema = pyarrow.schema([("source", pyarrow.string()), ("target", pyarrow.string())])
        distinct = [pairs(rng, words, size) for size in sizes[:DISTINCT]]
        blocks = [pyarrow.table(list(map(list, zip(*some, strict=True))), schema=schema) for some in distinct]
        with pyarrow.parquet.ParquetWriter(part, schema) as file:
            for number, size in enumerate(sizes):
                file.write_table(blocks[number % len(blocks)].slice(0, size))
    part.replace(path)


def pairs(rng: np.random.Generator, words: list[str], count: int) -> list[tuple[str, str]]:
    """So many pairs of 4 to 15 words."""
    lengths = rng.integers(4, 16, count)
    ranks = np.minimum(rng.zipf(1.2, int(lengths.sum())), WORDS) - 1
    ends = np.cumsum(lengths)
    found = []
    for length, end in zip(lengths.tolist(), ends.tolist(), strict=True):
        said = [words[rank] for rank in ranks[end - length : end]]
        found.append((" ".join(said), " ".join(reversed(said))))
    return found


if __name__ == "__main__":
    main()
