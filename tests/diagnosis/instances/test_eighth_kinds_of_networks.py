"""Kinds of which people tell, the eighth time, in networks of one's own: axes that are exchanged by a view, weights of
one sign, scores that are multiplied; two instances of each or more, and healthy neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.diagnosis.instances.loops import Gru, Loop, Transformer, found
from tests.diagnosis.instances.test_other_kinds_of_loops import first, trained
from tests.diagnosis.instances.test_seventh_kinds import evidence
from tests.integrations.loops import PAD, SIZE

WIDTH, HEADS = 32, 4
Cut = Callable[[Tensor], Tensor]


# ── heads ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def turned(x: Tensor) -> Tensor:
    return x.view(*x.shape[:2], HEADS, -1).transpose(1, 2)


def viewed(x: Tensor) -> Tensor:
    return x.view(len(x), HEADS, -1, WIDTH // HEADS)


def folded(x: Tensor) -> Tensor:
    """Heads beside rows, as for bmm."""
    return x.reshape(len(x) * HEADS, -1, WIDTH // HEADS).view(len(x), HEADS, -1, WIDTH // HEADS)


def joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).reshape(len(x), -1, WIDTH)


def viewed_back(x: Tensor) -> Tensor:
    return x.reshape(len(x), -1, WIDTH)


class Heads(nn.Module):
    """Attention with several heads, by hand."""

    def __init__(self, cut: Cut, join: Cut, scale: float = 0.0) -> None:
        super().__init__()
        self.cut, self.join, self.scale = cut, join, scale or (WIDTH // HEADS) ** -0.5
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.cut(self.q(x)), self.cut(self.k(memory)), self.cut(self.v(memory))
        weights = torch.softmax((q @ k.transpose(-1, -2) * self.scale).masked_fill(mask, -1e9), -1)
        return self.o(self.join(weights @ v))  # type: ignore[no-any-return]


class ByHand(nn.Module):
    """A GRU over the source, and a layer of a decoder; (batch, time)."""

    def __init__(self, *how: Any) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(SIZE, WIDTH), nn.Embedding(SIZE, WIDTH)
        self.encoder = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.decoder = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.cross, self.out = Heads(*how), nn.Linear(2 * WIDTH, SIZE)

    def forward(self, src: Tensor, read: Tensor) -> Tensor:
        memory, state = self.encoder(self.source(src))
        said, _ = self.decoder(self.target(read), state)
        context = self.cross(said, memory, (src == PAD)[:, None, None])
        return self.out(torch.cat((said, context), -1))  # type: ignore[no-any-return]


class Made(Loop):
    """A loop with a module that is given the source and the words before."""

    def __init__(self, module: Callable[[], nn.Module]) -> None:
        self.module = module
        super().__init__()

    def made(self) -> Any:
        return self.module()

    def logits(self, src: Tensor, read: Tensor) -> Tensor:
        return self.modules(src, read)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("cut", "join"), [(viewed, joined), (folded, joined), (turned, viewed_back)])
def test_heads_that_are_viewed(cut: Cut, join: Cut) -> None:
    doctor = trained(Made(lambda: ByHand(cut, join)), 14)
    assert first(doctor) == "WIR051" and " views (16, " in evidence(doctor, "WIR051")


def test_heads_that_are_turned() -> None:
    assert found(trained(Made(lambda: ByHand(turned, joined)), 14)) == []


# ── frames ────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Sounds(nn.Module):
    """Convolutions over frames and bands (batch, time, 8), a GRU, and a decoder."""

    def __init__(self, fold: Cut, more: Cut = lambda x: x) -> None:
        super().__init__()
        self.fold, self.more = fold, more
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.encoder = nn.GRU(32, WIDTH, batch_first=True)
        self.target, self.decoder = nn.Embedding(SIZE, WIDTH), nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.out = nn.Linear(2 * WIDTH, SIZE)

    def forward(self, frames: Tensor, read: Tensor) -> Tensor:
        memory, state = self.encoder(self.fold(F.relu(self.conv(self.more(frames)[:, None]))))
        said, _ = self.decoder(self.target(read), state)
        context = torch.softmax(said @ memory.transpose(1, 2) / 6, -1) @ memory
        return self.out(torch.cat((said, context), -1))  # type: ignore[no-any-return]


class Frames(Made):
    def batch(self, src: Tensor, tgt: Tensor) -> tuple[Tensor, Tensor]:
        table = torch.randn(SIZE, 8, generator=torch.Generator().manual_seed(1))
        table[PAD] = 0
        return table[src], tgt


def by_view(x: Tensor) -> Tensor:
    return x.view(len(x), x.shape[2], -1)


def by_turn(x: Tensor) -> Tensor:
    return x.permute(0, 2, 1, 3).flatten(2)


def channels_first(x: Tensor) -> Tensor:
    """(batch, time, dims) that is to be (batch, dims, time), and back."""
    return x.reshape(len(x), 8, -1).transpose(1, 2)


@pytest.mark.parametrize(("fold", "more"), [(by_view, lambda x: x), (by_turn, channels_first)])
def test_frames_that_are_viewed(fold: Cut, more: Cut) -> None:
    assert first(trained(Frames(lambda: Sounds(fold, more)), 14)) == "WIR051"


def stacked(x: Tensor) -> Tensor:
    """Two frames side by side, as a pyramid has them."""
    x = x[:, : x.shape[1] // 2 * 2]
    return x.reshape(len(x), -1, 2, 8).flatten(2).view(len(x), -1, 16)[..., :8]


@pytest.mark.parametrize("more", [lambda x: x, stacked])
def test_frames_that_are_turned_or_stacked(more: Cut) -> None:
    assert "WIR051" not in dict(found(trained(Frames(lambda: Sounds(by_turn, more)), 14)))


class Regions(Loop):
    """A convolution gives a map, and the loop makes places of it for the decoder."""

    right = False

    def made(self) -> Any:
        class Encoder(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(1, WIDTH, 3, padding=1)

            def forward(self, pictures: Tensor) -> Tensor:
                return F.relu(self.conv(pictures))

        class Decoder(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.target, self.gru = nn.Embedding(SIZE, WIDTH), nn.GRU(WIDTH, WIDTH, batch_first=True)
                self.out = nn.Linear(2 * WIDTH, SIZE)

            def forward(self, memory: Tensor, read: Tensor) -> Tensor:
                said, _ = self.gru(self.target(read), memory.mean(1)[None])
                context = torch.softmax(said @ memory.transpose(1, 2) / 6, -1) @ memory
                return self.out(torch.cat((said, context), -1))  # type: ignore[no-any-return]

        return Encoder(), Decoder()

    def batch(self, src: Tensor, tgt: Tensor) -> tuple[Tensor, Tensor]:
        table = torch.randn(SIZE, 7, generator=torch.Generator().manual_seed(1))
        return table[F.pad(src, (0, 7 - src.shape[1]))][:, None], tgt

    def logits(self, src: Tensor, read: Tensor) -> Tensor:
        made = self.modules[0](src)
        memory = made.flatten(2).transpose(1, 2) if self.right else made.view(len(src), -1, WIDTH)
        return self.modules[1](memory, read)  # type: ignore[no-any-return]


class RightRegions(Regions):
    right = True


def test_a_map_that_the_loop_views() -> None:
    doctor = trained(Regions(), 14)
    assert first(doctor) == "WIR051" and "is given it viewed as (16, 49, 32)" in evidence(doctor, "WIR051")
    healthy = trained(RightRegions(), 14)
    assert found(healthy) == []
    assert not [line for line in healthy.diagnosis.not_checked if "none of the batch's" in line]


# ── weights of one sign, scores that are multiplied ───────────────────────────────────────────────────────────────────


def drawn(kind: Any, draw: Callable[[Tensor], Any]) -> Loop:
    loop = kind()
    for parameter in loop.parameters():
        draw(parameter)
    return loop  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [Gru, Transformer])
@pytest.mark.parametrize("draw", [lambda p: nn.init.uniform_(p, 0, 0.2), lambda p: nn.init.constant_(p, 0.05)])
def test_weights_of_one_sign(kind: Any, draw: Callable[[Tensor], Any]) -> None:
    doctor = trained(drawn(kind, draw), 14)
    assert first(doctor) == "WIR034" and "root mean square" in evidence(doctor, "WIR034")


@pytest.mark.parametrize("kind", [Gru, Transformer])
def test_weights_around_zero(kind: Any) -> None:
    assert "WIR034" not in dict(found(trained(drawn(kind, lambda p: nn.init.uniform_(p, -0.2, 0.2)), 14)))


class Normed(ByHand):
    """States that are normalised before one head reads them, as in Transformers."""

    def __init__(self, scale: float) -> None:
        super().__init__(lambda x: x[:, None], lambda x: x[:, 0], scale)

    def forward(self, src: Tensor, read: Tensor) -> Tensor:
        memory, state = self.encoder(self.source(src))
        said, _ = self.decoder(self.target(read), state)
        said, memory = F.layer_norm(said, (WIDTH,)), F.layer_norm(memory, (WIDTH,))
        context = self.cross(said, memory, (src == PAD)[:, None, None])
        return self.out(torch.cat((said, context), -1))  # type: ignore[no-any-return]


class Additive(Gru):
    """Additive attention whose scores are far apart from the first step on."""

    def made(self) -> Any:
        parts = super().made()
        nn.init.normal_(parts[1].score.weight, std=40)
        return parts


@pytest.mark.parametrize("loop", [lambda: Made(lambda: Normed(WIDTH**0.5)), Additive])
def test_scores_that_are_multiplied(loop: Callable[[], Loop]) -> None:
    doctor = trained(loop(), 14)
    assert first(doctor) == "WIR044" and "each query reads one place" in evidence(doctor, "WIR044")


@pytest.mark.parametrize("scale", [WIDTH**-0.5, 1.0])
def test_scores_that_are_divided(scale: float) -> None:
    assert found(trained(Made(lambda: Normed(scale)), 14)) == []
