"""Plain loops over text: six faults, each in a network of its own shape."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from others import tasks
from others.case import Cases
from others.tasks import PAD
from others.tutorial import (
    EncoderRNN,
    Lang,
    Seq2SeqTransformer,
    batches,
    forever,
    greedy_rnn,
    greedy_transformer,
    padded,
    share_right,
)
from torch import Tensor, nn

CASES = Cases()
Made = tuple[list[float], float]


def words(count: int, seed: int, low: int = 2, high: int = 5) -> tuple[Any, Any, tuple[Lang, Lang]]:
    """Training pairs, validation pairs, and the words of both sides."""
    pairs = tasks.numbers(count, seed, low, high)
    return (*tasks.split(pairs), (Lang(pairs, 0), Lang(pairs, 1)))


def sources(pairs: Sequence[tasks.Pair], langs: tuple[Lang, Lang]) -> Tensor:
    """The sources of all pairs."""
    return padded([langs[0].ids(source) for source, _ in pairs])


# --- attention without a non-linearity: the query cancels out


class SumAttention(nn.Module):
    """Scores from the concatenation of state and outputs, as a batched seq2seq of GitHub computes them."""

    def __init__(self, hidden: int, squash: bool) -> None:
        super().__init__()
        self.attn = nn.Linear(2 * hidden, hidden)
        self.v = nn.Parameter(torch.rand(hidden) / math.sqrt(hidden))
        self.squash = squash

    def forward(self, state: Tensor, outputs: Tensor, mask: Tensor) -> Tensor:
        """State (batch, hidden), outputs (batch, source, hidden): weights (batch, 1, source)."""
        repeated = state.unsqueeze(1).expand(-1, outputs.shape[1], -1)
        energy = self.attn(torch.cat((repeated, outputs), 2))
        if self.squash:
            energy = torch.tanh(energy)
        return F.softmax((energy @ self.v).masked_fill(mask, -1e9), dim=1).unsqueeze(1)


class SumDecoder(nn.Module):
    """A GRU that begins at zeros and reads the source through its attention alone."""

    def __init__(self, size: int, hidden: int, squash: bool) -> None:
        super().__init__()
        self.hidden = hidden
        self.embedding = nn.Embedding(size, hidden)
        self.attention = SumAttention(hidden, squash)
        self.gru = nn.GRU(2 * hidden, hidden, batch_first=True)
        self.out = nn.Linear(2 * hidden, size)

    def step(self, token: Tensor, state: Tensor, outputs: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """One token (batch, 1): logits (batch, 1, size) and the next state."""
        context = self.attention(state[-1], outputs, mask) @ outputs
        said, state = self.gru(torch.cat((self.embedding(token), context), 2), state)
        return self.out(torch.cat((said, context), 2)), state

    def forward(self, outputs: Tensor, read: Tensor, mask: Tensor) -> Tensor:
        """Logits behind the tokens `read` (batch, target)."""
        state, said = outputs.new_zeros(1, len(outputs), self.hidden), []
        for i in range(read.shape[1]):
            logits, state = self.step(read[:, i : i + 1], state, outputs, mask)
            said.append(logits)
        return torch.cat(said, 1)


@CASES.fault(
    "attention without tanh",
    "loop",
    origin="AuCson/PyTorch-Batch-Attention-Seq2seq#3: weights stick to one input word; 'a lack of "
    "non-linear activation'",
    what="The scores of additive attention are linear in state and outputs: the softmax cancels the state",
    expected="The attention weights do not depend on the decoder's state (the scores lack their tanh)",
    accepts="new:attention-without-query",
)
def attention_without_tanh(broken: bool, seed: int, folder: Path, watch: Callable[..., Any]) -> Made:
    train, valid, langs = words(1600, seed, 3, 6)
    torch.manual_seed(seed)
    encoder, decoder = EncoderRNN(len(langs[0]), 48), SumDecoder(len(langs[1]), 48, squash=not broken)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 4e-3)
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)
    doctor = watch((encoder, decoder), optimizer)
    losses = []
    for source, target in forever(train, langs, 600, seed):
        outputs, _ = encoder(source)
        logits = decoder(outputs, target[:, :-1], source == PAD)
        loss = criterion(logits.reshape(-1, logits.shape[-1]), target[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        doctor.step(loss, (source, target))
        losses.append(loss.item())
    doctor.evaluate(batches(valid, langs, 32, seed))

    def begin(source: Tensor) -> tuple[Tensor, Tensor]:
        outputs, _ = encoder(source)
        return outputs, outputs.new_zeros(1, len(outputs), 48)

    return losses, share_right(greedy_rnn(begin, decoder, sources(valid, langs)), valid, langs[1])


# --- logits brought into CrossEntropyLoss's shape by view


@CASES.fault(
    "logits viewed not transposed",
    "loop",
    origin="asked again and again at discuss.pytorch.org: CrossEntropyLoss wants (N, C, d1); "
    "sooftware/kospeech#82 on view",
    what="Logits (batch, time, vocabulary) become (batch, vocabulary, time) by view, not by transpose",
    expected="The loss sees scrambled logits: they are reshaped where they should be transposed",
    accepts="new:logits-scrambled",
)
def logits_viewed(broken: bool, seed: int, folder: Path, watch: Callable[..., Any]) -> Made:
    train, valid, langs = words(1600, seed)
    torch.manual_seed(seed)
    model = Seq2SeqTransformer(len(langs[0]), len(langs[1]))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)
    doctor = watch(model, optimizer)
    losses = []
    for src, tgt in forever(train, langs, 400, seed):
        logits = model(src, tgt[:, :-1])
        if broken:
            loss = criterion(logits.view(logits.size(0), logits.size(2), logits.size(1)), tgt[:, 1:])
        else:
            loss = criterion(logits.transpose(1, 2), tgt[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        doctor.step(loss, (src, tgt))
        losses.append(loss.item())
    doctor.evaluate(batches(valid, langs, 32, seed))
    return losses, share_right(greedy_transformer(model, sources(valid, langs)), valid, langs[1])


# --- the tutorial's positions, (time, 1, width), on inputs that are batch first


class TimeFirstPositions(nn.Module):
    """Sines and cosines as the old language-model tutorial has them: (longest, 1, width)."""

    def __init__(self, width: int, turned: bool, longest: int = 500) -> None:
        super().__init__()
        place = torch.arange(longest).unsqueeze(1) * torch.exp(torch.arange(0, width, 2) * (-math.log(1e4) / width))
        pe = torch.zeros(longest, 1, width)
        pe[:, 0, 0::2], pe[:, 0, 1::2] = place.sin(), place.cos()
        self.register_buffer("pe", pe)
        self.turned = turned

    def forward(self, x: Tensor) -> Tensor:
        """Added to x (batch, time, width)."""
        pe: Any = self.pe
        if self.turned:
            return x + pe[: x.size(0)]  # type: ignore[no-any-return]
        return x + pe[: x.size(1)].transpose(0, 1)  # type: ignore[no-any-return]


@CASES.fault(
    "positions along the batch",
    "loop",
    origin="AkiRusProd/numpy-transformer#1, zcao0420/MOFormer#9, songyangco/GETNext#2: pe[:x.size(0)] on "
    "batch-first inputs",
    what="The time-first positional encoding is added along the batch: all tokens of an example have one position",
    expected="Positions are the same at every place of a sentence (added along the batch), so order is not read",
    accepts="new:positions-along-batch",
)
def positions_along_batch(broken: bool, seed: int, folder: Path, watch: Callable[..., Any]) -> Made:
    train, valid, langs = words(1600, seed, 3, 6)
    torch.manual_seed(seed)
    model = Seq2SeqTransformer(len(langs[0]), len(langs[1]))
    model.positional_encoding = TimeFirstPositions(64, turned=broken)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)
    doctor = watch(model, optimizer)
    losses = []
    for src, tgt in forever(train, langs, 500, seed):
        logits = model(src, tgt[:, :-1])
        loss = criterion(logits.reshape(-1, logits.shape[-1]), tgt[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        doctor.step(loss, (src, tgt))
        losses.append(loss.item())
    doctor.evaluate(batches(valid, langs, 32, seed))
    return losses, share_right(greedy_transformer(model, sources(valid, langs)), valid, langs[1])


# --- F.dropout that eval() does not switch off


class DropEncoder(nn.Module):
    """A GRU encoder with functional dropout."""

    def __init__(self, size: int, hidden: int, always: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, hidden)
        self.gru = nn.GRU(hidden, hidden, batch_first=True)
        self.always = always

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs and the last state."""
        x = self.embedding(source)
        x = F.dropout(x, 0.3) if self.always else F.dropout(x, 0.3, self.training)
        return self.gru(x)  # type: ignore[no-any-return]


class DotDecoder(nn.Module):
    """A GRU that begins at zeros, with scaled dot attention and functional dropout of its weights."""

    def __init__(self, size: int, hidden: int, always: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, hidden)
        self.gru = nn.GRU(hidden, hidden, batch_first=True)
        self.query = nn.Linear(hidden, hidden)
        self.out = nn.Linear(2 * hidden, size)
        self.always = always

    def forward(self, outputs: Tensor, read: Tensor, mask: Tensor) -> Tensor:
        """Logits behind the tokens `read` (batch, target)."""
        said, _ = self.gru(self.embedding(read))
        scores = self.query(said) @ outputs.transpose(1, 2) / math.sqrt(outputs.shape[-1])
        weights = scores.masked_fill(mask.unsqueeze(1), -1e9).softmax(-1)
        weights = F.dropout(weights, 0.3) if self.always else F.dropout(weights, 0.3, self.training)
        return self.out(torch.cat((said, weights @ outputs), 2))  # type: ignore[no-any-return]


class GruSeq2Seq(nn.Module):
    """Encoder and decoder in one module."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, source: Tensor, read: Tensor) -> Tensor:
        """Logits (batch, target, size)."""
        outputs, _ = self.encoder(source)
        return self.decoder(outputs, read, source == PAD)  # type: ignore[no-any-return]


@CASES.fault(
    "functional dropout in evaluation",
    "loop",
    origin="pytorch/pytorch#11999, #26338: dropout still active in eval(), for F.dropout has training=True by default",
    what="F.dropout is called without its training flag: model.eval() does not switch it off",
    expected="Dropout is still on in evaluation mode (F.dropout without self.training)",
    accepts="new:dropout-always-on",
)
def functional_dropout(broken: bool, seed: int, folder: Path, watch: Callable[..., Any]) -> Made:
    train, valid, langs = words(1600, seed, 3, 5)
    torch.manual_seed(seed)
    model = GruSeq2Seq(DropEncoder(len(langs[0]), 96, broken), DotDecoder(len(langs[1]), 96, broken))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)
    doctor = watch(model, optimizer)
    losses = []
    model.train()
    for source, target in forever(train, langs, 700, seed):
        logits = model(source, target[:, :-1])
        loss = criterion(logits.flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        doctor.step(loss, (source, target))
        losses.append(loss.item())
    model.eval()
    doctor.evaluate(batches(valid, langs, 32, seed))
    torch.manual_seed(seed)
    return losses, share_right(greedy_transformer(model, sources(valid, langs), 9), valid, langs[1])


# --- accumulation over more batches than an epoch has


class LstmSeq2Seq(nn.Module):
    """LSTMs; all that is known of the source is the state that is handed over."""

    def __init__(self, source: int, target: int, hidden: int = 96) -> None:
        super().__init__()
        self.src_embedding, self.trg_embedding = nn.Embedding(source, hidden), nn.Embedding(target, hidden)
        self.encoder = nn.LSTM(hidden, hidden, batch_first=True)
        self.decoder = nn.LSTM(hidden, hidden, batch_first=True)
        self.fc_out = nn.Linear(hidden, target)

    def forward(self, src: Tensor, trg: Tensor) -> Tensor:
        """Logits (batch, target, size)."""
        lengths = (src != PAD).sum(1)
        packed = nn.utils.rnn.pack_padded_sequence(
            self.src_embedding(src), lengths, batch_first=True, enforce_sorted=False
        )
        _, state = self.encoder(packed)
        return self.fc_out(self.decoder(self.trg_embedding(trg), state)[0])  # type: ignore[no-any-return]


@CASES.fault(
    "accumulation beyond the epoch",
    "loop",
    origin="huggingface/transformers#2995: no optimizer steps where an epoch has fewer batches than are accumulated",
    what="Gradients are accumulated over 64 batches, an epoch has fewer, and each epoch begins with zero_grad",
    expected="The optimizer never takes a step (accumulation is longer than the epoch)",
    accepts="new:never-steps",
)
def accumulation_beyond_epoch(broken: bool, seed: int, folder: Path, watch: Callable[..., Any]) -> Made:
    train, valid, langs = words(1096, seed, 2, 3)
    torch.manual_seed(seed)
    model = LstmSeq2Seq(len(langs[0]), len(langs[1]))
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)
    accumulation_steps = 64 if broken else 2
    doctor = watch(model, optimizer)
    losses = []
    for epoch in range(16):
        optimizer.zero_grad()
        for i, (src, trg) in enumerate(batches(train, langs, 20, seed + epoch)):
            logits = model(src, trg[:, :-1])
            loss = criterion(logits.flatten(0, 1), trg[:, 1:].flatten()) / accumulation_steps
            loss.backward()
            doctor.step(loss, (src, trg))
            if (i + 1) % accumulation_steps == 0:
                optimizer.step()
                optimizer.zero_grad()
            losses.append(loss.item())
    doctor.evaluate(batches(valid, langs, 32, seed))
    return losses, share_right(greedy_transformer(model, sources(valid, langs), 5), valid, langs[1])


# --- ReduceLROnPlateau that waits for the loss to grow


class MixedSeq2Seq(nn.Module):
    """An nn.TransformerEncoder, and a GRU that attends to it by nn.MultiheadAttention."""

    def __init__(self, source: int, target: int, width: int = 64) -> None:
        super().__init__()
        self.src_embed, self.tgt_embed = nn.Embedding(source, width), nn.Embedding(target, width)
        self.places = nn.Embedding(32, width)
        layer = nn.TransformerEncoderLayer(width, 4, 128, 0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.rnn = nn.GRU(width, width, batch_first=True)
        self.reader = nn.MultiheadAttention(width, 4, batch_first=True)
        self.head = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(), nn.Linear(width, target))

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        """Logits (batch, target, size)."""
        memory = self.src_embed(src) + self.places.weight[: src.shape[1]]
        memory = self.body(memory, src_key_padding_mask=src == PAD)
        said, _ = self.rnn(self.tgt_embed(tgt))
        read, _ = self.reader(said, memory, memory, key_padding_mask=src == PAD, need_weights=False)
        return self.head(torch.cat((said, read), -1))  # type: ignore[no-any-return]


@CASES.fault(
    "plateau in mode max",
    "loop",
    origin="FunctionLab/selene#115, RMeli/gnina-torch#57, md-mohaiminul/ViS4mer#4: ReduceLROnPlateau in the wrong mode",
    what="ReduceLROnPlateau(mode='max') is given the validation loss: each epoch that improves cuts the rate",
    expected="The learning rate is cut while the loss still falls (the plateau scheduler has the wrong mode)",
    accepts="new:rate-cut-while-improving",
)
def plateau_in_mode_max(broken: bool, seed: int, folder: Path, watch: Callable[..., Any]) -> Made:
    train, valid, langs = words(1096, seed)
    torch.manual_seed(seed)
    model = MixedSeq2Seq(len(langs[0]), len(langs[1]))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max" if broken else "min", factor=0.1, patience=0
    )
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)
    doctor = watch(model, optimizer)
    losses = []
    for epoch in range(20):
        model.train()
        for src, tgt in batches(train, langs, 32, seed + epoch):
            logits = model(src, tgt[:, :-1])
            loss = criterion(logits.transpose(1, 2), tgt[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            doctor.step(loss, (src, tgt))
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            held = [
                criterion(model(s, t[:, :-1]).transpose(1, 2), t[:, 1:]).item() for s, t in batches(valid, langs, 32, 0)
            ]
        scheduler.step(sum(held) / len(held))
    doctor.evaluate(batches(valid, langs, 32, seed))
    return losses, share_right(greedy_transformer(model, sources(valid, langs)), valid, langs[1])
