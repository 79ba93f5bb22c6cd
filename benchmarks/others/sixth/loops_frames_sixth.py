"""Plain loops over frames and images: speech with an encoder that subsamples, captions of pictures."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from others import tutorial
from others.case import Cases
from others.tasks import BOS, EOS, PAD
from torch import Tensor, nn

CASES = Cases()

# --- speech ---------------------------------------------------------------------------------------------------------

BANDS, WORD = 16, 8  # a spoken digit is eight frames


def utterances(count: int, seed: int, low: int = 3, high: int = 5) -> list[tuple[Tensor, list[int]]]:
    """Frames (time, BANDS) and ids of the digits, which begin at 4."""
    draw, noise = random.Random(seed), np.random.default_rng([5, seed])
    spoken = np.random.default_rng(17).normal(size=(10, WORD, BANDS))
    found = []
    for _ in range(count):
        digits = [draw.randrange(10) for _ in range(draw.randint(low, high))]
        frames = np.concatenate([spoken[d] for d in digits]) + 0.3 * noise.normal(size=(len(digits) * WORD, BANDS))
        found.append((torch.tensor(frames, dtype=torch.float32), [4 + d for d in digits]))
    return found


def collate(rows: list[tuple[Tensor, list[int]]]) -> dict[str, Tensor]:
    """As ASR toolkits name them."""
    return {
        "feats": nn.utils.rnn.pad_sequence([frames for frames, _ in rows], batch_first=True),
        "feats_lengths": torch.tensor([len(frames) for frames, _ in rows]),
        "ys_in": tutorial.padded([[BOS, *ids] for _, ids in rows]),
        "ys_out": tutorial.padded([[*ids, EOS] for _, ids in rows]),
    }


class Conv1dSubsampling(nn.Module):
    """Two convolutions, of which the first one, or both, take every second frame."""

    def __init__(self, width: int, strides: tuple[int, int], factor: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(BANDS, width, 3, strides[0], 1)
        self.second = nn.Conv1d(width, width, 3, strides[1], 1)
        self.factor = factor

    def forward(self, feats: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Fewer frames, and how many of them count."""
        x = F.relu(self.second(F.relu(self.first(feats.transpose(1, 2)))))
        return x.transpose(1, 2), lengths // self.factor


class SpeechModel(nn.Module):
    """Convolutions, a Transformer's encoder and decoder, CTC beside them."""

    def __init__(self, factor: int, width: int = 64) -> None:
        super().__init__()
        self.embed = Conv1dSubsampling(width, (2, 1), factor)
        self.pos = tutorial.PositionalEncoding(width)
        shape = {"nhead": 4, "dim_feedforward": 128, "dropout": 0.0, "batch_first": True}
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(width, **shape), 1, enable_nested_tensor=False)
        self.tokens = nn.Embedding(14, width)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(width, **shape), 1)
        self.output_layer = nn.Linear(width, 14)

    def encode(self, feats: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Memory, and where it is padding."""
        x, olens = self.embed(feats, lengths)
        blank = torch.arange(x.shape[1])[None] >= olens[:, None]
        return self.encoder(self.pos(x), src_key_padding_mask=blank), blank

    def forward(self, feats: Tensor, feats_lengths: Tensor, ys_in: Tensor) -> Tensor:
        """Logits."""
        memory, blank = self.encode(feats, feats_lengths)
        mask = torch.ones(ys_in.shape[1], ys_in.shape[1]).triu(1).bool()
        out = self.decoder(self.pos(self.tokens(ys_in)), memory, tgt_mask=mask, memory_key_padding_mask=blank)
        return self.output_layer(out)  # type: ignore[no-any-return]


@CASES.fault(
    "subsampling-factor-of-another",
    "loop",
    origin="github.com/espnet/espnet, issue 3037, and github.com/hirofumi0810/neural_sp, pull request 42: "
    "lengths behind "
    "the subsampling do not fit the convolutions",
    what="convolutions of stride 2 and 1 halve the frames, but lengths are divided by 4, as before: the second half of "
    "each recording is masked as padding",
    expected="the mask of the memory hides frames that are not padding: lengths are wrong by a factor of two",
    accepts="new:mask-too-short",
)
def subsampling(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """A dictionary as batch, AdamW."""
    train, valid = utterances(1200, seed), utterances(96, seed + 1000)
    torch.manual_seed(seed)
    model = SpeechModel(4 if broken else 2)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    doctor = watch(model, optimizer)
    draw, losses = random.Random(seed), []
    for step in range(260):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 40)
        batch = collate(draw.sample(train, 32))
        logits = model(batch["feats"], batch["feats_lengths"], batch["ys_in"])
        loss = F.cross_entropy(logits.transpose(1, 2), batch["ys_out"], ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        losses.append(loss.item())
        doctor.step(loss, batch)
    model.eval()
    doctor.evaluate([collate(valid[i : i + 32]) for i in range(0, 96, 32)])
    batch = collate(valid)
    with torch.no_grad():
        read = torch.full((len(valid), 1), BOS)
        for _ in range(7):
            logits = model(batch["feats"], batch["feats_lengths"], read)
            read = torch.cat((read, logits[:, -1:].argmax(-1)), 1)
    said = tutorial.cut(read[:, 1:])
    return losses, sum(a == b for a, (_, b) in zip(said, valid, strict=True)) / len(valid)


# --- pictures -------------------------------------------------------------------------------------------------------

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200), "white": (210, 210, 210)}
SHAPES = ("square", "cross", "bar")
WORDS = ["<pad>", "</s>", "<unk>", "<s>", "a", "and", *COLOURS, *SHAPES]


def shape(name: str) -> np.ndarray:
    """(6, 6) of zeros and ones."""
    drawn = np.zeros((6, 6), dtype=bool)
    if name == "square":
        drawn[:] = True
    elif name == "cross":
        drawn[2:4], drawn[:, 2:4] = True, True
    else:
        drawn[:2] = True
    return drawn


def pictures(count: int, seed: int) -> list[tuple[np.ndarray, list[int]]]:
    """Pictures (3, 8, 16) of bytes, and captions: "a red cross and a blue bar"."""
    draw, noise = random.Random(seed), np.random.default_rng([6, seed])
    found = []
    for _ in range(count):
        image, words = noise.integers(0, 30, size=(3, 8, 16)), []
        for place in (0, 8):
            colour, form = draw.choice(list(COLOURS)), draw.choice(SHAPES)
            x, y = place + draw.randint(0, 2), draw.randint(0, 2)
            image[:, y : y + 6, x : x + 6] += shape(form) * np.array(COLOURS[colour])[:, None, None]
            words += ["a", colour, form] if not words else ["and", "a", colour, form]
        found.append((image.astype(np.uint8), [WORDS.index(word) for word in words]))
    return found


class CaptionDataset(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Pictures as ToTensor and Normalize make them; what is read may already be between 0 and 1."""

    def __init__(self, rows: Any, already: bool = False) -> None:
        self.rows, self.already = rows, already

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        image, ids = self.rows[i]
        img = image.astype(np.float32)
        if self.already:
            img = img / 255.0  # as skimage's imresize gives it
        img = (torch.from_numpy(img) / 255.0 - 0.45) / 0.225
        return img, torch.tensor([BOS, *ids, EOS]), torch.tensor([len(ids) + 2])


class Captioner(nn.Module):
    """A small CNN, soft attention, an LSTM cell: Show, Attend and Tell."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 1)
        )
        self.embedding, self.cell = nn.Embedding(len(WORDS), width), nn.LSTMCell(2 * width, width)
        self.query, self.fc = nn.Linear(width, width), nn.Linear(2 * width, len(WORDS))
        self.place = nn.Parameter(0.1 * torch.randn(8, width))

    def forward(self, images: Tensor, captions: Tensor, steps: int = 0) -> Tensor:
        """Logits behind each token; where `steps` are given, it goes on by itself."""
        features = self.cnn(images).flatten(2).transpose(1, 2) + self.place
        hidden = features.mean(1)
        cell, said, token = torch.zeros_like(hidden), [], captions[:, 0]
        for t in range(steps or captions.shape[1]):
            token = token if steps else captions[:, t]
            weights = (self.query(hidden)[:, None] @ features.transpose(1, 2) / 8).softmax(-1)
            context = (weights @ features)[:, 0]
            hidden, cell = self.cell(torch.cat((self.embedding(token), context), 1), (hidden, cell))
            said.append(self.fc(torch.cat((hidden, context), 1)))
            token = said[-1].argmax(1)
        return torch.stack(said, 1)


@CASES.fault(
    "pictures-scaled-twice",
    "loop",
    origin="github.com/sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning, issue 101: always the same caption, "
    "since resized "
    "pictures were floats between 0 and 1, and were divided by 255 again",
    what="pictures to caption are divided by 255 twice, those of the training once: all are black to the model",
    expected="what is evaluated on is scaled otherwise than what was trained on",
    accepts="new:inputs-scaled-otherwise",
)
def captions(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """DataLoaders, Adam, outputs judged."""
    train, valid = pictures(1200, seed), pictures(96, seed + 1000)
    torch.manual_seed(seed)
    model = Captioner()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(seed)
    train_loader = torch.utils.data.DataLoader(CaptionDataset(train), 32, shuffle=True, generator=generator)
    val_loader = torch.utils.data.DataLoader(CaptionDataset(valid, already=broken), 32)

    def generate(batch: Any) -> list[list[int]]:
        with torch.no_grad():
            return tutorial.cut(model(batch[0], batch[1], steps=9).argmax(-1))

    doctor = watch(model, optimizer, generate=generate)
    losses: list[float] = []
    for _ in range(7):
        model.train()
        for imgs, caps, caplens in train_loader:
            scores = model(imgs, caps[:, :-1])
            loss = F.cross_entropy(scores.flatten(0, 1), caps[:, 1:].flatten(), ignore_index=PAD)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            doctor.step(loss, (imgs, caps, caplens))
    model.eval()
    doctor.evaluate(val_loader)
    said = [row for batch in val_loader for row in generate(batch)]
    return losses, sum(a == b for a, (_, b) in zip(said, valid, strict=True)) / len(valid)
