"""Right before fast: our step on the device against Hugging Face's class, attention against fp64, no waits, resumed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from on_gpu.generation import ours
from on_gpu.machine import Device
from on_gpu.shapes import Load, Shape, batches, inputs
from on_gpu.training import Ours
from sourcewise.config import TrainConfig
from sourcewise.data.layout import Layout
from sourcewise.model.attention import BACKENDS
from sourcewise.training.parts import Part

STEPS = 5
LENGTH = 24  # tokens of an output
READS = ("_local_scalar_dense", "nonzero", "equal")  # operators whose result the host has to wait for


def against_transformers(shape: Shape, load: Load, folder: Path, on: Device, backend: str) -> dict[str, float]:
    """Relative differences of loss and of the norm of the gradient of one batch, in fp32 without dropout."""
    from transformers import T5ForConditionalGeneration

    batch = next(batches(shape, load))
    model = T5ForConditionalGeneration.from_pretrained(folder, attn_implementation=backend).to(on.device).eval()
    loss = model(**inputs(batch, on.device)).loss
    loss.backward()
    wanted = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    mine = Ours(folder, on.device, TrainConfig(precision="fp32", clip=0.0))
    mine.objective.eval()
    found, _ = mine.engine.gradients([[Part(lambda: batch, 1)]], batch.target_tokens, 1.0)
    norm = torch.nn.utils.get_total_norm([m.grad for m in mine.optimizer.masters if m.grad is not None])
    nats = sum(float(each) for parts in found for each in parts) / batch.target_tokens
    return {"loss": abs(nats / float(loss) - 1), "gradient_norm": abs(float(norm / wanted) - 1)}


def attention_error(on: Device, backend: str, dtype: torch.dtype) -> float:
    """The largest difference of a backend's result and of its gradients from fp64, in units of the largest value."""
    torch.manual_seed(3)
    batch, heads, time, width = 4, 6, 48, 32
    lengths = np.array([time, time - 7, time // 2, 3])
    given = [torch.randn(batch, heads, time, width, device=on.device) / (4 if i < 1 else 1) for i in range(3)]
    bias = torch.randn(1, heads, time, time, device=on.device)
    padding = torch.zeros(batch, 1, 1, time, device=on.device)
    for i, length in enumerate(lengths):
        padding[i, ..., length:] = -1e9
    layout = Layout(lengths, time)
    seen = torch.randn(batch, heads, time, width, device=on.device)

    def results(name: str, precision: torch.dtype) -> list[Tensor]:
        leaves = [each.to(precision).requires_grad_() for each in (*given, bias)]
        mask = leaves[3] + padding.to(leaves[3].dtype)
        if precision == torch.float64:
            scores = leaves[0] @ leaves[1].transpose(-1, -2) + mask
            read = torch.softmax(scores, -1) @ leaves[2]
        else:
            read = BACKENDS[name](*leaves[:3], layout, layout, mask, torch.nn.Dropout(0.0))
        return [read, *torch.autograd.grad((read * seen.to(read.dtype)).sum(), leaves)]

    pairs = zip(results(backend, dtype), results(backend, torch.float64), strict=True)
    return max(float((one.double() - exact).abs().max() / exact.abs().max()) for one, exact in pairs)


class _Reads(TorchDispatchMode):
    """Counts the operators within whose result the host reads; those of floats, since lengths and ids are its own."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, kinds: Any, given: Any = (), named: Any = None) -> Any:
        name = function.overloadpacket.__name__
        if name in READS and any(isinstance(each, Tensor) and each.is_floating_point() for each in given):
            self.found.append(name)
        return function(*given, **(named or {}))


@contextlib.contextmanager
def no_waits(on: Device) -> Iterator[list[str]]:
    """Within: the device's own guard where there is one, which raises; the list gets what is read on a CPU."""
    if on.device.type != "cuda":
        with _Reads() as reads:
            yield reads.found
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield []
    finally:
        torch.cuda.set_sync_debug_mode("default")


def waits(shape: Shape, load: Load, folder: Path, on: Device) -> list[str]:
    """What STEPS steps, after a first one, read from the device."""
    mine, made = Ours(folder, on.device, TrainConfig(precision="bf16", label_smoothing=0.1)), batches(shape, load)
    mine.step(next(made))
    later = [next(made) for _ in range(STEPS)]
    try:
        with no_waits(on) as found:
            for batch in later:
                mine.step(batch)
    except RuntimeError as error:
        return [str(error).splitlines()[0]]
    return found


def repeats(shape: Shape, load: Load, folder: Path, on: Device) -> float:
    """The largest difference of weights between two times the same steps, deterministic algorithms asked for."""

    def trained() -> dict[str, Tensor]:
        torch.manual_seed(1)
        mine, made = Ours(folder, on.device, TrainConfig(precision="bf16")), batches(shape, load)
        for _ in range(STEPS):
            mine.step(next(made))
        return mine.optimizer.weights()

    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        one, other = trained(), trained()
    finally:
        torch.use_deterministic_algorithms(False)
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


def unlike(shape: Shape, load: Load, folder: Path, on: Device) -> int:
    """Outputs that differ where steps of decoding are recorded, of a greedy search and one with 4 beams in fp32."""
    batch, different = next(batches(shape, load)), 0
    for beams in (1, 4):
        one, other = (
            ours(folder, on, torch.float32, beams, LENGTH, recorded=recorded)(batch) for recorded in (True, False)
        )
        different += sum(a != b for a, b in zip(one, other, strict=True))
    return different


def checks(shape: Shape, load: Load, folder: Path, on: Device) -> Iterator[dict[str, Any]]:
    """A row a check: its figure, its bound, and whether it holds."""
    each: list[tuple[str, Callable[[], float], float]] = []
    for backend in ("eager", "sdpa"):
        each.append((f"loss beside {backend}", lambda b=backend: _of(against, b, "loss"), 1e-5))
        each.append((f"gradient beside {backend}", lambda b=backend: _of(against, b, "gradient_norm"), 1e-4))
    for backend in BACKENDS:
        each.append((f"{backend} fp32", lambda b=backend: attention_error(on, b, torch.float32), 1e-4))
        each.append((f"{backend} bf16", lambda b=backend: attention_error(on, b, torch.bfloat16), 0.05))
    against: dict[str, dict[str, float]] = {}

    def _of(known: dict[str, dict[str, float]], backend: str, what: str) -> float:
        if backend not in known:
            known[backend] = against_transformers(shape, load, folder, on, backend)
        return known[backend][what]

    for name, figure, bound in each:
        value = figure()
        yield {"check": name, "figure": value, "bound": bound, "right": value <= bound}
    read = waits(shape, load, folder, on)
    yield {"check": f"reads in {STEPS} steps", "figure": len(read), "bound": 0, "right": not read, "found": read[:5]}
    different = unlike(shape, load, folder, on)
    yield {"check": "outputs that recording changes", "figure": different, "bound": 0, "right": not different}
    apart = repeats(shape, load, folder, on)
    yield {"check": "same steps twice", "figure": apart, "bound": 0.0, "right": apart == 0.0}
