"""What several loops share: their texts, their steps, and greedy outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from others import tasks, tutorial
from others.tasks import BOS
from torch import Tensor, nn

Lang = tutorial.Lang


def langs_of(pairs: Sequence[tasks.Pair]) -> tuple[Lang, Lang]:
    return Lang(pairs, 0), Lang(pairs, 1)


def texts(seed: int, count: int = 2100, low: int = 2, high: int = 5) -> Any:
    """Training pairs, validation pairs, and the two vocabularies."""
    train, valid = tasks.split(tasks.numbers(count, seed, low, high))
    return train, valid, langs_of(train)


def fit(
    doctor: Any,
    optimizers: Iterable[Any],
    stream: Iterable[Any],
    loss_of: Callable[[Any], Tensor],
    after: Callable[[], Any] = lambda: None,
    clip: Any = None,
) -> list[float]:
    losses = []
    for batch in stream:
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = loss_of(batch)
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(clip, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        after()
        losses.append(loss.item())
        doctor.step(loss, batch)
    return losses


def turned(stream: Iterable[Any]) -> Iterable[Any]:
    """(time, batch), as torchtext gives it."""
    return ((source.t().contiguous(), target.t().contiguous()) for source, target in stream)


def greedy_first(model: Any, source: Tensor, steps: int, start: int = BOS) -> list[list[int]]:
    """(time, batch) in, rows of ids out."""
    model.eval()
    with torch.no_grad():
        read = torch.full((1, source.shape[1]), start)
        for _ in range(steps):
            read = torch.cat((read, model(source, read)[-1:].argmax(-1)))
    model.train()
    return tutorial.cut(read[1:].t())
