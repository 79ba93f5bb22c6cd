"""WIR043: parts of the source out of reach, in loops whose attention mixes places and heads, or sees a window."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sourcewise

WIDTH, HEADS, WORDS, PAD = 32, 4, 20, 0


class Attention(nn.Module):
    """`kind`: healthy, heads cut off by view, or a window of two places on each side."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def split(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        if self.kind == "viewed":
            return x.reshape(batch, HEADS, time, WIDTH // HEADS)
        return x.view(batch, time, HEADS, WIDTH // HEADS).transpose(1, 2)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(memory)), self.split(self.v(memory))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if self.kind == "window":
            far = (torch.arange(q.shape[2])[:, None] - torch.arange(k.shape[2])[None]).abs() > 2
            scores = scores.masked_fill(far, -1e9)
        read = scores.softmax(-1) @ v
        if self.kind != "viewed":
            read = read.transpose(1, 2)
        return self.o(read.reshape(x.shape))


class Reads(nn.Module):
    """A decoder of one layer without self-attention, over embedded words or frames."""

    def __init__(self, kind: str, dims: int = 0) -> None:
        super().__init__()
        self.source = nn.Linear(dims, WIDTH) if dims else nn.Embedding(WORDS, WIDTH)
        self.target, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(64, WIDTH)
        self.gru, self.cross, self.out = (
            nn.GRU(WIDTH, WIDTH, batch_first=True),
            Attention(kind),
            nn.Linear(WIDTH, WORDS),
        )

    def forward(self, source: Tensor, read: Tensor) -> Tensor:
        memory = self.source(source) + self.places(torch.arange(source.shape[1]))
        x, _ = self.gru(self.target(read) + self.places(torch.arange(read.shape[1])))
        return self.out(x + self.cross(x, memory))


class Recurrent(nn.Module):
    """The last state of a GRU over the source is the first of the decoder's."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS)
        self.encoder, self.decoder = nn.GRU(WIDTH, WIDTH, batch_first=True), nn.GRU(WIDTH, WIDTH, batch_first=True)

    def forward(self, source: Tensor, read: Tensor) -> Tensor:
        return self.out(self.decoder(self.embed(read), self.encoder(self.embed(source))[1])[0])


def levels(model: Any, dims: int = 0, time: int = 7, steps: int = 12) -> list[str]:
    """WIR043's levels in a short training."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    doctor = sourcewise.doctor(model, optimizer)
    for _ in range(steps):
        ids = torch.randint(3, WORDS, (16, time))
        source = torch.randn(16, time, dims) if dims else ids
        goal = torch.cat((torch.ones(16, 1, dtype=torch.long), ids, torch.full((16, 1), 2)), 1)
        loss = F.cross_entropy(model(source, goal[:, :-1]).transpose(1, 2), goal[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        doctor.step(loss, {"source": source, "goal": goal})
    assert doctor._moves is not None and doctor._moves.unreached is not None, "not looked at"  # type: ignore[attr-defined]
    return [each.level for each in doctor.diagnosis.findings if each.code == "WIR043"]


@pytest.mark.parametrize("dims", [0, 5])
@pytest.mark.parametrize("kind", ["viewed", "window"])
def test_what_cannot_be_read_from_everywhere_is_an_error(kind: str, dims: int) -> None:
    torch.manual_seed(1)
    assert levels(Reads(kind, dims), dims) == ["error"]


@pytest.mark.parametrize("time", [3, 7, 40])
@pytest.mark.parametrize("dims", [0, 5])
def test_attention_to_all_places_reads_them(dims: int, time: int) -> None:
    torch.manual_seed(1)
    assert levels(Reads("healthy", dims), dims, time) == []


def test_a_state_that_runs_over_all_places_reads_them() -> None:
    torch.manual_seed(1)
    assert levels(Recurrent()) == []
