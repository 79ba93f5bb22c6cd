"""Generation speed side by side: sourcewise, transformers and CTranslate2, same model, same sources, one run.

    python benchmarks/generate_speed.py --data FOLDER/multi30k --model small=RUN --model t5_small=RUN [--json FILE]

RUN is a trained run (or checkpoint) of ours; a shape that has none is trained first, for a few minutes, with the recipe
multi30k (`--train-steps`). Counted are output tokens a second, end of text included, over the whole test set sorted by
length, from text to text with one tokenizer; each peer is tried with several types and batch sizes and its fastest is
kept (median of three). BLEU stands beside every speed. Latency: one sentence at a time, the median of fifty.
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
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import sacrebleu
import tokenizers
import torch
from train_speed import SHAPES, bf16_peak

import sourcewise
from sourcewise.config.files import load_recipe
from sourcewise.data.open import open_sets
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.generation.engine.search import why_not
from sourcewise.model.families.transformer import Transformer
from sourcewise.model.network import Seq2Seq
from sourcewise.model.weights.checkpoint import find_folder, load_network, save_network

LONGEST = 100  # tokens an output may have
LONG = 20  # seconds after which once is enough
OURS = ("sourcewise fp32", "sourcewise bf16", "sourcewise int8")
PEERS = ("transformers", "CTranslate2")
PROBED = 5  # each way of a peer is tried on every fifth sentence; the two fastest are measured on all
Work = Callable[[list[str]], list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="folder with train.tsv and test.tsv (source, target)")
    parser.add_argument("--model", action="append", default=[], help="SHAPE=RUN, trained")
    parser.add_argument("--shape", action="append", choices=SHAPES, help="default: all")
    parser.add_argument("--train-steps", type=int, default=1500, help="steps for a shape without a model")
    parser.add_argument("--quick", action="store_true", help="a hundred sentences, once: a look, not a measurement")
    parser.add_argument("--json", type=Path, help="write rows, ratios and machine there")
    arguments = parser.parse_args()
    models = dict(word.split("=", 1) for word in arguments.model)
    report: dict[str, Any] = {"rows": [], "ratios": {"generate": {}}}
    for shape in arguments.shape or (list(models) if models else list(SHAPES)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            run = models.get(shape) or trained(shape, arguments.data, folder, arguments.train_steps)
            report["ratios"]["generate"][shape] = {}
            for beams in (1, 4):
                rows = measure(shape, find_folder(run), arguments.data, folder, beams, arguments.quick)
                report["rows"] += rows
                report["ratios"]["generate"][shape]["greedy" if beams == 1 else "beam4"] = compare(rows)
                for row in rows:
                    print(
                        f"{row['work']:24} {row['engine']:34} {row['tokens_per_s']:>8,.0f} tokens/s  "
                        f"BLEU {row['bleu']:5.2f}  one sentence {row['latency_ms']:6.1f} ms  "
                        f"{row['peak_mb']:>6,.0f} MB",
                        flush=True,
                    )
        print(shape, json.dumps(report["ratios"]["generate"][shape]))
    report["machine"] = {"cpu": platform.processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    report["machine"]["bf16_peak_gflops"] = bf16_peak() / 1e9
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def trained(shape: str, data: Path, folder: Path, steps: int) -> Path:
    """A run of this shape, trained for some steps."""
    work = load_recipe("multi30k", {"data.root": str(data.parent)})
    texts = [text for example in open_sets(work.data, "train")[0] for text in (example.source, example.target)]
    torch.manual_seed(0)
    save_network(Seq2Seq(Transformer(SHAPES[shape])), folder / "start", Tokenizer.train(texts, 8000))
    options = {"data.root": str(data.parent), "model.weights": str(folder / "start"), "output": str(folder)}
    options |= {"name": shape, "train.steps": steps, "train.evaluate_every": steps, "train.average": 0}
    sourcewise.train("multi30k", options)
    return folder / shape


def measure(shape: str, checkpoint: Path, data: Path, folder: Path, beams: int, quick: bool) -> list[dict[str, Any]]:
    """A row an engine, each in a process of its own: ours in three precisions, transformers and CTranslate2."""
    rows = []
    for engine in (*OURS, *PEERS):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            row = pool.submit(
                measure_one, engine, checkpoint, data, folder / f"converted{shape}", beams, quick
            ).result()
        rows.append({"work": f"generate {shape} {'greedy' if beams == 1 else 'beam 4'}", **row})
    return rows


def measure_one(engine: str, checkpoint: Path, data: Path, folder: Path, beams: int, quick: bool) -> dict[str, Any]:
    """The fastest way of one engine: tokens a second, BLEU, latency, peak memory, and what was tried."""
    pairs = [line.split("\t")[:2] for line in (data / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    pairs = pairs[:100] if quick else pairs
    tokenizer = Tokenizer.load(checkpoint)
    sources = [source for source, _ in pairs]
    tries: dict[str, Work]
    if engine == "transformers":
        tries = transformers_tries(checkpoint, tokenizer, beams, quick)
    elif engine == "CTranslate2":
        tries = ctranslate2_tries(checkpoint, tokenizer, folder, beams, quick)
    else:
        precision = engine.removeprefix("sourcewise ")
        if precision == "int8" and why_not(load_network(checkpoint), torch.device("cpu")):  # it stands for what it has
            precision = "bf16"
        tries = {"": ours(checkpoint, precision, beams)}
    speeds, outputs = {}, {}
    tries = fastest_two(tries, sources)
    for name, work in tries.items():
        work(sources[:64])  # warm-up
        taken = []
        for _ in range(1 if quick else 3):
            started = time.perf_counter()
            outputs[name] = work(sources)
            taken.append(time.perf_counter() - started)
            if taken[-1] > LONG:
                break
        tokens = sum(len(ids) for ids in tokenizer.encode_batch(outputs[name], 512))
        speeds[name] = tokens / statistics.median(taken)
    best = max(speeds, key=lambda name: speeds[name])
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (
        torch.get_num_threads() if "source" in engine else 0
    )
    return {
        "engine": f"{engine} {best}".strip(),
        "tokens_per_s": speeds[best],
        "bleu": sacrebleu.corpus_bleu(outputs[best], [[target for _, target in pairs]]).score,
        "latency_ms": latency({best: tries[best]} if len(tries) == 1 else tries, sources),
        "peak_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + children) / 1024,
        "tried": speeds,
    }


def fastest_two(tries: dict[str, Work], sources: list[str]) -> dict[str, Work]:
    """Of many ways those that look fastest."""
    if len(tries) <= 2:
        return tries

    def seconds(name: str) -> float:
        tries[name](sources[:64])
        started = time.perf_counter()
        tries[name](sources[::PROBED])
        return time.perf_counter() - started

    return {name: tries[name] for name in sorted(tries, key=seconds)[:2]}


def latency(tries: dict[str, Work], sources: list[str]) -> float:
    """Milliseconds for one sentence, the median of fifty, of whichever way is fastest."""

    def median(work: Work) -> float:
        taken = []
        for source in sources[:50]:
            started = time.perf_counter()
            work([source])
            taken.append(time.perf_counter() - started)
        return 1000 * statistics.median(taken)

    return min(median(work) for work in tries.values())


def ours(checkpoint: Path, precision: str, beams: int) -> Work:
    """Our searches, as `sourcewise generate` runs them."""
    model = sourcewise.load(checkpoint, device="cpu", precision=precision)
    return lambda sources: model.generate(sources, beams=beams, max_new_tokens=LONGEST)


def transformers_tries(checkpoint: Path, tokenizer: Tokenizer, beams: int, quick: bool) -> dict[str, Work]:
    """`generate` of transformers over batches sorted by length."""
    from transformers import T5ForConditionalGeneration
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()

    def way(precision: torch.dtype, size: int) -> Work:
        model = T5ForConditionalGeneration.from_pretrained(
            checkpoint, dtype=precision, attn_implementation="sdpa"
        ).eval()

        @torch.inference_mode()
        def work(texts: list[str]) -> list[str]:
            sources = tokenizer.encode_batch(texts, 512)
            order = sorted(range(len(sources)), key=lambda i: -len(sources[i]))
            out: list[list[int]] = [[] for _ in sources]
            for start in range(0, len(order), size):
                chosen = order[start : start + size]
                width = len(sources[chosen[0]])
                ids = torch.tensor([sources[i] + [0] * (width - len(sources[i])) for i in chosen])
                found = model.generate(
                    ids, attention_mask=(ids != 0).long(), num_beams=beams, max_new_tokens=LONGEST, do_sample=False
                )
                for i, row in zip(chosen, found.tolist(), strict=True):
                    out[i] = list(itertools.takewhile(lambda token: token != 1, row[1:]))
            return tokenizer.decode_batch(out)

        return work

    choices = [(torch.bfloat16, 64)] if quick else list(itertools.product((torch.float32, torch.bfloat16), (32, 128)))
    return {f"{str(p).removeprefix('torch.')}, batch {size}": way(p, size) for p, size in choices}


def ctranslate2_tries(checkpoint: Path, tokenizer: Tokenizer, folder: Path, beams: int, quick: bool) -> dict[str, Work]:
    """CTranslate2's own batching by length, cores inside a batch or a batch a core."""
    import ctranslate2

    if not folder.exists():
        ctranslate2.converters.TransformersConverter(str(checkpoint)).convert(str(folder))
    ids = tokenizers.Tokenizer.from_file(str(checkpoint / "tokenizer.json")).get_vocab()
    names = {i: name for name, i in ids.items()}
    threads = torch.get_num_threads()

    def way(kind: str, inter: int, size: int) -> Work:
        translator = ctranslate2.Translator(
            str(folder), compute_type=kind, inter_threads=inter, intra_threads=max(1, threads // inter)
        )

        def work(texts: list[str]) -> list[str]:
            found = translator.translate_batch(
                [[names[i] for i in source] for source in tokenizer.encode_batch(texts, 512)],
                beam_size=beams,
                max_batch_size=size,
                max_decoding_length=LONGEST,
            )
            return tokenizer.decode_batch([[ids[name] for name in f.hypotheses[0]] for f in found])

        return work

    kinds = sorted({"int8", "int8_bfloat16", "bfloat16", "float32"} & ctranslate2.get_supported_compute_types("cpu"))
    choices = [("int8", threads, 32)] if quick else list(itertools.product(kinds, sorted({1, threads}), (32, 128)))
    return {f"{kind}, {inter} at once, batch {size}": way(kind, inter, size) for kind, inter, size in choices}


def compare(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Our fastest over the others; BLEU against our own fp32."""
    exact, transformers, ctranslate2 = rows[0], rows[-2], rows[-1]
    mine = max(rows[: len(OURS)], key=lambda row: row["tokens_per_s"])
    return {
        "vs_transformers": round(mine["tokens_per_s"] / transformers["tokens_per_s"], 2),
        "vs_ctranslate2": round(mine["tokens_per_s"] / ctranslate2["tokens_per_s"], 2),
        "bleu_difference": round(mine["bleu"] - exact["bleu"], 2),
        "latency_vs_ctranslate2": round(mine["latency_ms"] / ctranslate2["latency_ms"], 2),
    }


if __name__ == "__main__":
    main()
