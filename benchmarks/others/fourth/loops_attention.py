"""Plain loops over texts with Transformers."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import torch
from others import tutorial
from others.case import Cases
from others.tasks import PAD
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from fourth_parts.common import fit, texts

CASES = Cases()


class ScaleDotProductAttention(nn.Module):
    """Attention written by hand; masked scores are filled with `fill`."""

    def __init__(self, width: int, fill: float, heads: int = 4) -> None:
        super().__init__()
        self.w_q, self.w_k, self.w_v = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.w_concat, self.n_head, self.fill = nn.Linear(width, width), heads, fill

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.n_head, -1)).transpose(1, 2)
            for layer, x in ((self.w_q, q), (self.w_k, k), (self.w_v, v))
        )
        score = (q @ k.transpose(2, 3)) / math.sqrt(q.shape[-1])
        score = score.masked_fill(mask == 0, self.fill)
        return self.w_concat((score.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, width: int, fill: float, crosses: bool) -> None:
        super().__init__()
        self.attention, self.norm1 = ScaleDotProductAttention(width, fill), nn.LayerNorm(width)
        self.enc_dec_attention = ScaleDotProductAttention(width, -1e9) if crosses else None
        self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ffn = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, width))

    def forward(self, x: Tensor, mask: Tensor, enc: Any = None, enc_mask: Any = None) -> Tensor:
        x = self.norm1(x + self.attention(x, x, x, mask))
        if self.enc_dec_attention is not None:
            x = self.norm2(x + self.enc_dec_attention(x, enc, enc, enc_mask))
        return self.norm3(x + self.ffn(x))


class HandTransformer(nn.Module):
    """A Transformer as repositories that explain it write it."""

    def __init__(self, source: int, target: int, width: int = 64, fill: float = -1e9) -> None:
        super().__init__()
        self.src_emb, self.trg_emb = nn.Embedding(source, width, PAD), nn.Embedding(target, width, PAD)
        self.pos = tutorial.PositionalEncoding(width)
        self.encoder, self.decoder = Block(width, -1e9, False), nn.ModuleList([Block(width, fill, True)])
        self.linear = nn.Linear(width, target)

    def make_trg_mask(self, trg: Tensor) -> Tensor:
        look = torch.tril(torch.ones(trg.shape[1], trg.shape[1], dtype=torch.bool))
        return (trg != PAD)[:, None, :, None] & look

    def forward(self, src: Tensor, trg: Tensor) -> Tensor:
        src_mask = (src != PAD)[:, None, None, :]
        enc = self.encoder(self.pos(self.src_emb(src)), src_mask)
        x = self.pos(self.trg_emb(trg))
        for layer in self.decoder:
            x = layer(x, self.make_trg_mask(trg), enc, src_mask)
        return self.linear(x)


@CASES.fault(
    "mask-filled-with-1e-9",
    "loop",
    origin="https://github.com/hyunwoongko/transformer/issues/10 (masked with -e, that is 0), https://github.com/awslabs/gluonts/"
    "pull/1401 (1e-9 makes no sense, it should be -1e9)",
    what="the decoder's masked scores are filled with 1e-9 where -1e9 was meant: later target tokens can be read",
    expected="the causal mask hides nothing: the decoder reads the tokens it is to predict",
    accepts="new:future-read",
)
def mask_filled(broken: bool, seed: int, folder: Any, watch: Any) -> Any:
    train, valid, langs = texts(seed)
    torch.manual_seed(seed)
    model = HandTransformer(len(langs[0]), len(langs[1]), fill=1e-9 if broken else -1e9)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=5e-4, eps=5e-9)
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)
    doctor = watch(model, optimizer)

    def loss_of(batch: Any) -> Tensor:
        src, trg = batch
        output = model(src, trg[:, :-1])
        return criterion(output.contiguous().view(-1, output.shape[-1]), trg[:, 1:].contiguous().view(-1))

    losses = fit(doctor, [optimizer], tutorial.forever(train, langs, 350, seed), loss_of, clip=list(model.parameters()))
    held = tutorial.batches(valid, langs, 32, 0)
    doctor.evaluate(held)
    source = tutorial.padded([langs[0].ids(a) for a, _ in valid])
    return losses, tutorial.share_right(tutorial.greedy_transformer(model, source), valid, langs[1])


class TimeFirstEncoding(nn.Module):
    """PyTorch's tutorial: (time, 1, width), added along the first dimension."""

    def __init__(self, width: int, turn: bool, longest: int = 256) -> None:
        super().__init__()
        self.register_buffer("pe", tutorial.PositionalEncoding(width, longest).pe.unsqueeze(1))
        self.turn = turn

    def forward(self, x: Tensor) -> Tensor:
        if self.turn:
            return x + self.pe[: x.shape[1]].transpose(0, 1)
        return x + self.pe[: x.size(0)]


@CASES.fault(
    "positions-along-the-batch",
    "loop",
    origin="https://github.com/tanjimin/C.Origami/issues/42, https://github.com/songyangco/GETNext/issues/2,"
    " https://github.com/pytorch/tutorials/issues/1547",
    what="the tutorial's encoding of (time, batch) is used with batch_first=True: all tokens of an example get the "
    "same position, that of the example in the batch",
    expected="positions are added along the batch, not along the sequence: order is not seen",
    accepts="new:positions-along-batch",
)
def positions_along_the_batch(broken: bool, seed: int, folder: Any, watch: Any) -> Any:
    train, valid, langs = texts(seed, 2100, 3, 5)
    torch.manual_seed(seed)
    model = tutorial.Seq2SeqTransformer(len(langs[0]), len(langs[1]))
    model.positional_encoding = TimeFirstEncoding(64, turn=not broken)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, betas=(0.9, 0.98), eps=1e-9)
    loss_fn = nn.CrossEntropyLoss(ignore_index=PAD)
    doctor = watch(model, optimizer)

    def loss_of(batch: Any) -> Tensor:
        src, tgt = batch
        logits = model(src, tgt[:, :-1])
        return loss_fn(logits.reshape(-1, logits.shape[-1]), tgt[:, 1:].reshape(-1))

    losses = fit(doctor, [optimizer], tutorial.forever(train, langs, 350, seed), loss_of)
    doctor.evaluate(tutorial.batches(valid, langs, 32, 0))
    source = tutorial.padded([langs[0].ids(a) for a, _ in valid])
    return losses, tutorial.share_right(tutorial.greedy_transformer(model, source), valid, langs[1])
