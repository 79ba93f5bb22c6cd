"""Pictures, sounds and signs that are drawn, and the networks that read them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from others.tasks import BOS, ENGLISH, EOS, PAD
from others.tutorial import PositionalEncoding, padded
from torch import Tensor, nn

WORDS = ["<pad>", "</s>", "<unk>", "<s>", "a", "beside", *ENGLISH]
IDS = {word: i for i, word in enumerate(WORDS)}


def ids(text: str) -> list[int]:
    """A text with its start and end."""
    return [BOS, *(IDS[word] for word in text.split()), EOS]


def pictures(count: int, seed: int) -> list[tuple[Tensor, str]]:
    """Grey pictures (1, 8, 24) of three glyphs, 0 to 255, and what stands beside what."""
    glyphs = np.random.default_rng(21).integers(0, 2, size=(10, 8, 8))
    draw, noise, found = random.Random(seed), np.random.default_rng([22, seed]), []
    for _ in range(count):
        digits = [draw.randrange(10) for _ in range(3)]
        picture = np.concatenate([glyphs[d] for d in digits], axis=1) * 200 + noise.integers(0, 55, size=(8, 24))
        text = " beside ".join(f"a {ENGLISH[d]}" for d in digits)
        found.append((torch.tensor(picture, dtype=torch.float32)[None], text))
    return found


def clips(count: int, seed: int, dims: int = 16, word: int = 8, low: int = 2, high: int = 4) -> list[tuple[Any, str]]:
    """Features (frames, dims) of spoken or signed digits, `word` frames each, and their texts."""
    shapes = np.random.default_rng([23, dims]).normal(size=(10, word, dims)).astype(np.float32)
    draw, noise, found = random.Random(seed), np.random.default_rng([24, seed]), []
    for _ in range(count):
        digits = [draw.randrange(10) for _ in range(draw.randint(low, high))]
        frames = np.concatenate([shapes[d] for d in digits])
        frames = frames + 0.3 * noise.normal(size=frames.shape).astype(np.float32)
        found.append((frames, " ".join(ENGLISH[d] for d in digits)))
    return found


def framed(rows: Sequence[tuple[Any, str]]) -> tuple[Tensor, Tensor, Tensor]:
    """Features (batch, frames, dims) filled with zeros, their lengths, and targets (batch, time)."""
    lengths = torch.tensor([len(frames) for frames, _ in rows])
    features = torch.zeros(len(rows), int(lengths.max()), rows[0][0].shape[1])
    for row, (frames, _) in zip(features, rows, strict=True):
        row[: len(frames)] = torch.from_numpy(frames)
    return features, lengths, padded([ids(text) for _, text in rows])


def shuffled(rows: Sequence[Any], steps: int, size: int, seed: int) -> list[list[Any]]:
    """`steps` batches of rows, epoch after epoch."""
    found: list[list[Any]] = []
    epoch = 0
    while len(found) < steps:
        order = list(rows)
        random.Random(seed + epoch).shuffle(order)
        found += [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
        epoch += 1
    return found[:steps]


class CaptionEncoder(nn.Module):
    """Convolutions over a picture; its columns are what is attended to."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        )  # fmt: skip
        self.project = nn.Linear(32 * 4, width)
        self.places = nn.Embedding(12, width)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 12, width)."""
        maps = self.cnn(images)  # (batch, 32, 4, 12)
        return self.project(maps.permute(0, 3, 1, 2).flatten(2)) + self.places(torch.arange(maps.shape[-1]))


class CaptionDecoder(nn.Module):
    """An LSTM that attends to the columns, as in "Show, attend and tell"."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, width)
        self.init_h, self.init_c = nn.Linear(width, width), nn.Linear(width, width)
        self.attend_h, self.attend_v, self.full = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 1)
        self.cell = nn.LSTMCell(2 * width, width)
        self.fc = nn.Linear(2 * width, size)

    def start(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """The first state."""
        mean = columns.mean(1)
        return torch.tanh(self.init_h(mean)), torch.tanh(self.init_c(mean))

    def step(self, token: Tensor, state: tuple[Tensor, Tensor], columns: Tensor) -> tuple[Tensor, Any]:
        """One token (batch,): logits (batch, size), and the next state."""
        scores = self.full(torch.tanh(self.attend_h(state[0])[:, None] + self.attend_v(columns))).squeeze(-1)
        context = (scores.softmax(-1)[:, :, None] * columns).sum(1)
        hidden, cell = self.cell(torch.cat((self.embedding(token), context), -1), state)
        return self.fc(torch.cat((hidden, context), -1)), (hidden, cell)

    def forward(self, columns: Tensor, captions: Tensor) -> Tensor:
        """Logits (batch, time, size) behind each token."""
        state, said = self.start(columns), []
        for token in captions.unbind(1):
            logits, state = self.step(token, state, columns)
            said.append(logits)
        return torch.stack(said, 1)


class SpeechTransformer(nn.Module):
    """Two convolutions that leave a quarter of the frames, an encoder with a CTC head, and a decoder."""

    def __init__(self, dims: int, size: int, width: int = 64) -> None:
        super().__init__()
        self.subsample = nn.Sequential(
            nn.Conv1d(dims, width, 3, stride=2, padding=1), nn.ReLU(), nn.Conv1d(width, width, 3, stride=2, padding=1)
        )
        self.position, self.embed = PositionalEncoding(width), nn.Embedding(size, width)
        one, other = ({"dim_feedforward": 128, "dropout": 0.0, "batch_first": True, "norm_first": True} for _ in "ab")
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(width, 4, **one), 1, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(width, 4, **other), 1)
        self.ctc_lo, self.output_layer = nn.Linear(width, size), nn.Linear(width, size)

    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states (batch, frames / 4, width), and how many of each count."""
        hidden = self.subsample(features.transpose(1, 2)).transpose(1, 2)
        lengths = ((lengths + 3) // 4).clamp(min=1, max=hidden.shape[1])
        pad = torch.arange(hidden.shape[1])[None] >= lengths[:, None]
        return self.encoder(self.position(hidden), src_key_padding_mask=pad), lengths

    def decode(self, memory: Tensor, lengths: Tensor, read: Tensor) -> Tensor:
        """Logits (batch, time, size)."""
        pad = torch.arange(memory.shape[1])[None] >= lengths[:, None]
        mask = nn.Transformer.generate_square_subsequent_mask(read.shape[1])
        hidden = self.position(self.embed(read))
        return self.output_layer(  # type: ignore[no-any-return]
            self.decoder(hidden, memory, tgt_mask=mask, memory_key_padding_mask=pad)
        )

    def forward(self, features: Tensor, lengths: Tensor, read: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the decoder, logits of CTC, lengths of the memory."""
        memory, lengths = self.encode(features, lengths)
        return self.decode(memory, lengths, read), self.ctc_lo(memory), lengths


class SignTranslator(nn.Module):
    """Frame features → a GRU in both directions → a GRU that attends, as in early sign-language code."""

    def __init__(self, dims: int, size: int, width: int = 64) -> None:
        super().__init__()
        self.spatial = nn.Sequential(nn.Linear(dims, width), nn.ReLU())
        self.gru_enc = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)
        self.emb, self.gru_dec = nn.Embedding(size, width), nn.GRU(width, width, batch_first=True)
        self.key, self.out = nn.Linear(width, width), nn.Linear(2 * width, size)

    def forward(self, frames: Tensor, lengths: Tensor, read: Tensor) -> Tensor:
        """Logits (batch, time, size)."""
        packed = nn.utils.rnn.pack_padded_sequence(
            self.spatial(frames), lengths, batch_first=True, enforce_sorted=False
        )
        memory, state = self.gru_enc(packed)
        memory, _ = nn.utils.rnn.pad_packed_sequence(memory, batch_first=True)
        said, _ = self.gru_dec(self.emb(read), torch.cat((state[0], state[1]), -1)[None])
        away = torch.arange(memory.shape[1])[None] >= lengths[:, None]
        scores = (said @ self.key(memory).transpose(1, 2)).masked_fill(away[:, None], -1e9)
        return self.out(torch.cat((said, scores.softmax(-1) @ memory), -1))  # type: ignore[no-any-return]


def exact(outputs: Sequence[Sequence[int]], rows: Sequence[tuple[Any, str]]) -> float:
    """The share of outputs (up to the end) that are exactly right."""
    return sum(list(a) == ids(text)[1:-1] for a, (_, text) in zip(outputs, rows, strict=True)) / len(rows)


def spoken(said: Tensor) -> list[list[int]]:
    """Each row up to its end."""
    return [row[: row.index(EOS)] if EOS in row else row for row in said.tolist()]


def greedy(logits: Any, count: int, steps: int) -> list[list[int]]:
    """What `logits(read)` (batch, time, size) says, token by token."""
    with torch.no_grad():
        read = torch.full((count, 1), BOS)
        for _ in range(steps):
            read = torch.cat((read, logits(read)[:, -1:].argmax(-1)), 1)
    return spoken(read[:, 1:])


def masked_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of targets (batch, time) without padding."""
    return nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PAD)
