"""A plain loop over features, and faults that are seen only when a loop's model is let speak."""

from __future__ import annotations

import copy
import random
from typing import Any

import torch
import torch.nn.functional as F
from others.case import Cases
from others.tasks import BOS, EOS, PAD, numbers, split
from others.tutorial import AttnDecoderRNN, Lang, PositionalEncoding, cut, forever, padded, share_right
from torch import Tensor, nn

CASES = Cases()
DIMS = 12


def clips(count: int, seed: int) -> tuple[list[Tensor], list[list[int]]]:
    """Noisy clips of two to four digits, three to five frames each, and their words as ids from 4 on."""
    shapes = torch.randn(10, DIMS, generator=torch.Generator().manual_seed(99)) * 1.5
    noise, draw = torch.Generator().manual_seed(seed), random.Random(seed)
    frames, words = [], []
    for _ in range(count):
        digits = [draw.randrange(10) for _ in range(draw.randint(2, 4))]
        rows = [shapes[d] for d in digits for _ in range(draw.randint(3, 5))]
        clip = torch.stack(rows)
        frames.append(clip + torch.randn(clip.shape, generator=noise) * 0.4)
        words.append([4 + d for d in digits])
    return frames, words


class Listener(nn.Module):
    """Two strided convolutions, a bidirectional GRU, a CTC head on it, and an attending GRU as the decoder."""

    def __init__(self, size: int = 14, width: int = 64) -> None:
        super().__init__()
        self.conv = nn.Conv1d(DIMS, width, 3, stride=2, padding=1)
        self.gru = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)
        self.ctc = nn.Linear(width, size)
        self.decoder = AttnDecoderRNN(size, width)

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (batch, frames / 2, width) and the first state of the decoder."""
        outputs, state = self.gru(F.relu(self.conv(frames.transpose(1, 2))).transpose(1, 2))
        return outputs, torch.cat((state[0], state[1]), -1).unsqueeze(0)

    def forward(self, frames: Tensor, lengths: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the decoder (batch, target, size), and of the CTC head (batch, frames / 2, size)."""
        outputs, state = self.encode(frames)
        return self.decoder(outputs, state, read, self.mask(outputs, lengths)), self.ctc(outputs)

    @staticmethod
    def mask(outputs: Tensor, lengths: Tensor) -> Tensor:
        """True where the outputs are padding."""
        return torch.arange(outputs.shape[1])[None] >= ((lengths + 1) // 2)[:, None]

    def say(self, frames: Tensor, lengths: Tensor, steps: int = 6) -> list[list[int]]:
        """What the decoder says, token by token."""
        with torch.no_grad():
            outputs, state = self.encode(frames)
            token, said = torch.full((len(frames), 1), BOS), []
            for _ in range(steps):
                logits, state = self.decoder.step(token, state, outputs, self.mask(outputs, lengths))
                token = logits.argmax(-1)
                said.append(token)
        return cut(torch.cat(said, 1))


def batch_of(frames: list[Tensor], words: list[list[int]]) -> dict[str, Tensor]:
    """Padded features with their lengths, and targets from <s> to </s>."""
    return {
        "speech": nn.utils.rnn.pad_sequence(frames, batch_first=True),
        "speech_lengths": torch.tensor([len(each) for each in frames]),
        "text": padded([[BOS, *each, EOS] for each in words]),
    }


def listen(model: Listener, rows: list[int], frames: list[Tensor], words: list[list[int]]) -> tuple[Tensor, Any]:
    """The joint loss of some rows, and their batch."""
    batch = batch_of([frames[i] for i in rows], [words[i] for i in rows])
    text, lengths = batch["text"], batch["speech_lengths"]
    logits, heard = model(batch["speech"], lengths, text[:, :-1])
    attention = F.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten(), ignore_index=PAD)
    sizes = torch.tensor([len(words[i]) for i in rows])
    scores = heard.log_softmax(-1).transpose(0, 1)
    ctc = F.ctc_loss(scores, text[:, 1:-1], (lengths + 1) // 2, sizes, blank=PAD, zero_infinity=True)
    return 0.7 * attention + 0.3 * ctc, batch


def understood(model: Listener, frames: list[Tensor], words: list[list[int]]) -> float:
    """The share of clips whose words are said exactly."""
    batch = batch_of(frames, words)
    said = model.eval().say(batch["speech"], batch["speech_lengths"])
    return sum(a == b for a, b in zip(said, words, strict=True)) / len(words)


def masked(clip: Tensor, draw: random.Random, copied: bool) -> Tensor:
    """SpecAugment: a span of frames and a band of dimensions set to zero."""
    if copied:
        clip = clip.clone()
    start, band = draw.randrange(len(clip) - 1), draw.randrange(DIMS - 1)
    clip[start : start + 2] = 0
    clip[:, band : band + 2] = 0
    return clip


@CASES.fault(
    "augmentation_in_the_stored_clips",
    "loop",
    origin="fairseq2#1208 and others write `spec.clone()` before masking, since without it a cached clip is masked for "
    "good; numpy arrays of a Dataset augmented in __getitem__",
    what="SpecAugment writes its zeros into the clips that the data set keeps: after some epochs there is little left",
    expected="the training features change from epoch to epoch and become zeros, unlike those of the validation set",
    accepts="new:features-vanish",
)
def in_place(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """Joint CTC and attention, 256 clips kept in memory, 40 epochs."""
    frames, words = clips(256, seed)
    heard = clips(96, seed + 1)
    torch.manual_seed(seed)
    model, draw = Listener(), random.Random(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    doctor = watch(model, optimizer, source="speech", target="text", steps=320)
    losses = []
    for _ in range(40):
        order = list(range(256))
        draw.shuffle(order)
        for start in range(0, 256, 32):
            rows = order[start : start + 32]
            now = {i: masked(frames[i], draw, copied=not broken) for i in rows}
            loss, batch = listen(model, rows, now, words)  # type: ignore[arg-type]
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            doctor.step(loss, batch)
            losses.append(loss.item())
    return losses, understood(model, *heard)


@CASES.fault(
    "average_of_the_first_weights",
    "loop",
    origin="konpatp/diffae#16 'EMA model lagging behind': a decay of 0.9999 still holds traces of the initial weights",
    what="outputs are taken from an average of the weights with a decay of 0.9999 after 320 steps: nearly the "
    "first ones",
    expected="the model that speaks is not the one that was trained: its weights are the initial ones",
    accepts="new:other-weights-speak",
)
def average(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """A model over features, trained well, and evaluated by its average."""
    frames, words = clips(512, seed)
    heard = clips(96, seed + 1)
    torch.manual_seed(seed)
    model, draw = Listener(), random.Random(seed)
    shadow = copy.deepcopy(model).requires_grad_(False)
    decay = 0.9999 if broken else 0.98
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

    def generate(batch: Any) -> list[list[int]]:
        return shadow.eval().say(batch["speech"], batch["speech_lengths"])

    doctor = watch(model, optimizer, source="speech", target="text", generate=generate, steps=320)
    losses = []
    for _ in range(320):
        loss, batch = listen(model, draw.sample(range(512), 32), frames, words)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for kept, new in zip(shadow.parameters(), model.parameters(), strict=True):
                kept.mul_(decay).add_(new, alpha=1 - decay)
        doctor.step(loss, batch)
        losses.append(loss.item())
    doctor.evaluate([batch_of(heard[0][i : i + 32], heard[1][i : i + 32]) for i in range(0, 96, 32)])
    return losses, understood(shadow, *heard)


class Cached(nn.Module):
    """An encoder and a decoder of PyTorch's layers; generation embeds each token once and keeps it."""

    def __init__(self, source: int, target: int, from_zero: bool, width: int = 64) -> None:
        super().__init__()
        self.from_zero = from_zero
        self.embed_source, self.embed_target = nn.Embedding(source, width), nn.Embedding(target, width)
        self.positions = PositionalEncoding(width)
        shape: dict[str, Any] = {"nhead": 4, "dim_feedforward": 128, "dropout": 0.0, "batch_first": True}
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(width, **shape), 1, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(width, **shape), 1)
        self.out = nn.Linear(width, target)

    def encode(self, source: Tensor) -> Tensor:
        """The memory (batch, source, width)."""
        return self.encoder(self.positions(self.embed_source(source)), src_key_padding_mask=source == PAD)

    def decode(self, hidden: Tensor, memory: Tensor, pad: Tensor) -> Tensor:
        """Logits (batch, target, size) behind embedded tokens."""
        causal = nn.Transformer.generate_square_subsequent_mask(hidden.shape[1])
        return self.out(self.decoder(hidden, memory, tgt_mask=causal, memory_key_padding_mask=pad))

    def forward(self, source: Tensor, read: Tensor) -> Tensor:
        """Logits (batch, target, size)."""
        return self.decode(self.positions(self.embed_target(read)), self.encode(source), source == PAD)

    @torch.no_grad()
    def generate(self, source: Tensor, steps: int = 8) -> list[list[int]]:
        """Greedy outputs, one new token at a time."""
        memory, table = self.encode(source), self.positions.pe
        token, said, cache = torch.full((len(source), 1), BOS), [], None
        for step in range(steps):
            place = 0 if self.from_zero else step
            new = self.embed_target(token) + table[place : place + 1]  # type: ignore[index]
            cache = new if cache is None else torch.cat((cache, new), 1)
            token = self.decode(cache, memory, source == PAD)[:, -1:].argmax(-1)
            said.append(token)
        return cut(torch.cat(said, 1))


@CASES.fault(
    "cached_tokens_at_position_zero",
    "loop",
    origin="ml-explore/mlx-lm#93, Blaizzy/mlx-vlm#1983, RobertCsordas/moeut#6: decoding with a cache starts "
    "the positions "
    "at zero for each new token",
    what="generation feeds one token at a time, and each gets position 0: in training they have 0, 1, 2, …",
    expected="generation does not compute what training does: positions of generated tokens are wrong",
    accepts="new:generation-unlike-training",
)
def from_zero(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """Trained well; the loop's own generation is what speaks."""
    pairs = numbers(1096, seed)
    train, valid = split(pairs)
    langs = (Lang(pairs, 0), Lang(pairs, 1))
    torch.manual_seed(seed)
    model = Cached(len(langs[0]), len(langs[1]), from_zero=broken)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    doctor = watch(model, optimizer, generate=lambda batch: model.generate(batch[0]), steps=500)
    losses = []
    for src, trg in forever(train, langs, 500, seed):
        loss = F.cross_entropy(model(src, trg[:, :-1]).flatten(0, 1), trg[:, 1:].flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        doctor.step(loss, (src, trg))
        losses.append(loss.item())
    model.eval()
    parts = [valid[i : i + 32] for i in range(0, len(valid), 32)]
    loader = [
        (padded([langs[0].ids(a) for a, _ in part]), padded([langs[1].ids(b, True) for _, b in part])) for part in parts
    ]
    doctor.evaluate(loader)
    said = [row for src, _ in loader for row in model.generate(src)]
    return losses, share_right(said, valid, langs[1])
