"""Networks as tutorials write them: a GRU with attention in two modules, and nn.Transformer with its masks."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from others.tasks import BOS, EOS, PAD, Pair

Batch = tuple[Tensor, Tensor]


class Lang:
    """Words of one side, as the tutorials count them."""

    def __init__(self, pairs: Sequence[Pair], side: int) -> None:
        words = sorted({word for pair in pairs for word in pair[side].split()})
        self.word2index = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", "<s>", *words])}

    def __len__(self) -> int:
        return len(self.word2index)

    def ids(self, text: str, start: bool = False) -> list[int]:
        """Ids of a text, with its end, and with its start where it is a target."""
        return [*([BOS] if start else []), *(self.word2index[word] for word in text.split()), EOS]


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """(batch, longest), filled with <pad>."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[PAD] * (width - len(row))] for row in rows])


def batches(pairs: Sequence[Pair], langs: tuple[Lang, Lang], size: int, seed: int, start: bool = True) -> list[Batch]:
    """Shuffled batches of (source, target)."""
    order = list(pairs)
    random.Random(seed).shuffle(order)
    return [
        (
            padded([langs[0].ids(a) for a, _ in order[i : i + size]]),
            padded([langs[1].ids(b, start) for _, b in order[i : i + size]]),
        )
        for i in range(0, len(order) - size + 1, size)
    ]


def forever(train: Sequence[Pair], langs: tuple[Lang, Lang], steps: int, seed: int, **how: Any) -> Iterator[Batch]:
    """`steps` batches of 32, epoch after epoch."""
    done, epoch = 0, 0
    while done < steps:
        for batch in batches(train, langs, how.get("size", 32), seed + epoch, how.get("start", True)):
            if done == steps:
                return
            done += 1
            yield batch
        epoch += 1


class EncoderRNN(nn.Module):
    """A GRU over the source, batch first."""

    def __init__(self, size: int, hidden: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, hidden, padding_idx=PAD)
        self.gru = nn.GRU(hidden, hidden, batch_first=True)

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (batch, source, hidden) and the last state (1, batch, hidden)."""
        return self.gru(self.embedding(source))  # type: ignore[no-any-return]


class BahdanauAttention(nn.Module):
    """Additive attention."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.Wa, self.Ua, self.Va = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 1)
        self.axis = -1

    def forward(self, query: Tensor, keys: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Query (batch, 1, hidden), keys (batch, source, hidden): context, and weights (batch, 1, source)."""
        scores = self.Va(torch.tanh(self.Wa(query) + self.Ua(keys))).squeeze(2).unsqueeze(1)
        if mask is not None:
            scores = scores.masked_fill(mask.unsqueeze(1), -1e9)
        weights = F.softmax(scores, dim=self.axis)
        return torch.bmm(weights, keys), weights


class AttnDecoderRNN(nn.Module):
    """Says the target token by token; gives log-probabilities, as the tutorial does for NLLLoss."""

    def __init__(self, size: int, hidden: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, hidden)
        self.attention = BahdanauAttention(hidden)
        self.gru = nn.GRU(2 * hidden, hidden, batch_first=True)
        self.out = nn.Linear(2 * hidden, size)

    def step(self, token: Tensor, state: Tensor, outputs: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """One token (batch, 1): logits (batch, 1, size) and the next state."""
        context, _ = self.attention(state.permute(1, 0, 2), outputs, mask)
        said, state = self.gru(torch.cat((self.embedding(token), context), dim=2), state)
        return self.out(torch.cat((said, context), dim=2)), state

    def forward(self, outputs: Tensor, state: Tensor, read: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (batch, target, size) behind the tokens `read` (batch, target)."""
        said = []
        for i in range(read.shape[1]):
            logits, state = self.step(read[:, i : i + 1], state, outputs, mask)
            said.append(logits)
        return torch.cat(said, dim=1)


def greedy_rnn(encoder: Any, decoder: Any, source: Tensor, steps: int = 8, start: int = BOS) -> list[list[int]]:
    """What encoder and decoder say, token by token."""
    with torch.no_grad():
        outputs, state = encoder(source)
        token, said = torch.full((len(source), 1), start), []
        for _ in range(steps):
            logits, state = decoder.step(token, state, outputs, source == PAD)
            token = logits.argmax(-1)
            said.append(token)
    return cut(torch.cat(said, 1))


def cut(ids: Tensor) -> list[list[int]]:
    """Each row up to its end."""
    rows = []
    for row in ids.tolist():
        rows.append(row[: row.index(EOS)] if EOS in row else row)
    return rows


class PositionalEncoding(nn.Module):
    """Sines and cosines, batch first."""

    def __init__(self, width: int, longest: int = 64) -> None:
        super().__init__()
        place = torch.arange(longest).unsqueeze(1) * torch.exp(torch.arange(0, width, 2) * (-math.log(1e4) / width))
        table = torch.zeros(longest, width)
        table[:, 0::2], table[:, 1::2] = place.sin(), place.cos()
        self.register_buffer("pe", table)

    def forward(self, hidden: Tensor) -> Tensor:
        """Added to what comes in."""
        pe: Any = self.pe
        return hidden + pe[: hidden.shape[1]]  # type: ignore[no-any-return]


class Seq2SeqTransformer(nn.Module):
    """nn.Transformer with embeddings and a generator, as in the translation tutorial."""

    def __init__(self, source: int, target: int, layers: int = 1, width: int = 64, **more: Any) -> None:
        super().__init__()
        self.src_tok_emb, self.tgt_tok_emb = nn.Embedding(source, width), nn.Embedding(target, width)
        self.positional_encoding = PositionalEncoding(width)
        shape = {"nhead": 4, "dim_feedforward": 128, "dropout": 0.0, "batch_first": True} | more
        self.transformer = nn.Transformer(width, num_encoder_layers=layers, num_decoder_layers=layers, **shape)
        self.generator = nn.Linear(width, target)

    def forward(self, src: Tensor, tgt: Tensor, causal: bool = True, memory_mask: Tensor | None = None) -> Tensor:
        """Logits (batch, target, size)."""
        pad = src == PAD
        mask = nn.Transformer.generate_square_subsequent_mask(tgt.shape[1]) if causal else None
        out = self.transformer(
            self.positional_encoding(self.src_tok_emb(src)),
            self.positional_encoding(self.tgt_tok_emb(tgt)),
            tgt_mask=mask,
            src_key_padding_mask=pad,
            memory_key_padding_mask=pad if memory_mask is None else memory_mask,
        )
        return self.generator(out)  # type: ignore[no-any-return]


def greedy_transformer(model: Any, source: Tensor, steps: int = 8, start: int = BOS, **how: Any) -> list[list[int]]:
    """What the model says, token by token."""
    with torch.no_grad():
        read = torch.full((len(source), 1), start)
        for _ in range(steps):
            read = torch.cat((read, model(source, read, **how)[:, -1:].argmax(-1)), dim=1)
    return cut(read[:, 1:])


def share_right(outputs: Sequence[list[int]], pairs: Sequence[Pair], lang: Lang) -> float:
    """The share of outputs that are exactly their target."""
    wanted = [lang.ids(target)[:-1] for _, target in pairs]
    return sum(a == b for a, b in zip(outputs, wanted, strict=True)) / len(pairs)
