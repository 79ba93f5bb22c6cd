"""How long the baselines of a set take: seconds for 100,000 training texts, and for features by the clip.

    python benchmarks/baselines_speed.py [--texts 100000] [--clips 5000] [--bound 30] [--json FILE]

The texts are made: sentences of words whose frequencies follow Zipf's law, as in any language. Exit status 1 where the
texts take longer than `--bound` seconds of one core.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from sourcewise.baselines.measure import Baselines, take
from sourcewise.data.examples import Dataset, Example
from sourcewise.metrics.measure import Measure

WORDS, ASKED = 30_000, 1000
LETTERS = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))


def sentences(count: int, vocabulary: list[str], rng: np.random.Generator) -> list[str]:
    weights = 1 / np.arange(2, len(vocabulary) + 2)
    drawn = rng.choice(len(vocabulary), (count, 16), p=weights / weights.sum())
    return [" ".join(vocabulary[i] for i in row[:n]) for row, n in zip(drawn, rng.integers(6, 17, count), strict=True)]


def of_texts(count: int, rng: np.random.Generator) -> Dataset:
    vocabularies = [["".join(rng.choice(LETTERS, rng.integers(2, 9))) for _ in range(WORDS)] for _ in range(2)]
    sources, targets = (sentences(count, each, np.random.default_rng(1)) for each in vocabularies)
    rows = [Example(str(i), t, s) for i, (s, t) in enumerate(zip(sources, targets, strict=True))]
    return Dataset(rows, f"{count:,} texts")


def of_clips(count: int, rng: np.random.Generator) -> Dataset:
    targets = sentences(count, [f"w{i}" for i in range(2000)], rng)
    frames = rng.integers(40, 200, count)

    def read(i: int) -> np.ndarray:
        return np.random.default_rng(i).standard_normal((int(frames[i]), 80), dtype=np.float32)

    rows = [Example(str(i), t, frames=int(n)) for i, (t, n) in enumerate(zip(targets, frames, strict=True))]
    return Dataset(rows, f"{count:,} clips", 80, read)


def timed(whole: Dataset) -> tuple[float, Baselines]:
    """Seconds of the processor, which do not depend on what else runs, and the baselines."""
    start = time.process_time()
    found = take(whole[:ASKED], [whole[ASKED:]], Measure("bleu"))
    assert found is not None
    found.against(found.references)
    return time.process_time() - start, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--clips", type=int, default=5000)
    parser.add_argument("--bound", type=float, default=30.0, help="most seconds for the texts")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for make, count in ((of_texts, arguments.texts), (of_clips, arguments.clips)):
        seconds, found = timed(make(count + ASKED, np.random.default_rng(0)))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rows.append({"taken_from": found.taken_from, "seconds": seconds, "gb": memory, "copied_by": found.copied_by})
        print(f"{found.taken_from}, {ASKED:,} references: {seconds:.1f} s, {memory:.1f} GB at most, {found.copied_by}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    if rows[0]["seconds"] > arguments.bound:
        print(f"more than {arguments.bound:g} s", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
