"""Plain loops whose sources are no texts: pictures, speech, signing."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from others import speech
from others.case import Cases
from others.tasks import BOS, ENGLISH, EOS, PAD
from others.tutorial import cut, padded
from torch import Tensor, nn

CASES = Cases()
Made = tuple[list[float], float]
FIRST = 4  # the id of "zero"; the words of ENGLISH follow
SIZE = FIRST + len(ENGLISH)


def digits_of(count: int, seed: int, low: int, high: int) -> list[list[int]]:
    """Rows of digits."""
    draw = random.Random(seed)
    return [[draw.randrange(10) for _ in range(draw.randint(low, high))] for _ in range(count)]


def captions_of(rows: Sequence[Sequence[int]]) -> Tensor:
    """<s> words </s>, padded: (batch, time)."""
    return padded([[BOS, *(FIRST + digit for digit in row), EOS] for row in rows])


def share(outputs: Sequence[list[int]], rows: Sequence[Sequence[int]]) -> float:
    """The share of outputs that say their row."""
    return sum(out == [FIRST + digit for digit in row] for out, row in zip(outputs, rows, strict=True)) / len(rows)


# --- image captioning: captions are sorted by length, encoder outputs are not


def pictures(rows: Sequence[Sequence[int]], seed: int) -> Tensor:
    """A strip of patches, (batch, 1, 8, 32): one patch of 8 × 8 a digit, nothing behind the last."""
    patches = np.random.default_rng([21, 0]).normal(size=(10, 8, 8)).astype(np.float32)
    noise = np.random.default_rng([22, seed])
    made = 0.2 * noise.normal(size=(len(rows), 1, 8, 32)).astype(np.float32)
    for picture, row in zip(made, rows, strict=True):
        for place, digit in enumerate(row):
            picture[0, :, 8 * place : 8 * place + 8] += patches[digit]
    return torch.from_numpy(made)


class CaptionEncoder(nn.Module):
    """Convolutions; gives (batch, pixels, channels)."""

    def __init__(self, channels: int = 48) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(nn.Conv2d(1, 32, 4, 4), nn.ReLU(), nn.Conv2d(32, channels, 2, 2), nn.ReLU())
        self.place = nn.Parameter(0.1 * torch.randn(4, channels))

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 4, channels)."""
        out = self.convolutions(images).flatten(2).permute(0, 2, 1)
        return out + self.place  # type: ignore[no-any-return]


class CaptionDecoder(nn.Module):
    """Attention and an LSTM cell; sorts its batch by the length of the captions, so that less is computed."""

    def __init__(self, size: int, channels: int = 48, hidden: int = 64, reorder: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, hidden)
        self.init_h, self.init_c = nn.Linear(channels, hidden), nn.Linear(channels, hidden)
        self.encoder_att, self.decoder_att = nn.Linear(channels, hidden), nn.Linear(hidden, hidden)
        self.full_att = nn.Linear(hidden, 1)
        self.decode_step = nn.LSTMCell(hidden + channels, hidden)
        self.fc = nn.Linear(hidden, size)
        self.size, self.reorder = size, reorder

    def begin(self, encoder_out: Tensor) -> tuple[Tensor, Tensor]:
        """The first state."""
        mean = encoder_out.mean(1)
        return self.init_h(mean), self.init_c(mean)

    def step(self, encoder_out: Tensor, token: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (batch, size), and the next state."""
        energy = self.full_att(torch.relu(self.encoder_att(encoder_out) + self.decoder_att(h).unsqueeze(1)))
        context = (encoder_out * energy.softmax(1)).sum(1)
        h, c = self.decode_step(torch.cat((self.embedding(token), context), 1), (h, c))
        return self.fc(h), h, c

    def forward(self, encoder_out: Tensor, captions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, list[int]]:
        """Scores (batch, longest - 1, size), the sorted captions, and how many are decoded of each."""
        lengths, order = lengths.sort(descending=True)
        captions = captions[order]
        if self.reorder:
            encoder_out = encoder_out[order]
        steps = (lengths - 1).tolist()
        h, c = self.begin(encoder_out)
        scores = encoder_out.new_zeros(len(captions), max(steps), self.size)
        for t in range(max(steps)):
            size = sum(length > t for length in steps)
            said, h, c = self.step(encoder_out[:size], captions[:size, t], h[:size], c[:size])
            scores[:size, t] = said
        return scores, captions, steps


@CASES.fault(
    "captions sorted, pictures not",
    "loop",
    origin="fartashf/vsepp#36 ('embeddings in a batch seemed to be mixed up') in the decoder of a captioning tutorial",
    what="The decoder sorts captions by length for its shrinking batch, and leaves the encoder's outputs "
    "in their order",
    expected="Within a batch, targets are paired with other examples' sources (captions are sorted, pictures not)",
    accepts="new:batch-order-lost",
)
def captions_sorted(broken: bool, seed: int, folder: Path, watch: Callable[..., Any]) -> Made:
    rows = digits_of(1296, seed, 1, 4)
    images, captions = pictures(rows, seed), captions_of(rows)
    lengths = torch.tensor([len(row) + 2 for row in rows])
    train = 1200
    torch.manual_seed(seed)
    encoder, decoder = CaptionEncoder(), CaptionDecoder(SIZE, reorder=not broken)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 3e-3)
    criterion = nn.CrossEntropyLoss()
    doctor = watch((encoder, decoder), optimizer)
    losses = []
    for epoch in range(13):
        order = torch.randperm(train, generator=torch.Generator().manual_seed(seed + epoch))
        for chosen in order.split(32):
            imgs, caps, caplens = images[chosen], captions[chosen], lengths[chosen]
            scores, sorted_caps, steps = decoder(encoder(imgs), caps, caplens)
            packed = nn.utils.rnn.pack_padded_sequence(scores, steps, batch_first=True).data
            targets = nn.utils.rnn.pack_padded_sequence(sorted_caps[:, 1:], steps, batch_first=True).data
            loss = criterion(packed, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            doctor.step(loss, (imgs, caps, caplens))
            losses.append(loss.item())
    held = [(images[i : i + 32], captions[i : i + 32], lengths[i : i + 32]) for i in range(train, len(rows), 32)]
    doctor.evaluate(held)
    with torch.no_grad():
        out = encoder(images[train:])
        h, c = decoder.begin(out)
        token, said = torch.full((len(out),), BOS), []
        for _ in range(6):
            scores, h, c = decoder.step(out, token, h, c)
            token = scores.argmax(-1)
            said.append(token)
    return losses, share(cut(torch.stack(said, 1)), rows[train:])


# --- speech: the map of the convolutions becomes a sequence by view


def spoken(rows: Sequence[Sequence[int]], seed: int, frames: int = 64) -> Tensor:
    """Recordings (batch, frames, bands)."""
    sounds, noise = speech.sounds(), np.random.default_rng([23, seed])
    made = 0.2 * noise.normal(size=(len(rows), frames, speech.BANDS)).astype(np.float32)
    for recording, row in zip(made, rows, strict=True):
        for place, digit in enumerate(row):
            recording[place * speech.WORD : (place + 1) * speech.WORD] += sounds[digit].T
    return torch.from_numpy(made)


class SubsampledEncoder(nn.Module):
    """Two strided convolutions over (time, bands), and a bidirectional LSTM."""

    def __init__(self, viewed: bool, channels: int = 24, hidden: int = 48) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, channels, 3, 2), nn.ReLU(), nn.Conv2d(channels, channels, 3, 2), nn.ReLU()
        )
        self.lstm = nn.LSTM(channels * 3, hidden, batch_first=True, bidirectional=True)
        self.viewed = viewed

    def forward(self, features: Tensor) -> Tensor:
        """(batch, time / 4, 2 · hidden) of (batch, time, bands)."""
        x = self.conv(features.unsqueeze(1))
        b, c, t, f = x.shape
        x = x.view(b, t, c * f) if self.viewed else x.transpose(1, 2).contiguous().view(b, t, c * f)
        return self.lstm(x)[0]  # type: ignore[no-any-return]


class LasDecoder(nn.Module):
    """A GRU cell that attends by location-free additive attention."""

    def __init__(self, size: int, memory: int, hidden: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(size, hidden)
        self.keys, self.query, self.score = nn.Linear(memory, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, 1)
        self.cell = nn.GRUCell(hidden + memory, hidden)
        self.out = nn.Linear(hidden + memory, size)
        self.hidden = hidden

    def step(self, token: Tensor, h: Tensor, memory: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (batch, size), and the next state."""
        weights = self.score(torch.tanh(keys + self.query(h).unsqueeze(1))).softmax(1)
        context = (weights * memory).sum(1)
        h = self.cell(torch.cat((self.embed(token), context), 1), h)
        return self.out(torch.cat((h, context), 1)), h

    def forward(self, memory: Tensor, read: Tensor) -> Tensor:
        """Scores (batch, target, size) behind the tokens read."""
        keys, h, said = self.keys(memory), memory.new_zeros(len(memory), self.hidden), []
        for t in range(read.shape[1]):
            scores, h = self.step(read[:, t], h, memory, keys)
            said.append(scores)
        return torch.stack(said, 1)


class HybridAsr(nn.Module):
    """CTC on the encoder, attention in the decoder."""

    def __init__(self, viewed: bool) -> None:
        super().__init__()
        self.encoder = SubsampledEncoder(viewed)
        self.ctc = nn.Linear(96, SIZE)
        self.decoder = LasDecoder(SIZE, 96)

    def forward(self, features: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of CTC (batch, time, size), and the decoder's scores (batch, target, size)."""
        memory = self.encoder(features)
        return self.ctc(memory).log_softmax(-1), self.decoder(memory, read)


@CASES.fault(
    "map viewed as a sequence",
    "loop",
    origin="sooftware/kospeech#82, vitrioil/Speech-Separation#4: view(b, t, c*f) on (b, c, t, f), the "
    "permute is missing",
    what="The map (batch, channels, time, bands) becomes (batch, time, channels · bands) by view, without transpose",
    expected="Time and channels of the source are mixed before the encoder (view instead of transpose)",
    accepts="new:source-scrambled",
)
def map_viewed(broken: bool, seed: int, folder: Path, watch: Callable[..., Any]) -> Made:
    rows = digits_of(896, seed, 4, 6)
    features, labels = spoken(rows, seed), captions_of(rows)
    train = 800
    torch.manual_seed(seed)
    model = HybridAsr(viewed=broken)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    attention_loss, ctc_loss = nn.CrossEntropyLoss(ignore_index=PAD), nn.CTCLoss(blank=PAD, zero_infinity=True)
    doctor = watch(model, optimizer)
    losses = []
    for epoch in range(10):
        order = torch.randperm(train, generator=torch.Generator().manual_seed(seed + epoch))
        for chosen in order.split(25):
            x, y = features[chosen], labels[chosen]
            said, logits = model(x, y[:, :-1])
            spoken_words = [row[(row >= FIRST)] for row in y]
            loss = 0.7 * attention_loss(logits.flatten(0, 1), y[:, 1:].flatten()) + 0.3 * ctc_loss(
                said.transpose(0, 1),
                torch.cat(spoken_words),
                torch.full((len(x),), said.shape[1]),
                torch.tensor([len(row) for row in spoken_words]),
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            doctor.step(loss, (x, y))
            losses.append(loss.item())
    doctor.evaluate([(features[i : i + 32], labels[i : i + 32]) for i in range(train, len(rows), 32)])
    with torch.no_grad():
        memory = model.encoder(features[train:])
        keys, h = model.decoder.keys(memory), memory.new_zeros(len(memory), 64)
        token, out = torch.full((len(memory),), BOS), []
        for _ in range(8):
            scores, h = model.decoder.step(token, h, memory, keys)
            token = scores.argmax(-1)
            out.append(token)
    return losses, share(cut(torch.stack(out, 1)), rows[train:])


# --- signing: BatchNorm whose running statistics never arrive


class SpatialEmbedding(nn.Module):
    """A projection of each frame, with batch normalisation over all frames."""

    def __init__(self, dims: int, width: int, momentum: float) -> None:
        super().__init__()
        self.ln = nn.Linear(dims, width)
        self.norm = nn.BatchNorm1d(width, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, width)."""
        x = self.ln(x)
        return F.softsign(self.norm(x.flatten(0, 1)).view_as(x))


class SignModel(nn.Module):
    """Spatial embedding, Transformer encoder and decoder, as sign-language code has them."""

    def __init__(self, momentum: float, width: int = 64) -> None:
        super().__init__()
        self.sgn_embed = SpatialEmbedding(speech.BANDS, width, momentum)
        self.txt_embed = nn.Embedding(SIZE, width)
        self.frame_places, self.word_places = nn.Embedding(64, width), nn.Embedding(16, width)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(width, 4, 128, 0.0, batch_first=True), 1, enable_nested_tensor=False
        )
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(width, 4, 128, 0.0, batch_first=True), 1)
        self.output_layer = nn.Linear(width, SIZE)

    def forward(self, sgn: Tensor, txt: Tensor) -> Tensor:
        """Logits (batch, time, size)."""
        memory = self.encoder(self.sgn_embed(sgn) + self.frame_places.weight[: sgn.shape[1]])
        mask = nn.Transformer.generate_square_subsequent_mask(txt.shape[1])
        read = self.txt_embed(txt) + self.word_places.weight[: txt.shape[1]]
        return self.output_layer(self.decoder(read, memory, tgt_mask=mask))  # type: ignore[no-any-return]


@CASES.fault(
    "batch norm that lags behind",
    "loop",
    origin="keras-team/keras#3949, #7265, pytorch/pytorch#5406: BatchNorm's running statistics lag behind; "
    "eval() is bad",
    what="BatchNorm1d(momentum=0.001), as TensorFlow's 0.999 is written: few steps leave its statistics "
    "where they began",
    expected="In evaluation mode BatchNorm uses running statistics that are far from those of the training batches",
    accepts="new:running-statistics",
)
def batch_norm_lags(broken: bool, seed: int, folder: Path, watch: Callable[..., Any]) -> Made:
    rows = digits_of(896, seed, 2, 4)
    offset = torch.from_numpy(np.random.default_rng([24]).uniform(-8, 8, speech.BANDS).astype(np.float32))
    clips, texts = 2 * spoken(rows, seed, 40)[:, ::2] + offset, captions_of(rows)
    train = 800
    torch.manual_seed(seed)
    model = SignModel(0.001 if broken else 0.1)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)
    doctor = watch(model, optimizer)
    losses = []
    model.train()
    for epoch in range(16):
        order = torch.randperm(train, generator=torch.Generator().manual_seed(seed + epoch))
        for chosen in order.split(32):
            sgn, txt = clips[chosen], texts[chosen]
            loss = criterion(model(sgn, txt[:, :-1]).flatten(0, 1), txt[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            doctor.step(loss, (sgn, txt))
            losses.append(loss.item())
    model.eval()
    doctor.evaluate([(clips[i : i + 32], texts[i : i + 32]) for i in range(train, len(rows), 32)])
    with torch.no_grad():
        read = torch.full((len(rows) - train, 1), BOS)
        for _ in range(6):
            read = torch.cat((read, model(clips[train:], read)[:, -1:].argmax(-1)), 1)
    return losses, share(cut(read[:, 1:]), rows[train:])
