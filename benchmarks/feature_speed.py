"""Features beside text and beside transformers: spoken digits trained and generated from, in one run.

    python benchmarks/feature_speed.py --data FOLDER [--train-steps 600] [--json FILE]

FOLDER holds fsdd/ and multi30k/. Training: frames and target tokens a second of the shape `small` on fsdd (four frames
a slot), beside source and target tokens a second of that shape on Multi30k, both without padding. Generation: a model
of the recipe fsdd, trained for some steps without positions in its decoder, so that transformers can run it from
`inputs_embeds`; our bridge makes these for it, in its precision and its time. Examples a second over the test set, word
error rate beside every speed.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jiwer
import torch
from train_speed import SHAPES, median_speed

import sourcewise
from sourcewise.api import prepare
from sourcewise.config.files import load_recipe
from sourcewise.data.encoding import ExampleSet
from sourcewise.data.open import open_sets
from sourcewise.generation.model import Model
from sourcewise.model.network import Seq2Seq
from sourcewise.model.weights.checkpoint import find_folder
from sourcewise.training.run import Run

LAYERS = ("encoder_layers", "decoder_layers")
STEPS, STRETCHES = 20, 3
REPEATS = 3
OURS = ("fp32", "bf16", "int8")
Work = Callable[[], list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="folder with fsdd/ and multi30k/")
    parser.add_argument("--model", type=Path, help="a trained run of fsdd with model.decoder_positions false")
    parser.add_argument("--train-steps", type=int, default=600, help="steps of the model where none is given")
    parser.add_argument("--json", type=Path, help="write rows, ratios and machine there")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        run = arguments.model or trained(arguments.data, Path(name), arguments.train_steps)
        jobs = [("train", kind, 0) for kind in ("multi30k", "fsdd")]
        jobs += [("generate", way, beams) for beams in (1, 4) for way in (*OURS, "transformers")]
        for job in jobs:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                rows.append(pool.submit(measure, job, run, arguments.data, Path(name)).result())
            print(json.dumps(rows[-1]), flush=True)
    ratios = compare(rows)
    print(json.dumps(ratios, indent=2))
    machine = {"cpu": platform.processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows, "ratios": ratios, "machine": machine}, indent=2) + "\n")


def trained(data: Path, folder: Path, steps: int) -> Path:
    """A run of the recipe fsdd that transformers' T5 can run too."""
    options = {"data.root": str(data), "output": str(folder), "name": "model", "train.steps": steps}
    options |= {"model.decoder_positions": False, "train.evaluate_every": steps}
    return sourcewise.train("fsdd", options).folder


def measure(job: tuple[str, str, int], run: Path, data: Path, folder: Path) -> dict[str, Any]:
    """One row, in a process of its own."""
    work, way, beams = job
    if work == "train":
        return {"work": f"train {way}", "units_per_s": training_speed(way, data, folder)}
    test = open_sets(load_recipe("fsdd", {"data.root": str(data)}).data, "test")[0]
    model = sourcewise.load(run, device="cpu", precision=way if way in OURS else "fp32")
    encoded = model.lay_out(test)
    ways = (
        transformers_ways(model, encoded, beams) if way not in OURS else {"": lambda: model.generate(test, beams=beams)}
    )
    speeds, outputs = {}, {}
    for name, generate in ways.items():
        generate()
        taken = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            outputs[name] = generate()
            taken.append(time.perf_counter() - started)
        speeds[name] = len(test) / statistics.median(taken)
    best = max(speeds, key=lambda name: speeds[name])
    wer = jiwer.wer([example.target for example in test], outputs[best])
    engine = f"sourcewise {way}" if way in OURS else f"transformers {best}"
    return {"work": f"generate beams {beams}", "engine": engine, "units_per_s": speeds[best], "wer": round(wer, 4)}


def training_speed(name: str, data: Path, folder: Path) -> float:
    """Units a second (frames or tokens, and target tokens) of the trainer's own steps with the shape `small`."""
    shape = SHAPES["small"]
    options: dict[str, Any] = {"data.root": str(data), "train.steps": 10_000, "train.batch_tokens": 8192}
    options |= {f"model.{key}": getattr(shape, key) for key in ("d_model", "d_ff", "heads", *LAYERS)}
    options |= {"train.batch_size": None, "train.ctc_weight": 0.0, "model.bridge.stride": 4}
    recipe = load_recipe(name, options)
    learner = prepare(recipe, Run(folder / name)).learner
    taken = []
    for batches in itertools.islice(learner.plan.steps(learner.at), STEPS * (1 + STRETCHES)):
        started, before = time.perf_counter(), learner.at.tokens
        learner.learn(batches)
        taken.append((learner.at.tokens - before, time.perf_counter() - started))
    return median_speed(taken, STEPS)


def transformers_ways(model: Model, encoded: ExampleSet, beams: int) -> dict[str, Work]:
    """`generate(inputs_embeds=…)` of transformers over batches sorted by length."""
    from transformers import T5ForConditionalGeneration
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    network = model.network
    assert isinstance(network, Seq2Seq)
    longest = model.generation.max_new_tokens
    order = sorted(range(len(encoded)), key=lambda i: -int(encoded.source_lengths[i]))

    def way(precision: torch.dtype, size: int) -> Work:
        theirs = T5ForConditionalGeneration.from_pretrained(
            find_folder(model.name), dtype=precision, attn_implementation="sdpa"
        ).eval()
        bridge = copy.deepcopy(network).to(dtype=precision)

        @torch.inference_mode()
        def work() -> list[str]:
            out: list[list[int]] = [[] for _ in order]
            for start in range(0, len(order), size):
                rows = order[start : start + size]
                vectors, mask = bridge.embed(encoded.source(rows))
                found = theirs.generate(
                    inputs_embeds=vectors,
                    attention_mask=mask.long(),
                    num_beams=beams,
                    max_new_tokens=longest,
                    do_sample=False,
                )
                for i, row in zip(rows, found.tolist(), strict=True):
                    out[i] = list(itertools.takewhile(lambda token: token != 1, row[1:]))
            return model.tokenizer.decode_batch(out)

        return work

    kinds = itertools.product((torch.float32, torch.bfloat16), (32, 128))
    return {f"{str(kind).removeprefix('torch.')}, batch {size}": way(kind, size) for kind, size in kinds}


def compare(rows: list[dict[str, Any]]) -> dict[str, float]:
    """A frame beside a token in training; our fastest generation beside transformers'."""
    speeds = {row["work"]: row["units_per_s"] for row in rows if row["work"].startswith("train")}
    ratios = {"train_frame_vs_token": round(speeds["train fsdd"] / speeds["train multi30k"], 2)}
    for beams, name in ((1, "greedy"), (4, "beam4")):
        of = [row for row in rows if row["work"] == f"generate beams {beams}"]
        mine = max(of[:-1], key=lambda row: row["units_per_s"])
        ratios[f"generate_{name}_vs_transformers"] = round(mine["units_per_s"] / of[-1]["units_per_s"], 2)
        ratios[f"generate_{name}_wer_difference"] = round(mine["wer"] - of[0]["wer"], 4)
    return ratios


if __name__ == "__main__":
    main()
