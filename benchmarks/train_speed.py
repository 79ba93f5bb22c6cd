"""Training speed side by side: sourcewise and Hugging Face's Seq2SeqTrainer, same pairs, same shape, one run.

    python benchmarks/train_speed.py --data FOLDER/multi30k [--shape small] [--quick] [--json FILE]

Counted are source and target tokens without padding, a second, over whole optimizer steps (loading, forward, backward,
AdamW), after a warm-up; the median of several stretches. `matmul_share` is the matrix-product work of those tokens over
the peak of a bf16 product measured in the same process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import platform
import resource
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sourcewise.config import Recipe
from sourcewise.data.encoding import Encoded, ExampleSet
from sourcewise.data.open import open_sets
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.model.families.transformer import Transformer, TransformerConfig
from sourcewise.model.network import Seq2Seq
from sourcewise.model.place import place
from sourcewise.model.weights.checkpoint import load_network, save_network
from sourcewise.training.learner import Learner
from sourcewise.training.setup import TrainingSetup

SHAPES = {
    "small": TransformerConfig(8000, d_model=256, d_kv=64, d_ff=1024, heads=4, encoder_layers=4, decoder_layers=4),
    "t5_small": TransformerConfig(32128, d_model=512, d_kv=64, d_ff=2048, heads=8, encoder_layers=6, decoder_layers=6),
}


BATCH_TOKENS, PEER_BATCHES = (8192, 16384, 32768), (64, 128, 256)  # padding included; examples


@dataclass(frozen=True)
class Way:
    """An engine with its batch: ours in tokens, the peer's in examples, and whether the peer is set for speed."""

    engine: str
    batch_tokens: int = BATCH_TOKENS[0]
    peer_batch: int | None = None
    best: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="folder with train.tsv (source, target)")
    parser.add_argument("--shape", action="append", choices=SHAPES, help="default: all")
    parser.add_argument("--quick", action="store_true", help="few steps: a look, not a measurement")
    parser.add_argument("--json", type=Path, help="write rows, ratios and machine there")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    ratios: dict[str, Any] = {"train": {}}
    for shape in arguments.shape or list(SHAPES):
        found = measure(shape, arguments.data, arguments.quick)
        rows += found
        ratios["train"][shape] = compare(found, SHAPES[shape])
        for row in found:
            print(
                f"{shape:9} {row['engine']:40} {row['tokens_per_s']:>9,.0f} tokens/s  {row['peak_mb']:>6,.0f} MB",
                flush=True,
            )
        print(shape, json.dumps(ratios["train"][shape]))
    machine = {"cpu": platform.processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    report = {"rows": rows, "ratios": ratios, "machine": machine}
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def measure(shape: str, data: Path, quick: bool) -> list[dict[str, Any]]:
    """A row an engine, each in a process of its own and with several batch sizes, the fastest kept."""
    mine = [Way("sourcewise bf16", size) for size in BATCH_TOKENS[: 1 if quick else None]]
    default = [Way("Seq2SeqTrainer as it comes", peer_batch=64)]
    best = [
        Way("Seq2SeqTrainer at its best", peer_batch=size, best=True) for size in PEER_BATCHES[: 1 if quick else None]
    ]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for ways in (mine, default, best):
            found = []
            for way in ways:
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    found.append(pool.submit(measure_one, way, shape, data, Path(name), quick).result())
            rows.append(max(found, key=lambda row: row["tokens_per_s"]))
    return rows


def measure_one(way: Way, shape: str, data: Path, folder: Path, quick: bool) -> dict[str, Any]:
    """One engine's tokens a second and peak memory."""
    work = Recipe.model_validate(
        {
            "data": {"train": {"pairs": str(data / "train.tsv")}, "vocabulary": 8000},
            "train": {"batch_tokens": way.batch_tokens, "steps": 10_000},
        }
    )
    dataset = open_sets(work.data, "train")[0]
    if not (folder / "start").exists():  # the first engine leaves weights and tokenizer to the others
        tokenizer = Tokenizer.train([t for e in dataset for t in (e.source, e.target)], 8000)
        torch.manual_seed(0)
        save_network(Seq2Seq(Transformer(SHAPES[shape])), folder / "start", tokenizer)
    tokenizer = Tokenizer.load(folder / "start")
    encoded = Encoded(dataset, tokenizer, work.data)
    steps, stretches = (4, 1) if quick else ((20, 5) if shape == "small" else (8, 3))
    count = steps * (1 + stretches)
    if way.peer_batch is None:
        taken = ours(work, tokenizer, encoded, folder, count)
    else:
        taken = theirs(folder, encoded, way.best, way.peer_batch, count)
    return {
        "work": f"train {shape}",
        "engine": f"{way.engine}, batch {way.peer_batch or way.batch_tokens}",
        "tokens_per_s": median_speed(taken, steps),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "bf16_peak_gflops": bf16_peak() / 1e9,
    }


def median_speed(taken: list[tuple[int, float]], steps: int) -> float:
    """Tokens a second from (tokens, seconds) of each step: the median of stretches of `steps`, the first left out."""
    stretches = [taken[i : i + steps] for i in range(steps, len(taken), steps)]
    return statistics.median(sum(n for n, _ in part) / sum(s for _, s in part) for part in stretches)


def ours(work: Recipe, tokenizer: Tokenizer, encoded: ExampleSet, folder: Path, steps: int) -> list[tuple[int, float]]:
    """(tokens, seconds) of the trainer's own steps."""
    network = place(load_network(folder / "start"), "cpu")
    assert isinstance(network, Seq2Seq)
    learner = Learner(TrainingSetup(work, tokenizer, network, encoded))
    taken = []
    for batches in itertools.islice(learner.plan.steps(learner.at), steps):
        started, before = time.perf_counter(), learner.at.tokens
        learner.learn(batches)
        taken.append((learner.at.tokens - before, time.perf_counter() - started))
    return taken


def theirs(folder: Path, encoded: ExampleSet, best: bool, size: int, steps: int) -> list[tuple[int, float]]:
    """(tokens, seconds) of Seq2SeqTrainer's steps from the same weights on the same examples."""
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, T5ForConditionalGeneration, TrainerCallback
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokens: list[int] = []
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    def collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = encoded.batch([e["index"] for e in examples])
        assert batch.source.tokens is not None and batch.source.token_lengths is not None
        tokens.append(int(batch.source.token_lengths.sum()) + batch.target_tokens)
        mask = batch.source.token_mask.long()
        return {"input_ids": batch.source.tokens, "attention_mask": mask, "labels": batch.labels}

    attention = {"attn_implementation": "sdpa"} if best else {}
    model = T5ForConditionalGeneration.from_pretrained(folder / "start", **attention)
    options = {"bf16": True, "train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused"} if best else {}
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=size,
        max_steps=steps,
        learning_rate=1e-3,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        **options,
    )
    lengths = encoded.source_lengths
    examples = [{"index": i, "input_ids": range(int(lengths[i]))} for i in range(len(encoded))]
    Seq2SeqTrainer(
        model=model, args=arguments, train_dataset=examples, data_collator=collate, callbacks=[Clock()]
    ).train()
    return list(zip(tokens, (b - a for a, b in itertools.pairwise(ends)), strict=False))


def compare(rows: list[dict[str, Any]], shape: TransformerConfig) -> dict[str, float]:
    """Ours over the others, and the share of the peak that our matrix products reach."""
    mine, default, best = (row["tokens_per_s"] for row in rows)
    peak = rows[0]["bf16_peak_gflops"] * 1e9
    return {
        "vs_trainer_default": round(mine / default, 2),
        "vs_trainer_best": round(mine / best, 2),
        "matmul_share": round(mine * flops_a_token(shape) / peak, 3),
    }


def flops_a_token(c: TransformerConfig) -> float:
    """Matrix-product FLOPs of training one token, averaged over as many source as target tokens.

    Attention's own products are counted for the 16 tokens that a caption has on average, 1 % of all.
    """
    inner = c.heads * c.d_kv
    feedforward, attention = 2 * c.d_model * c.d_ff, 2 * 16 * inner
    encoder = c.encoder_layers * (4 * c.d_model * inner + feedforward + attention)
    cross_keys = c.decoder_layers * 2 * c.d_model * inner  # a source token
    decoder = c.decoder_layers * (6 * c.d_model * inner + feedforward + 2 * attention)  # a target token
    return 6 * (encoder + cross_keys + decoder + c.d_model * c.vocabulary) / 2


def bf16_peak() -> float:
    """FLOP/s of the best of several bf16 products of 2048 x 2048 x 2048."""
    a, b = (torch.randn(2048, 2048).bfloat16() for _ in range(2))
    best = float("inf")
    for _ in range(12):
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
    return 2 * 2048**3 / best


if __name__ == "__main__":
    main()
