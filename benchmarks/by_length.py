"""BLEU by source length, of several runs on one test set: what one fixed vector costs on long sentences.

    python benchmarks/by_length.py RUN RUN… [--data FOLDER] [--picture FILE.png] [--json FILE]

RUNs are finished, of recipes with the same test set of pairs. Read are their `translations.tsv` (outputs of the test
set) and `metrics.json`; sources come from the set that their recipes name. Lengths are words of the source, split at
spaces; each step holds about as many examples. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import sacrebleu

from sourcewise.config.files import load_recipe
from sourcewise.data.open import open_sets
from sourcewise.errors import RequestError
from sourcewise.model.weights.checkpoint import find_folder, load_network

STEPS = 6
COLOURS = ("#8e4f86", "#d55e00", "#0072b2", "#009e73", "#2b2b2b")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders with a test set")
    parser.add_argument("--data", help="data.root, where it is not as the recipes say")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw BLEU over length there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    arguments = parser.parse_args()
    lengths = np.array([len(source.split()) for source in sources(arguments.runs[0], arguments.data)])
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, STEPS + 1)).round().astype(int))
    steps = [(lo if i == 0 else lo + 1, hi) for i, (lo, hi) in enumerate(itertools.pairwise(edges.tolist()))]
    rows = [figures(run, lengths, steps) for run in arguments.runs]
    report = {"steps": steps, "mean_length": mean_lengths(lengths, steps), "runs": rows}
    print(table(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    if arguments.picture:
        draw(report, arguments.picture)


def sources(run: Path, root: str | None) -> list[str]:
    """The source texts of a run's test set."""
    recipe = load_recipe(run / "recipe.yaml", {} if root is None else {"data.root": root})
    return [example.source for example in open_sets(recipe.data, "test")[0]]


def figures(run: Path, lengths: np.ndarray, steps: list[tuple[int, int]]) -> dict[str, Any]:
    """BLEU in each step of length, and what the run's own evaluation says."""
    lines = [line.split("\t") for line in (run / "translations.tsv").read_text(encoding="utf-8").splitlines()]
    at = {name: lines[0].index(name) for name in ("reference", "output")}
    if len(lines) - 1 != len(lengths):
        raise RequestError(f"{run}/translations.tsv has {len(lines) - 1} outputs, the test set {len(lengths)} sources")
    metrics = json.loads((run / "metrics.json").read_text())
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    outputs, references = ([line[at[name]] for line in lines[1:]] for name in ("output", "reference"))

    def bleu(lo: int, hi: int) -> float:
        rows = np.flatnonzero((lengths >= lo) & (lengths <= hi))
        return float(sacrebleu.corpus_bleu([outputs[i] for i in rows], [[references[i] for i in rows]]).score)

    return {
        "run": run.name,
        "by_length": [bleu(lo, hi) for lo, hi in steps],
        "parameters": sum(p.numel() for p in load_network(find_folder(run)).parameters()),
        "minutes": max(line["seconds"] for line in history if line["kind"] == "train") / 60,
        **{key: metrics[key] for key in ("bleu", "wer", "source_bits", "source_bits_ci95", "examples")},
    }


def mean_lengths(lengths: np.ndarray, steps: list[tuple[int, int]]) -> list[float]:
    """The mean number of words in each step."""
    return [float(lengths[(lengths >= lo) & (lengths <= hi)].mean()) for lo, hi in steps]


def table(report: dict[str, Any]) -> str:
    """A row a run, in Markdown."""
    heads = ["run", "parameters", "minutes of steps", "BLEU", "source bits [95 %]"]
    heads += [f"{lo} to {hi} words" if lo < hi else f"{lo} words" for lo, hi in report["steps"]]
    lines = [heads, ["---"] * len(heads)]
    for row in report["runs"]:
        low, high = row["source_bits_ci95"]
        bits = f"{row['source_bits']:.2f} [{low:.2f}, {high:.2f}]"
        first = [row["run"], f"{row['parameters'] / 1e6:.1f} M", f"{row['minutes']:.0f}", f"{row['bleu']:.1f}", bits]
        lines.append([*first, *(f"{value:.1f}" for value in row["by_length"])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(report: dict[str, Any], path: Path) -> None:
    """BLEU over the source's length, a line a run, named at its end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for row, colour in zip(report["runs"], COLOURS, strict=False):
        axes.plot(report["mean_length"], row["by_length"], color=colour, marker="o", markersize=4, label=row["run"])
    axes.set_xlabel("words of the source (means of sixths of the test set)")
    axes.set_ylabel("BLEU")
    axes.set_ylim(bottom=0)
    axes.grid(True, color="#e3e3e3", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=160)


if __name__ == "__main__":
    main()
