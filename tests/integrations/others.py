"""Training loops as other people write them, with batches, states, masks and losses of all sorts."""

from __future__ import annotations

import random
from collections import namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sourcewise
from sourcewise.integrations.loop import LoopDoctor
from tests.integrations.loops import EOS, PAD, SIZE, SOS, batches, words

Ran = tuple[LoopDoctor, list[Any]]
Loop = Callable[[], Ran]
WIDTH, COUNT = 32, 960
HEALTHY: dict[str, Loop] = {}
ILL: dict[str, tuple[str, Loop]] = {}


def healthy(loop: Loop) -> Loop:
    HEALTHY[loop.__name__] = loop
    return loop


def ill(code: str) -> Callable[[Loop], Loop]:
    def note(loop: Loop) -> Loop:
        ILL[loop.__name__] = (code, loop)
        return loop

    return note


def data(count: int = COUNT, seed: int = 0, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
    return batches(words(count, seed), **options)


def held_out(as_batch: Callable[[Tensor, Tensor], Any] = lambda x, y: (x, y), **options: Any) -> list[Any]:
    return [as_batch(x, y) for x, y in data(96, 9, **options)]


def ce(logits: Tensor, labels: Tensor, **options: Any) -> Tensor:
    return F.cross_entropy(logits.reshape(-1, SIZE), labels.reshape(-1), ignore_index=PAD, **options)


def taken(loss: Tensor, *optimizers: torch.optim.Optimizer) -> Tensor:
    for each in optimizers:
        each.zero_grad()
    loss.backward()
    for each in optimizers:
        each.step()
    return loss


# ── recurrent networks ────────────────────────────────────────────────────────────────────────────────────────────────


class PackedEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb, self.fc = nn.Embedding(SIZE, WIDTH, padding_idx=PAD), nn.Linear(2 * WIDTH, WIDTH)
        self.rnn = nn.LSTM(WIDTH, WIDTH, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        packed = nn.utils.rnn.pack_padded_sequence(self.emb(x), lengths.cpu(), batch_first=True, enforce_sorted=False)
        out, states = self.rnn(packed)
        both = [torch.tanh(self.fc(torch.cat((each[0], each[1]), -1)))[None] for each in states]
        return nn.utils.rnn.pad_packed_sequence(out, batch_first=True)[0], tuple(both)


class Encoder(nn.Module):
    """(time, batch) → outputs, state."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.gru = nn.Embedding(SIZE, WIDTH), nn.GRU(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Any:
        return self.gru(self.embedding(x))


class LstmDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb, self.rnn = nn.Embedding(SIZE, WIDTH), nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.out = nn.Linear(WIDTH, SIZE)

    def forward(self, y: Tensor, state: Any) -> Any:
        out, state = self.rnn(self.emb(y), state)
        return self.out(out), state


class Pair(nn.Module):
    def __init__(self, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder or Encoder(), LstmDecoder()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        _, state = self.encoder(x.T)
        return self.decoder(y, (state, torch.zeros_like(state)))[0]  # type: ignore[no-any-return]


class TokenDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.gru, self.out = nn.Embedding(SIZE, WIDTH), nn.GRU(WIDTH, WIDTH), nn.Linear(WIDTH, SIZE)

    def forward(self, token: Tensor, hidden: Tensor, memory: Tensor) -> Any:
        out, hidden = self.gru(self.embedding(token).view(1, token.numel(), -1), hidden)
        return F.log_softmax(self.out(out[0]), dim=1), hidden


class Preallocated(nn.Module):
    """Time first, outputs written into zeros, the true word before each by a draw."""

    def __init__(self) -> None:
        super().__init__()
        self.e_emb, self.enc = nn.Embedding(SIZE, WIDTH), nn.GRU(WIDTH, WIDTH)
        self.d_emb, self.dec, self.fc_out = nn.Embedding(SIZE, WIDTH), nn.GRU(2 * WIDTH, WIDTH), nn.Linear(WIDTH, SIZE)

    def forward(self, src: Tensor, trg: Tensor, teacher_forcing_ratio: float = 0.5) -> Tensor:
        out = torch.zeros(*trg.shape, SIZE)
        _, hidden = self.enc(self.e_emb(src))
        context, token = hidden, trg[0]
        for t in range(1, len(trg)):
            said, hidden = self.dec(torch.cat((self.d_emb(token)[None], context), -1), hidden)
            out[t] = self.fc_out(said[0])
            token = trg[t] if random.random() < teacher_forcing_ratio else out[t].argmax(1)
        return out


def as_dict(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    return {"src": x, "src_len": (x != PAD).sum(1), "trg": y}


def packed(fault: bool = False) -> Ran:
    encoder, decoder = PackedEncoder(), LstmDecoder()
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=5e-3)
    doctor = sourcewise.doctor((encoder, decoder), optimizer)
    for x, y in data():
        batch = as_dict(x, y)
        _, state = encoder(batch["src"], batch["src_len"])
        state = tuple(torch.zeros_like(each) for each in state) if fault else state
        logits, _ = decoder(batch["trg"][:, :-1], state)
        loss = F.cross_entropy(logits.transpose(1, 2), batch["trg"][:, 1:], ignore_index=PAD, label_smoothing=0.1)
        doctor.step(taken(loss, optimizer), batch)
    return doctor, held_out(as_dict)


healthy(packed)


@ill("WIR028")
def packed_without_its_state() -> Ran:
    return packed(True)


Fields = namedtuple("Fields", "src trg")


@healthy
def preallocated_in_a_named_tuple() -> Ran:
    model = Preallocated()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    doctor = sourcewise.doctor(model, optimizer)
    for x, y in data(time_first=True):
        batch = Fields(x, y)
        loss = ce(model(batch.src, batch.trg)[1:], batch.trg[1:])
        doctor.step(taken(loss, optimizer).item(), batch)
    return doctor, held_out(Fields, time_first=True)


def token_by_token(forced: float = 1.0, fault: bool = False, size: int = 16) -> Ran:
    """The decoder is called once a token; the loss is summed."""
    encoder, decoder = Encoder(), TokenDecoder()
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.5 if size > 1 else 0.05) for each in (encoder, decoder)]
    doctor, draw = sourcewise.doctor((encoder, decoder), optimizers), random.Random(1)
    options = {"begin": False, "time_first": True, "size": size}
    for x, y in data(COUNT if size > 1 else 100, **options):
        memory, hidden = encoder(x)
        hidden = torch.zeros_like(hidden).detach() if fault else hidden
        token, loss, force = torch.full((1, x.shape[1]), SOS), torch.zeros(()), draw.random() < forced
        for each in y:
            said, hidden = decoder(token, hidden, memory)
            loss = loss + F.nll_loss(said, each, ignore_index=PAD)
            token = each[None] if force else said.topk(1)[1].detach().T
        doctor.step(taken(loss, *optimizers).item() / len(y), (x, y))
    return doctor, held_out(**options)


@healthy
def one_token_a_call() -> Ran:
    return token_by_token()


@healthy
def forced_half_of_the_time() -> Ran:
    return token_by_token(0.5)


@healthy
def one_example_a_batch() -> Ran:
    return token_by_token(size=1)


@ill("WIR028")
def one_token_a_call_without_its_state() -> Ran:
    return token_by_token(fault=True)


def of_pair(
    model: Any = None,
    loss_of: Callable[[Tensor, Tensor], Tensor] = ce,
    make: Callable[[Any], torch.optim.Optimizer] = lambda p: torch.optim.Adam(p, lr=5e-3),
    steps: int = 60,
    **options: Any,
) -> Ran:
    """A model called as model(x, y[:, :-1])."""
    model = Pair() if model is None else model
    optimizer = make([p for p in model.parameters() if p.requires_grad])
    doctor = sourcewise.doctor(model, optimizer, **options)
    for x, y in list(data())[:steps]:
        doctor.step(taken(loss_of(model(x, y[:, :-1]), y[:, 1:]), optimizer), [x, y])
    return doctor, held_out(lambda x, y: [x, y])


@healthy
def slow_gradient_descent() -> Ran:
    return of_pair(make=lambda p: torch.optim.SGD(p, lr=0.01))


@healthy
def summed_and_weighted() -> Ran:
    weights = torch.rand(SIZE) + 0.5
    return of_pair(loss_of=lambda logits, labels: ce(logits, labels, reduction="sum", weight=weights))


@healthy
def compiled() -> Ran:
    return of_pair(torch.compile(Pair(), backend="eager"), steps=25)


@healthy
def compiled_in_place() -> Ran:
    model = Pair()
    model.compile(backend="eager")
    return of_pair(model, steps=25)


@healthy
def output_layer_at_zero() -> Ran:
    model = Pair()
    nn.init.zeros_(model.decoder.out.weight)
    return of_pair(model)


@healthy
def frozen_encoder_of_a_trained_model() -> Ran:
    model = Pair()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for x, y in data():
        taken(ce(model(x, y[:, :-1]), y[:, 1:]), optimizer)
    model.encoder.requires_grad_(False)
    return of_pair(model)


class Adapted(nn.Module):
    def __init__(self, frozen: nn.Linear) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.a, self.b = nn.Linear(WIDTH, 4, bias=False), nn.Linear(4, SIZE, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(x) + self.b(self.a(x))  # type: ignore[no-any-return]


@healthy
def adapter() -> Ran:
    model = Pair()
    model.decoder.out = Adapted(model.decoder.out)  # type: ignore[assignment]
    return of_pair(model)


@healthy
def autocast_and_scaler() -> Ran:
    model, scaler = Pair(), torch.amp.GradScaler("cpu")
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    doctor = sourcewise.doctor(model, optimizer)
    for x, y in data():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = ce(model(x, y[:, :-1]).float(), y[:, 1:])
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        doctor.step(loss, (x, y))
    return doctor, held_out()


@healthy
def told_before_the_backward_pass() -> Ran:
    model = Pair()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    doctor = sourcewise.doctor(model, optimizer)
    for x, y in data():
        loss = ce(model(x, y[:, :-1]), y[:, 1:])
        doctor.step(loss, (x, y))
        taken(loss, optimizer)
    return doctor, held_out()


@ill("WIR027")
def softmax_twice() -> Ran:
    return of_pair(loss_of=lambda logits, labels: ce(F.softmax(logits, -1), labels))


@ill("WIR027")
def softmax_in_the_loop() -> Ran:
    return of_pair(
        loss_of=lambda z, labels: F.nll_loss(
            F.softmax(z, -1).reshape(-1, SIZE), labels.reshape(-1), ignore_index=PAD, reduction="sum"
        )
    )


@ill("WIR027")
def nll_of_raw_scores() -> Ran:
    return of_pair(
        loss_of=lambda z, labels: F.nll_loss(z.reshape(-1, SIZE), labels.reshape(-1), ignore_index=PAD),
        make=lambda p: torch.optim.SGD(p, lr=0.05),
    )


class Detached(Pair):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        _, state = self.encoder(x.T)
        return self.decoder(y, (state.detach(), torch.zeros_like(state)))[0]  # type: ignore[no-any-return]


@ill("WIR012")
def detached_state() -> Ran:
    return of_pair(Detached())


@ill("WIR026")
def all_weights_zero() -> Ran:
    model = Pair()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return of_pair(model, make=lambda p: torch.optim.SGD(p, lr=0.5))


class DeepEncoder(nn.Module):
    """Layers as numbered attributes, or 24 layers of one nn.RNN; (time, batch)."""

    def __init__(self, numbered: bool) -> None:
        super().__init__()
        self.numbered, self.emb, self.gru = numbered, nn.Embedding(SIZE, WIDTH), nn.GRU(WIDTH, WIDTH)
        for i in range(14 if numbered else 0):
            setattr(self, f"fc{i}", nn.Linear(WIDTH, WIDTH))
        self.rnn = nn.Identity() if numbered else nn.RNN(WIDTH, WIDTH, 24)

    def forward(self, x: Tensor) -> Any:
        h = self.emb(x)
        for i in range(14 if self.numbered else 0):
            h = torch.sigmoid(getattr(self, f"fc{i}")(h))
        return self.gru(h if self.numbered else self.rnn(h)[0])


@ill("WIR013")
def deep_and_numbered() -> Ran:
    return of_pair(Pair(DeepEncoder(True)))


@ill("WIR013")
def deep_and_recurrent() -> Ran:
    return of_pair(Pair(DeepEncoder(False)))


@ill("WIR003")
def encoder_of_another_optimizer() -> Ran:
    model = Pair()
    return of_pair(model, make=lambda p: torch.optim.AdamW(model.decoder.parameters(), lr=5e-3))


# ── frameworks ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Annotated(nn.Module):
    """A generator outside of forward, as in the Annotated Transformer."""

    def __init__(self) -> None:
        super().__init__()
        layers = nn.TransformerEncoderLayer(WIDTH, 4, 64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layers, 2)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(WIDTH, 4, 64, batch_first=True), 2)
        self.src_embed, self.tgt_embed, self.pos = (nn.Embedding(n, WIDTH) for n in (SIZE, SIZE, 40))
        self.generator = nn.Sequential(nn.Linear(WIDTH, SIZE), nn.LogSoftmax(-1))

    def encode(self, x: Tensor, hidden: Tensor) -> Tensor:
        places = self.pos(torch.arange(x.shape[1]))
        return self.encoder(self.src_embed(x) + places, src_key_padding_mask=hidden)  # type: ignore[no-any-return]

    def decode(self, memory: Tensor, hidden: Tensor, y: Tensor, later: Tensor) -> Tensor:
        read = self.tgt_embed(y) + self.pos(torch.arange(y.shape[1]))
        return self.decoder(read, memory, tgt_mask=later, memory_key_padding_mask=hidden)  # type: ignore[no-any-return]

    def forward(self, x: Tensor, y: Tensor, hidden: Tensor, later: Tensor) -> Tensor:
        return self.decode(self.encode(x, hidden), hidden, y, later)


class Batch:
    """As in JoeyNMT and the Annotated Transformer."""

    def __init__(self, src: Tensor, trg: Tensor) -> None:
        self.src, self.src_mask = src, src == PAD
        self.trg_input, self.trg = trg[:, :-1], trg[:, 1:]
        self.trg_mask = torch.ones(trg.shape[1] - 1, trg.shape[1] - 1, dtype=torch.bool).triu(1)
        self.ntokens = int((self.trg != PAD).sum())


@healthy
def annotated_by_divergence() -> Ran:
    """Smoothed targets by KLDivLoss, a warm-up, gradients set to None."""
    model = Annotated()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 10))
    doctor = sourcewise.doctor(model, optimizer)
    for x, y in data():
        batch = Batch(x, y)
        logs = model.generator(model(batch.src, batch.trg_input, batch.src_mask, batch.trg_mask))
        goal = torch.full_like(logs, 0.1 / (SIZE - 2)).scatter_(-1, batch.trg[..., None], 0.9)
        goal[..., PAD] = 0
        goal[batch.trg == PAD] = 0
        loss = F.kl_div(logs, goal, reduction="sum") / batch.ntokens
        doctor.step(taken(loss, optimizer), batch)
        schedule.step()
    return doctor, held_out(Batch)


@healthy
def methods_and_a_function_for_logits() -> Ran:
    model = Annotated()

    def logits(batch: Batch) -> Tensor:
        memory = model.encode(batch.src, batch.src_mask)
        return model.generator(model.decode(memory, batch.src_mask, batch.trg_input, batch.trg_mask))  # type: ignore

    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    doctor = sourcewise.doctor(model, optimizer, logits=logits)
    for x, y in data():
        batch = Batch(x, y)
        loss = F.nll_loss(logits(batch).reshape(-1, SIZE), batch.trg.reshape(-1), ignore_index=PAD)
        doctor.step(taken(loss, optimizer), batch)
    return doctor, held_out(Batch)


class OfFairseq(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), LstmDecoder()

    def forward(self, src_tokens: Tensor, src_lengths: Tensor, prev_output_tokens: Tensor) -> Any:
        _, state = self.encoder(src_tokens.T)
        logits, _ = self.decoder(prev_output_tokens, (state, torch.zeros_like(state)))
        return logits, {"attn": [None], "inner_states": [state]}


def sample(x: Tensor, y: Tensor) -> dict[str, Any]:
    read = F.pad(y[:, :-1], (1, 0), value=EOS)
    given = {"src_tokens": x, "src_lengths": (x != PAD).sum(1), "prev_output_tokens": read}
    return {"id": torch.arange(len(x)), "nsentences": len(x), "net_input": given, "target": y}


@healthy
def as_in_fairseq() -> Ran:
    """Nested batches, summed losses, gradients accumulated over two batches."""
    model = OfFairseq()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    doctor = sourcewise.doctor(model, optimizer)
    for i, (x, y) in enumerate(data(begin=False)):
        batch = sample(x, y)
        logits, _ = model(**batch["net_input"])
        loss = F.nll_loss(F.log_softmax(logits, -1).flatten(0, 1), y.flatten(), ignore_index=PAD, reduction="sum")
        loss.backward()
        if i % 2:
            optimizer.step()
            optimizer.zero_grad()
        doctor.step(loss, batch)
    return doctor, held_out(sample, begin=False)


class LossInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Preallocated()

    def forward(self, speech: Tensor, text: Tensor) -> Any:
        return ce(self.body(speech, text, 1.0)[1:], text[1:]), {"acc": 0.0}, text.shape[1]


@healthy
def as_in_espnet() -> Ran:
    """The model gives its loss, not its outputs."""
    model = LossInside()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    doctor = sourcewise.doctor(model, optimizer)
    for x, y in data(time_first=True):
        batch = {"speech": x, "text": y}
        doctor.step(taken(model(**batch)[0], optimizer), batch)
    return doctor, held_out(lambda x, y: {"speech": x, "text": y}, time_first=True)


class Signs(nn.Module):
    """Features through convolutions, a Transformer decoder, CTC beside it."""

    def __init__(self) -> None:
        super().__init__()
        convolutions = (nn.Conv1d(20, WIDTH, 3, padding=1), nn.ReLU(), nn.Conv1d(WIDTH, WIDTH, 3, padding=1))
        self.encoder, self.embed = nn.Sequential(*convolutions), nn.Embedding(SIZE, WIDTH)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(WIDTH, 4, 64, batch_first=True), 2)
        self.output_layer, self.ctc = nn.Linear(WIDTH, SIZE), nn.Linear(WIDTH, SIZE)

    def forward(self, sgn: Tensor, sgn_mask: Tensor, txt_input: Tensor) -> tuple[Tensor, Tensor]:
        memory = self.encoder(sgn.transpose(1, 2)).transpose(1, 2)
        later = torch.full((txt_input.shape[1], txt_input.shape[1]), float("-inf")).triu(1)
        out = self.decoder(self.embed(txt_input), memory, tgt_mask=later, memory_key_padding_mask=~sgn_mask)
        return self.output_layer(out), F.log_softmax(self.ctc(memory), -1)


def signed(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    table = torch.randn(SIZE, 20, generator=torch.Generator().manual_seed(7))
    mask = (x != PAD).repeat_interleave(2, 1)
    frames = table[x].repeat_interleave(2, 1) * mask[..., None]
    return {"sgn": frames, "sgn_mask": mask, "sgn_len": mask.sum(1), "txt": y, "txt_len": (y != PAD).sum(1)}


@healthy
def signs_with_ctc() -> Ran:
    model, ctc = Signs(), nn.CTCLoss(zero_infinity=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    doctor = sourcewise.doctor(model, optimizer)
    for x, y in data():
        batch = signed(x, y)
        logits, aligned = model(batch["sgn"], batch["sgn_mask"], batch["txt"][:, :-1])
        loss = ce(logits, batch["txt"][:, 1:], reduction="sum") / len(x)
        loss = loss + 0.3 * ctc(aligned.transpose(0, 1), batch["txt"][:, 1:], batch["sgn_len"], batch["txt_len"] - 1)
        doctor.step(taken(loss, optimizer), batch)
    return doctor, held_out(signed)


@healthy
def a_model_of_hugging_face() -> Ran:
    from tests.integrations.trainings import collate, rows, t5

    model = t5()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    doctor, found = sourcewise.doctor(model, optimizer), rows(640)
    for at in range(0, 640, 16):
        batch = collate(found[at : at + 16])
        doctor.step(taken(model(**batch).loss, optimizer), batch)
    return doctor, [collate(rows(64, seed=1))]


class Forgetful(nn.Module):
    """A plain recurrent network, and nothing else between a long source and its target; (time, batch)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(SIZE, WIDTH), nn.RNN(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Any:
        return self.rnn(self.embedding(x))


@ill("WIR015")
def vanishing_over_time() -> Ran:
    draw = torch.Generator().manual_seed(0)
    model = Pair(Forgetful())
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    doctor = sourcewise.doctor(model, optimizer)
    for _ in range(12):
        x = torch.randint(3, SIZE, (16, 150), generator=draw)
        y = torch.cat((torch.full((16, 1), SOS), x[:, :5], torch.full((16, 1), EOS)), 1)
        doctor.step(taken(ce(model(x, y[:, :-1]), y[:, 1:]), optimizer), (x, y))
    return doctor, [(x, y)]
