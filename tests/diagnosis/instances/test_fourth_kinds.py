"""Kinds of faults that an examination brought, in other instances than its own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sourcewise
from sourcewise.data.examples import Dataset, Example
from sourcewise.data.profiles.profile import profile_of
from sourcewise.diagnosis.beside import Beside
from sourcewise.diagnosis.measures.objective import said_by
from sourcewise.diagnosis.rules import look
from sourcewise.integrations.fed import held_against
from sourcewise.integrations.loop.gradients import beside
from sourcewise.integrations.rates import reached

WORDS, PAD = 24, 0


# ── a softmax along another axis ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", [(8, 6), (3, 30), (40,)])
def test_a_softmax_along_time_or_the_batch_is_told(shape: tuple[int, ...], padded: bool) -> None:
    torch.manual_seed(0)
    out, labels = torch.randn(*shape, WORDS, requires_grad=True), torch.randint(3, WORDS, shape)
    if padded and len(shape) == 2:
        for i, row in enumerate(labels):
            row[2 + i % (shape[1] - 2) :] = PAD
    logs = torch.log_softmax(out, -2).view(-1, WORDS)
    F.nll_loss(logs, labels.view(-1), ignore_index=PAD).backward()
    said = said_by(out, out.grad)  # type: ignore[arg-type]
    assert said is not None and said.form == "axis"
    assert torch.equal(said.labels[said.counts], labels[said.counts])


@pytest.mark.parametrize("time", [2, 6, 30])
def test_a_vocabulary_in_the_middle_is_none(time: int) -> None:
    torch.manual_seed(0)
    for size in (WORDS, 6, 200):
        out, labels = torch.randn(8, size, time, requires_grad=True), torch.randint(0, size, (8, time))
        F.cross_entropy(out, labels).backward()
        said = said_by(out, out.grad)  # type: ignore[arg-type]
        assert said is not None and said.form == "logits" and torch.equal(said.labels, labels)


# ── labels of other places ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (lambda out, labels: (out, labels), ""),
        (lambda out, labels: (out[:, :-1], labels[:, 1:]), "1 place later"),
        (lambda out, labels: (out[:, :-2], labels[:, 2:]), "2 places later"),
        (lambda out, labels: (out[:, 1:], labels[:, :-1]), "1 place earlier"),
    ],
)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_which_labels_a_loss_of_ones_own_holds_outputs_against(cut: Any, said: str, smoothing: float) -> None:
    torch.manual_seed(0)
    out, labels = torch.randn(6, 9, WORDS, requires_grad=True), torch.randint(0, WORDS, (6, 9))
    for i, row in enumerate(labels):
        row[4 + i % 5 :] = -100
    kept, held = cut(out, labels)
    F.cross_entropy(kept.flatten(0, 1), held.flatten(), label_smoothing=smoothing).backward()
    found = held_against(out, out.grad, labels)  # type: ignore[arg-type]
    assert said in found if said else found == ""


def test_targets_of_one_word_are_no_shift() -> None:
    out, labels = torch.randn(6, 9, WORDS, requires_grad=True), torch.full((6, 9), 7)
    F.cross_entropy(out[:, :-1].flatten(0, 1), labels[:, 1:].flatten()).backward()
    assert held_against(out, out.grad, labels) == ""  # type: ignore[arg-type]


# ── a memory that is masked too early, frames of another scale ────────────────────────────────────────────────────────


class Speech(nn.Module):
    """A convolution that leaves a part of the frames, and torch's own Transformer behind it."""

    def __init__(self, stride: int, dims: int = 12, width: int = 32) -> None:
        super().__init__()
        self.stride, self.down = stride, nn.Conv1d(dims, width, stride + 1, stride, padding=stride // 2)
        self.embed, self.out = nn.Embedding(WORDS, width), nn.Linear(width, WORDS)
        self.stack = nn.Transformer(width, 4, 1, 1, 64, 0.0, batch_first=True)

    def forward(self, frames: Tensor, lengths: Tensor, read: Tensor) -> Tensor:
        memory = self.down(frames.transpose(1, 2)).transpose(1, 2)
        hidden = torch.arange(memory.shape[1])[None] >= -(-lengths // self.stride)[:, None]
        after = nn.Transformer.generate_square_subsequent_mask(read.shape[1])
        masks = {"src_key_padding_mask": hidden, "memory_key_padding_mask": hidden}
        return self.out(self.stack(memory, self.embed(read), tgt_mask=after, **masks))


def listened(stride: int, shorter: int = 1, evaluated: float = 1.0, moved: float = 0.0) -> dict[str, str]:
    """Code → evidence of a short training; `shorter` divides its lengths, the held-out frames are scaled and moved."""
    torch.manual_seed(0)
    model = Speech(stride)
    doctor = sourcewise.doctor(model, optimizer := torch.optim.Adam(model.parameters(), 1e-3))

    def batch() -> tuple[Tensor, Tensor, Tensor]:
        lengths = torch.randint(16, 49, (16,))
        frames = torch.randn(16, 48, 12) * (torch.arange(48)[None] < lengths[:, None])[..., None]
        goal = torch.randint(3, WORDS, (16, 7))
        goal[:, 0], goal[:, -1] = 1, 2
        return frames, (lengths // shorter).clamp(min=1), goal

    for _ in range(12):
        frames, lengths, goal = batch()
        loss = F.cross_entropy(model(frames, lengths, goal[:, :-1]).transpose(1, 2), goal[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        doctor.step(loss, {"frames": frames, "frame_lengths": lengths, "goal": goal})
    held = []
    for frames, lengths, goal in (batch() for _ in range(3)):
        other = (frames * evaluated + moved) * (frames != 0)
        held.append({"frames": other, "frame_lengths": lengths, "goal": goal})
    doctor.evaluate(held)
    return {each.code: each.evidence for each in doctor.diagnosis.findings}


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_a_mask_of_a_subsampled_memory(stride: int) -> None:
    assert {"WIR005", "DAT024"}.isdisjoint(listened(stride))
    assert "too small" in listened(stride, shorter=3)["WIR005"]


@pytest.mark.parametrize(("scale", "moved"), [(255.0, 0.0), (0.05, 0.0), (1.0, 4.0)])
def test_held_out_frames_of_another_scale(scale: float, moved: float) -> None:
    assert "DAT024" in listened(2, evaluated=scale, moved=moved)


# ── longer texts, layers that nobody knows, a warm-up of the optimizer's own ──────────────────────────────────────────


def texts(lengths: list[int], side: str) -> Dataset:
    rows = [" ".join(f"w{(i * 7 + k) % 9}" for k in range(n)) for i, n in enumerate(lengths)]
    return Dataset([Example(str(i), row if side else "x", "s " + row) for i, row in enumerate(rows)], "set")


def test_texts_longer_than_any_of_training() -> None:
    trained = profile_of(texts([2, 3, 4] * 40, "both"))
    found = look(Beside(trained, texts([3, 6, 7] * 20, "both"))).findings
    told = {each.code: each.evidence for each in found}
    assert {"DAT022", "DAT023"} <= told.keys()
    assert "67 % have more words than the longest training text, which has 4" in told["DAT023"]
    few = look(Beside(trained, texts([2, 3, 4, 4, 5] * 20, "both"))).findings
    assert not any("more words" in each.evidence for each in few)


class Held(nn.Module):
    """Layers in a list, in a dict, or known."""

    def __init__(self, how: str) -> None:
        super().__init__()
        layers = [nn.Linear(4, 4), nn.Linear(4, 4)]
        self.layers: Any = {"list": layers, "dict": dict(enumerate(layers)), "known": nn.ModuleList(layers)}[how]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers.values() if isinstance(self.layers, dict) else self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize(("how", "count"), [("list", 4), ("dict", 4), ("known", 0)])
def test_layers_beside_a_module(how: str, count: int) -> None:
    model = nn.Sequential(Held(how), nn.Linear(4, 4))
    assert not list(beside(model))  # nothing has a gradient yet
    model(torch.randn(2, 4)).sum().backward()
    known = {id(p) for p in model.parameters()}
    assert sum(id(p) not in known for p in beside(model)) == count


@pytest.mark.parametrize(("warmup", "steps", "far"), [(True, 200, True), (True, 20_000, False), (False, 200, False)])
def test_adafactors_own_warm_up(warmup: bool, steps: int, far: bool) -> None:
    transformers = pytest.importorskip("transformers.optimization")
    weights = [nn.Parameter(torch.randn(4, 4))]
    made = transformers.Adafactor(weights, scale_parameter=True, relative_step=True, warmup_init=warmup, lr=None)
    found = reached(made, transformers.AdafactorSchedule(made), steps)
    assert found is not None and (found.highest < 0.1 * found.ever) is far


def test_the_seams_are_those_of_the_host(tmp_path: Path) -> None:
    """A Trainer's own loss is looked at without being called: its value and the training stay as they are."""
    warnings.simplefilter("ignore")
    from sourcewise.integrations.passing import Passing

    class Out:
        def __init__(self, logits: Tensor) -> None:
            self.logits = logits

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(3, 5)

        def forward(self, x: Tensor) -> Out:
            return Out(self.out(x))

    torch.manual_seed(0)
    model, told = Model(), []
    Passing(lambda *_: None, lambda _: None).next_outputs(model, lambda out, slope: told.append((out, slope)))
    x = torch.randn(4, 6, 3)
    with torch.no_grad():
        model(x)  # an evaluation before it
    loss = model(x).logits.square().sum()
    loss.backward()
    model(x).logits.sum().backward()
    ((out, slope),) = told
    assert torch.allclose(slope, 2 * out)
