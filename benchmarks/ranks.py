"""What several processes cost: the same training by N processes of one thread, and by one process of N threads.

    python benchmarks/ranks.py [--ranks 2] [--shape small] [--steps 40] [--json FILE]

Both take the same steps of 32,768 tokens, cut into as many parts, on pairs of random words, one after the other, twice
in turn. Told is the median of tokens per second over their log lines but the first ones, and its ratio. It is a figure
of one machine: nothing else may run there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SHAPES = {  # as in train_speed.py
    "small": {"d_model": 256, "d_ff": 1024, "heads": 4, "encoder_layers": 4, "decoder_layers": 4},
    "t5_small": {"d_model": 512, "d_ff": 2048, "heads": 8, "encoder_layers": 6, "decoder_layers": 6},
}
VOCABULARY = {"small": 8000, "t5_small": 32128}
WANTED = {"small": 0.8, "t5_small": 0.7}  # least ratio
TURNS, SKIPPED = 2, 2  # of each way · log lines at the beginning


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=32768, help="a step")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for shape in asked.shape or list(SHAPES):
            data = pairs(Path(folder) / f"{shape}.tsv", VOCABULARY[shape])
            speeds: dict[str, list[float]] = {"threads": [], "ranks": []}
            for turn in range(TURNS):
                for way in speeds:
                    speeds[way].append(speed(Path(folder), data, shape, way, turn, asked))
            medians = {way: statistics.median(each) for way, each in speeds.items()}
            ratio = medians["ranks"] / medians["threads"]
            found[shape] = {**medians, "ratio": ratio, "wanted": WANTED[shape], "of": speeds}
            words = f"{asked.ranks} threads {medians['threads']:,.0f} tokens/s, {asked.ranks} processes"
            print(f"{shape}: {words} {medians['ranks']:,.0f}: {ratio:.2f} of it (wanted {WANTED[shape]})", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def pairs(path: Path, vocabulary: int, count: int = 20_000) -> Path:
    """Pairs of random words, of 8 to 32."""
    rng = np.random.default_rng(0)
    rows = ["source\ttarget"]
    for _ in range(count):
        sides = (" ".join(f"w{i}" for i in rng.integers(0, vocabulary - 500, rng.integers(8, 32))) for _ in range(2))
        rows.append("\t".join(sides))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def speed(folder: Path, data: Path, shape: str, way: str, turn: int, asked: argparse.Namespace) -> float:
    """Tokens per second of a training."""
    options = {
        "name": f"{shape}-{way}-{turn}",
        "output": folder / "runs",
        "data.train.pairs": data,
        "data.vocabulary": VOCABULARY[shape],
        "data.unit": "words",
        **{f"model.{key}": value for key, value in SHAPES[shape].items()},
        "train.steps": asked.steps,
        "train.batch_tokens": asked.tokens,
        "train.parts": asked.ranks,
        "train.log_every": 2,
        "train.evaluate_every": asked.steps,
        "train.preflight": "false",
        "train.threads": asked.ranks if way == "threads" else 1,
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    words += ["--ranks", str(asked.ranks)] if way == "ranks" else []
    done = subprocess.run([sys.executable, "-m", "sourcewise", "train", *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    log = (folder / "runs" / str(options["name"]) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    lines = [line for line in map(json.loads, log) if line["kind"] == "train"]
    return statistics.median(line["tokens_per_s"] for line in lines[SKIPPED:])


if __name__ == "__main__":
    sys.exit(main())
