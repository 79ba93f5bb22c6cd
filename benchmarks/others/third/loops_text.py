"""Plain loops over texts: packing, states, positions, heads, padding, the axis of a softmax."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from others import tutorial
from others.case import Cases
from others.tasks import BOS, PAD, numbers, split
from others.tutorial import Lang, Seq2SeqTransformer, padded, share_right
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from third_parts import nets, senses

CASES = Cases()


def prepared(seed: int, count: int, low: int, high: int, turned: bool = False) -> tuple[Any, Any, tuple[Lang, Lang]]:
    """Training and validation pairs, and both vocabularies. `turned`: targets in reverse order."""
    pairs = numbers(count, seed, low, high)
    if turned:
        pairs = [(a, " ".join(reversed(b.split()))) for a, b in pairs]
    train, valid = split(pairs)
    return train, valid, (Lang(pairs, 0), Lang(pairs, 1))


@CASES.fault(
    "sorted-for-packing",
    "loop",
    origin="forums since 2017, after pack_padded_sequence(): “sorted and not sorted back” (fartashf/vsepp#36)",
    what="the collate function sorts sources by length for packing, and leaves the targets in their old order",
    expected="sources and targets of a batch do not belong together",
    accepts="new:mispaired-in-batch",
    gap=0.4,
)
def sorted_for_packing(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """An LSTM with Luong's attention, time first."""
    train, valid, (german, english) = prepared(seed, 2100, 2, 5)

    def collate(rows: Any) -> tuple[Any, Any, Any]:
        sources = [torch.tensor(german.ids(a)) for a, _ in rows]
        targets = [torch.tensor(english.ids(b, True)) for _, b in rows]
        lengths = torch.tensor([len(source) for source in sources])
        lengths, order = lengths.sort(descending=True)
        sources = [sources[i] for i in order]
        if not broken:
            targets = [targets[i] for i in order]
        pad = nn.utils.rnn.pad_sequence
        return pad(sources, padding_value=PAD), lengths, pad(targets, padding_value=PAD)

    torch.manual_seed(seed)
    model = nets.PackedSeq2Seq(len(german), len(english))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)
    doctor, losses = watch(model, optimizer), []
    for rows in senses.shuffled(train, 500, 32, seed):
        src, src_len, trg = collate(rows)
        logits = model(src, src_len, trg[:-1])
        loss = criterion(logits.reshape(-1, logits.shape[-1]), trg[1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        doctor.step(loss, (src, src_len, trg))
    doctor.evaluate([collate(valid[i : i + 32]) for i in range(0, 96, 32)])
    by_length = sorted(valid, key=lambda pair: -len(pair[0].split()))
    with torch.no_grad():
        source = padded([german.ids(a) for a, _ in by_length]).T
        outputs, state = model.encoder(source, (source != PAD).sum(0))
        token, said = torch.full((1, len(valid)), BOS), []
        for _ in range(8):
            logits, state = model.decoder(token, state, outputs, (source == PAD).T)
            token = logits.argmax(-1)
            said.append(token)
    return losses, share_right(tutorial.cut(torch.cat(said).T), by_length, english)


@CASES.fault(
    "two-way-state-viewed",
    "loop",
    origin="forums: h_n of a two-way GRU by .view(batch, -1); what is right: OpenNMT-py#61, jiesutd/NCRFpp#75",
    what="the encoder's last states (2, batch, hidden) become (batch, 2·hidden) by view: rows of several examples",
    expected="the decoder's first state mixes the examples of a batch",
    accepts="new:state-mixes-examples",
)
def two_way_state_viewed(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """GRUs without attention: all that the decoder knows is its first state."""
    train, valid, langs = prepared(seed, 1000, 2, 3)
    torch.manual_seed(seed)
    model = nets.TwoWaySeq2Seq(len(langs[0]), len(langs[1]), viewed=broken)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    doctor, losses = watch(model, optimizer), []
    for src, trg in tutorial.forever(train, langs, 600, seed):
        out = model(src, (src != PAD).sum(1), trg[:, :-1])
        loss = F.cross_entropy(out.transpose(1, 2), trg[:, 1:], ignore_index=PAD)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss))
        doctor.step(loss, (src, trg))
    doctor.evaluate(tutorial.batches(valid, langs, 32, 0))
    source = padded([langs[0].ids(a) for a, _ in valid])
    with torch.no_grad():
        state = model.encoder(source, (source != PAD).sum(1))
        said = senses.greedy(lambda read: model.decoder(read, state)[0], len(valid), 6)
    return losses, share_right(said, valid, langs[1])


class BatchPositions(nn.Module):
    """Positions of the tutorial, made for (time, batch, width)."""

    def __init__(self, width: int, longest: int = 64) -> None:
        super().__init__()
        self.register_buffer("pe", tutorial.PositionalEncoding(width, longest).pe.unsqueeze(1))

    def forward(self, x: Any) -> Any:
        """x: (time, batch, width)."""
        return x + self.pe[: x.size(0)]


@CASES.fault(
    "positions-over-the-batch",
    "loop",
    origin="pytorch/tutorials#1547, AkiRusProd/numpy-transformer#1, cmu-l3/anlp-fall2025-code#1",
    what="the positional encoding is made for time first and is added to batch-first embeddings: one vector an example",
    expected="positions are not told apart: the encoding is added along the batch",
    accepts="new:positions-wrong-axis",
)
def positions_over_the_batch(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """nn.Transformer with batch_first=True and the language model tutorial's encoding."""
    train, valid, langs = prepared(seed, 2100, 3, 5)
    torch.manual_seed(seed)
    model = Seq2SeqTransformer(len(langs[0]), len(langs[1]))
    if broken:
        model.positional_encoding = BatchPositions(64)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    doctor, losses = watch(model, optimizer, steps=500), []
    for src, tgt in tutorial.forever(train, langs, 500, seed):
        logits = model(src, tgt[:, :-1])
        loss = senses.masked_loss(logits, tgt[:, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
        doctor.step(loss, (src, tgt))
    model.eval()
    doctor.evaluate(tutorial.batches(valid, langs, 32, 0))
    source = padded([langs[0].ids(a) for a, _ in valid[:64]])
    return losses, share_right(tutorial.greedy_transformer(model, source), valid[:64], langs[1])


@CASES.fault(
    "heads-cut-by-view",
    "loop",
    origin="reczoo/FuxiCTR#30, 649453932/Chinese-Text-Classification-Pytorch#10, jsbaan/transformer-from-scratch#6",
    what="heads are cut off by view(batch, heads, time, size) without transpose: each head sees a part of the places",
    expected="the heads mix places and dimensions, so that parts of the source cannot be read",
    accepts="new:heads-scrambled",
)
def heads_cut_by_view(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """A Transformer from scratch that says numbers backwards."""
    train, valid, langs = prepared(seed, 3000, 4, 4, turned=True)
    torch.manual_seed(seed)
    model = nets.ScratchTransformer(len(langs[0]), len(langs[1]), viewed=broken)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3, betas=(0.9, 0.98))
    doctor, losses = watch(model, optimizer), []
    for src, tgt in tutorial.forever(train, langs, 400, seed):
        loss = senses.masked_loss(model(src, tgt[:, :-1]), tgt[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
        doctor.step(loss, {"src": src, "tgt": tgt})
    doctor.evaluate([{"src": src, "tgt": tgt} for src, tgt in tutorial.batches(valid, langs, 32, 0)])
    source = padded([langs[0].ids(a) for a, _ in valid])
    return losses, share_right(senses.greedy(lambda read: model(source, read), len(valid), 6), valid, langs[1])


@CASES.fault(
    "convolution-sees-ahead",
    "loop",
    origin="bentrevett/pytorch-seq2seq#30 and #14, alex-matton/causal-transformer-decoder#1",
    what="the decoder's convolutions pad on both sides like the encoder's: they see the token that is to be said",
    expected="the decoder sees later target tokens",
    accepts="new:decoder-sees-ahead",
)
def convolution_sees_ahead(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """Convolutional sequence to sequence, as in Gehring et al. 2017; it says numbers backwards."""
    train, valid, langs = prepared(seed, 2100, 4, 5, turned=True)
    torch.manual_seed(seed)
    model = nets.ConvSeq2Seq(len(langs[0]), len(langs[1]), both_sides=broken)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    doctor, losses = watch(model, optimizer), []
    for src, trg in tutorial.forever(train, langs, 400, seed):
        optimizer.zero_grad()
        output = model(src, trg[:, :-1])
        loss = senses.masked_loss(output, trg[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        losses.append(loss.item())
        doctor.step(loss, (src, trg))
    model.eval()
    doctor.evaluate(tutorial.batches(valid, langs, 32, 0))
    source = padded([langs[0].ids(a) for a, _ in valid])
    return losses, share_right(senses.greedy(lambda read: model(source, read), len(valid), 8), valid, langs[1])


@CASES.fault(
    "softmax-over-time",
    "loop",
    origin="spro/practical-pytorch#87, pytorch/pytorch#27626: LogSoftmax(dim=1) kept for (batch, time, size)",
    what="nn.LogSoftmax(dim=1) of (batch, time, size): probabilities sum to one over time, not over the vocabulary",
    expected="the softmax in front of the loss runs over the wrong axis",
    accepts="new:softmax-axis",
)
def softmax_over_time(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """The tutorial's GRU with attention, in batches."""
    train, valid, langs = prepared(seed, 2100, 2, 5)
    torch.manual_seed(seed)
    encoder, decoder = tutorial.EncoderRNN(len(langs[0])), tutorial.AttnDecoderRNN(len(langs[1]))
    softmax, criterion = nn.LogSoftmax(dim=1 if broken else 2), nn.NLLLoss(ignore_index=PAD)
    optimizers = [torch.optim.Adam(each.parameters(), 3e-3) for each in (encoder, decoder)]
    doctor, losses = watch((encoder, decoder), tuple(optimizers)), []
    for source, target in tutorial.forever(train, langs, 400, seed):
        for optimizer in optimizers:
            optimizer.zero_grad()
        outputs, hidden = encoder(source)
        said = softmax(decoder(outputs, hidden, target[:, :-1], source == PAD))
        loss = criterion(said.view(-1, said.size(-1)), target[:, 1:].reshape(-1))
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
        doctor.step(loss, (source, target))
    doctor.evaluate(tutorial.batches(valid, langs, 32, 0))
    source = padded([langs[0].ids(a) for a, _ in valid])
    return losses, share_right(tutorial.greedy_rnn(encoder, decoder, source), valid, langs[1])
