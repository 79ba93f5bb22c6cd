"""Kinds that an examiner planted who did not know the rules: instances of our own in loops, and healthy twins."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sourcewise
from sourcewise.data.batches import IGNORED
from sourcewise.diagnosis.measures.likely_unknown import likely_unknown
from sourcewise.diagnosis.rules import RULES
from sourcewise.integrations.loop.saying import said_beside
from tests.diagnosis.instances.loops import Gru, Loop, Transformer, found
from tests.diagnosis.instances.test_other_kinds_of_loops import asked, first, greedy, trained
from tests.diagnosis.instances.test_rows_of_loops import after
from tests.integrations.loops import EOS, PAD, SIZE, SOS, batches, words

# ── weights that nobody knows ─────────────────────────────────────────────────────────────────────────────────────────


class Hidden(nn.Module):
    """Layers that are kept in what is no module."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        made = [nn.Linear(32, 32) for _ in range(2)]
        kinds: dict[str, Any] = {"list": made, "dict": dict(enumerate(made)), "known": nn.ModuleList(made)}
        self.kept = kinds.get(kind, lambda: made)
        self.closed = kind == "closure"

    def forward(self, x: Tensor) -> Tensor:
        kept = self.kept() if self.closed else self.kept
        for layer in kept.values() if isinstance(kept, dict) else kept:
            x = x + torch.tanh(layer(x))
        return x


def hiding(kind: str) -> Loop:
    return after(Hidden(kind), change=lambda memory, inner: inner(memory))


@pytest.mark.parametrize("kind", ["list", "dict", "closure"])
def test_layers_that_no_module_knows(kind: str) -> None:
    doctor = trained(hiding(kind), 14)
    assert first(doctor) == "WIR003"
    assert "4 tensors of 2,112 weights" in doctor.diagnosis.findings[0].evidence


def test_layers_in_a_module_list() -> None:
    assert found(trained(hiding("known"), 14)) == []


def test_weights_of_other_modules_that_the_optimizer_has() -> None:
    """Who gives the doctor one of two modules, and the optimizer of both, has forgotten nothing."""
    loop: Any = Gru()
    doctor = sourcewise.doctor(loop.modules[1], loop.optimizers)
    for src, tgt in list(batches(words(320)))[:14]:
        read, labels = loop.cut(tgt)
        loss = loop.loss(loop.logits(src, read), labels)
        loop.update(loss)
        doctor.step(loss, (src, tgt))
    assert "no module has" not in " ".join(each.evidence for each in doctor.diagnosis.findings)


# ── weights that shrink ───────────────────────────────────────────────────────────────────────────────────────────────


def decayed(kind: Any, made: Callable[[list[nn.Parameter]], Any]) -> Loop:
    loop = kind()
    loop.optimizers = [made(loop.parameters())]
    return loop  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        (Gru, lambda p: torch.optim.Adam(p, lr=3e-3, weight_decay=0.1)),
        (Transformer, lambda p: torch.optim.Adam(p, lr=2e-3, weight_decay=0.05)),
        (Gru, lambda p: torch.optim.NAdam(p, lr=3e-3, weight_decay=0.2)),
        (Gru, lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=60.0)),
    ],
)
def test_a_decay_that_takes_the_weights(kind: Any, made: Any) -> None:
    assert first(trained(decayed(kind, made), 150)) == "WIR042"


@pytest.mark.parametrize(
    "made",
    [
        lambda p: torch.optim.Adam(p, lr=3e-3, weight_decay=1e-5),
        lambda p: torch.optim.AdamW(p, lr=3e-3, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, lr=0.2, weight_decay=1e-4),
    ],
)
def test_a_usual_decay(made: Any) -> None:
    assert found(trained(decayed(Gru, made), 150)) == []


# ── features that fade ────────────────────────────────────────────────────────────────────────────────────────────────


class Listener(nn.Module):
    """Frames to letters."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.GRU(8, 32, batch_first=True), nn.GRU(16, 32, batch_first=True)
        self.embedding, self.out = nn.Embedding(SIZE, 16), nn.Linear(32, SIZE)

    def forward(self, frames: Tensor, read: Tensor) -> Tensor:
        state = self.encoder(frames)[1]
        return self.out(self.decoder(self.embedding(read), state)[0])  # type: ignore[no-any-return]


def heard(change: Callable[[Tensor, torch.Generator], Tensor], target: str | None = None) -> Any:
    """160 steps on 256 clips that are changed by each; the batch is what the loop has at hand."""
    torch.manual_seed(0)
    model, draw = Listener(), torch.Generator().manual_seed(0)
    known = list(batches(words(256)))
    clips = [torch.randn(SIZE, 8, generator=draw)[src] for src, _ in known]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    doctor = sourcewise.doctor(model, optimizer, target=target)
    for step in range(160):
        at = step % len(known)
        frames, tgt = change(clips[at], draw), known[at][1]
        said = model(frames, tgt[:, :-1])
        loss = nn.functional.cross_entropy(said.reshape(-1, SIZE), tgt[:, 1:].reshape(-1), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        doctor.step(loss, {"frames": frames, "letters": tgt})
    return doctor


def masked(clip: Tensor, draw: torch.Generator) -> Tensor:
    clip[:, :, torch.randint(8, (1,), generator=draw)] = 0
    return clip


def scaled(by: float) -> Callable[[Tensor, torch.Generator], Tensor]:
    return lambda clip, draw: clip.mul_(by)


@pytest.mark.parametrize("change", [masked, scaled(0.9), scaled(1.15)])
def test_an_augmentation_in_place(change: Any) -> None:
    assert first(heard(change)) == "DAT030"


@pytest.mark.parametrize(
    "change", [lambda clip, draw: masked(clip.clone(), draw), lambda clip, draw: clip + torch.randn(clip.shape)]
)
def test_an_augmentation_of_copies(change: Any) -> None:
    assert "DAT030" not in dict(found(heard(change)))


def test_a_target_that_is_named_may_begin_with_a_start_token() -> None:
    doctor = heard(lambda clip, draw: clip, target="letters")
    assert doctor.understood is not None and "letters[:, 1:]" in doctor.understood.words
    assert not [line for line in doctor.diagnosis.not_checked if "Error" in line]


# ── what is said, and by whom ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def learnt() -> tuple[Any, list[Any], list[Any]]:
    """A GRU that has learned much of its task, an average of its weights that hardly moved, and held-out batches."""
    loop: Any = Gru()
    average = copy.deepcopy(loop.modules)

    def follow(step: int) -> None:
        with torch.no_grad():
            for kept, new in zip(average, loop.modules, strict=True):
                for a, b in zip(kept.parameters(), new.parameters(), strict=True):
                    a.lerp_(b, 0.0005)

    trained(loop, 300, words(4800), behind=follow)
    return loop, list(average), list(batches(words(96, seed=5)))


def test_an_average_that_has_hardly_moved(learnt: Any) -> None:
    loop, average, held_out = learnt
    assert asked(loop, held_out, greedy(average))[0][0] == "OUT019"


@pytest.mark.parametrize("cut", [False, True])
def test_outputs_with_and_without_their_end(learnt: Any, cut: bool) -> None:
    """Who cuts outputs before the end of text has forgotten no word."""
    loop, _, held_out = learnt
    usual = greedy(loop.modules)

    def generate(batch: Any) -> list[list[int]]:
        rows = [row.tolist() for row in usual(batch)]
        return [row[: row.index(EOS)] if cut and EOS in row else row for row in rows]

    assert not {"OUT018", "OUT019"} & dict(asked(loop, held_out, generate)).keys()


@pytest.mark.parametrize("forgets", [1, 2])
def test_a_decoder_that_forgets_after_some_tokens(learnt: Any, forgets: int) -> None:
    """Its first tokens are right, those behind them are said as if nothing had been said before."""
    loop, _, held_out = learnt

    def generate(batch: Any) -> list[Tensor]:
        encoder, decoder = loop.modules
        memory, state = encoder(batch[0])
        token, out, begun = torch.full((len(batch[0]), 1), SOS), [], state
        for step in range(9):
            scores = decoder.score(torch.tanh(decoder.query(state[-1])[:, None] + decoder.key(memory)))
            context = (torch.softmax(scores, 1) * memory).sum(1, keepdim=True)
            made, state = decoder.gru(torch.cat((decoder.embedding(token), context), -1), state)
            state = begun if step + 1 >= forgets else state
            token = decoder.out(made)[:, 0].argmax(-1, keepdim=True)
            out.append(token)
        return list(torch.cat(out, 1))

    assert asked(loop, held_out, generate)[0][0] == "OUT019"


def test_outputs_that_are_drawn(learnt: Any) -> None:
    """Sampling says what the network finds likely, too."""
    loop, _, held_out = learnt
    torch.manual_seed(4)

    def generate(batch: Any) -> list[Tensor]:
        encoder, decoder = loop.modules
        memory, state = encoder(batch[0])
        token, out = torch.full((len(batch[0]), 1), SOS), []
        for _ in range(9):
            scores = decoder.score(torch.tanh(decoder.query(state[-1])[:, None] + decoder.key(memory)))
            context = (torch.softmax(scores, 1) * memory).sum(1, keepdim=True)
            made, state = decoder.gru(torch.cat((decoder.embedding(token), context), -1), state)
            token = decoder.out(made)[:, 0].softmax(-1).multinomial(1)
            out.append(token)
        return list(torch.cat(out, 1))

    assert "OUT019" not in dict(asked(loop, held_out, generate))


# ── sources as ids ────────────────────────────────────────────────────────────────────────────────────────────────────


def unread(share: float) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A share of the letters of sources has the number 3."""
    draw = torch.Generator().manual_seed(2)

    def change(src: Tensor, tgt: Tensor) -> tuple[Tensor, Tensor]:
        chosen = (torch.rand(src.shape, generator=draw) < share) & (src > EOS)
        return src.masked_fill(chosen, 3), tgt

    return change


@pytest.mark.parametrize(("kind", "share"), [(Gru, 0.7), (Transformer, 0.8), (Gru, 0.9)])
def test_words_that_are_all_unknown(kind: Any, share: float) -> None:
    loop = kind()
    loop.batch = unread(share)
    assert first(trained(loop, 14)) == "DAT006"


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([[i % 12 + 1, 99] * 5 for i in range(30)], None),  # what separates words
        ([[99] * 8 + [i % 12, i % 7] for i in range(30)], None),  # silence
        ([[0, 1, 1, 0, 1]] * 30, None),  # an alphabet of two
    ],
)
def test_ids_that_are_often_there(rows: list[list[int]], found: int | None) -> None:
    assert likely_unknown(rows) is found


def test_a_set_that_is_gone_through_again_has_no_copies() -> None:
    doctor = trained(Gru(), 60, words(64))
    assert "DAT010" not in {each.code for each in doctor.diagnosis.findings}


def test_copies_within_a_batch_are_told() -> None:
    pairs = [pair for pair in words(400) for _ in range(3)]
    doctor = trained(Gru(), 60, pairs)
    assert "DAT010" in {each.code for each in doctor.diagnosis.findings}


@pytest.mark.parametrize("each", [30, 50])
def test_one_cycle_that_is_stepped_with_every_epoch(each: int) -> None:
    loop: Any = Gru()
    (optimizer,) = loop.optimizers[:1]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=100, div_factor=100)
    doctor = trained(loop, 100, behind=lambda step: schedule.step() if (step + 1) % each == 0 else None)
    assert first(doctor) == "WIR041"


def test_the_new_rules_are_known() -> None:
    assert {"WIR042", "DAT030", "DAT031"} <= RULES.keys()


@pytest.mark.parametrize("lengths", [[7], [7, 5, 6]])
@pytest.mark.parametrize("cut", [False, True])
def test_the_end_is_no_word_that_is_missing_where_all_are_of_one_length(lengths: list[int], cut: bool) -> None:
    torch.manual_seed(0)
    labels = torch.full((24, 7), IGNORED)
    for i in range(24):
        width = lengths[i % len(lengths)]
        labels[i, :width] = torch.cat((torch.randint(4, 9, (width - 1,)), torch.tensor([EOS])))
    logs = torch.log_softmax(9.0 * torch.nn.functional.one_hot(labels.clamp(min=0), 9), -1)
    outputs = [[i for i in row if i != IGNORED and not (cut and i == EOS)] for row in labels.tolist()]
    said = said_beside(lambda: [(logs, labels)], [outputs])
    assert said is not None and {i: found for i, _, _, found in said.tokens}.get(EOS) == (
        None if cut or len(lengths) > 1 else 24
    )
