"""Kinds of which people tell, the seventh time, in loops of one's own: two instances of each or more, and healthy
neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sourcewise.integrations.loop import LoopDoctor
from tests.diagnosis.instances.loops import Gru, Loop, Transformer, adam, found
from tests.diagnosis.instances.test_other_kinds_of_loops import asked, first, greedy, trained
from tests.integrations.loops import EOS, PAD, SIZE, Apart, batches, words

Pairs = list[tuple[list[int], list[int]]]


def codes(doctor: LoopDoctor) -> dict[str, str]:
    return dict(found(doctor))


def evidence(doctor: LoopDoctor, code: str) -> str:
    return next(each.evidence for each in doctor.diagnosis.findings if each.code == code)


# ── which part of the target is learned ───────────────────────────────────────────────────────────────────────────────


class Whole(Transformer):
    """It is given the whole target, and the loop cuts its outputs; `skips` places more than it should."""

    skips = 0

    def cut(self, tgt: Tensor) -> tuple[Tensor, Tensor]:
        return tgt, tgt[:, 1 + self.skips :]

    def loss(self, said: Tensor, labels: Tensor) -> Tensor:
        return super().loss(said[:, : labels.shape[1]], labels)


class Twice(Whole):
    skips = 1


class TwiceCut(Transformer):
    """Both are cut by the loop, one too far."""

    def cut(self, tgt: Tensor) -> tuple[Tensor, Tensor]:
        return tgt[:, :-2], tgt[:, 2:]


class GruTwice(Gru):
    """The decoder shifts by itself, and the loop shifts once more."""

    def loss(self, said: Tensor, labels: Tensor) -> Tensor:
        return super().loss(said[:, :-1], labels[:, 1:])


@pytest.mark.parametrize("loop", [Twice, TwiceCut, GruTwice])
def test_labels_that_are_shifted_twice(loop: Callable[[], Loop]) -> None:
    doctor = trained(loop(), 14)
    assert first(doctor) == "WIR007" and "shifted twice" in evidence(doctor, "WIR007")


def test_a_target_that_is_given_whole_is_understood() -> None:
    doctor = trained(Whole(), 14)
    assert found(doctor) == []
    assert doctor.understood is not None and doctor.understood.whole and "1:] and 1 more" in doctor.understood.words
    assert doctor.evaluate(list(batches(words(64, seed=3)))).keys() >= {"source_bits", "tokens_right_pct"}


class Short(Gru):
    """A decoder that says so many words at most."""

    steps_said = 3

    def cut(self, tgt: Tensor) -> tuple[Tensor, Tensor]:
        return tgt[:, 1:], tgt[:, 1:]

    def loss(self, said: Tensor, labels: Tensor) -> Tensor:
        return super().loss(said[:, : self.steps_said], labels[:, : self.steps_said])


class ShortInside(Transformer):
    """The same in a module."""

    def logits(self, src: Tensor, read: Tensor) -> Tensor:
        return super().logits(src, read[:, :3])

    def loss(self, said: Tensor, labels: Tensor) -> Tensor:
        return super().loss(said, labels[:, : said.shape[1]])


@pytest.mark.parametrize("loop", [Short, ShortInside])
def test_targets_that_a_decoder_cuts(loop: Callable[[], Loop]) -> None:
    assert first(trained(loop(), 40)) in ("WIR009", "WIR048")


# ── logits that are viewed, not turned ────────────────────────────────────────────────────────────────────────────────


class Plain(Gru):
    """Logits, without log_softmax."""

    def made(self) -> Any:
        parts = super().made()
        parts[1].last = lambda table, dim: table
        return parts


def viewed(kind: Any, how: Callable[[Tensor, Tensor], Tensor]) -> Loop:
    loop = kind()
    loop.loss = lambda said, labels: F.cross_entropy(how(said, labels), labels, ignore_index=PAD)
    return loop  # type: ignore[no-any-return]


def by_view(said: Tensor, labels: Tensor) -> Tensor:
    return said.contiguous().view(len(labels), SIZE, -1)


@pytest.mark.parametrize("kind", [Plain, Transformer])
def test_logits_that_are_viewed(kind: Any) -> None:
    doctor = trained(viewed(kind, by_view), 14)
    assert first(doctor) == "WIR027" and "viewed" in evidence(doctor, "WIR027")


@pytest.mark.parametrize("kind", [Plain, Transformer])
def test_logits_that_are_turned(kind: Any) -> None:
    assert found(trained(viewed(kind, lambda said, labels: said.transpose(1, 2)), 14)) == []


# ── padding that shows late ───────────────────────────────────────────────────────────────────────────────────────────


def alike_first(count: int = 640) -> Pairs:
    """The first batches have words of one length."""
    pairs = words(3 * count)
    same = [pair for pair in pairs if len(pair[0]) == 6][:32]
    return same + pairs[:count]


class Unmasked(Transformer):
    def padding(self, src: Tensor) -> Tensor | None:
        return None


def test_padding_that_the_first_batches_have_not() -> None:
    healthy = trained(Transformer(), 31, alike_first())
    assert healthy.understood is not None and healthy.understood.pad == PAD and healthy.understood.hides_pad
    assert not [code for code in codes(healthy) if code != "DAT027"]  # they do come in an order
    assert "WIR005" in codes(trained(Unmasked(), 31, alike_first()))


# ── what attention adds up ────────────────────────────────────────────────────────────────────────────────────────────


class DotModel(nn.Module):
    """A GRU over each side, and attention of all words at once; `dim` is the axis of its softmax."""

    def __init__(self, dim: int, heads: int, turned: bool = False) -> None:
        super().__init__()
        self.dim, self.heads, self.turned = dim, heads, turned
        self.source, self.target = nn.Embedding(SIZE, 32), nn.Embedding(SIZE, 32)
        self.encoder, self.decoder = nn.GRU(32, 32, batch_first=True), nn.GRU(32, 32, batch_first=True)
        self.drop, self.out = nn.Dropout(0.1), nn.Linear(64, SIZE)

    def forward(self, src: Tensor, read: Tensor) -> Tensor:
        memory, state = self.encoder(self.source(src))
        said, _ = self.decoder(self.target(read), state)
        q, k = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (said, memory))
        scores = q @ k.transpose(-1, -2) / 4
        if self.turned:
            weights = torch.softmax(scores.transpose(-1, -2), dim=self.dim).transpose(-1, -2)
        else:
            weights = self.drop(torch.softmax(scores, dim=self.dim))
        context = torch.matmul(weights, k).transpose(1, 2).flatten(2)
        out: Tensor = self.out(torch.cat((said, context), -1))
        return out


class Dot(Loop):
    def __init__(self, dim: int, heads: int, turned: bool = False) -> None:
        self.how = dim, heads, turned
        super().__init__()

    def made(self) -> Any:
        return DotModel(*self.how)

    def logits(self, src: Tensor, read: Tensor) -> Tensor:
        return self.modules(src, read)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("dim", "heads"), [(-2, 1), (2, 4)])
def test_queries_that_compete(dim: int, heads: int) -> None:
    doctor = trained(Dot(dim, heads), 14)
    assert first(doctor) == "WIR044" and "has no shares" in evidence(doctor, "WIR044")


@pytest.mark.parametrize(("dim", "heads", "turned"), [(-1, 1, False), (3, 4, False), (2, 4, True)])
def test_keys_that_compete(dim: int, heads: int, turned: bool) -> None:
    assert found(trained(Dot(dim, heads, turned), 14)) == []


# ── sources that are not read whole ───────────────────────────────────────────────────────────────────────────────────


def encoding(change: Callable[[Any, Tensor], tuple[Tensor, Tensor]]) -> Loop:
    """A GRU whose encoder is another function of the source."""
    loop: Any = Gru()
    encoder = loop.modules[0]
    encoder.forward = lambda src: change(encoder, src)
    return loop  # type: ignore[no-any-return]


def beginning(encoder: Any, src: Tensor) -> tuple[Tensor, Tensor]:
    return encoder.gru(encoder.embedding(src[:, :2]))  # type: ignore[no-any-return]


def every_second(encoder: Any, src: Tensor) -> tuple[Tensor, Tensor]:
    return encoder.gru(encoder.embedding(src[:, ::2]))  # type: ignore[no-any-return]


def packed(lengths: Callable[[Tensor], Tensor]) -> Callable[[Any, Tensor], tuple[Tensor, Tensor]]:
    def run(encoder: Any, src: Tensor) -> tuple[Tensor, Tensor]:
        x = nn.utils.rnn.pack_padded_sequence(
            encoder.embedding(src), lengths(src), batch_first=True, enforce_sorted=False
        )
        out, state = encoder.gru(x)
        memory, _ = nn.utils.rnn.pad_packed_sequence(out, batch_first=True, total_length=src.shape[1])
        return memory, state

    return run


@pytest.mark.parametrize(
    "change", [beginning, every_second, packed(lambda src: ((src != PAD).sum(1) - 3).clamp(min=1))]
)
def test_words_of_sources_that_nothing_reads(change: Any) -> None:
    doctor = trained(encoding(change), 14)
    assert first(doctor) == "WIR043" and "move no output at all" in evidence(doctor, "WIR043")


@pytest.mark.parametrize("change", [packed(lambda src: (src != PAD).sum(1)), lambda e, src: e.gru(e.embedding(src))])
def test_sources_that_are_read_whole(change: Any) -> None:
    assert found(trained(encoding(change), 14)) == []


def test_a_maximum_over_time_reads_all_words() -> None:
    def change(encoder: Any, src: Tensor) -> tuple[Tensor, Tensor]:
        memory, _ = encoder.gru(encoder.embedding(src))
        top = memory.amax(1, keepdim=True)
        return top.expand_as(memory), top.transpose(0, 1).contiguous()

    assert "WIR043" not in codes(trained(encoding(change), 14))


# ── labels that do not count ──────────────────────────────────────────────────────────────────────────────────────────


def losing(kind: Any, loss: Callable[[Tensor, Tensor], Tensor]) -> Loop:
    loop = kind()
    loop.loss = loss
    return loop  # type: ignore[no-any-return]


def each_of(said: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(said.transpose(1, 2), labels, reduction="none")


def inverted(said: Tensor, labels: Tensor) -> Tensor:
    mask = (labels == PAD).float()
    return (each_of(said, labels) * mask).sum() / mask.sum().clamp(min=1)


def first_row(said: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(said[0], labels[0], ignore_index=PAD)


def last_place(said: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(said[:, 2], labels[:, 2], ignore_index=PAD)


def some_classes(said: Tensor, labels: Tensor) -> Tensor:
    weight = torch.ones(SIZE)
    weight[4:10] = 0
    return F.cross_entropy(said.reshape(-1, SIZE), labels.reshape(-1), weight, ignore_index=PAD)


@pytest.mark.parametrize("kind", [Plain, Transformer])
@pytest.mark.parametrize("loss", [inverted, first_row, last_place, some_classes])
def test_labels_that_get_no_gradient(kind: Any, loss: Any) -> None:
    doctor = trained(losing(kind, loss), 21)
    assert first(doctor) == "WIR048"


def masked(said: Tensor, labels: Tensor) -> Tensor:
    mask = (labels != PAD).float()
    return (each_of(said, labels) * mask).sum() / mask.sum()


def weighted(said: Tensor, labels: Tensor) -> Tensor:
    weight = torch.linspace(0.2, 2, SIZE)
    return F.cross_entropy(said.reshape(-1, SIZE), labels.reshape(-1), weight, ignore_index=PAD)


@pytest.mark.parametrize("kind", [Plain, Transformer])
@pytest.mark.parametrize("loss", [masked, weighted])
def test_labels_that_all_count(kind: Any, loss: Any) -> None:
    assert "WIR048" not in codes(trained(losing(kind, loss), 21))


# ── a state that goes on ──────────────────────────────────────────────────────────────────────────────────────────────


def kept_inside() -> Loop:
    """The encoder keeps its state, detached."""
    loop: Any = Gru()
    encoder = loop.modules[0]
    encoder.state = torch.zeros(1, 16, 32)

    def forward(src: Tensor) -> tuple[Tensor, Tensor]:
        memory, state = encoder.gru(encoder.embedding(src), encoder.state[:, : len(src)])
        encoder.state = state.detach()
        return memory, state

    encoder.forward = forward
    return loop  # type: ignore[no-any-return]


class Outside(Gru):
    """The loop keeps the state of the decoder."""

    state: Tensor | None = None

    def logits(self, src: Tensor, read: Tensor) -> Tensor:
        memory, state = self.encoded(src)
        begin = state if self.state is None else self.state
        said, after, _ = self.modules[1](memory, begin, read)
        self.state = after.detach()
        return said  # type: ignore[no-any-return]


@pytest.mark.parametrize("loop", [kept_inside, Outside])
def test_a_state_that_goes_from_batch_to_batch(loop: Callable[[], Loop]) -> None:
    assert first(trained(loop(), 14)) == "WIR049"


# ── a group without a rate, and a norm that leaves nothing ────────────────────────────────────────────────────────────


def grouped(kind: Any, rate: float) -> Loop:
    loop = kind()
    modules = loop.modules if isinstance(loop.modules, tuple) else (loop.modules,)
    names = [(f"{i}.{name}", p) for i, m in enumerate(modules) for name, p in m.named_parameters()]
    of_encoder = [p for name, p in names if name.startswith("0.") if kind is Gru or "encoder" in name]
    rest = [p for _, p in names if all(p is not each for each in of_encoder)]
    loop.optimizers = [torch.optim.Adam([{"params": of_encoder, "lr": rate}, {"params": rest, "lr": 3e-3}])]
    return loop  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [Gru, Transformer])
def test_an_encoder_at_a_rate_of_zero(kind: Any) -> None:
    doctor = trained(grouped(kind, 0.0), 21)
    assert first(doctor) == "WIR003" and "rate of 0" in evidence(doctor, "WIR003")


@pytest.mark.parametrize("kind", [Gru, Transformer])
def test_an_encoder_at_a_rate_of_its_own(kind: Any) -> None:
    assert "WIR003" not in codes(trained(grouped(kind, 3e-5), 21))


def clipped(kind: Any, norm: float, made: Callable[[list[nn.Parameter]], list[Any]]) -> Loop:
    loop = kind(made)

    def update(loss: Tensor) -> None:
        for each in loop.optimizers:
            each.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(loop.parameters(), norm)
        for each in loop.optimizers:
            each.step()

    loop.update = update
    return loop  # type: ignore[no-any-return]


def by_sgd(rate: float) -> Callable[[list[nn.Parameter]], list[Any]]:
    return lambda p: [torch.optim.SGD(p, lr=rate)]


@pytest.mark.parametrize("kind", [Gru, Transformer])
def test_a_norm_that_is_too_small(kind: Any) -> None:
    doctor = trained(clipped(kind, 1e-4, by_sgd(0.2)), 21)
    assert first(doctor) == "WIR035" and "norm that is too small" in evidence(doctor, "WIR035")


@pytest.mark.parametrize(("norm", "made"), [(1e-4, adam), (1.0, by_sgd(0.2)), (0.01, by_sgd(20.0))])
def test_norms_that_leave_enough(norm: float, made: Any) -> None:
    assert "WIR035" not in codes(trained(clipped(Gru, norm, made), 21))


# ── targets in another order than their sources ───────────────────────────────────────────────────────────────────────


class Sorting(nn.Module):
    """Sorts the targets by their length, as for packing; the sources, too, where it is right."""

    def __init__(self, right: bool) -> None:
        super().__init__()
        self.right = right
        parts = Apart()
        self.encoder, self.decoder = parts.encoder, parts.decoder
        self.decoder.last = lambda table, dim: table

    def forward(self, src: Tensor, tgt: Tensor) -> tuple[Tensor, Tensor]:
        order = (tgt != PAD).sum(1).sort(descending=True, stable=True).indices
        memory, state = self.encoder(src)
        if self.right:
            memory, state = memory[order], state[:, order]
        return self.decoder(memory, state, tgt[order])[0], tgt[order]


class Sorted(Loop):
    right = False
    begin = False

    def made(self) -> Any:
        return Sorting(self.right)

    def run_one(self, src: Tensor, tgt: Tensor) -> Tensor:
        said, labels = self.modules(src, tgt)
        return self.loss(said, labels)


class SortedBoth(Sorted):
    right = True


def run_sorted(loop: Sorted, steps: int = 21) -> LoopDoctor:
    import sourcewise

    doctor = sourcewise.doctor(loop.modules, loop.optimizers)
    for src, tgt in list(batches(words(1600), begin=False))[:steps]:
        loss = loop.run_one(src, tgt)
        loop.update(loss)
        doctor.step(loss, (src, tgt))
    return doctor


def test_targets_that_are_sorted_without_their_sources() -> None:
    doctor = run_sorted(Sorted())
    assert first(doctor) == "WIR038" and "in another order" in evidence(doctor, "WIR038")


def test_both_sides_are_sorted() -> None:
    assert found(run_sorted(SortedBoth())) == []


# ── what is evaluated on ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def learnt() -> tuple[Any, list[Any]]:
    loop = Gru()
    trained(loop, 60, words(960))
    return loop, list(batches(words(96, seed=5)))


def evaluated(sets: Callable[[Pairs], list[Any]], kind: Any = Gru, steps: int = 31) -> LoopDoctor:
    pairs = words(960)
    doctor = trained(kind(), steps, pairs)
    doctor.evaluate(sets(pairs))
    return doctor


@pytest.mark.parametrize("kind", [Gru, Transformer])
def test_the_training_data_is_evaluated_on(kind: Any) -> None:
    assert "DAT033" in codes(evaluated(lambda pairs: list(batches(pairs[200:360])), kind))


def test_some_of_it_is() -> None:
    mixed = evaluated(lambda pairs: list(batches([*pairs[:24], *words(72, seed=5)])))
    assert "24 of 96" in evidence(mixed, "DAT033")


def test_other_data_of_the_same_kind_is_evaluated_on() -> None:
    doctor = evaluated(lambda pairs: list(batches(words(160, seed=5))))
    assert not {"DAT033", "DAT034"} & codes(doctor).keys()


def test_a_small_space_is_no_leak() -> None:
    small = [([a, b], [b, a]) for a in range(3, SIZE) for b in range(3, SIZE)]
    draw = torch.Generator().manual_seed(0)
    pairs = [small[int(i)] for i in torch.randint(len(small), (960,), generator=draw)]
    doctor = trained(Gru(), 60, pairs)
    doctor.evaluate(list(batches([small[int(i)] for i in torch.randint(len(small), (96,), generator=draw)])))
    assert "DAT033" not in codes(doctor)


def without_end(pairs: Pairs) -> list[Any]:
    """Sources whose end of text is missing."""
    return [(torch.where(src == EOS, PAD, src)[:, :-1], tgt) for src, tgt in batches(words(96, seed=5))]


def unknown(pairs: Pairs) -> list[Any]:
    """Sources in which every second letter is one id that the training never had."""
    out = []
    for src, tgt in batches(words(96, seed=5)):
        odd = torch.arange(src.shape[1])[None] % 2 == 1
        out.append((torch.where(odd & (src > EOS), 1, src), tgt))
    return out


@pytest.mark.parametrize(("kind", "sets"), [(Gru, without_end), (Gru, unknown), (Transformer, unknown)])
def test_sources_that_are_made_otherwise(sets: Any, kind: Any) -> None:
    assert "DAT034" in codes(evaluated(sets, kind))


# ── outputs that are right but for one thing ──────────────────────────────────────────────────────────────────────────


def changed(how: Callable[[list[int]], list[int]]) -> Callable[[Any], list[list[int]]]:
    """What is right in three of four rows, and then changed."""

    def generate(batch: Any) -> list[list[int]]:
        rows = [[int(i) for i in row if int(i) > EOS][::-1] for row in batch[0]]
        return [how(row if place % 4 else [5, *row[1:-1], 9]) for place, row in enumerate(rows)]

    return generate


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda row: row[::-1], "other order"),
        (lambda row: row[1:], "first word"),
        (lambda row: [1, *row], "in front"),
        (lambda row: [*row, 7, 7], "go on behind"),
        (lambda row: [i for i in row for _ in range(2)], "several times"),
    ],
)
def test_outputs_that_are_right_but_for_one_change(learnt: Any, how: Any, said: str) -> None:
    loop, held_out = learnt
    doctor_findings = asked(loop, held_out, changed(how))
    assert doctor_findings[0] == ("OUT021", "error"), said


def test_outputs_that_are_right(learnt: Any) -> None:
    loop, held_out = learnt
    for generate in (greedy(loop.modules), changed(lambda row: row)):
        assert not {"OUT021", "OUT013"} & dict(asked(loop, held_out, generate)).keys()


def test_outputs_in_the_order_of_their_lengths(learnt: Any) -> None:
    loop, held_out = learnt
    usual = changed(lambda row: row)

    def generate(batch: Any) -> list[list[int]]:
        return sorted(usual(batch), key=len, reverse=True)

    assert asked(loop, held_out, generate)[0] == ("OUT013", "error")


# ── other losses, other masks, one seed ───────────────────────────────────────────────────────────────────────────────


def one_hot(labels: Tensor) -> Tensor:
    return F.one_hot(labels, SIZE).float()


def squares(said: Tensor, labels: Tensor) -> Tensor:
    return F.mse_loss(said[labels != PAD], one_hot(labels)[labels != PAD])


def binary(said: Tensor, labels: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(said[labels != PAD], one_hot(labels)[labels != PAD])


@pytest.mark.parametrize("kind", [Plain, Transformer])
@pytest.mark.parametrize("loss", [squares, binary])
def test_losses_of_one_hot_labels(kind: Any, loss: Any) -> None:
    doctor = trained(losing(kind, loss), 14)
    assert found(doctor)[0] == ("WIR027", "warning") and doctor.understood is not None and doctor.understood.whole


class OtherMask(Transformer):
    """The memory is masked by the padding of the targets, as wide as the sources."""

    right = False

    def made(self) -> Any:
        inner: Any = super().made()

        def forward(src: Tensor, read: Tensor, pad: Tensor, later: Tensor) -> Tensor:
            x = inner.positional_encoding(inner.src_tok_emb(src) * 5.7)
            y = inner.positional_encoding(inner.tgt_tok_emb(read) * 5.7)
            memory = inner.transformer.encoder(x, None, pad)
            mask = pad if self.right else (read == PAD).T
            out = inner.transformer.decoder(y, memory, later, memory_key_padding_mask=mask)
            return inner.generator(out)  # type: ignore[no-any-return]

        inner.forward = forward
        return inner

    def batch(self, src: Tensor, tgt: Tensor) -> tuple[Tensor, Tensor]:
        """Both as wide as each other; and each target a few words shorter than its source."""
        short = tgt.clone()
        ends = (tgt != PAD).sum(1, keepdim=True)
        places = torch.arange(tgt.shape[1])[None]
        short[places >= (ends - 4)] = PAD
        short[places == (ends - 4)] = EOS
        width = max(src.shape[1], tgt.shape[1] - 1)
        return F.pad(src, (0, width - src.shape[1])), F.pad(short, (0, width + 1 - tgt.shape[1]))


class RightMask(OtherMask):
    right = True


def test_the_mask_of_the_other_side() -> None:
    doctor = trained(OtherMask(), 14)
    assert first(doctor) == "WIR005" and "of something else" in evidence(doctor, "WIR005")
    assert "WIR005" not in codes(trained(RightMask(), 14))


@pytest.mark.parametrize("every", [1, 100])
def test_one_seed_in_each_step(every: int) -> None:
    loop = Transformer()
    doctor = trained(loop, 41, behind=lambda step: torch.manual_seed(3) if (step + 1) % every == 0 else None)
    assert codes(doctor).get("WIR040") == ("warning" if every == 1 else None)
