"""Healthy trainings in all hosts, in which nothing may be found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tests.diagnosis.instances import test_gradients_of_loops as gradients
from tests.diagnosis.instances import test_layout_of_trainers as layout
from tests.diagnosis.instances import test_rows_of_loops as rows_of
from tests.diagnosis.instances import test_steps_of_loops as steps_of
from tests.diagnosis.instances.instance import Instance
from tests.diagnosis.instances.kinds_of_loops import HOSTS, at_rate, data, mixed, overridden
from tests.diagnosis.instances.kinds_of_trainers import trained
from tests.diagnosis.instances.loops import Loop, adam, sgd
from tests.integrations import trainings
from tests.integrations.loops import PAD


def autocast(kind: torch.dtype) -> dict[str, Any]:
    def made(base: type[Loop]) -> Any:
        def logits(self: Loop, src: Tensor, read: Tensor) -> Tensor:
            with torch.autocast("cpu", kind):
                return base.logits(self, src, read).float()

        return logits

    return {"logits": made}


def clipped(self: Loop, loss: Tensor) -> None:
    for each in self.optimizers:
        each.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(self.parameters(), 1.0)
    for each in self.optimizers:
        each.step()


def smoothed(self: Loop, said: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(said.flatten(0, 1), labels.flatten(), ignore_index=PAD, label_smoothing=0.1)


def summed(self: Loop, said: Tensor, labels: Tensor) -> Tensor:
    flat = nn.functional.cross_entropy(said.flatten(0, 1), labels.flatten(), ignore_index=PAD, reduction="sum")
    return flat / len(said)


def noisy_references(src: Tensor, tgt: Tensor) -> tuple[Tensor, Tensor]:
    """One letter in ten is another."""
    draw = torch.Generator().manual_seed(int(src.sum()))
    wrong = (torch.rand(tgt.shape, generator=draw) < 0.1) & (tgt > 2)
    return src, torch.where(wrong, torch.randint(3, 16, tgt.shape, generator=draw), tgt)


HEALTHY: list[tuple[str, dict[str, Any], Any]] = [
    ("as it is", {}, adam),
    ("sgd", {}, sgd),
    ("bf16 autocast", autocast(torch.bfloat16), adam),
    ("fp16 autocast", autocast(torch.float16), adam),
    ("clipped", {"update": clipped}, adam),
    ("scaled, divided, clipped", {"update": steps_of.scaled(65536.0, 1.0, "divide clip")}, adam),
    ("label smoothing", {"loss": smoothed}, adam),
    ("summed over an example", {"loss": summed}, at_rate(1e-3)),
    ("accumulated", {"update": gradients.accumulated}, adam),
    ("noisy references", data(noisy_references), adam),
    ("small batches", data(lambda s, t: (s[:4], t[:4])), adam),
    ("weight decay", {}, lambda p: [torch.optim.AdamW(p, lr=3e-3, weight_decay=0.01)]),
]


def healthy() -> Iterator[Instance]:
    """Healthy trainings in all hosts."""
    for name, changes, optimizers in HEALTHY:
        for host, kind in HOSTS.items():
            if host == "accelerate" and "update" in changes:
                continue
            own = {key: value(kind) if key == "logits" else value for key, value in changes.items()}
            yield Instance("healthy", host, name, "", overridden(kind, own, optimizers, 45))
    for name, made in rows_of.APART.items():
        yield Instance("healthy", "gru", f"rows apart, {name}", "", mixed(made))
    for host, model in (("t5", trainings.t5), ("bart", trainings.bart)):
        given: dict[str, dict[str, Any]] = {
            "as it is": {},
            "bf16": {"bf16": True},
            "small batches": {"per_device_train_batch_size": 4},
            "generating": {"predict_with_generate": True},
        }
        for name, options in given.items():
            yield Instance("healthy", host, name, "", trained(model, steps=40, **options))
    yield Instance(
        "healthy",
        "bart",
        "left on both sides",
        "",
        trained(trainings.bart, None, layout.on_the_left, layout.on_the_left, steps=40),
    )
