"""Kinds that others planted and that no rule knew: three instances of each in loops of one's own, and healthy twins."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sourcewise
from sourcewise.integrations.loop import LoopDoctor
from tests.diagnosis.instances.loops import Gru, Loop, Transformer, adam, found
from tests.diagnosis.instances.test_rows_of_loops import after
from tests.integrations.loops import EOS, PAD, SIZE, SOS, batches, words

Pairs = list[tuple[list[int], list[int]]]
SCALE = 32**0.5


def trained(
    loop: Loop,
    steps: int = 40,
    pairs: Pairs | None = None,
    behind: Callable[[int], object] = lambda step: None,
    **options: Any,
) -> LoopDoctor:
    """A training of so many steps, the data again and again; `behind` is called behind each."""
    doctor = sourcewise.doctor(loop.modules, loop.optimizers, **options)
    known = [loop.batch(*each) for each in batches(pairs or words(1600), begin=loop.begin)]
    for step in range(steps):
        src, tgt = known[step % len(known)]
        read, labels = loop.cut(tgt)
        loss = loop.loss(loop.logits(src, read), labels)
        loop.update(loss)
        doctor.step(loss, (src, tgt))
        behind(step)
    return doctor


def first(doctor: LoopDoctor) -> str:
    grave = found(doctor)
    return grave[0][0] if grave else ""


# ── where rows and labels lie ─────────────────────────────────────────────────────────────────────────────────────────


def placed(along: str) -> Loop:
    """Positions that are added to the sources along the batch, or along time."""
    loop: Any = Transformer()
    inner = loop.modules

    def forward(src: Tensor, read: Tensor, pad: Tensor, later: Tensor) -> Tensor:
        x = inner.src_tok_emb(src) * SCALE
        table = inner.positional_encoding.table
        x = x + (table[: x.shape[1]].transpose(0, 1) if along == "batch" else table[: len(x)])
        y = inner.positional_encoding(inner.tgt_tok_emb(read) * SCALE)
        memory = inner.transformer.encoder(x, None, pad)
        found: Tensor = inner.generator(inner.transformer.decoder(y, memory, later, None, None, pad))
        return found

    inner.forward = forward
    return loop  # type: ignore[no-any-return]


def learned(along: int) -> Loop:
    """A GRU whose memory (batch, time, dims) gets learned positions along an axis."""
    table = nn.Embedding(64, 32)

    def change(memory: Tensor, table: nn.Embedding) -> Tensor:
        places = table(torch.arange(memory.shape[along]))
        return memory + (places[:, None] if along == 0 else places[None])

    return after(table, change=change)


def counted(along: int) -> Loop:
    """A GRU whose memory grows along an axis."""
    return after(change=lambda memory: memory + torch.linspace(0, 1, memory.shape[along]).view(-1, *[1] * (2 - along)))


@pytest.mark.parametrize("loop", [lambda: placed("batch"), lambda: learned(0), lambda: counted(0)])
def test_a_place_in_the_batch(loop: Callable[[], Loop]) -> None:
    doctor = trained(loop(), 14)
    assert first(doctor) == "WIR037"
    assert "other rows" in doctor.diagnosis.findings[0].evidence


@pytest.mark.parametrize("loop", [lambda: placed("time"), lambda: learned(1), lambda: counted(1)])
def test_a_place_in_time(loop: Callable[[], Loop]) -> None:
    assert found(trained(loop(), 14)) == []


class Flattened(Transformer):
    """Outputs (time, batch), labels (batch, time)."""

    right = False

    def logits(self, src: Tensor, read: Tensor) -> Tensor:
        return self.modules(src.T, read.T, self.padding(src), self.later(read.shape[1]))  # type: ignore[no-any-return]

    def loss(self, said: Tensor, labels: Tensor) -> Tensor:
        flat = said.reshape(-1, SIZE), (labels.T if self.right else labels).reshape(-1)
        return nn.functional.cross_entropy(*flat, ignore_index=PAD)


class Turned(Gru):
    """Outputs (batch, time), labels turned before they are flattened."""

    right = False

    def loss(self, said: Tensor, labels: Tensor) -> Tensor:
        return super().loss(said, labels if self.right else labels.T.contiguous())


class Viewed(Flattened):
    """Log-probabilities for NLLLoss."""

    def loss(self, said: Tensor, labels: Tensor) -> Tensor:
        flat = (labels.T if self.right else labels).reshape(-1)
        return nn.functional.nll_loss(said.log_softmax(-1).view(-1, SIZE), flat, ignore_index=PAD)


@pytest.mark.parametrize("kind", [Flattened, Turned, Viewed])
def test_labels_of_other_places(kind: Any) -> None:
    assert first(trained(kind(), 14)) == "WIR038"
    mended = kind()
    mended.right = True
    assert found(trained(mended, 14)) == []


# ── what padding hides, and what no vector tells ──────────────────────────────────────────────────────────────────────


def as_padding(word: int, *, sources: bool = True) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return lambda src, tgt: (src.masked_fill(src == word, PAD) if sources else src, tgt.masked_fill(tgt == word, PAD))


@pytest.mark.parametrize(
    ("kind", "change"),
    [(Gru, as_padding(7)), (Transformer, as_padding(11)), (Gru, as_padding(5, sources=False))],
)
def test_a_word_with_the_number_of_padding(kind: Any, change: Any) -> None:
    loop = kind()
    loop.batch = change
    assert first(trained(loop, 14)) == "WIR039"


@pytest.mark.parametrize("kind", [Gru, Transformer])
def test_padding_that_no_word_has(kind: Any) -> None:
    loop = kind()
    loop.batch = lambda src, tgt: (nn.functional.pad(src, (2, 3)), nn.functional.pad(tgt, (0, 3)))
    assert "WIR039" not in dict(found(trained(loop, 14)))


def standing(loop: Any, rows: slice, value: float | None) -> Loop:
    """Embeddings that never learn, some rows of which are zero, or those of another word."""
    for each in loop.modules if isinstance(loop.modules, tuple) else (loop.modules,):
        for module in each.modules():
            if isinstance(module, nn.Embedding):
                module.weight.data[rows] = module.weight.data[5] if value is None else value
                module.weight.requires_grad_(False)
    loop.optimizers = adam([p for p in loop.parameters() if p.requires_grad])
    return loop  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "rows", "value"),
    [(Gru, slice(10, 16), 0.0), (Transformer, slice(8, 12), 0.0), (Transformer, slice(6, 9), None)],
)
def test_words_without_a_vector(kind: Any, rows: slice, value: float | None) -> None:
    assert first(trained(standing(kind(), rows, value), 14)) == "WIR023"


@pytest.mark.parametrize("kind", [Gru, Transformer])
def test_vectors_that_stand_and_differ(kind: Any) -> None:
    assert "WIR023" not in dict(found(trained(standing(kind(), slice(0, 0), 0.0), 14)))


# ── what eval() changes ───────────────────────────────────────────────────────────────────────────────────────────────


def normed(norm: nn.Module, *, frozen: bool = False) -> Loop:
    loop = after(norm, change=lambda memory, held: held(3 + 5 * memory.transpose(1, 2)).transpose(1, 2))
    if frozen:
        loop.modules[0].held[0].eval()
    return loop


@pytest.mark.parametrize(
    ("norm", "frozen"),
    [(lambda: nn.BatchNorm1d(32, momentum=0.0), False), (lambda: nn.BatchNorm1d(32), True)],
)
def test_statistics_that_never_arrive(norm: Callable[[], nn.Module], frozen: bool) -> None:
    assert first(trained(normed(norm(), frozen=frozen), 110)) == "WIR040"


@pytest.mark.parametrize("norm", [lambda: nn.BatchNorm1d(32), lambda: nn.BatchNorm1d(32, momentum=None)])
def test_statistics_that_arrive(norm: Callable[[], nn.Module]) -> None:
    assert found(trained(normed(norm()), 60)) == []


def scaled(kind: str) -> Loop:
    """What is multiplied in training only."""
    loop: Any = Gru()
    module = loop.modules[0 if kind == "embedding" else 1]
    inner = module.embedding if kind == "embedding" else module.out
    plain = inner.forward
    inner.forward = lambda x: plain(x) * (0.05 if not module.training else 1.0)
    if kind == "shifted":
        inner.forward = lambda x: plain(x).roll(0 if module.training else 1, -1)
    return loop  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["embedding", "out", "shifted"])
def test_a_scale_of_training_alone(kind: str) -> None:
    loop = scaled(kind)
    loop.optimizers = [torch.optim.Adam(loop.parameters(), lr=1e-2)]
    assert first(trained(loop, 110)) == "WIR040"


@pytest.mark.parametrize("switched", [False, True])
def test_an_evaluation_in_training_mode(switched: bool) -> None:
    loop: Any = Transformer()

    def evaluate(step: int) -> None:
        if step % 10 == 9:
            loop.modules.train(not switched)
            with torch.no_grad():
                for src, tgt in batches(words(64, seed=5)):
                    loop.logits(src, tgt[:, :-1])
            loop.modules.train()

    assert dict(found(trained(loop, 30, behind=evaluate))).get("WIR040") == (None if switched else "warning")


# ── how batches come, and the rate ────────────────────────────────────────────────────────────────────────────────────


def by_length(pairs: Pairs) -> Pairs:
    return sorted(pairs, key=lambda pair: len(pair[0]))


def by_letter(pairs: Pairs) -> Pairs:
    return sorted(pairs, key=lambda pair: pair[0][0])


def by_file(pairs: Pairs) -> Pairs:
    """Four files, each with letters of its own."""
    return [pair for k in range(4) for pair in pairs if max(pair[0]) % 4 == k]


@pytest.mark.parametrize("order", [by_length, by_letter, by_file])
@pytest.mark.parametrize("kind", [Gru])
def test_batches_in_an_order(kind: Any, order: Callable[[Pairs], Pairs]) -> None:
    doctor = trained(kind(), 90, order(words(1600)))
    assert first(doctor) == "DAT027"


def buckets(pairs: Pairs) -> Pairs:
    """Batches of one length, in a random order."""
    kept, draw = by_length(pairs), torch.Generator().manual_seed(0)
    order = torch.randperm(len(kept) // 16, generator=draw).tolist()
    return [pair for place in order for pair in kept[16 * place : 16 * place + 16]]


@pytest.mark.parametrize("order", [buckets, lambda pairs: pairs, lambda pairs: pairs[:640]])
def test_batches_in_no_order(order: Callable[[Pairs], Pairs]) -> None:
    assert not {"DAT027", "DAT028"} & dict(found(trained(Gru(), 90, order(words(1600))))).keys()


@pytest.mark.parametrize(("kind", "count"), [(Gru, 1), (Transformer, 2), (Gru, 4)])
def test_the_same_batches(kind: Any, count: int) -> None:
    doctor = trained(kind(), 60, words(16 * count))
    assert first(doctor) == "DAT028"


def schedules(loop: Loop, made: Callable[[Any], Any]) -> Callable[[], None]:
    known = [made(each) for each in loop.optimizers]

    def step() -> None:
        for each in known:
            each.step()

    return step


def warm(steps: int) -> Callable[[Any], Any]:
    return lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: min(1.0, (at + 1) / steps))


@pytest.mark.parametrize(
    ("made", "each", "code"),
    [
        (warm(500), 50, "WIR041"),  # a warm-up in steps, stepped with every epoch
        (warm(4000), 1000, "WIR041"),  # never stepped
        (lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 5), 1, "WIR041"),  # epochs, stepped with every batch
        (lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.1), 1, "TRN015"),
        (warm(20), 1, ""),
        (warm(4000), 1, ""),  # it is on its way
        (lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 100), 1, ""),
        (lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.9), 20, ""),
    ],
)  # fmt: skip
def test_a_schedule_that_is_stepped_otherwise(made: Any, each: int, code: str) -> None:
    loop = Gru()
    step = schedules(loop, made)
    assert first(trained(loop, 100, behind=lambda at: step() if (at + 1) % each == 0 else None)) == code


# ── what is said, and kept ────────────────────────────────────────────────────────────────────────────────────────────


def greedy(
    modules: Sequence[Any], banned: Sequence[int] = (), first: Sequence[int] = ()
) -> Callable[[Any], list[Tensor]]:
    """The decoder of two modules, letter by letter."""

    def generate(batch: Any) -> list[Tensor]:
        encoder, decoder = modules
        memory, state = encoder(batch[0])
        token, said = torch.full((len(batch[0]), 1), SOS), list(first)
        out = [torch.full((len(batch[0]), 1), each) for each in said]
        for _ in range(9):
            scores = decoder.score(torch.tanh(decoder.query(state[-1])[:, None] + decoder.key(memory)))
            context = (torch.softmax(scores, 1) * memory).sum(1, keepdim=True)
            made, state = decoder.gru(torch.cat((decoder.embedding(token), context), -1), state)
            logits = decoder.out(made)[:, 0].clone()
            logits[:, list(banned)] = -1e9
            token = logits.argmax(-1, keepdim=True)
            out.append(token)
        return list(torch.cat(out, 1))

    return generate


@pytest.fixture(scope="module")
def learnt() -> tuple[Gru, list[Any], list[Any]]:
    """A GRU that has learned much of its task, a copy of it from before, and held-out batches."""
    loop = Gru()
    before = copy.deepcopy(loop.modules)
    trained(loop, 300, words(4800))
    return loop, list(before), list(batches(words(96, seed=5)))


def asked(loop: Gru, held_out: list[Any], generate: Any) -> list[tuple[str, str]]:
    """What is found of outputs, in a few more steps."""
    doctor = trained(loop, 2, words(64, seed=9), generate=generate, trained=True)
    doctor.evaluate(held_out)
    return found(doctor)


@pytest.mark.parametrize("banned", [(5, 6), (9,), (EOS, 12)])
def test_words_that_are_never_said(learnt: Any, banned: Sequence[int]) -> None:
    loop, _, held_out = learnt
    assert asked(loop, held_out, greedy(loop.modules, banned))[0][0] == "OUT018"


@pytest.mark.parametrize("which", ["both", "drawn"])
def test_outputs_of_another_model(learnt: Any, which: str) -> None:
    loop, before, held_out = learnt
    torch.manual_seed(3)
    modules = before if which == "both" else Gru().modules
    assert asked(loop, held_out, greedy(modules))[0][0] == "OUT019"


@pytest.mark.parametrize("first", [(), (SOS,)])
def test_outputs_of_the_model_itself(learnt: Any, first: Sequence[int]) -> None:
    loop, _, held_out = learnt
    assert not {"OUT018", "OUT019"} & dict(asked(loop, held_out, greedy(loop.modules, first=first))).keys()


@pytest.mark.parametrize(("restored", "level"), [(0, "warning"), (2, None), (None, None)])
def test_weights_that_are_restored(restored: int | None, level: str | None) -> None:
    loop: Any = Gru()
    held_out, kept = list(batches(words(96, seed=5), begin=False)), []
    doctor = sourcewise.doctor(loop.modules, loop.optimizers)
    for step, (src, tgt) in enumerate(batches(words(1920), begin=False)):
        read, labels = loop.cut(tgt)
        loss = loop.loss(loop.logits(src, read), labels)
        loop.update(loss)
        doctor.step(loss, (src, tgt))
        if step % 40 == 39:
            doctor.evaluate(held_out)
            kept.append([copy.deepcopy(each.state_dict()) for each in loop.modules])
    for each, state in zip(loop.modules, kept[-1 if restored is None else restored], strict=True):
        each.load_state_dict(state)
    doctor.evaluate(held_out)
    assert dict(found(doctor)).get("TRN016") == level
