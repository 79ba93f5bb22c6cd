"""Plain loops over texts with recurrent and convolutional networks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from others import tutorial
from others.case import Cases
from others.tasks import BOS, PAD
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

sys.path.insert(0, str(Path(__file__).parent))
from fourth_parts.common import fit, greedy_first, texts, turned

CASES = Cases()


class StackedLSTM(nn.Module):
    """Cells on each other, for one step (OpenNMT)."""

    def __init__(self, layers: int, size_in: int, size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.LSTMCell(size_in if i == 0 else size, size) for i in range(layers))

    def forward(self, step: Tensor, state: Any) -> Any:
        heights, cells = [], []
        for i, layer in enumerate(self.layers):
            step, cell = layer(step, (state[0][i], state[1][i]))
            heights.append(step)
            cells.append(cell)
        return step, (torch.stack(heights), torch.stack(cells))


class GlobalAttention(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear_in, self.linear_out = nn.Linear(size, size, bias=False), nn.Linear(2 * size, size, bias=False)

    def forward(self, query: Tensor, context: Tensor, pad: Tensor) -> Tensor:
        scores = torch.bmm(context, self.linear_in(query).unsqueeze(2)).squeeze(2).masked_fill(pad, -1e9)
        read = torch.bmm(scores.softmax(-1).unsqueeze(1), context).squeeze(1)
        return torch.tanh(self.linear_out(torch.cat((read, query), 1)))


class NMTModel(nn.Module):
    """OpenNMT's first PyTorch model without input feeding; ids are (time, batch)."""

    def __init__(self, source: int, target: int, size: int = 64, forgets: bool = False) -> None:
        super().__init__()
        self.word_lut_src, self.word_lut_tgt = nn.Embedding(source, size, PAD), nn.Embedding(target, size, PAD)
        self.encoder = nn.LSTM(size, size)
        self.rnn, self.attn = StackedLSTM(1, size, size), GlobalAttention(size)
        self.generator = nn.Linear(size, target)
        self.forgets = forgets

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        context, hidden = self.encoder(self.word_lut_src(src))
        pad = (src == PAD).t()
        outputs, state = [], hidden
        for word in self.word_lut_tgt(tgt).split(1):
            output, after = self.rnn(word.squeeze(0), hidden if self.forgets else state)
            state = after
            outputs.append(self.attn(output, context.transpose(0, 1), pad))
        return self.generator(torch.stack(outputs))


@CASES.fault(
    "decoder-state-stays",
    "loop",
    origin="https://github.com/pytorch/examples/issues/88 (OpenNMT: hidden state not updated in the decoder)",
    what="every step of the recurrent decoder begins from the encoder's last state, not from the step before",
    expected="the decoder's recurrent state is not handed from step to step",
    accepts="new:state-not-handed-on",
)
def decoder_state_stays(broken: bool, seed: int, folder: Any, watch: Any) -> Any:
    train, valid, langs = texts(seed, 2100, 4, 7)
    torch.manual_seed(seed)
    model = NMTModel(len(langs[0]), len(langs[1]), forgets=broken)
    optim = torch.optim.Adam(model.parameters(), 5e-3)
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)
    doctor = watch(model, optim)
    stream = turned(tutorial.forever(train, langs, 350, seed))
    losses = fit(
        doctor,
        [optim],
        stream,
        lambda b: criterion(model(b[0], b[1][:-1]).flatten(0, 1), b[1][1:].flatten()),
        clip=list(model.parameters()),
    )
    held = list(turned(tutorial.batches(valid, langs, 32, 0)))
    doctor.evaluate(held)
    said = greedy_first(model, tutorial.padded([langs[0].ids(a) for a, _ in valid]).t(), 9)
    return losses, tutorial.share_right(said, valid, langs[1])


class BiEncoder(nn.Module):
    """Two layers in both directions; the states are joined for a decoder of double width."""

    def __init__(self, size: int, hidden: int, mixes: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(size, hidden, padding_idx=PAD)
        self.gru = nn.GRU(hidden, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.mixes = mixes

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.embed(x), lengths, batch_first=True, enforce_sorted=False)
        _, h = self.gru(packed)
        if self.mixes:
            return h.view(2, len(x), -1)
        return h.view(2, 2, len(x), -1).transpose(1, 2).reshape(2, len(x), -1)


class PlainDecoder(nn.Module):
    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.embed, self.gru = nn.Embedding(size, hidden), nn.GRU(hidden, hidden, num_layers=2, batch_first=True)
        self.fc = nn.Linear(hidden, size)

    def forward(self, y: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        out, h = self.gru(self.embed(y), h)
        return self.fc(out), h


@CASES.fault(
    "states-joined-by-view",
    "loop",
    origin="https://medium.com/mcgill-artificial-intelligence-review/"
    "the-dangers-of-reshaping-and-other-fun-mistakes-ive-learnt-from-pytorch-b6a5bdc1c275",
    what="the two directions' last states are joined by view, not transposed first: examples of a batch are mixed",
    expected="the encoder's state is reshaped across examples: a decoder gets other examples' states",
    accepts="new:examples-mixed",
)
def states_joined_by_view(broken: bool, seed: int, folder: Any, watch: Any) -> Any:
    train, valid, langs = texts(seed, 900, 2, 3)
    torch.manual_seed(seed)
    enc, dec = BiEncoder(len(langs[0]), 48, broken), PlainDecoder(len(langs[1]), 96)
    opt = torch.optim.Adam([*enc.parameters(), *dec.parameters()], lr=5e-3)
    doctor = watch((enc, dec), opt)

    def loss_of(batch: Any) -> Tensor:
        source, target = batch
        logits, _ = dec(target[:, :-1], enc(source, (source != PAD).sum(1)))
        return F.cross_entropy(logits.transpose(1, 2), target[:, 1:], ignore_index=PAD)

    losses = fit(doctor, [opt], tutorial.forever(train, langs, 350, seed), loss_of)
    held = tutorial.batches(valid, langs, 32, 0)
    doctor.evaluate(held)
    source = tutorial.padded([langs[0].ids(a) for a, _ in valid])
    with torch.no_grad():
        h, token, said = enc(source, (source != PAD).sum(1)), torch.full((len(source), 1), BOS), []
        for _ in range(5):
            logits, h = dec(token, h)
            token = logits.argmax(-1)
            said.append(token)
    return losses, tutorial.share_right(tutorial.cut(torch.cat(said, 1)), valid, langs[1])


class LuongSeq2Seq(nn.Module):
    """Time first, with dot-product attention, in one module with teacher forcing inside."""

    def __init__(self, source: int, target: int, hid: int = 64) -> None:
        super().__init__()
        self.enc_emb, self.dec_emb = nn.Embedding(source, hid), nn.Embedding(target, hid)
        self.enc, self.dec = nn.GRU(hid, hid), nn.GRU(hid, hid)
        self.concat, self.fc_out = nn.Linear(2 * hid, hid), nn.Linear(hid, target)

    def forward(self, src: Tensor, trg: Tensor) -> Tensor:
        """src (time, batch); trg (batch, time): outputs (time, batch, vocabulary)."""
        memory, h = self.enc(self.enc_emb(src))
        out, _ = self.dec(self.dec_emb(trg.t()), h)
        scores = torch.einsum("tbh,sbh->bts", out, memory).masked_fill((src == PAD).t().unsqueeze(1), -1e9)
        read = torch.einsum("bts,sbh->tbh", scores.softmax(-1), memory)
        return self.fc_out(torch.tanh(self.concat(torch.cat((out, read), -1))))


@CASES.fault(
    "labels-flattened-in-another-order",
    "loop",
    origin="https://discuss.pytorch.org/t/why-do-we-flatten-the-output-in-language-model-training/194116 and its kin:"
    " output.view(-1, V) of (time, batch), trg.view(-1) of (batch, time)",
    what="logits are flattened time first, labels batch first: each logit is compared with another place's label",
    expected="logits and labels are flattened in different orders",
    accepts="new:labels-other-order",
)
def labels_flattened(broken: bool, seed: int, folder: Any, watch: Any) -> Any:
    train, valid, langs = texts(seed)
    torch.manual_seed(seed)
    model = LuongSeq2Seq(len(langs[0]), len(langs[1]))
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)
    doctor = watch(model, optimizer)

    def loss_of(batch: Any) -> Tensor:
        source, target = batch
        output = model(source.t(), target[:, :-1])
        labels = target[:, 1:] if broken else target[:, 1:].t()
        return criterion(output.view(-1, output.shape[-1]), labels.reshape(-1))

    losses = fit(doctor, [optimizer], tutorial.forever(train, langs, 300, seed), loss_of)
    doctor.evaluate(tutorial.batches(valid, langs, 32, 0))
    source, read = tutorial.padded([langs[0].ids(a) for a, _ in valid]).t(), torch.full((len(valid), 1), BOS)
    with torch.no_grad():
        for _ in range(7):
            read = torch.cat((read, model(source, read)[-1].argmax(-1, keepdim=True)), 1)
    return losses, tutorial.share_right(tutorial.cut(read[:, 1:]), valid, langs[1])


class ConvS2S(nn.Module):
    """Gated convolutions on both sides, attention between: batch first, positions learned."""

    def __init__(self, source: int, target: int, dim: int = 64) -> None:
        super().__init__()
        self.embed_src, self.embed_tgt = nn.Embedding(source, dim), nn.Embedding(target, dim)
        self.position_src, self.position_tgt = nn.Embedding(16, dim), nn.Embedding(16, dim)
        self.encoder_conv = nn.Conv1d(dim, 2 * dim, 3, padding=1)
        self.decoder_conv = nn.Conv1d(dim, 2 * dim, 3)
        self.query, self.fc = nn.Linear(dim, dim), nn.Linear(dim, target)

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        a = self.embed_src(src) + self.position_src.weight[: src.shape[1]]
        memory = F.glu(self.encoder_conv(a.transpose(1, 2)), 1).transpose(1, 2) + a
        b = self.embed_tgt(tgt) + self.position_tgt.weight[: tgt.shape[1]]
        h = F.glu(self.decoder_conv(F.pad(b.transpose(1, 2), (2, 0))), 1).transpose(1, 2) + b
        scores = (self.query(h) @ memory.transpose(1, 2) / 8).masked_fill((src == PAD).unsqueeze(1), -1e9)
        return self.fc(scores.softmax(-1) @ (memory + a) + h)


@CASES.fault(
    "rate-multiplied-by-rate",
    "loop",
    origin="https://runebook.dev/en/docs/pytorch/generated/torch.optim.lr_scheduler.lambdalr (LambdaLR pitfalls)",
    what="the function given to LambdaLR returns a learning rate, and LambdaLR multiplies it with the optimizer's own",
    expected="the learning rate is far too small: the schedule's rate is multiplied with the optimizer's",
    accepts="new:rate-too-small",
)
def rate_multiplied(broken: bool, seed: int, folder: Any, watch: Any) -> Any:
    train, valid, langs = texts(seed)
    torch.manual_seed(seed)
    model = ConvS2S(len(langs[0]), len(langs[1]))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3 if broken else 1.0, betas=(0.9, 0.98))

    def rate(step: int) -> float:
        step += 1
        return 0.6 * 64**-0.5 * min(step**-0.5, step * 60**-1.5)

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    doctor = watch(model, optimizer)

    def loss_of(batch: Any) -> Tensor:
        src, tgt = batch
        return F.cross_entropy(model(src, tgt[:, :-1]).transpose(1, 2), tgt[:, 1:], ignore_index=PAD)

    losses = fit(doctor, [optimizer], tutorial.forever(train, langs, 350, seed), loss_of, scheduler.step)
    doctor.evaluate(tutorial.batches(valid, langs, 32, 0))
    source = tutorial.padded([langs[0].ids(a) for a, _ in valid])
    return losses, tutorial.share_right(tutorial.greedy_transformer(model, source, 7), valid, langs[1])
