"""Generation: ours and Hugging Face's `generate`, as it comes and with a static cache, same weights, same sources."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from on_gpu.machine import Device
from on_gpu.shapes import Load, Shape, batches, counted, inputs
from sourcewise.config import GenerationConfig
from sourcewise.data.batches import Batch
from sourcewise.generation.generate import search
from sourcewise.model import attention
from sourcewise.model.weights.checkpoint import load_network

Outputs = list[list[int]]
Work = Callable[[Batch], Outputs]


def ours(folder: Path, on: Device, precision: torch.dtype, beams: int, length: int, *, recorded: bool = True) -> Work:
    """Our search of one batch; `recorded`: its steps as one graph each, on a device that records."""
    network = load_network(folder).to(on.device, precision).eval()
    network.body.records = network.body.records and recorded
    attention.choose(network, "sdpa")
    options = GenerationConfig(beams=beams, max_new_tokens=length, min_new_tokens=length)

    @torch.inference_mode()
    def work(batch: Batch) -> Outputs:
        memory = network.encode(batch.source.to(on.device))
        found = search(network, [(list(range(len(batch))), memory)], options)
        return [list(found[i][0].ids)[:length] for i in range(len(batch))]

    return work


def theirs(folder: Path, on: Device, precision: torch.dtype, beams: int, length: int, static: bool) -> Work:
    """`generate` of transformers; a static cache is compiled by it on an accelerator."""
    from transformers import T5ForConditionalGeneration

    model = T5ForConditionalGeneration.from_pretrained(folder, dtype=precision, attn_implementation="sdpa")
    model = model.to(on.device).eval()
    cache = {"cache_implementation": "static"} if static else {}

    @torch.inference_mode()
    def work(batch: Batch) -> Outputs:
        given = {name: each for name, each in inputs(batch, on.device).items() if name != "labels"}
        sizes = {"num_beams": beams, "max_new_tokens": length, "min_new_tokens": length, "do_sample": False}
        return [row[1 : length + 1] for row in model.generate(**given, **sizes, **cache).tolist()]

    return work


def rows(
    shape: Shape, load: Load, folder: Path, on: Device, tiny: bool, left: Callable[[], float]
) -> Iterator[dict[str, Any]]:
    """A row an engine, a search and a number of sources; equal outputs are counted in fp32 against the first engine."""
    length, many = (6, 4) if tiny else (64, 256)
    for beams in (1, 4):
        engines: dict[str, Callable[[torch.dtype], Work]] = {
            "ours": lambda kind, b=beams: ours(folder, on, kind, b, length),
            "ours, not recorded": lambda kind, b=beams: ours(folder, on, kind, b, length, recorded=False),
            "transformers": lambda kind, b=beams: theirs(folder, on, kind, b, length, False),
            "transformers, static cache": lambda kind, b=beams: theirs(folder, on, kind, b, length, True),
        }
        exact: Outputs = []
        for engine, made in engines.items():
            for sources in (1, many):
                row: dict[str, Any] = {"work": f"generate beam {beams}, {sources} at once", "engine": engine}
                if left() <= 0:
                    yield {**row, "left_out": "no time was left"}
                    continue
                batch = next(batches(shape, Load(sources, load.source, load.target, load.fixed)))
                try:
                    if sources == many:
                        found = made(torch.float32)(batch)
                        exact = exact or found
                        row["equal"] = statistics.mean(a == b for a, b in zip(exact, found, strict=True))
                    work = made(torch.bfloat16)
                    work(batch)
                    seconds = on.seconds(lambda w=work, b=batch: w(b), 3 if on.real else 1)
                except Exception as error:  # a peer that does not run here is told, and the others go on
                    yield {**row, "left_out": f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"}
                    continue
                yield {**row, "tokens_per_s": sources * length / seconds, "source_tokens": counted(batch)}
