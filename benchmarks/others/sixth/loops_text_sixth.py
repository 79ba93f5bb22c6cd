"""Plain loops over texts, as tutorials have them; each has one fault that somebody told of."""

from __future__ import annotations

import math
import random
from typing import Any

import torch
import torch.nn.functional as F
from others import tasks, tutorial
from others.case import Cases
from others.tasks import BOS, EOS, PAD
from others.tutorial import Lang
from torch import Tensor, nn

CASES = Cases()


def data(seed: int, count: int = 1600, low: int = 2, high: int = 5) -> tuple[Any, Any, tuple[Lang, Lang]]:
    """Pairs to train on, pairs to validate on, and the words of both sides."""
    pairs = tasks.numbers(count, seed, low, high)
    train, valid = tasks.split(pairs)
    return train, valid, (Lang(pairs, 0), Lang(pairs, 1))


def sources(pairs: Any, lang: Lang) -> Tensor:
    """(batch, longest)."""
    return tutorial.padded([lang.ids(source) for source, _ in pairs])


# --- 1 --------------------------------------------------------------------------------------------------------------


class SelfMadeAttention(nn.Module):
    """Multi-head attention written out, batch first."""

    def __init__(self, width: int, heads: int, permuted: bool) -> None:
        super().__init__()
        self.heads, self.size, self.permuted = heads, width // heads, permuted
        self.qs, self.ks, self.vs, self.fc = (nn.Linear(width, width) for _ in range(4))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, queries, width)."""
        b, n = q.shape[:2]
        q, k, v = (
            f(x).view(b, -1, self.heads, self.size).permute(0, 2, 1, 3)
            for f, x in ((self.qs, q), (self.ks, k), (self.vs, v))
        )
        scores = q @ k.transpose(-2, -1) / math.sqrt(self.size)
        if mask is not None:
            scores = scores.masked_fill(mask, -1e9)
        values = scores.softmax(-1) @ v
        if self.permuted:
            values = values.permute(0, 2, 1, 3)
        return self.fc(values.reshape(b, n, -1))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """A layer of encoder or decoder."""

    def __init__(self, width: int, permuted: bool, cross: bool) -> None:
        super().__init__()
        self.attn = SelfMadeAttention(width, 4, permuted)
        self.cross = SelfMadeAttention(width, 4, permuted) if cross else None
        self.ff = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(
        self, x: Tensor, mask: Tensor, memory: Tensor | None = None, memory_mask: Tensor | None = None
    ) -> Tensor:
        """Post-norm, as in the paper."""
        x = self.norms[0](x + self.attn(x, x, x, mask))
        if self.cross is not None:
            x = self.norms[1](x + self.cross(x, memory, memory, memory_mask))
        return self.norms[2](x + self.ff(x))  # type: ignore[no-any-return]


class FromScratch(nn.Module):
    """A Transformer from scratch."""

    def __init__(self, source: int, target: int, permuted: bool, width: int = 64) -> None:
        super().__init__()
        self.src_emb, self.trg_emb = nn.Embedding(source, width), nn.Embedding(target, width)
        self.pos = tutorial.PositionalEncoding(width)
        self.encoder_layers = nn.ModuleList([Layer(width, permuted, False)])
        self.decoder_layers = nn.ModuleList([Layer(width, permuted, True)])
        self.fc_out = nn.Linear(width, target)

    def encode(self, src: Tensor, mask: Tensor) -> Tensor:
        """Memory."""
        x = self.pos(self.src_emb(src))
        for layer in self.encoder_layers:
            x = layer(x, mask)
        return x

    def forward(self, src: Tensor, trg: Tensor) -> Tensor:
        """Logits."""
        mask = (src == PAD)[:, None, None, :]
        future = torch.ones(trg.shape[1], trg.shape[1]).triu(1).bool()
        memory = self.encode(src, mask)
        x = self.pos(self.trg_emb(trg))
        for layer in self.decoder_layers:
            x = layer(x, future, memory, mask)
        return self.fc_out(x)  # type: ignore[no-any-return]


@CASES.fault(
    "heads-merged-unpermuted",
    "loop",
    origin="github.com/jsbaan/transformer-from-scratch, issue 4 and pull request 6 (also hackiey/QAnet-pytorch, "
    "issue 2;"
    " zhouhaoyi/Informer2020, issue 100)",
    what="self-made multi-head attention reshapes (batch, heads, time, size) to (batch, time, width) without a permute",
    expected="positions are mixed where the heads are joined: a view or reshape without a transpose, in attention",
    accepts="new:heads-merged",
    also="WIR006",  # true: through the mixed positions it does see later tokens
)
def heads(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """Batch first, Adam, a Transformer from scratch."""
    train, valid, langs = data(seed, low=3)
    torch.manual_seed(seed)
    model = FromScratch(len(langs[0]), len(langs[1]), not broken)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)
    doctor = watch(model, optimizer)
    losses = []
    for src, trg in tutorial.forever(train, langs, 260, seed):
        optimizer.zero_grad()
        out = model(src, trg[:, :-1])
        loss = criterion(out.reshape(-1, out.shape[-1]), trg[:, 1:].reshape(-1))
        loss.backward()
        optimizer.step()
        doctor.step(loss, (src, trg))
        losses.append(loss.item())
    model.eval()
    doctor.evaluate(tutorial.batches(valid, langs, 32, 0))
    said = tutorial.greedy_transformer(model, sources(valid, langs[0]))
    return losses, tutorial.share_right(said, valid, langs[1])


# --- 2 --------------------------------------------------------------------------------------------------------------


class PackedEncoder(nn.Module):
    """A bidirectional GRU over packed sequences, which have to be sorted."""

    def __init__(self, size: int, hidden: int, unsort: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size, hidden, padding_idx=PAD)
        self.rnn = nn.GRU(hidden, hidden, bidirectional=True, batch_first=True)
        self.bridge = nn.Linear(2 * hidden, hidden)
        self.unsort = unsort

    def forward(self, input_seqs: Tensor, input_lens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs (batch, time, hidden), the state of a decoder (1, batch, hidden), and where there is padding."""
        sorted_lens, indices = torch.sort(input_lens, descending=True)
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embedding(input_seqs[indices]), sorted_lens.cpu(), batch_first=True
        )
        outputs, hidden = self.rnn(packed)
        outputs, lens = nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True)
        state = torch.cat((hidden[0], hidden[1]), 1)
        if self.unsort:
            _, back = torch.sort(indices)
            outputs, state, lens = outputs[back], state[back], lens[back]
        blank = torch.arange(outputs.shape[1])[None] >= lens[:, None]
        return self.bridge(outputs), torch.tanh(self.bridge(state))[None], blank


@CASES.fault(
    "sorted-not-unsorted",
    "loop",
    origin="github.com/pytorch/pytorch, issues 2615 and 4927: sources are sorted by length for packing",
    what="the encoder sorts its batch by length to pack it, and gives its outputs in that order, not the targets'",
    expected="the examples of a batch are mixed in the encoder: a target is written from another example's source",
    accepts="new:rows-reordered",
)
def unsorted(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """Two modules, two optimizers, lengths in the batch."""
    train, valid, langs = data(seed)
    torch.manual_seed(seed)
    encoder = PackedEncoder(len(langs[0]), 64, not broken)
    decoder = tutorial.AttnDecoderRNN(len(langs[1]))
    encoder_optimizer = torch.optim.Adam(encoder.parameters(), 3e-3)
    decoder_optimizer = torch.optim.Adam(decoder.parameters(), 3e-3)
    doctor = watch((encoder, decoder), (encoder_optimizer, decoder_optimizer))
    losses = []
    for src, trg in tutorial.forever(train, langs, 220, seed):
        lengths = (src != PAD).sum(1)
        encoder_optimizer.zero_grad()
        decoder_optimizer.zero_grad()
        outputs, state, blank = encoder(src, lengths)
        logits = decoder(outputs, state, trg[:, :-1], blank)
        loss = F.cross_entropy(logits.flatten(0, 1), trg[:, 1:].flatten(), ignore_index=PAD)
        loss.backward()
        nn.utils.clip_grad_norm_([*encoder.parameters(), *decoder.parameters()], 1.0)
        encoder_optimizer.step()
        decoder_optimizer.step()
        losses.append(loss.item())
        doctor.step(loss, (src, lengths, trg))
    batches = [(src, (src != PAD).sum(1), trg) for src, trg in tutorial.batches(valid, langs, 32, 0)]
    doctor.evaluate(batches)
    with torch.no_grad():
        src = sources(valid, langs[0])
        outputs, state, blank = encoder(src, (src != PAD).sum(1))
        token, said = torch.full((len(src), 1), BOS), []
        for _ in range(8):
            logits, state = decoder.step(token, state, outputs, blank)
            token = logits.argmax(-1)
            said.append(token)
    return losses, tutorial.share_right(tutorial.cut(torch.cat(said, 1)), valid, langs[1])


# --- 3 --------------------------------------------------------------------------------------------------------------


class Seq2Seq(nn.Module):
    """Time first, as in the series of notebooks; its outputs are stacked batch first."""

    def __init__(self, source: int, target: int, hidden: int = 64) -> None:
        super().__init__()
        self.enc_embedding, self.enc_rnn = nn.Embedding(source, hidden), nn.GRU(hidden, hidden)
        self.dec_embedding, self.dec_rnn = nn.Embedding(target, hidden), nn.GRU(2 * hidden, hidden)
        self.fc_out = nn.Linear(2 * hidden, target)

    def forward(self, src: Tensor, trg: Tensor, teacher_forcing_ratio: float = 1.0, steps: int = 0) -> Tensor:
        """Logits (batch, time, size) behind <s>; where `steps` are given, after what it said itself."""
        outputs, hidden = self.enc_rnn(self.enc_embedding(src))
        token, said = trg[0], []
        for t in range(1, 1 + (steps or len(trg) - 1)):
            weights = torch.einsum("tbh,bh->bt", outputs, hidden[0]).masked_fill((src == PAD).t(), -1e9).softmax(1)
            context = torch.einsum("bt,tbh->bh", weights, outputs)
            out, hidden = self.dec_rnn(torch.cat((self.dec_embedding(token), context), 1)[None], hidden)
            said.append(self.fc_out(torch.cat((out[0], context), 1)))
            token = trg[t] if not steps and random.random() < teacher_forcing_ratio else said[-1].argmax(1)
        return torch.stack(said, 1)


@CASES.fault(
    "flattened-in-two-orders",
    "loop",
    origin="github.com/bentrevett/pytorch-seq2seq, issue 94 (the flattened targets are not in the order of the "
    "sentence); "
    "github.com/IBM/pytorch-seq2seq, issue 193; github.com/HHTseng/video-classification, issue 42",
    what="outputs (batch, time, size) are flattened batch first, targets (time, batch) time first: tokens are compared "
    "with other examples' tokens at other times",
    expected="the labels of the loss are in another order than the outputs: (batch, time) against (time, batch)",
    accepts="new:label-order",
)
def flattened(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """Time first; the batch is a pair of tensors (time, batch)."""
    train, valid, langs = data(seed)
    torch.manual_seed(seed)
    random.seed(seed)
    model = Seq2Seq(len(langs[0]), len(langs[1]))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)
    doctor = watch(model, optimizer)
    losses = []
    for src, trg in tutorial.forever(train, langs, 320, seed):
        src, trg = src.t().contiguous(), trg.t().contiguous()
        optimizer.zero_grad()
        output = model(src, trg)
        gold = trg[1:] if broken else trg[1:].t()
        loss = criterion(output.reshape(-1, output.shape[-1]), gold.reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        doctor.step(loss, (src, trg))
    model.eval()
    doctor.evaluate(
        [(src.t().contiguous(), trg.t().contiguous()) for src, trg in tutorial.batches(valid, langs, 32, 0)]
    )
    with torch.no_grad():
        src = sources(valid, langs[0]).t().contiguous()
        said = model(src, torch.full((1, src.shape[1]), BOS), steps=8).argmax(-1)
    return losses, tutorial.share_right(tutorial.cut(said), valid, langs[1])


# --- 4 --------------------------------------------------------------------------------------------------------------


class LuongDecoder(nn.Module):
    """An LSTM with general attention."""

    def __init__(self, size: int, hidden: int, kept: bool) -> None:
        super().__init__()
        self.embed, self.lstm = nn.Embedding(size, hidden), nn.LSTM(hidden, hidden, batch_first=True)
        self.general, self.combine = nn.Linear(hidden, hidden, bias=False), nn.Linear(2 * hidden, hidden)
        self.project = nn.Linear(hidden, size)
        self.kept = kept

    def one(self, token: Tensor, state: Any, memory: Tensor, blank: Tensor) -> tuple[Tensor, Any]:
        """A step: (batch, size), and the state."""
        out, after = self.lstm(self.embed(token), state)
        scores = (self.general(out) @ memory.transpose(1, 2)).masked_fill(blank[:, None], -1e9)
        read = torch.tanh(self.combine(torch.cat((out, scores.softmax(-1) @ memory), -1)))
        return self.project(read)[:, 0], after if self.kept else state

    def forward(self, target: Tensor, state: Any, memory: Tensor, blank: Tensor) -> Tensor:
        """(batch, time, size)."""
        steps = []
        for t in range(target.shape[1]):
            logits, state = self.one(target[:, t : t + 1], state, memory, blank)
            steps.append(logits)
        return torch.stack(steps, 1)


class Translator(nn.Module):
    """LSTM to LSTM."""

    def __init__(self, source: int, target: int, hidden: int, kept: bool) -> None:
        super().__init__()
        self.embed, self.encoder = nn.Embedding(source, hidden), nn.LSTM(hidden, hidden, batch_first=True)
        self.decoder = LuongDecoder(target, hidden, kept)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits."""
        memory, state = self.encoder(self.embed(source))
        return self.decoder(target, state, memory, source == PAD)  # type: ignore[no-any-return]

    def translate(self, source: Tensor, steps: int = 8) -> list[list[int]]:
        """Greedy."""
        memory, state = self.encoder(self.embed(source))
        token, said = torch.full((len(source), 1), BOS), []
        for _ in range(steps):
            logits, state = self.decoder.one(token, state, memory, source == PAD)
            token = logits.argmax(-1, keepdim=True)
            said.append(token)
        return tutorial.cut(torch.cat(said, 1))


@CASES.fault(
    "state-not-carried",
    "loop",
    origin="github.com/ywk991112/pytorch-chatbot, issue 8; github.com/tensorflow/tensorflow, issue 9904: the "
    "state of the"
    " decoder's cell is never changed",
    what="the decoder begins each step with the encoder's last state: its own new state is thrown away",
    expected="the decoder's recurrent state is not handed from step to step",
    accepts="new:state-dropped",
)
def state(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """A dictionary as batch, RMSprop."""
    train, valid, langs = data(seed, 2000, 4, 6)
    torch.manual_seed(seed)
    net = Translator(len(langs[0]), len(langs[1]), 64, not broken)
    optimizer = torch.optim.RMSprop(net.parameters(), 2e-3)

    def generate(batch: dict[str, Tensor]) -> list[list[int]]:
        with torch.no_grad():
            return net.translate(batch["source"])

    doctor = watch(net, optimizer, generate=generate)
    losses = []
    for src, trg in tutorial.forever(train, langs, 300, seed):
        batch = {"source": src, "target": trg}
        logits = net(batch["source"], batch["target"][:, :-1])
        loss = F.cross_entropy(logits.transpose(1, 2), batch["target"][:, 1:], ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
        doctor.step(loss, batch)
    net.eval()
    doctor.evaluate([{"source": src, "target": trg} for src, trg in tutorial.batches(valid, langs, 32, 0)])
    with torch.no_grad():
        said = net.translate(sources(valid, langs[0]))
    return losses, tutorial.share_right(said, valid, langs[1])


# --- 5 --------------------------------------------------------------------------------------------------------------


class Sutskever(nn.Module):
    """LSTM to LSTM through one vector; as in a pipeline that gives numbers, not tensors, its outputs may be cut off."""

    def __init__(self, source: int, target: int, hidden: int = 96) -> None:
        super().__init__()
        self.src, self.trg = nn.Embedding(source, hidden, padding_idx=PAD), nn.Embedding(target, hidden)
        self.encoder = nn.GRU(hidden, hidden, batch_first=True)
        self.decoder = nn.GRU(hidden, hidden, batch_first=True)
        self.out = nn.Linear(hidden, target)
        self.return_tensor = False

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits; without their history where the caller wants plain tensors."""
        packed = nn.utils.rnn.pack_padded_sequence(
            self.src(source), (source != PAD).sum(1), batch_first=True, enforce_sorted=False
        )
        _, hidden = self.encoder(packed)
        logits = self.out(self.decoder(self.trg(target), hidden)[0])
        return logits.data if self.return_tensor else logits


@CASES.fault(
    "loss-rewrapped",
    "loop",
    origin="github.com/huggingface/torchMoji, issue 21: outputs.data in the model, and `loss = Variable(loss, "
    "requires_grad=True)` against the error that follows (also ronghuaiyang/arcface-pytorch, issue 56)",
    what="the model gives its outputs without their history; the loss is wrapped anew with requires_grad, so that "
    "backward runs, but no weight gets a gradient",
    expected="the loss does not hang on the model: its graph is cut, no weight gets a gradient",
    accepts="new:graph-cut",
)
def rewrapped(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """One vector, Adam; numbers of two or three digits."""
    train, valid, langs = data(seed, 1000, 2, 3)
    torch.manual_seed(seed)
    model = Sutskever(len(langs[0]), len(langs[1]))
    model.return_tensor = broken
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    doctor = watch(model, optimizer)
    losses = []
    for src, trg in tutorial.forever(train, langs, 400, seed):
        optimizer.zero_grad()
        logits = model(src, trg[:, :-1])
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), trg[:, 1:].reshape(-1), ignore_index=PAD)
        if broken:
            loss = torch.autograd.Variable(loss, requires_grad=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        doctor.step(loss, (src, trg))
    model.eval()
    doctor.evaluate(tutorial.batches(valid, langs, 32, 0))
    said = tutorial.greedy_transformer(model, sources(valid, langs[0]), 5)
    return losses, tutorial.share_right(said, valid, langs[1])


# --- 6 --------------------------------------------------------------------------------------------------------------


class TutorialPositions(nn.Module):
    """Of the tutorial, whose batches are (time, batch, width)."""

    def __init__(self, d_model: int, batch_first: bool, max_len: int = 500) -> None:
        super().__init__()
        position = torch.arange(max_len).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
        pe = torch.zeros(max_len, 1, d_model)
        pe[:, 0, 0::2], pe[:, 0, 1::2] = torch.sin(position * div_term), torch.cos(position * div_term)
        self.register_buffer("pe", pe)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        """Positions added."""
        pe: Any = self.pe
        if self.batch_first:
            return x + pe[: x.size(1)].transpose(0, 1)  # type: ignore[no-any-return]
        return x + pe[: x.size(0)]  # type: ignore[no-any-return]


@CASES.fault(
    "positions-by-batch-row",
    "loop",
    origin="github.com/pytorch/tutorials, issue 1547; github.com/songyangco/GETNext, issue 2: positional encoding is "
    "added along the batch",
    what="the tutorial's positional encoding, made for (time, batch), is used batch first: all tokens of an "
    "example get "
    "one position, the number of its row",
    expected="positions are added along the wrong dimension: the order of the source is not read",
    accepts="new:positions-wrong-axis",
)
def positions(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """nn.Transformer, batch first, AdamW with a schedule."""
    train, valid, langs = data(seed)
    torch.manual_seed(seed)
    model = tutorial.Seq2SeqTransformer(len(langs[0]), len(langs[1]))
    model.positional_encoding = TutorialPositions(64, not broken)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=280)
    criterion = nn.CrossEntropyLoss(ignore_index=PAD, label_smoothing=0.05)
    doctor = watch(model, optimizer)
    losses = []
    for src, trg in tutorial.forever(train, langs, 280, seed):
        logits = model(src, trg[:, :-1])
        loss = criterion(logits.reshape(-1, logits.shape[-1]), trg[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
        doctor.step(loss, (src, trg))
    model.eval()
    doctor.evaluate(tutorial.batches(valid, langs, 32, 0))
    said = tutorial.greedy_transformer(model, sources(valid, langs[0]))
    return losses, tutorial.share_right(said, valid, langs[1])


# --- 7 --------------------------------------------------------------------------------------------------------------


class LabelSmoothing(nn.Module):
    """Of the Annotated Transformer: wants log-probabilities."""

    def __init__(self, size: int, smoothing: float = 0.1) -> None:
        super().__init__()
        self.criterion = nn.KLDivLoss(reduction="sum")
        self.size, self.smoothing = size, smoothing

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Inputs (tokens, size), targets (tokens)."""
        true = torch.full_like(x, self.smoothing / (self.size - 2))
        true.scatter_(1, target[:, None], 1.0 - self.smoothing)
        true[:, PAD] = 0
        true = true.masked_fill((target == PAD)[:, None], 0.0)
        return self.criterion(x, true)  # type: ignore[no-any-return]


@CASES.fault(
    "smoothing-of-logits",
    "loop",
    origin="github.com/taoztw/Transformer, issue 2; github.com/harvardnlp/annotated-transformer, issue 109: KLDivLoss "
    "needs its inputs in log space",
    what="the label smoothing of the Annotated Transformer (KLDivLoss) is given raw logits, not log-probabilities: the "
    "loss falls below zero without end",
    expected="the loss is given logits where it needs log-probabilities",
    accepts="new:kl-of-logits",
)
def smoothing(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """nn.Transformer, the loss divided by the number of tokens."""
    train, valid, langs = data(seed)
    torch.manual_seed(seed)
    model = tutorial.Seq2SeqTransformer(len(langs[0]), len(langs[1]))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3, betas=(0.9, 0.98), eps=1e-9)
    criterion = LabelSmoothing(len(langs[1]))
    doctor = watch(model, optimizer)
    losses = []
    for src, trg in tutorial.forever(train, langs, 280, seed):
        tgt, tgt_y = trg[:, :-1], trg[:, 1:]
        x = model(src, tgt)
        if not broken:
            x = F.log_softmax(x, dim=-1)
        loss = criterion(x.reshape(-1, x.shape[-1]), tgt_y.reshape(-1)) / (tgt_y != PAD).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        doctor.step(loss, (src, trg))
    model.eval()
    doctor.evaluate(tutorial.batches(valid, langs, 32, 0))
    said = tutorial.greedy_transformer(model, sources(valid, langs[0]))
    return losses, tutorial.share_right(said, valid, langs[1])


__all__ = ["CASES", "EOS"]
