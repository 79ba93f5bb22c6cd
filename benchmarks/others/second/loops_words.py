"""Plain loops over words: faults of optimizers, of the order in a batch, of vocabularies, masks and positions."""

from __future__ import annotations

import random
from typing import Any

import torch
from others.case import Cases
from others.tasks import BOS, EOS, PAD, UNK, numbers, split
from others.tutorial import (
    AttnDecoderRNN,
    BahdanauAttention,
    EncoderRNN,
    Lang,
    PositionalEncoding,
    Seq2SeqTransformer,
    cut,
    forever,
    greedy_rnn,
    greedy_transformer,
    padded,
    share_right,
)
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

CASES = Cases()
WORDS: dict[str, Any] = {"count": 1096, "low": 2, "high": 5}


def task(seed: int, **more: Any) -> tuple[Any, Any, tuple[Lang, Lang]]:
    """Pairs to train and to validate on, and both languages."""
    pairs = numbers(seed=seed, **(WORDS | more))
    train, valid = split(pairs)
    return train, valid, (Lang(pairs, 0), Lang(pairs, 1))


def entropy(logits: Tensor, labels: Tensor, ignore: int = PAD) -> Tensor:
    """The mean cross-entropy of (batch, time, size) logits."""
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=ignore)


def sources(pairs: Any, lang: Lang) -> Tensor:
    """(batch, time) ids of all sources."""
    return padded([lang.ids(a) for a, _ in pairs])


@CASES.fault(
    "adam_with_the_decay_of_adamw",
    "loop",
    origin="anhquan0412/basic_model_scratch#2, pytorch/pytorch#4429: Adam's weight_decay is L2 in the "
    "gradient, AdamW's "
    "is not",
    what="Adam is given AdamW's weight_decay: it is added to the gradient and normalised with it, and weights "
    "shrink away",
    expected="the weight decay is too strong for this optimizer: weights shrink towards zero",
    accepts="new:weight-decay",
)
def coupled(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """Two modules, two optimizers, as in the tutorial."""
    train, valid, langs = task(seed)
    torch.manual_seed(seed)
    encoder, decoder = EncoderRNN(len(langs[0])), AttnDecoderRNN(len(langs[1]))
    kind = torch.optim.Adam if broken else torch.optim.AdamW
    optimizers = [kind(module.parameters(), lr=3e-3, weight_decay=0.1) for module in (encoder, decoder)]
    doctor = watch((encoder, decoder), optimizers, steps=400)
    losses = []
    for source, target in forever(train, langs, 400, seed):
        for optimizer in optimizers:
            optimizer.zero_grad()
        outputs, state = encoder(source)
        loss = entropy(decoder(outputs, state, target[:, :-1], source == PAD), target[:, 1:])
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        doctor.step(loss, (source, target))
        losses.append(loss.item())
    return losses, share_right(greedy_rnn(encoder, decoder, sources(valid, langs[0])), valid, langs[1])


class Packed(nn.Module):
    """A bidirectional LSTM over a packed batch that is sorted by length first, and an attending decoder."""

    def __init__(self, source: int, target: int, wrong: bool, width: int = 64) -> None:
        super().__init__()
        self.wrong = wrong
        self.embed = nn.Embedding(source, width, padding_idx=PAD)
        self.lstm = nn.LSTM(width, width // 2, batch_first=True, bidirectional=True)
        self.decoder = AttnDecoderRNN(target, width)

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (batch, source, width) and the first state of the decoder (1, batch, width)."""
        lengths, order = torch.sort((source != PAD).sum(1), descending=True)
        packed = pack_padded_sequence(self.embed(source[order]), lengths, batch_first=True)
        packed_outputs, (state, _) = self.lstm(packed)
        outputs, _ = pad_packed_sequence(packed_outputs, batch_first=True, total_length=source.shape[1])
        state = torch.cat((state[0], state[1]), dim=-1)
        back = order if self.wrong else torch.argsort(order)
        return outputs[back], state[back].unsqueeze(0)

    def forward(self, source: Tensor, read: Tensor) -> Tensor:
        """Logits (batch, target, size)."""
        outputs, state = self.encode(source)
        return self.decoder(outputs, state, read, source == PAD)


@CASES.fault(
    "restored_by_the_sorting_index",
    "loop",
    origin="ruotianluo/self-critical.pytorch#125, PyTorch forum on pack_padded_sequence: un-sorting a sorted batch",
    what="a batch sorted by length for packing is put back by the sorting index, not by its inverse: rows read others",
    expected="examples of a batch read each other's source: rows are mixed",
    accepts="new:rows-mixed",
)
def unsorted(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """One module; Adam with clipping."""
    train, valid, langs = task(seed)
    torch.manual_seed(seed)
    model = Packed(len(langs[0]), len(langs[1]), broken)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    doctor = watch(model, optimizer, steps=300)
    losses = []
    for batch in forever(train, langs, 300, seed):
        src, trg = batch
        optimizer.zero_grad()
        loss = entropy(model(src, trg[:, :-1]), trg[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        doctor.step(loss, batch)
        losses.append(loss.item())
    model.eval()
    return losses, share_right(greedy_rnn(model.encode, model.decoder, sources(valid, langs[0])), valid, langs[1])


class Vector(nn.Module):
    """An LSTM that hands its last state to another one: no attention."""

    def __init__(self, source: int, target: int, repackaged: bool, width: int = 96) -> None:
        super().__init__()
        self.repackaged = repackaged
        self.source_embedding, self.target_embedding = nn.Embedding(source, width), nn.Embedding(target, width)
        self.encoder = nn.LSTM(width, width, batch_first=True)
        self.decoder = nn.LSTM(width, width, batch_first=True)
        self.out = nn.Linear(width, target)

    def start(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """The state behind the source."""
        last = (source != PAD).sum(1) - 1
        hidden = pack_padded_sequence(self.source_embedding(source), last + 1, True, enforce_sorted=False)
        _, state = self.encoder(hidden)
        return tuple(each.detach() for each in state) if self.repackaged else state  # type: ignore[return-value]

    def forward(self, source: Tensor, read: Tensor) -> Tensor:
        """Logits (batch, target, size)."""
        said, _ = self.decoder(self.target_embedding(read), self.start(source))
        return self.out(said)


@CASES.fault(
    "encoder_state_repackaged",
    "loop",
    origin="facebookresearch/fairseq#408 (all gradients of the encoder are None); `repackage_hidden` of "
    "pytorch/examples' "
    "language model and OpenNMT-py's detach_state, put before the decoder",
    what="the encoder's last state is detached, as the language model example does between chunks",
    expected="no gradient reaches the encoder: it is not trained",
    accepts="new:detached",
)
def repackaged(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """One vector between two LSTMs."""
    train, valid, langs = task(seed, count=900, low=2, high=3)
    torch.manual_seed(seed)
    model = Vector(len(langs[0]), len(langs[1]), broken)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    doctor = watch(model, optimizer, steps=400)
    losses = []
    for src, trg in forever(train, langs, 400, seed):
        loss = entropy(model(src, trg[:, :-1]), trg[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        doctor.step(loss, (src, trg))
        losses.append(loss.item())
    with torch.no_grad():
        src = sources(valid, langs[0])
        read = torch.full((len(src), 1), BOS)
        for _ in range(6):
            read = torch.cat((read, model(src, read)[:, -1:].argmax(-1)), 1)
    return losses, share_right(cut(read[:, 1:]), valid, langs[1])


@CASES.fault(
    "pad_id_of_another_tutorial",
    "loop",
    origin="wenet-e2e/wesr#5: the id that the loss leaves out is the end's, decoding cannot stop; torchtext's "
    "padding is "
    "1, so tutorials have PAD_IDX = 1",
    what="ignore_index is 1 as in a tutorial, but here 1 is the end of a text: ends are never trained, padding is",
    expected="the loss leaves out the end token: outputs never end",
    accepts="new:end-not-trained",
)
def ignores_end(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """nn.Transformer, batch first."""
    train, valid, langs = task(seed)
    torch.manual_seed(seed)
    model = Seq2SeqTransformer(len(langs[0]), len(langs[1]))
    criterion = nn.CrossEntropyLoss(ignore_index=EOS if broken else PAD)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    doctor = watch(model, optimizer, steps=500)
    losses = []
    for src, tgt in forever(train, langs, 500, seed):
        logits = model(src, tgt[:, :-1])
        loss = criterion(logits.reshape(-1, logits.shape[-1]), tgt[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        doctor.step(loss, (src, tgt))
        losses.append(loss.item())
    return losses, share_right(greedy_transformer(model, sources(valid, langs[0])), valid, langs[1])


class RowPositions(PositionalEncoding):
    """The table indexed by the first dimension, as for (time, batch, width)."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Added to what comes in: each row of a batch gets one position."""
        pe: Any = self.pe
        return hidden + pe[: hidden.size(0)].unsqueeze(1)


@CASES.fault(
    "position_of_the_row",
    "loop",
    origin="cmu-l3/anlp-fall2025-code#1, KasperGroesLudvigsen/influenza_transformer#9: x.size(0) with batch_first",
    what="positions are taken along the batch: all tokens of an example get one, which is its place in the batch",
    expected="the order of the source is not read, or outputs depend on the place in the batch",
    accepts="new:positions",
)
def row_positions(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """nn.Transformer with the tutorial's positions and a Noam-like warm-up."""
    train, valid, langs = task(seed)
    torch.manual_seed(seed)
    model = Seq2SeqTransformer(len(langs[0]), len(langs[1]))
    if broken:
        model.positional_encoding = RowPositions(64)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, betas=(0.9, 0.98))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 50))
    doctor = watch(model, optimizer, steps=500)
    losses = []
    for src, tgt in forever(train, langs, 500, seed):
        optimizer.zero_grad()
        loss = entropy(model(src, tgt[:, :-1]), tgt[:, 1:])
        loss.backward()
        optimizer.step()
        scheduler.step()
        doctor.step(loss, (src, tgt))
        losses.append(loss.item())
    model.eval()
    right = 0.0
    for start in range(0, len(valid), 32):
        part = valid[start : start + 32]
        right += share_right(greedy_transformer(model, sources(part, langs[0])), part, langs[1]) * len(part)
    return losses, right / len(valid)


def spelled(pairs: Any, seed: int) -> Any:
    """The same pairs with two of three German words capitalised, as in running text."""
    draw = random.Random(seed)
    return [(" ".join(w.title() if draw.random() < 0.67 else w for w in a.split()), b) for a, b in pairs]


@CASES.fault(
    "vocabulary_lowercased_text_not",
    "loop",
    origin="tensorflow/nmt#334: the vocabulary file was lower-cased, the data had capitals: their embeddings "
    "were never "
    "learnt; OpenNMT/Tokenizer#176",
    what="the vocabulary holds lower-cased words, the sources are looked up as they are: two words of three are <unk>",
    expected="a large share of the source tokens is <unk>",
    accepts="new:unknown",
)
def cased(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """A GRU with attention; the vocabulary is a plain dict."""
    train, valid, langs = task(seed)
    train, valid = spelled(train, seed), spelled(valid, seed + 1)
    known = langs[0].word2index

    def ids(text: str) -> list[int]:
        return [known.get(word if broken else word.lower(), UNK) for word in text.split()] + [EOS]

    torch.manual_seed(seed)
    encoder, decoder = EncoderRNN(len(langs[0])), AttnDecoderRNN(len(langs[1]))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=3e-3)
    doctor = watch((encoder, decoder), optimizer, steps=350)
    losses, draw = [], random.Random(seed)
    for _ in range(350):
        rows = draw.sample(train, 32)
        batch = {"src": padded([ids(a) for a, _ in rows]), "trg": padded([langs[1].ids(b, True) for _, b in rows])}
        optimizer.zero_grad()
        outputs, state = encoder(batch["src"])
        loss = entropy(decoder(outputs, state, batch["trg"][:, :-1], batch["src"] == PAD), batch["trg"][:, 1:])
        loss.backward()
        optimizer.step()
        doctor.step(loss, batch)
        losses.append(loss.item())
    said = greedy_rnn(encoder, decoder, padded([ids(a) for a, _ in valid]))
    return losses, share_right(said, valid, langs[1])


@CASES.fault(
    "schedule_begins_anew_each_epoch",
    "loop",
    origin="Vision-CAIR/MiniGPT-4#263 'LR resets every epoch during warmup'; get_linear_schedule_with_warmup inside "
    "`for epoch in …`",
    what="the scheduler is built inside the epoch loop, with a warm-up longer than an epoch: the rate stays near zero",
    expected="the learning rate falls back at each epoch and never reaches what is set: the schedule starts again",
    accepts="new:schedule-anew",
)
def anew(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """nn.Transformer, epochs of 15 batches, transformers' schedule with 200 steps of warm-up."""
    from transformers import get_linear_schedule_with_warmup

    train, valid, langs = task(seed, count=96 + 15 * 32)
    torch.manual_seed(seed)
    model = Seq2SeqTransformer(len(langs[0]), len(langs[1]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    doctor = watch(model, optimizer, steps=600)
    losses: list[float] = []
    scheduler = get_linear_schedule_with_warmup(optimizer, 200, 1000)
    for epoch in range(40):
        if broken:
            scheduler = get_linear_schedule_with_warmup(optimizer, 200, 1000)
        for src, tgt in forever(train, langs, 15, seed + epoch):
            loss = entropy(model(src, tgt[:, :-1]), tgt[:, 1:])
            loss.backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            doctor.step(loss, (src, tgt))
            losses.append(loss.item())
    return losses, share_right(greedy_transformer(model, sources(valid, langs[0])), valid, langs[1])


class Listed(nn.Module):
    """Two GRU cells with an attention each; where `plain`, they stand in a Python list."""

    def __init__(self, source: int, target: int, plain: bool, width: int = 64) -> None:
        super().__init__()
        self.encoder = EncoderRNN(source, width)
        self.embedding = nn.Embedding(target, width)
        cells = [nn.GRUCell(2 * width, width) for _ in range(2)]
        attentions = [BahdanauAttention(width) for _ in range(2)]
        self.cells = cells if plain else nn.ModuleList(cells)
        self.attentions = attentions if plain else nn.ModuleList(attentions)
        self.out = nn.Linear(width, target)

    def forward(self, source: Tensor, read: Tensor) -> Tensor:
        """Logits (batch, target, size)."""
        outputs, last = self.encoder(source)
        states, said = [last[0], last[0]], []
        for token in read.unbind(1):
            hidden = self.embedding(token)
            for i in range(2):
                context, _ = self.attentions[i](states[i].unsqueeze(1), outputs, source == PAD)
                states[i] = self.cells[i](torch.cat((hidden, context.squeeze(1)), -1), states[i])
                hidden = hidden + states[i]
            said.append(self.out(hidden))
        return torch.stack(said, 1)


@CASES.fault(
    "layers_in_a_python_list",
    "loop",
    origin="pytorch/pytorch#715 'parameters are not included if the module is initialized in a list', #72580, #38639",
    what="cells and attentions stand in a Python list: parameters() does not give them, so they are never trained",
    expected="layers of the decoder are in no optimizer, or are no part of the model: they stay as they were drawn",
    accepts="new:not-in-optimizer",
)
def listed(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """A decoder of its own making."""
    train, valid, langs = task(seed)
    torch.manual_seed(seed)
    model = Listed(len(langs[0]), len(langs[1]), broken)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    doctor = watch(model, optimizer, steps=300)
    losses = []
    for src, trg in forever(train, langs, 300, seed):
        optimizer.zero_grad()
        loss = entropy(model(src, trg[:, :-1]), trg[:, 1:])
        loss.backward()
        optimizer.step()
        doctor.step(loss, (src, trg))
        losses.append(loss.item())
    return losses, share_right(greedy_transformer(model, sources(valid, langs[0])), valid, langs[1])
