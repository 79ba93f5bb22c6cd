"""Plain loops over pictures, speech and signs."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from others import speech, tutorial
from others.case import Cases
from others.tasks import BOS, EOS, PAD
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

sys.path.insert(0, str(Path(__file__).parent))
from fourth_parts.common import fit

CASES = Cases()


THINGS = ["cat", "dog", "car", "tree", "house", "boat", "bird", "cup"]
WORDS = {word: i for i, word in enumerate(["<pad>", "<end>", "<unk>", "<start>", *THINGS])}


def pictures(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images (count, 1, 8, 32) of one to three things from left to right, captions (count, 6), their lengths."""
    draw, noise = random.Random(seed), np.random.default_rng([3, seed])
    looks = np.random.default_rng(3).normal(size=(len(THINGS), 8, 8)).astype(np.float32)
    images, captions, lengths = [], [], []
    for _ in range(count):
        image = 0.2 * noise.normal(size=(8, 32)).astype(np.float32)
        things = draw.sample(range(len(THINGS)), draw.randint(1, 4))
        for place, thing in enumerate(things):
            image[:, place * 8 : place * 8 + 8] += looks[thing]
        ids = [BOS, *(4 + thing for thing in things), EOS]
        images.append(image[None])
        lengths.append(len(ids))
        captions.append(ids + [PAD] * (6 - len(ids)))
    return torch.from_numpy(np.stack(images)), torch.tensor(captions), torch.tensor(lengths).unsqueeze(1)


class CaptionEncoder(nn.Module):
    """A small CNN whose pixels are what is attended to."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.resnet = nn.Sequential(
            nn.Conv2d(1, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, width, 3, 2, 1), nn.ReLU()
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.resnet(images).permute(0, 2, 3, 1)


class DecoderWithAttention(nn.Module):
    """The tutorial's decoder: captions are sorted by length, so that fewer and fewer go on."""

    def __init__(self, vocab: int, encoder_dim: int = 64, dim: int = 64, forgets: bool = False) -> None:
        super().__init__()
        self.encoder_att, self.decoder_att = nn.Linear(encoder_dim, dim), nn.Linear(dim, dim)
        self.full_att = nn.Linear(dim, 1)
        self.embedding = nn.Embedding(vocab, dim)
        self.decode_step = nn.LSTMCell(dim + encoder_dim, dim)
        self.init_h, self.init_c = nn.Linear(encoder_dim, dim), nn.Linear(encoder_dim, dim)
        self.f_beta, self.fc = nn.Linear(dim, encoder_dim), nn.Linear(dim, vocab)
        self.forgets = forgets

    def attention(self, pixels: Tensor, h: Tensor) -> Tensor:
        att = self.full_att(torch.relu(self.encoder_att(pixels) + self.decoder_att(h).unsqueeze(1))).squeeze(2)
        return (pixels * att.softmax(1).unsqueeze(2)).sum(1)

    def forward(self, encoder_out: Tensor, encoded_captions: Tensor, caption_lengths: Tensor) -> Any:
        pixels = encoder_out.flatten(1, 2)
        caption_lengths, sort_ind = caption_lengths.squeeze(1).sort(dim=0, descending=True, stable=True)
        if not self.forgets:
            pixels = pixels[sort_ind]
        encoded_captions = encoded_captions[sort_ind]
        embeddings = self.embedding(encoded_captions)
        h, c = self.init_h(pixels.mean(1)), self.init_c(pixels.mean(1))
        decode_lengths = (caption_lengths - 1).tolist()
        predictions = torch.zeros(len(pixels), max(decode_lengths), self.fc.out_features)
        for t in range(max(decode_lengths)):
            n = sum(length > t for length in decode_lengths)
            read = torch.sigmoid(self.f_beta(h[:n])) * self.attention(pixels[:n], h[:n])
            h, c = self.decode_step(torch.cat([embeddings[:n, t], read], 1), (h[:n], c[:n]))
            predictions[:n, t] = self.fc(h)
        return predictions, encoded_captions, decode_lengths, sort_ind


def captioned(encoder: Any, decoder: Any, images: Tensor, steps: int = 5) -> list[list[int]]:
    encoder.eval()
    with torch.no_grad():
        pixels = encoder(images).flatten(1, 2)
        h, c = decoder.init_h(pixels.mean(1)), decoder.init_c(pixels.mean(1))
        word, said = torch.full((len(images),), BOS), []
        for _ in range(steps):
            read = torch.sigmoid(decoder.f_beta(h)) * decoder.attention(pixels, h)
            h, c = decoder.decode_step(torch.cat([decoder.embedding(word), read], 1), (h, c))
            word = decoder.fc(h).argmax(-1)
            said.append(word)
    encoder.train()
    return tutorial.cut(torch.stack(said, 1))


def image_batches(data: Any, size: int, steps: int, seed: int) -> Iterable[Any]:
    draw = random.Random(seed)
    for _ in range(steps):
        rows = torch.tensor(draw.sample(range(len(data[0])), size))
        yield tuple(part[rows] for part in data)


@CASES.fault(
    "captions-sorted-images-not",
    "loop",
    origin="https://github.com/fartashf/vsepp/pull/36 ('I was sorting but then not getting the sort back'); the form "
    "is that of https://github.com/sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning",
    what="the decoder sorts the captions of a batch by length, and leaves the images in the loader's order",
    expected="captions are learned against other examples' images: the order of targets was changed, of sources not",
    accepts="new:order-changed-one-side",
)
def captions_sorted_images_not(broken: bool, seed: int, folder: Any, watch: Any) -> Any:
    train, valid = pictures(2000, seed), pictures(96, seed + 1000)
    torch.manual_seed(seed)
    encoder, decoder = CaptionEncoder(), DecoderWithAttention(len(WORDS), forgets=broken)
    optimizers = [torch.optim.Adam(encoder.parameters(), 2e-3), torch.optim.Adam(decoder.parameters(), 4e-3)]
    criterion = nn.CrossEntropyLoss()
    doctor = watch((encoder, decoder), tuple(optimizers))

    def loss_of(batch: Any) -> Tensor:
        imgs, caps, caplens = batch
        scores, caps_sorted, decode_lengths, _ = decoder(encoder(imgs), caps, caplens)
        targets = caps_sorted[:, 1:]
        packed = pack_padded_sequence(scores, decode_lengths, batch_first=True).data
        return criterion(packed, pack_padded_sequence(targets, decode_lengths, batch_first=True).data)

    losses = fit(doctor, optimizers, image_batches(train, 32, 350, seed), loss_of)
    doctor.evaluate(list(image_batches(valid, 32, 3, 0)))
    said = captioned(encoder, decoder, valid[0])
    right = [[i for i in row if i not in (PAD, BOS, EOS)] for row in valid[1].tolist()]
    return losses, sum(a == b for a, b in zip(said, right, strict=True)) / len(right)


def utterances(count: int, seed: int) -> list[tuple[np.ndarray, list[int]]]:
    """Frames (time, bands) of two to five spoken digits of ten frames each, and their ids."""
    draw, noise, spoken = random.Random(seed), np.random.default_rng([4, seed]), speech.sounds()
    rows = []
    for _ in range(count):
        digits = [draw.randrange(10) for _ in range(draw.randint(2, 5))]
        frames = np.concatenate([spoken[digit].T for digit in digits])
        rows.append((frames + 0.2 * noise.normal(size=frames.shape).astype(np.float32), [4 + d for d in digits]))
    return rows


def spoken_batch(rows: Any) -> dict[str, Tensor]:
    """xs, ilens, ys_in, ys_out, olens: ESPnet's names."""
    longest = max(len(frames) for frames, _ in rows)
    xs = torch.zeros(len(rows), longest, rows[0][0].shape[1])
    for i, (frames, _) in enumerate(rows):
        xs[i, : len(frames)] = torch.from_numpy(frames)
    return {
        "xs_pad": xs,
        "ilens": torch.tensor([len(frames) for frames, _ in rows]),
        "ys_in": tutorial.padded([[BOS, *ids] for _, ids in rows]),
        "ys_out": tutorial.padded([[*ids, EOS] for _, ids in rows]),
        "olens": torch.tensor([len(ids) for _, ids in rows]),
    }


class E2E(nn.Module):
    """Speech by CTC and attention together; convolutions make four frames one."""

    def __init__(self, bands: int, size: int, width: int = 64, always: bool = False) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Conv1d(bands, width, 3, 2, 1), nn.ReLU(), nn.Conv1d(width, width, 3, 2, 1), nn.ReLU()
        )
        self.pe = tutorial.PositionalEncoding(width)
        layer = {"nhead": 4, "dim_feedforward": 128, "dropout": 0.0, "batch_first": True}
        self.encoders = nn.TransformerEncoder(nn.TransformerEncoderLayer(width, **layer), 1, enable_nested_tensor=False)
        self.dec_embed = nn.Embedding(size, width)
        self.decoders = nn.TransformerDecoder(nn.TransformerDecoderLayer(width, **layer), 1)
        self.output_layer, self.ctc_lo = nn.Linear(width, size), nn.Linear(width, size)
        self.always = always

    def subsampled(self, ilens: Tensor) -> Tensor:
        for _ in range(2):
            ilens = (ilens - 1) // 2 + 1
        return ilens

    def encode(self, xs: Tensor, ilens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hs = self.pe(self.embed(xs.transpose(1, 2)).transpose(1, 2))
        hs = F.dropout(hs, 0.5) if self.always else F.dropout(hs, 0.5, training=self.training)
        hlens = self.subsampled(ilens)
        mask = torch.arange(hs.shape[1]) >= hlens.unsqueeze(1)
        return self.encoders(hs, src_key_padding_mask=mask), hlens, mask

    def decode(self, hs: Tensor, mask: Tensor, ys: Tensor) -> Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(ys.shape[1])
        out = self.decoders(self.pe(self.dec_embed(ys)), hs, tgt_mask=causal, memory_key_padding_mask=mask)
        out = F.dropout(out, 0.5) if self.always else F.dropout(out, 0.5, training=self.training)
        return self.output_layer(out)

    def forward(self, xs_pad: Tensor, ilens: Tensor, ys_in: Tensor, ys_out: Tensor, olens: Tensor) -> Tensor:
        hs, hlens, mask = self.encode(xs_pad, ilens)
        logits = self.decode(hs, mask, ys_in)
        att = F.cross_entropy(logits.flatten(0, 1), ys_out.flatten(), ignore_index=PAD)
        log_probs = self.ctc_lo(hs).log_softmax(-1).transpose(0, 1)
        ctc = F.ctc_loss(log_probs, ys_out, hlens, olens, blank=0, zero_infinity=True)
        return 0.3 * ctc + 0.7 * att


@CASES.fault(
    "dropout-stays-in-evaluation",
    "loop",
    origin="https://github.com/BogiHsu/Tacotron2-PyTorch/issues/8 (set training=self.training in dropout)",
    what="F.dropout is called without training=self.training: model.eval() does not switch it off",
    expected="the model is random in evaluation: dropout is on though the model is in eval mode",
    accepts="new:dropout-stays",
    gap=0.1,
)
def dropout_stays(broken: bool, seed: int, folder: Any, watch: Any) -> Any:
    train, valid = utterances(1500, seed), utterances(96, seed + 1000)
    torch.manual_seed(seed)
    model = E2E(speech.BANDS, 14, always=broken)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    doctor = watch(model, optimizer)
    draw = random.Random(seed)
    stream = (spoken_batch(draw.sample(train, 32)) for _ in range(300))
    losses = fit(doctor, [optimizer], stream, lambda b: model(**b), clip=list(model.parameters()))
    held = [spoken_batch(valid[i : i + 32]) for i in range(0, 96, 32)]
    model.eval()
    doctor.evaluate(held)
    right = 0
    with torch.no_grad():
        for batch in held:
            hs, _, mask = model.encode(batch["xs_pad"], batch["ilens"])
            ys = torch.full((32, 1), BOS)
            for _ in range(6):
                ys = torch.cat((ys, model.decode(hs, mask, ys)[:, -1:].argmax(-1)), 1)
            wanted = tutorial.cut(batch["ys_out"])
            right += sum(a == b for a, b in zip(tutorial.cut(ys[:, 1:]), wanted, strict=True))
    return losses, right / 96


def signed(count: int, seed: int) -> list[tuple[np.ndarray, list[int]]]:
    """Features after a ReLU: (frames, 32), five to seven frames a sign; the first dimension is seldom active."""
    draw, noise, signs = random.Random(seed), np.random.default_rng([9, seed]), np.random.default_rng(9)
    looks = signs.normal(size=(10, 32)).astype(np.float32)
    looks[:, 0] = [2, 2, 2, -2, -2, -2, -2, -2, -2, -2]  # fires for three signs only
    rest = np.abs(signs.normal(size=32)).astype(np.float32) + 0.5
    rows = []
    for _ in range(count):
        words = [draw.randrange(10) for _ in range(draw.randint(2, 5))]
        frames = [rest, rest, *(looks[word] for word in words for _ in range(draw.randint(5, 7))), rest]
        clip = np.stack(frames) + 0.3 * noise.normal(size=(len(frames), 32)).astype(np.float32)
        rows.append((np.maximum(clip, 0).astype(np.float32), [4 + word for word in words]))
    return rows


def sign_batch(rows: Any) -> dict[str, Tensor]:
    longest = max(len(clip) for clip, _ in rows)
    sgn = torch.zeros(len(rows), longest, 32)
    for i, (clip, _) in enumerate(rows):
        sgn[i, : len(clip)] = torch.from_numpy(clip)
    txt = tutorial.padded([[BOS, *ids, EOS] for _, ids in rows])
    return {"sgn": sgn, "sgn_lengths": torch.tensor([len(c) for c, _ in rows]), "txt": txt}


class SignModel(nn.Module):
    """Features embedded, a Transformer over them, one that says the text."""

    def __init__(self, size: int, width: int = 64, by_value: bool = False) -> None:
        super().__init__()
        self.sgn_embed = nn.Sequential(nn.Linear(32, width), nn.LayerNorm(width), nn.ReLU())
        self.pe, self.txt_embed = tutorial.PositionalEncoding(width), nn.Embedding(size, width)
        layer = {"nhead": 4, "dim_feedforward": 128, "dropout": 0.0, "batch_first": True}
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(width, **layer), 1, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(width, **layer), 1)
        self.output_layer, self.by_value = nn.Linear(width, size), by_value

    def forward(self, sgn: Tensor, sgn_lengths: Tensor, txt_input: Tensor) -> Tensor:
        if self.by_value:
            sgn_mask = (sgn != torch.zeros(sgn.shape[-1]))[..., 0]
        else:
            sgn_mask = torch.arange(sgn.shape[1]) < sgn_lengths.unsqueeze(1)
        memory = self.encoder(self.pe(self.sgn_embed(sgn)), src_key_padding_mask=~sgn_mask)
        causal = nn.Transformer.generate_square_subsequent_mask(txt_input.shape[1])
        embedded = self.pe(self.txt_embed(txt_input))
        return self.output_layer(self.decoder(embedded, memory, tgt_mask=causal, memory_key_padding_mask=~sgn_mask))


@CASES.fault(
    "mask-from-first-feature",
    "loop",
    origin="https://github.com/neccam/slt signjoey/batch.py (sgn_mask = (sgn != zeros)[..., 0]) with features that end "
    "in a ReLU; Masking(mask_value=0) in Keras is the same",
    what="padding is told by a frame's first number being zero; after a ReLU it is zero in most real frames",
    expected="true frames are masked as padding: the mask is made from values that features take, too",
    accepts="new:memory-hidden",
)
def mask_from_first_feature(broken: bool, seed: int, folder: Any, watch: Any) -> Any:
    train, valid = signed(1500, seed), signed(96, seed + 1000)
    torch.manual_seed(seed)
    model = SignModel(14, by_value=broken)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=1e-3)
    doctor = watch(model, optimizer)
    draw = random.Random(seed)

    def loss_of(batch: Any) -> Tensor:
        logits = model(batch["sgn"], batch["sgn_lengths"], batch["txt"][:, :-1])
        loss = F.nll_loss(
            logits.log_softmax(-1).flatten(0, 1), batch["txt"][:, 1:].flatten(), ignore_index=PAD, reduction="sum"
        )
        return loss / len(logits)

    stream = (sign_batch(draw.sample(train, 32)) for _ in range(350))
    losses = fit(doctor, [optimizer], stream, loss_of, clip=list(model.parameters()))
    held = [sign_batch(valid[i : i + 32]) for i in range(0, 96, 32)]
    doctor.evaluate(held)
    right = 0
    with torch.no_grad():
        for batch in held:
            read = torch.full((32, 1), BOS)
            for _ in range(6):
                read = torch.cat((read, model(batch["sgn"], batch["sgn_lengths"], read)[:, -1:].argmax(-1)), 1)
            wanted = [[i for i in row if i not in (PAD, BOS, EOS)] for row in batch["txt"].tolist()]
            right += sum(a == b for a, b in zip(tutorial.cut(read[:, 1:]), wanted, strict=True))
    return losses, right / 96
