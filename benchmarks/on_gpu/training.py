"""Training steps: ours, and Hugging Face's as they come and at their best, on the same batches and weights."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from on_gpu.machine import COUNTED, Device
from on_gpu.shapes import Load, Shape, batches, counted, flops, inputs
from sourcewise.config import TrainConfig
from sourcewise.data.batches import Batch
from sourcewise.model import attention
from sourcewise.model.network import Seq2Seq
from sourcewise.model.weights.checkpoint import load_network
from sourcewise.training.objective import Objective
from sourcewise.training.optimizer import MasterAdamW
from sourcewise.training.parts import Part
from sourcewise.training.step import DeviceEngine

RATE = 1e-4
Step = Callable[[], int]  # takes a step; returns its tokens without padding


def written(shape: Shape, folder: Path) -> Path:
    """Random weights of this shape, written by Hugging Face's class, which both sides read."""
    from transformers import T5ForConditionalGeneration

    if not (folder / "config.json").exists():
        torch.manual_seed(0)
        T5ForConditionalGeneration(shape.config()).save_pretrained(folder)
    return folder


class Ours:
    """Our network, objective and optimizer as a training on an accelerator has them, also on a CPU."""

    def __init__(self, folder: Path, device: torch.device, config: TrainConfig, compiled: str | None = None) -> None:
        network = load_network(folder)
        assert isinstance(network, Seq2Seq)
        attention.choose(network.to(device), "sdpa")
        if compiled:
            for stack in network.stacks.values():
                for block in stack:
                    block.compile(backend=compiled)
        self.objective = Objective(network, config).to(device).train()
        precision = torch.bfloat16 if config.precision == "bf16" else torch.float32
        self.optimizer = MasterAdamW(self.objective, config, precision, network.parts())
        self.optimizer.lazy = True
        self.optimizer.lost = self.optimizer.lost.to(device)
        self.engine = DeviceEngine(self.objective, self.optimizer)
        self.device, self.steps = device, 0

    def step(self, batch: Batch) -> torch.Tensor:
        """A step; the gradient's norm stays on the device."""
        if self.device.type == "cuda":
            batch = batch.pinned()
        self.steps += 1
        self.engine.gradients([[Part(lambda: batch, self.steps)]], batch.target_tokens, 1.0)
        norm = self.optimizer.step(RATE)
        self.optimizer.zero_grad()
        return norm


def ours(shape: Shape, load: Load, folder: Path, on: Device, compiled: str | None = None) -> Step:
    """Our step in bf16 with fp32 masters."""
    mine = Ours(folder, on.device, TrainConfig(precision="bf16", clip=1.0), compiled)
    made = batches(shape, load)

    def step() -> int:
        batch = next(made)
        mine.step(batch)
        return counted(batch)

    return step


def theirs(shape: Shape, load: Load, folder: Path, on: Device, backend: str, compiled: str | None) -> Step:
    """A loop around Hugging Face's class at its best: autocast to bf16, fused AdamW, norm clipped on the device."""
    from transformers import T5ForConditionalGeneration

    model = T5ForConditionalGeneration.from_pretrained(folder, attn_implementation=backend).to(on.device).train()
    if compiled:
        model.compile(backend=compiled, dynamic=None if load.fixed else True)
    adamw = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)
    made = batches(shape, load)

    def step() -> int:
        batch = next(made)
        with torch.autocast(on.device.type, torch.bfloat16):
            loss = model(**inputs(batch, on.device)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        return counted(batch)

    return step


def trainer(shape: Shape, load: Load, folder: Path, on: Device, steps: int) -> list[tuple[int, float]]:
    """(tokens, seconds) of each step of Seq2SeqTrainer as it comes."""
    from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, T5ForConditionalGeneration, TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            on.wait()
            ends.append(time.perf_counter())

    made = batches(shape, load)
    given = [next(made) for _ in range(steps)]
    with tempfile.TemporaryDirectory() as name:
        options = Seq2SeqTrainingArguments(
            output_dir=name,
            per_device_train_batch_size=1,  # an item of the set is a whole batch
            max_steps=steps,
            use_cpu=not on.real,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        model = T5ForConditionalGeneration.from_pretrained(folder)
        host = torch.device("cpu")
        peer = Seq2SeqTrainer(
            model=model,
            args=options,
            train_dataset=[{"at": i} for i in range(steps)],
            data_collator=lambda items: inputs(given[items[0]["at"]], host),
            callbacks=[Clock()],
        )
        peer.remove_callback(PrinterCallback)
        peer.train()
    tokens = statistics.mean(map(counted, given))
    return [(int(tokens), after - before) for before, after in itertools.pairwise(ends)]


def speed(step: Step, on: Device, times: int) -> dict[str, float]:
    """Tokens a second, the median of COUNTED stretches of `times` steps, and the seconds of the first step."""
    first = on.seconds(step)
    on.seconds(step, 2)
    taken = []
    for _ in range(COUNTED):
        tokens: list[int] = []
        seconds = on.seconds(lambda kept=tokens: kept.append(step()), times)
        taken.append((sum(tokens) / (seconds * times), seconds))
    tokens_per_s, seconds = (statistics.median(column) for column in zip(*taken, strict=True))
    return {"tokens_per_s": tokens_per_s, "step_ms": 1000 * seconds, "first_s": first}


def ways(shape: Shape, load: Load, folder: Path, on: Device) -> Iterator[tuple[str, Callable[[], Step]]]:
    """The name of each engine, and what makes its step."""
    compiler = "inductor" if on.real else "aot_eager"
    yield "ours", lambda: ours(shape, load, folder, on)
    yield "ours, compiled blocks", lambda: ours(shape, load, folder, on, compiler)
    for backend in ("sdpa", "flex_attention") if on.real else ("sdpa",):
        yield f"transformers {backend}", partial(theirs, shape, load, folder, on, backend, None)
        yield f"transformers {backend}, compiled", partial(theirs, shape, load, folder, on, backend, compiler)


def rows(
    name: str, shape: Shape, load: Load, folder: Path, on: Device, peak: float, left: Callable[[], float]
) -> Iterator[dict[str, Any]]:
    """A row an engine; one that cannot run says why, and one that time ran out for says so."""
    times, of_step = (10 if on.real else 1), flops(shape, load)
    for engine, made in ways(shape, load, folder, on):
        row: dict[str, Any] = {"work": f"train {name}", "engine": engine}
        if left() <= 0:
            yield {**row, "left_out": "no time was left"}
            continue
        on.forget()
        try:
            step = made()
            row |= speed(step, on, times)
        except Exception as error:  # a peer that does not run here is told, and the others go on
            yield {**row, "left_out": f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"}
            continue
        finally:
            with contextlib.suppress(NameError):
                del step
        if load.fixed:
            row["of_peak"] = of_step / (row["step_ms"] / 1000) / 1e12 / peak
        yield {**row, "peak_gb": on.peak_gb()}
    if left() > 0:
        taken = trainer(shape, load, folder, on, 4 + times)[2:]
        seconds = statistics.median(seconds for _, seconds in taken)
        told = {"tokens_per_s": taken[0][0] / seconds, "step_ms": 1000 * seconds, "peak_gb": on.peak_gb()}
        yield {"work": f"train {name}", "engine": "Seq2SeqTrainer as it comes", **told}
