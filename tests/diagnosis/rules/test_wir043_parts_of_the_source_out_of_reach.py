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


class Frames(nn.Module):
    """Two convolutions of stride 2 over frames, and a decoder that reads what a mask by lengths leaves of them.

    `fault`: "" for none, lengths that are divided once too often, sources that are cut, or lengths of the targets.
    """

    def __init__(self, fault: str = "", recurrent: bool = False) -> None:
        super().__init__()
        self.fault = fault
        self.convolutions = nn.ModuleList([nn.Conv1d(5, WIDTH, 3, 2, 1), nn.Conv1d(WIDTH, WIDTH, 3, 2, 1)])
        self.rnn = nn.GRU(WIDTH, WIDTH // 2, batch_first=True, bidirectional=True) if recurrent else None
        self.target, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(64, WIDTH)
        layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 64, 0.0, batch_first=True)
        self.decoder, self.out = nn.TransformerDecoder(layer, 1), nn.Linear(WIDTH, WORDS)

    def forward(self, frames: Tensor, lengths: Tensor, read: Tensor) -> Tensor:
        if self.fault == "cut":
            frames, lengths = frames[:, : frames.shape[1] // 3], lengths.clamp(max=frames.shape[1] // 3)
        x = frames.transpose(1, 2)
        for each in self.convolutions:
            x, lengths = each(x).relu(), (lengths + 1) // 2
        memory = x.transpose(1, 2)
        if self.rnn is not None:
            memory = self.rnn(memory)[0]
        if self.fault == "divided":
            lengths = (lengths + 1) // 2
        if self.fault == "target":
            lengths = torch.full_like(lengths, read.shape[1] // 2)
        memory = memory + self.places(torch.arange(memory.shape[1]))
        blank = torch.arange(memory.shape[1]) >= lengths[:, None]
        y = self.target(read) + self.places(torch.arange(read.shape[1]))
        future = torch.ones(read.shape[1], read.shape[1]).triu(1).bool()
        return self.out(self.decoder(y, memory, tgt_mask=future, memory_key_padding_mask=blank))


def padded(frames: list[Tensor], padding: str, width: int) -> Tensor:
    """(batch, width, dims), with zeros behind, the last frame again, noise, or zeros before all is normalised."""
    rows = []
    for each in frames:
        more = torch.zeros(width - len(each), each.shape[1])
        if padding == "last":
            more = each[-1:].expand_as(more)
        rows.append(torch.cat((each, more)))
    found = torch.stack(rows)
    return (
        (found - 0.3) / 1.1
        if padding == "normalised"
        else found + 1e-5 * torch.randn_like(found) * (padding == "noise")
    )


def of_frames(model: Any, padding: str = "zeros", fixed: bool = False) -> list[tuple[str, str]]:
    """WIR005 and WIR043, where found, and their levels; frames are as wide as the longest, or always the same."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    doctor = sourcewise.doctor(model, optimizer)
    for _ in range(12):
        lengths = torch.randint(16, 65, (16,))
        frames = padded([torch.randn(n, 5) for n in lengths], padding, 80 if fixed else int(lengths.max()))
        goal = torch.cat((torch.ones(16, 1).long(), torch.randint(3, WORDS, (16, 7)), torch.full((16, 1), 2)), 1)
        loss = F.cross_entropy(model(frames, lengths, goal[:, :-1]).transpose(1, 2), goal[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        doctor.step(loss, {"frames": frames, "lengths": lengths, "goal": goal})
    assert doctor._moves is not None and doctor._moves.dead is not None, "not looked at"  # type: ignore[attr-defined]
    return [(f.code, f.level) for f in doctor.diagnosis.findings if f.code in ("WIR005", "WIR043")]


@pytest.mark.parametrize("fault", ["divided", "cut", "target"])
def test_the_end_of_recordings_that_nothing_reads(fault: str) -> None:
    torch.manual_seed(1)
    found = dict(of_frames(Frames(fault)))  # where a mask hides more than half of the frames, WIR005 tells too
    assert found["WIR043"] == "error" and found.get("WIR005", "error") == "error"


def test_the_end_that_no_state_was_given() -> None:
    torch.manual_seed(1)
    assert of_frames(Frames("cut", recurrent=True)) == [("WIR043", "error")]


@pytest.mark.parametrize("padding", ["zeros", "last", "noise", "normalised"])
def test_padding_behind_recordings_is_not_their_end(padding: str) -> None:
    torch.manual_seed(1)
    assert of_frames(Frames(), padding) == []


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "last", "normalised"])
def test_recordings_in_a_width_that_is_always_the_same(padding: str, recurrent: bool) -> None:
    torch.manual_seed(1)
    assert of_frames(Frames(recurrent=recurrent), padding, fixed=True) == []


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
