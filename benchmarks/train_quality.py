"""Whether speed is bought with quality: the loss after some steps in bf16 on all cores, beside fp32.

    python benchmarks/train_quality.py --data FOLDER/multi30k [--steps 300] [--seeds 3] [--json FILE]

The recipe multi30k with the shape `small`, each seed (weights, order, dropout) once in each precision. Measured is the
validation loss, nats a target token, by teacher forcing in fp32. Noise is what the seed changes: the standard
deviation over seeds in fp32. The difference of a seed's two losses is set against it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from sourcewise.api import prepare
from sourcewise.config.files import load_recipe
from sourcewise.data.batches import Budget, sorted_batches
from sourcewise.training.run import Run
from sourcewise.training.setup import TrainingSetup

PRECISIONS = ("fp32", "bf16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="folder with train.tsv and valid.tsv (source, target)")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the losses there")
    arguments = parser.parse_args()
    losses: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for seed in range(arguments.seeds):
        for precision in PRECISIONS:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                losses[precision].append(
                    pool.submit(loss_after, arguments.steps, precision, seed, arguments.data).result()
                )
            print(f"seed {seed}  {precision}  {losses[precision][-1]:.4f} nats a token", flush=True)
    report = summary(losses)
    print(json.dumps(report, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps({"losses": losses, **report}, indent=2) + "\n")


def loss_after(steps: int, precision: str, seed: int, data: Path) -> float:
    """The validation loss of the recipe multi30k after some steps."""
    options: dict[str, Any] = {"data.root": str(data.parent), "train.steps": steps, "train.precision": precision}
    recipe = load_recipe("multi30k", {**options, "seed": seed, "train.average": 0, "train.evaluate_every": 10**6})
    with tempfile.TemporaryDirectory() as name:
        training = prepare(recipe, Run(Path(name)))
        learner = training.learner
        for batches in learner.plan.steps(learner.at):
            learner.learn(batches)
        with learner.optimizer.in_full(), torch.inference_mode():
            return validation_loss(training.setup)


def validation_loss(setup: TrainingSetup) -> float:
    """Nats a target token over all validation examples, in fp32."""
    assert setup.valid is not None
    network, valid = setup.network.eval().float(), setup.valid
    nats, tokens = 0.0, 0
    for rows in sorted_batches(valid.source_lengths, valid.target_lengths, Budget(8192)):
        found = network(valid.batch(rows))
        nats, tokens = nats + float(found.nats), tokens + found.tokens
    return nats / tokens


def summary(losses: dict[str, list[float]]) -> dict[str, float]:
    """Means, what the precision changes, and what the seed changes."""
    differences = [b - a for a, b in zip(losses["fp32"], losses["bf16"], strict=True)]
    return {
        "fp32": statistics.mean(losses["fp32"]),
        "bf16": statistics.mean(losses["bf16"]),
        "difference": statistics.mean(differences),
        "largest_difference": max(differences, key=abs),
        "noise": statistics.stdev(losses["fp32"]) if len(differences) > 1 else float("nan"),
    }


if __name__ == "__main__":
    main()
