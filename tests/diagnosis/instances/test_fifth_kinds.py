"""Kinds that people tell of, in loops of one's own: two instances of each or more, and healthy twins."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sourcewise.diagnosis.observed import Rounded
from sourcewise.integrations.loop import LoopDoctor
from sourcewise.integrations.rounding import later
from tests.diagnosis.instances.loops import Gru, Loop, Transformer, adam, found, sgd
from tests.diagnosis.instances.test_other_kinds_of_loops import asked, first, greedy, trained
from tests.integrations.loops import PAD, SIZE, SOS, batches, words

SCALE = 5.7


def codes(doctor: LoopDoctor) -> dict[str, str]:
    return dict(found(doctor))


# ── the order of the source ───────────────────────────────────────────────────────────────────────────────────────────


def placeless(sides: str) -> Loop:
    """An nn.Transformer without positions on these sides."""
    loop: Any = Transformer()
    inner = loop.modules

    def forward(src: Tensor, read: Tensor, pad: Tensor, later: Tensor) -> Tensor:
        x, y = inner.src_tok_emb(src) * SCALE, inner.tgt_tok_emb(read) * SCALE
        x = x if "source" in sides else inner.positional_encoding(x)
        y = y if "target" in sides else inner.positional_encoding(y)
        memory = inner.transformer.encoder(x, None, pad)
        out: Tensor = inner.generator(inner.transformer.decoder(y, memory, later, None, None, pad))
        return out

    inner.forward = forward
    return loop  # type: ignore[no-any-return]


def bag() -> Loop:
    """A decoder that reads a mean of embeddings."""
    loop: Any = Gru()
    encoder = loop.modules[0]

    def forward(src: Tensor) -> tuple[Tensor, Tensor]:
        table, real = encoder.embedding(src), (src != PAD)[..., None]
        mean = (table * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)
        return mean.expand(-1, src.shape[1], -1), mean.transpose(0, 1).contiguous()

    encoder.forward = forward
    return loop  # type: ignore[no-any-return]


@pytest.mark.parametrize("loop", [lambda: placeless("source"), lambda: placeless("source target"), bag])
def test_an_order_that_is_not_read(loop: Callable[[], Loop]) -> None:
    assert first(trained(loop(), 14)) == "WIR022"


def test_a_mask_tells_a_decoder_its_places() -> None:
    assert found(trained(placeless("target"), 14)) == []


def test_batches_that_are_read_by_functions() -> None:
    """What the loop says by logits=, source= and target= is held to nothing that it does not show."""
    loop: Any = Gru()
    doctor = trained(
        loop,
        14,
        logits=lambda batch: loop.logits(batch[0], batch[1][:, 1:]),
        source=lambda batch: batch[0],
        target=lambda batch: batch[1][:, 1:],
        pad=PAD,
    )
    assert found(doctor) == []


# ── modes, and gradients that no step takes ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("at", [0, 6, 21])
def test_a_training_in_eval_mode(at: int) -> None:
    loop: Any = Transformer()
    doctor = trained(loop, 61, behind=lambda step: loop.modules.eval() if step == at else None)
    assert found(doctor) == [("WIR040", "warning")]


def test_evaluation_that_switches_back_and_norms_that_are_kept() -> None:
    loop: Any = Transformer()

    def behind(step: int) -> None:
        loop.modules.eval()
        loop.modules.train()
        loop.modules.transformer.encoder.layers[0].eval()  # one layer is kept as it is

    assert found(trained(loop, 31, behind=behind)) == []


def every(times: int, zero: str) -> Callable[[Loop], Callable[[Tensor], None]]:
    """An optimizer's step once in several batches; gradients are set to zero with each `batch`, or each `step`."""

    def made(loop: Loop) -> Callable[[Tensor], None]:
        count = [0]

        def update(loss: Tensor) -> None:
            count[0] += 1
            if zero == "batch":
                for each in loop.optimizers:
                    each.zero_grad()
            (loss / times).backward()
            if count[0] % times == 0:
                for each in loop.optimizers:
                    each.step()
                    if zero == "step":
                        each.zero_grad()

        return update

    return made


@pytest.mark.parametrize(("kind", "times"), [(Gru, 2), (Gru, 4), (Transformer, 8)])
@pytest.mark.parametrize("zero", ["batch", "step"])
def test_gradients_that_are_lost_before_a_step(kind: Any, times: int, zero: str) -> None:
    loop = kind()
    loop.update = every(times, zero)(loop)
    assert codes(trained(loop, 40)).get("WIR030") == ("error" if zero == "batch" else None)


def test_two_passes_to_a_step_lose_nothing() -> None:
    """Sharpness-aware steps: a second pass, the first one's gradient gone."""
    loop: Any = Gru()
    kept: list[Any] = []
    logits = loop.logits
    loop.logits = lambda src, read: kept.append((src, read)) or logits(src, read)  # type: ignore[func-returns-value]

    def update(loss: Tensor) -> None:
        loss.backward()
        for each in loop.optimizers:
            each.zero_grad()
        src, read = kept[-1]
        loop.loss(logits(src, read), read).backward()
        for each in loop.optimizers:
            each.step()
            each.zero_grad()

    loop.update = update
    assert "WIR030" not in codes(trained(loop, 24))


# ── what is behind the logits, and what attention chooses from ────────────────────────────────────────────────────────


def within(kind: Any, change: Any) -> Loop:
    """Something behind the output layer, in the model."""
    loop = kind()
    if kind is Gru:
        loop.modules[1].last = lambda table, dim: change(table)
    else:
        loop.modules.generator = nn.Sequential(loop.modules.generator, change)
    return loop  # type: ignore[no-any-return]


def outside(kind: Any, change: Any) -> Loop:
    """The same before the loss, in the loop."""
    loop = within(kind, nn.Identity())
    loss = loop.loss
    loop.loss = lambda said, labels: loss(change(said), labels)  # type: ignore[method-assign]
    return loop


@pytest.mark.parametrize("place", [within, outside])
@pytest.mark.parametrize(("kind", "change"), [(Gru, nn.ReLU()), (Transformer, nn.Tanh()), (Gru, nn.Sigmoid())])
def test_an_activation_behind_the_logits(place: Any, kind: Any, change: Any) -> None:
    assert first(trained(place(kind, change), 14)) == "WIR027"


@pytest.mark.parametrize("change", [nn.Identity(), lambda table: table / 2, lambda table: 30 * torch.tanh(table / 30)])
def test_logits_that_are_scaled(change: Any) -> None:
    assert "WIR027" not in codes(trained(outside(Gru, change), 14))


def along(axis: int, shape: str = "") -> Loop:
    """The tutorial's attention, its softmax along this axis of the scores."""
    loop: Any = Gru()
    decoder = loop.modules[1]

    def forward(memory: Tensor, state: Tensor, target: Tensor) -> Any:
        said, token = [], torch.full_like(target[:, :1], SOS)
        for t in range(target.shape[1]):
            scores = decoder.score(torch.tanh(decoder.query(state[-1])[:, None] + decoder.key(memory)))
            if shape == "turned":
                weights = F.softmax(scores.transpose(1, 2), dim=axis).transpose(1, 2)
            else:
                weights = scores.softmax(axis)
            context = (weights * memory).sum(1, keepdim=True)
            out, state = decoder.gru(torch.cat((decoder.embedding(token), context), -1), state)
            said.append(decoder.out(out))
            token = target[:, t : t + 1]
        return torch.log_softmax(torch.cat(said, 1), -1), state, None

    decoder.forward = forward
    return loop  # type: ignore[no-any-return]


@pytest.mark.parametrize(("axis", "shape"), [(2, ""), (-1, ""), (1, "turned")])
def test_attention_over_one_entry(axis: int, shape: str) -> None:
    doctor = trained(along(axis, shape), 14)
    assert first(doctor) == "WIR044"
    assert "test_fifth_kinds.py:" in doctor.diagnosis.findings[0].evidence


@pytest.mark.parametrize(("axis", "shape"), [(1, ""), (-1, "turned")])
def test_attention_over_the_source(axis: int, shape: str) -> None:
    assert found(trained(along(axis, shape), 14)) == []


# ── what the decoder reads ────────────────────────────────────────────────────────────────────────────────────────────


def own_words(share: float) -> Loop:
    """A GRU that is fed its own words in this share of the batches, by chance."""
    loop: Any = Gru()
    decoder, draw = loop.modules[1], torch.Generator().manual_seed(3)

    def forward(memory: Tensor, state: Tensor, target: Tensor) -> Any:
        said, token = [], torch.full_like(target[:, :1], SOS)
        free = float(torch.rand((), generator=draw)) < share
        for t in range(target.shape[1]):
            out, state = decoder.gru(torch.cat((decoder.embedding(token), memory[:, -1:]), -1), state)
            said.append(decoder.out(out))
            token = said[-1][:, 0].argmax(-1, keepdim=True) if free else target[:, t : t + 1]
        return torch.log_softmax(torch.cat(said, 1), -1), state, None

    decoder.forward = forward
    return loop  # type: ignore[no-any-return]


def constant() -> Loop:
    """An nn.Transformer whose decoder is fed start tokens alone."""
    loop: Any = Transformer()
    logits = loop.logits
    loop.logits = lambda src, read: logits(src, torch.full_like(read, SOS))
    return loop  # type: ignore[no-any-return]


@pytest.mark.parametrize("loop", [lambda: own_words(1.0), constant])
def test_words_before_that_are_not_read(loop: Callable[[], Loop]) -> None:
    assert first(trained(loop(), 14)) == "WIR045"


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_words_before_that_are_read_at_times(share: float) -> None:
    assert "WIR045" not in codes(trained(own_words(share), 14))


class Selfish(Transformer):
    """A decoder that reads no memory: its own input, or another stack, in its place."""

    causal = True

    def made(self) -> Any:
        inner: Any = super().made()

        def forward(src: Tensor, read: Tensor, pad: Tensor, later: Tensor) -> Tensor:
            x = inner.positional_encoding(inner.src_tok_emb(src) * SCALE)
            y = inner.positional_encoding(inner.tgt_tok_emb(read) * SCALE)
            memory = inner.transformer.encoder(x, None, pad)
            out = inner.transformer.encoder(y, later if self.causal else None) + 0 * memory.mean()
            return inner.generator(out)  # type: ignore[no-any-return]

        inner.forward = forward
        return inner


class SelfishAndAhead(Selfish):
    causal = False


def swapped() -> Loop:
    """The target is encoded in the place of the source."""
    loop = Gru()
    loop.batch = lambda src, tgt: (tgt[:, 1:], tgt)  # type: ignore[method-assign]
    return loop


@pytest.mark.parametrize("loop", [Selfish, SelfishAndAhead, swapped])
def test_a_source_that_is_not_read_comes_before_what_is_read_instead(loop: Callable[[], Loop]) -> None:
    assert first(trained(loop(), 14)) == "WIR011"


# ── layers, numbers, settings ─────────────────────────────────────────────────────────────────────────────────────────


def stacked(layers: Callable[[nn.Module], list[nn.Module]]) -> Loop:
    loop: Any = Transformer()
    stack = loop.modules.transformer.encoder
    stack.layers = nn.ModuleList(layers(stack.layers[0]))
    loop.optimizers = adam(loop.parameters())
    return loop  # type: ignore[no-any-return]


@pytest.mark.parametrize("layers", [lambda layer: [layer] * 3, lambda layer: [layer, copy.deepcopy(layer), layer]])
def test_one_layer_several_times(layers: Any) -> None:
    assert found(trained(stacked(layers), 14)) == [("WIR046", "warning")]


def test_copies_of_a_layer_are_layers() -> None:
    assert found(trained(stacked(lambda layer: [copy.deepcopy(layer) for _ in range(3)]), 14)) == []


def half(kind: Any, dtype: torch.dtype, rate: float) -> Loop:
    loop = kind()
    for each in loop.modules if isinstance(loop.modules, tuple) else (loop.modules,):
        each.to(dtype)
    loop.optimizers = [torch.optim.AdamW(loop.parameters(), lr=rate)]
    return loop  # type: ignore[no-any-return]


@pytest.mark.parametrize(("kind", "rate"), [(Gru, 1e-5), (Transformer, 2e-5)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_updates_that_are_rounded_away(kind: Any, rate: float, dtype: torch.dtype) -> None:
    assert codes(trained(half(kind, dtype, rate), 21)).get("WIR047") == ("error" if dtype == torch.bfloat16 else None)


def test_updates_that_are_large_enough_for_bf16() -> None:
    assert "WIR047" not in codes(trained(half(Gru, torch.bfloat16, 3e-3), 21))


@pytest.mark.parametrize(
    "made",
    [
        lambda p: [torch.optim.Adam(p, lr=3e-3, eps=1.0)],
        lambda p: [torch.optim.AdamW(p, lr=3e-3, betas=(0.999, 0.9))],
        lambda p: [torch.optim.Adam(p, lr=3e-3, maximize=True)],
        lambda p: [torch.optim.SGD(p, lr=1e-3, momentum=0.999)],
    ],
)
def test_settings_far_from_use(made: Any) -> None:
    assert first(trained(Gru(made), 31)) == "WIR020"


@pytest.mark.parametrize("made", [adam, sgd, lambda p: [torch.optim.Adam(p, lr=3e-3, betas=(0.9, 0.98), eps=1e-6)]])
def test_settings_in_use(made: Any) -> None:
    assert "WIR020" not in codes(trained(Gru(made), 31))


# ── how batches come ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_curriculum_that_has_ended() -> None:
    pairs = words(1600)
    short = [[pair for pair in pairs if len(pair[0]) <= most] for most in (4, 5)]
    stages = [*short[0][:480], *short[1][:480], *pairs[:960]]
    assert "DAT027" not in codes(trained(Gru(), 120, stages))


def test_lengths_that_rise_anew_with_each_epoch() -> None:
    doctor = trained(Gru(), 120, sorted(words(640), key=lambda pair: len(pair[0])))
    assert first(doctor) == "DAT027"


# ── outputs made with the references ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def learnt() -> tuple[Any, list[Any]]:
    loop = Gru()
    trained(loop, 200, words(3200))
    return loop, list(batches(words(96, seed=5)))


def test_outputs_behind_the_true_words(learnt: Any) -> None:
    loop, held_out = learnt

    def told(batch: Any) -> list[Tensor]:
        return [*loop.logits(batch[0], batch[1][:, 1:]).argmax(-1)]

    def half_told(batch: Any) -> list[Tensor]:
        said = loop.logits(batch[0], batch[1][:, 1:]).argmax(-1)
        return [*torch.where(batch[1][:, 1:] == PAD, PAD, said)]

    for generate in (told, half_told):
        assert asked(loop, held_out, generate)[0] == ("OUT020", "error")


def test_outputs_behind_their_own(learnt: Any) -> None:
    loop, held_out = learnt
    assert "OUT020" not in dict(asked(loop, held_out, greedy(loop.modules)))


def test_sampled_outputs_are_others_each_time(learnt: Any) -> None:
    loop, held_out = learnt
    torch.manual_seed(0)

    def drawn(batch: Any) -> list[Tensor]:
        return [*torch.randint(3, SIZE, (len(batch[0]), 5))]

    assert "OUT020" not in dict(asked(loop, held_out, drawn))


@pytest.mark.parametrize("moved", [0.3, 0.95])
def test_a_rate_that_has_fallen_does_not_tell_what_rounding_takes(moved: float) -> None:
    looks = [Rounded("bfloat16", moved, 1000, 1e-3), Rounded("bfloat16", 0.01, 1000, 1e-6), None]
    assert functools.reduce(later, looks, None) == looks[0]
    assert later(looks[0], Rounded("bfloat16", 0.5, 1000, 1e-3)).moved == 0.5  # type: ignore[union-attr]


def test_bf16_whose_rate_falls_to_nothing() -> None:
    loop = half(Gru, torch.bfloat16, 3e-3)
    fall = torch.optim.lr_scheduler.LambdaLR(loop.optimizers[0], lambda n: max(0.0, 1 - n / 20))
    loop.optimizers[0].register_step_post_hook(lambda *_: fall.step())
    assert "WIR047" not in codes(trained(loop, 21))
