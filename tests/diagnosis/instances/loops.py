"""Two loops whose steps can go wrong in many ways: a GRU of two modules, and an `nn.Transformer`, (time, batch)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import sourcewise
from sourcewise.integrations.loop import LoopDoctor
from tests.integrations.loops import PAD, SIZE, Apart, Seq2SeqTransformer, batches

Optimizers = Callable[[list[nn.Parameter]], list[Any]]


def adam(parameters: list[nn.Parameter]) -> list[Any]:
    return [torch.optim.Adam(parameters, lr=3e-3)]


def sgd(parameters: list[nn.Parameter]) -> list[Any]:
    return [torch.optim.SGD(parameters, lr=0.2)]


class Loop:
    """One step of each training is a method, so that a fault overrides one of them; see the tests."""

    steps = 45
    begin = True
    ignored: int = PAD

    def __init__(self, optimizers: Optimizers = adam) -> None:
        torch.manual_seed(0)
        self.modules = self.made()
        self.optimizers = optimizers(self.parameters())

    def made(self) -> Any:
        raise NotImplementedError

    def logits(self, src: Tensor, read: Tensor) -> Tensor:
        raise NotImplementedError

    def parameters(self) -> list[nn.Parameter]:
        modules = self.modules if isinstance(self.modules, tuple) else (self.modules,)
        return [p for module in modules for p in module.parameters()]

    def cut(self, tgt: Tensor) -> tuple[Tensor, Tensor]:
        """What is read and what is learned, (batch, time)."""
        return tgt[:, :-1], tgt[:, 1:]

    def batch(self, src: Tensor, tgt: Tensor) -> tuple[Tensor, Tensor]:
        return src, tgt

    def update(self, loss: Tensor) -> None:
        for each in self.optimizers:
            each.zero_grad()
        loss.backward()
        for each in self.optimizers:
            each.step()

    def loss(self, said: Tensor, labels: Tensor) -> Tensor:
        """Of logits (batch, time, vocabulary)."""
        return nn.functional.cross_entropy(said.reshape(-1, SIZE), labels.reshape(-1), ignore_index=self.ignored)

    def run(self, **options: Any) -> LoopDoctor:
        doctor = sourcewise.doctor(self.modules, self.optimizers, **options)
        pairs = Apart().pairs
        for src, tgt in [self.batch(*both) for both in batches(pairs, begin=self.begin)][: self.steps]:
            read, labels = self.cut(tgt)
            said = self.logits(src, read)
            loss = self.loss(said, labels)
            self.update(loss)
            doctor.step(loss, (src, tgt))
        return doctor


class Gru(Loop):
    """Encoder and decoder apart; the decoder has its own start and reads the target."""

    def made(self) -> Any:
        parts = Apart()
        return parts.encoder, parts.decoder

    def handed(self, memory: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return memory, state

    def encoded(self, src: Tensor) -> tuple[Tensor, Tensor]:
        return self.handed(*self.modules[0](src))

    def logits(self, src: Tensor, read: Tensor) -> Tensor:
        memory, state = self.encoded(src)
        said: Tensor = self.modules[1](memory, state, read)[0]
        return said

    def cut(self, tgt: Tensor) -> tuple[Tensor, Tensor]:
        return tgt[:, 1:], tgt[:, 1:]  # it shifts by itself


class Encoding(Seq2SeqTransformer):
    """What becomes of its memory can be said from outside."""

    handed: Callable[[Tensor], Tensor] = staticmethod(lambda memory: memory)

    def forward(self, src: Tensor, tgt: Tensor, pad: Tensor, later: Tensor | None) -> Tensor:  # type: ignore[override]
        x = self.positional_encoding(self.src_tok_emb(src) * 5.7)
        y = self.positional_encoding(self.tgt_tok_emb(tgt) * 5.7)
        memory = self.handed(self.transformer.encoder(x, None, pad))
        out = self.transformer.decoder(y, memory, later, None, None, pad)
        return self.generator(out)  # type: ignore[no-any-return]


class Transformer(Loop):
    """One module; masks are made here."""

    def made(self) -> Any:
        return Encoding()

    def padding(self, src: Tensor) -> Tensor | None:
        return src == PAD

    def later(self, width: int) -> Tensor | None:
        return torch.triu(torch.ones(width, width, dtype=torch.bool), 1)

    def logits(self, src: Tensor, read: Tensor) -> Tensor:
        said = self.modules(src.T, read.T, self.padding(src), self.later(read.shape[1]))
        return said.transpose(0, 1)  # type: ignore[no-any-return]


def found(doctor: LoopDoctor) -> list[tuple[str, str]]:
    """Errors and warnings, in order; the rest of the doctor must not have failed."""
    failed = [line for line in doctor.diagnosis.not_checked if "Error: " in line]
    assert not failed, failed
    return [(each.code, each.level) for each in doctor.diagnosis.findings if each.level != "note"]


def copied(parameters: list[nn.Parameter]) -> list[Any]:
    return [torch.optim.Adam(copy.deepcopy(parameters), lr=3e-3)]
