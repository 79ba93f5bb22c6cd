"""Small trainings in plain PyTorch for the tests, in the manner of tutorials: no Trainer, no word of ours in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

PAD, SOS, EOS, FIRST, SIZE = 0, 1, 2, 3, 16
Watch = Callable[[Any, Any], None]


def words(count: int, seed: int = 0, *, one: float = 0.0) -> list[tuple[list[int], list[int]]]:
    """Words of 3 to 6 letters, each to be said backwards; with `one` that share of the letters of targets is one."""
    draw = torch.Generator().manual_seed(seed)
    out = []
    for _ in range(count):
        length = int(torch.randint(3, 7, (1,), generator=draw))
        word = torch.randint(FIRST, SIZE, (length,), generator=draw).tolist()
        said = [FIRST if float(torch.rand((), generator=draw)) < one else letter for letter in reversed(word)]
        out.append((word, said))
    return out


def batches(
    pairs: list[tuple[list[int], list[int]]], size: int = 16, *, begin: bool = True, time_first: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """(source, target) padded with zeros; targets end with EOS, and begin with SOS where `begin`."""
    for at in range(0, len(pairs) - size + 1, size):
        some = pairs[at : at + size]
        sources = [torch.tensor([*word, EOS]) for word, _ in some]
        targets = [torch.tensor([*([SOS] if begin else []), *said, EOS]) for _, said in some]
        sides = [nn.utils.rnn.pad_sequence(side, batch_first=not time_first) for side in (sources, targets)]
        yield sides[0], sides[1]


# ── encoder and decoder apart, attention, log_softmax and NLLLoss ─────────────────────────────────────────────────────


class EncoderRNN(nn.Module):
    def __init__(self, hidden: int, layers: int = 1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SIZE, hidden)
        self.deep = nn.Sequential(*[m for _ in range(layers - 1) for m in (nn.Linear(hidden, hidden), nn.Sigmoid())])
        self.gru = nn.GRU(hidden, hidden, batch_first=True)

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        return self.gru(self.deep(self.embedding(source)))  # type: ignore[no-any-return]


class AttnDecoderRNN(nn.Module):
    """Says a target letter by letter, reading the true one before each; attends by a sum of two projections."""

    def __init__(self, hidden: int, last: Callable[..., Tensor] = torch.log_softmax) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SIZE, hidden)
        self.query, self.key, self.score = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 1)
        self.gru = nn.GRU(2 * hidden, hidden, batch_first=True)
        self.out, self.last = nn.Linear(hidden, SIZE), last

    def forward(self, memory: Tensor, state: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        said, looked = [], []
        token = torch.full_like(target[:, :1], SOS)
        for t in range(target.shape[1]):
            scores = self.score(torch.tanh(self.query(state[-1])[:, None] + self.key(memory)))
            weights = torch.softmax(scores, 1)
            context = (weights * memory).sum(1, keepdim=True)
            out, state = self.gru(torch.cat((self.embedding(token), context), -1), state)
            said.append(self.out(out))
            looked.append(weights)
            token = target[:, t : t + 1]
        return self.last(torch.cat(said, 1), dim=-1), state, torch.cat(looked, -1)


@dataclass
class Apart:
    """The training of two modules with an optimizer each; `fault` names what is planted."""

    fault: str = ""
    adam: bool = True
    pairs: list[Any] = field(default_factory=lambda: words(1600))
    seed: int = 0

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        if self.fault == "one letter":
            self.pairs = words(1600, one=0.95)
        self.encoder = EncoderRNN(32, layers=16 if self.fault == "vanishing" else 1)
        softmax = torch.softmax if self.fault == "softmax" else torch.log_softmax
        self.decoder = AttnDecoderRNN(32, softmax)
        if self.fault == "zeros":
            for each in (self.encoder.embedding, self.decoder.embedding, self.decoder.out):
                nn.init.zeros_(each.weight)
        kind: Any = (lambda p: torch.optim.Adam(p, lr=5e-3)) if self.adam else (lambda p: torch.optim.SGD(p, lr=0.5))
        trained = list(self.decoder.parameters()) if self.fault == "unoptimised" else list(self.encoder.parameters())
        self.optimizers = (
            kind(trained[:4] if self.fault == "unoptimised" else trained),
            kind(self.decoder.parameters()),
        )
        if self.fault == "unoptimised":
            self.optimizers = (self.optimizers[1],)
        self.modules = (self.encoder, self.decoder)
        self.criterion = nn.NLLLoss(ignore_index=PAD)

    def run(self, steps: int, step: Watch = lambda loss, batch: None) -> list[float]:
        """The losses."""
        losses = []
        for source, target in list(batches(self.pairs, begin=False))[:steps]:
            for each in self.optimizers:
                each.zero_grad()
            memory, state = self.encoder(source)
            if self.fault == "state":
                memory, state = torch.zeros_like(memory), torch.zeros_like(state)
            said, _, _ = self.decoder(memory, state, target)
            loss = self.criterion(said.view(-1, SIZE), target.view(-1))
            loss.backward()
            for each in self.optimizers:
                each.step()
            step(loss, (source, target))
            losses.append(loss.item())
        return losses


# ── nn.Transformer, time first, masks made by the loop ────────────────────────────────────────────────────────────────


class Positions(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        place = torch.arange(64)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(1e4) / width))
        table = torch.zeros(64, width)
        table[:, 0::2], table[:, 1::2] = torch.sin(place), torch.cos(place)
        self.register_buffer("table", table[:, None])
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x + self.table[: len(x)])  # type: ignore[index]


class Seq2SeqTransformer(nn.Module):
    def __init__(self, width: int = 32, deep: int = 0, fault: str = "") -> None:
        super().__init__()
        self.fault = fault
        self.transformer = nn.Transformer(width, 4, 2, 2, 64, 0.1)
        self.deep = nn.Sequential(*[m for _ in range(deep) for m in (nn.Linear(width, width), nn.Sigmoid())])
        self.generator = nn.Linear(width, SIZE)
        self.src_tok_emb, self.tgt_tok_emb = nn.Embedding(SIZE, width), nn.Embedding(SIZE, width)
        self.positional_encoding = Positions(width)

    def forward(
        self, src: Tensor, tgt: Tensor, src_mask: Tensor, tgt_mask: Tensor, src_pad: Tensor, tgt_pad: Tensor
    ) -> Tensor:
        x = self.positional_encoding(self.deep(self.src_tok_emb(src) * math.sqrt(32)))
        y = self.positional_encoding(self.tgt_tok_emb(tgt) * math.sqrt(32))
        memory = self.transformer.encoder(x, src_mask, src_pad)
        if self.fault == "state":
            memory = torch.zeros_like(memory)
        out = self.transformer.decoder(y, memory, tgt_mask, None, tgt_pad, src_pad)
        logits = self.generator(out)
        return torch.softmax(logits, -1) if self.fault == "softmax" else logits


@dataclass
class OfTransformer:
    """The training of an `nn.Transformer`, (time, batch), by CrossEntropyLoss."""

    fault: str = ""
    adam: bool = True
    pairs: list[Any] = field(default_factory=lambda: words(1600))
    seed: int = 0

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        if self.fault == "one letter":
            self.pairs = words(1600, one=0.95)
        self.modules: Any = Seq2SeqTransformer(deep=16 if self.fault == "vanishing" else 0, fault=self.fault)
        if self.fault == "zeros":
            for layer in self.modules.transformer.decoder.layers:
                nn.init.zeros_(layer.multihead_attn.in_proj_weight)
                nn.init.zeros_(layer.multihead_attn.out_proj.weight)
        trained = [
            p
            for name, p in self.modules.named_parameters()
            if self.fault != "unoptimised" or not name.startswith("transformer.encoder")
        ]
        self.optimizers = torch.optim.Adam(trained, lr=2e-3) if self.adam else torch.optim.SGD(trained, lr=0.1)
        self.criterion: nn.Module = nn.CrossEntropyLoss(ignore_index=PAD)
        if self.fault == "softmax":
            self.criterion = nn.NLLLoss(ignore_index=PAD)

    def run(self, steps: int, step: Watch = lambda loss, batch: None) -> list[float]:
        """The losses."""
        losses = []
        for src, tgt in list(batches(self.pairs, time_first=True))[:steps]:
            read, labels = tgt[:-1], tgt[1:]
            later = torch.triu(torch.full((len(read), len(read)), float("-inf")), 1)
            nothing = torch.zeros(len(src), len(src), dtype=torch.bool)
            logits = self.modules(src, read, nothing, later, (src == PAD).T, (read == PAD).T)
            self.optimizers.zero_grad()
            loss = self.criterion(logits.reshape(-1, SIZE), labels.reshape(-1))
            loss.backward()
            self.optimizers.step()
            step(loss, (src, tgt))
            losses.append(loss.item())
        return losses
