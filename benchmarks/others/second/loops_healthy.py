"""Healthy loops of two more shapes."""

from __future__ import annotations

import random
from typing import Any

import torch
import torch.nn.functional as F
from others.case import Cases
from others.tasks import BOS, EOS, PAD, numbers, split
from others.tutorial import AttnDecoderRNN, EncoderRNN, Lang, PositionalEncoding, cut, forever, padded, share_right
from torch import Tensor, nn

CASES = Cases()


class TimeFirst(nn.Module):
    """nn.Transformer with time first, norms before, tied output, embeddings times the root of the width."""

    def __init__(self, source: int, target: int, width: int = 64) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(source, width), nn.Embedding(target, width)
        nn.init.normal_(self.source.weight, std=width**-0.5)
        nn.init.normal_(self.target.weight, std=width**-0.5)
        self.positions = PositionalEncoding(width)
        self.transformer = nn.Transformer(width, 4, 1, 1, 128, dropout=0.05, norm_first=True)
        self.out = nn.Linear(width, target)
        self.out.weight = self.target.weight

    def embedded(self, embedding: Any, ids: Tensor) -> Tensor:
        """(time, batch, width) of ids (time, batch)."""
        hidden = embedding(ids) * embedding.embedding_dim**0.5
        return self.positions(hidden.transpose(0, 1)).transpose(0, 1)

    def forward(self, src: Tensor, trg: Tensor) -> Tensor:
        """Logits (time, batch, size) of ids (time, batch)."""
        pad = (src == PAD).T
        out = self.transformer(
            self.embedded(self.source, src),
            self.embedded(self.target, trg),
            tgt_mask=nn.Transformer.generate_square_subsequent_mask(len(trg)),
            src_key_padding_mask=pad,
            tgt_key_padding_mask=(trg == PAD).T,
            memory_key_padding_mask=pad,
        )
        return self.out(out)


@CASES.control("time_first_accumulated", "loop", origin="bentrevett/pytorch-seq2seq's layout: (time, batch) ids")
def time_first(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """Two batches a step, clipped; decay for matrices only; a cosine."""
    pairs = numbers(1096, seed)
    train, valid = split(pairs)
    langs = (Lang(pairs, 0), Lang(pairs, 1))
    torch.manual_seed(seed)
    model = TimeFirst(len(langs[0]), len(langs[1]))
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 350)
    doctor = watch(model, optimizer, steps=700)
    losses = []
    for i, (source, target) in enumerate(forever(train, langs, 700, seed)):
        src, trg = source.T, target.T
        loss = F.cross_entropy(model(src, trg[:-1]).flatten(0, 1), trg[1:].flatten(), ignore_index=PAD) / 2
        loss.backward()
        if i % 2:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        doctor.step(loss, (src, trg))
        losses.append(loss.item())
    model.eval()
    src = padded([langs[0].ids(a) for a, _ in valid]).T
    read = torch.full((1, len(valid)), BOS)
    with torch.no_grad():
        for _ in range(8):
            read = torch.cat((read, model(src, read)[-1:].argmax(-1)))
    return losses, share_right(cut(read[1:].T), valid, langs[1])


MONTHS = ["januar", "april", "mai", "juni", "august", "oktober", "dezember"]


def days(count: int, seed: int) -> list[tuple[str, str]]:
    """Pairs such as ("7. april 84", "04-07-84"); each once."""
    draw, found = random.Random(seed), {}
    numbers_of = dict(zip(MONTHS, (1, 4, 5, 6, 8, 10, 12), strict=True))
    while len(found) < count:
        day, month, year = draw.randint(1, 28), draw.choice(MONTHS), draw.randint(10, 99)
        found[f"{day}. {month} {year}"] = f"{numbers_of[month]:02}-{day:02}-{year}"
    return list(found.items())


@CASES.control("characters_with_scheduled_sampling", "loop", origin="the tutorial's teacher forcing ratio, by token")
def characters(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """Dates by the character; three of four inputs of the decoder are the true ones; two optimizers."""
    rows = days(1296, seed)
    signs = {sign: i for i, sign in enumerate(sorted({c for pair in rows for text in pair for c in text}), 4)}

    def ids(text: str, start: bool = False) -> list[int]:
        return [*([BOS] if start else []), *(signs[c] for c in text), EOS]

    train, valid = rows[:-96], rows[-96:]
    torch.manual_seed(seed)
    encoder, decoder = EncoderRNN(4 + len(signs)), AttnDecoderRNN(4 + len(signs))
    optimizers = [torch.optim.Adam(encoder.parameters(), lr=2e-3), torch.optim.Adam(decoder.parameters(), lr=3e-3)]
    doctor = watch((encoder, decoder), optimizers, steps=700)
    draw, losses = random.Random(seed), []
    for _ in range(700):
        part = draw.sample(train, 32)
        source, target = padded([ids(a) for a, _ in part]), padded([ids(b, True) for _, b in part])
        outputs, state = encoder(source)
        token, loss, steps = target[:, :1], torch.zeros(()), target.shape[1] - 1
        for i in range(steps):
            logits, state = decoder.step(token, state, outputs, source == PAD)
            loss = loss + F.cross_entropy(logits[:, 0], target[:, i + 1], ignore_index=PAD)
            token = target[:, i + 1 : i + 2] if draw.random() < 0.75 else logits.argmax(-1)
        loss = loss / steps
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        doctor.step(loss, (source, target))
        losses.append(loss.item())
    with torch.no_grad():
        source = padded([ids(a) for a, _ in valid])
        outputs, state = encoder(source)
        token, said = torch.full((len(valid), 1), BOS), []
        for _ in range(9):
            logits, state = decoder.step(token, state, outputs, source == PAD)
            token = logits.argmax(-1)
            said.append(token)
    wanted = [ids(b)[:-1] for _, b in valid]
    right = sum(a == b for a, b in zip(cut(torch.cat(said, 1)), wanted, strict=True))
    return losses, right / len(valid)
