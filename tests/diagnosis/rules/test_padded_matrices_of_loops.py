"""DAT029 in plain loops: from batches of matrices, by what they say of lengths and how the modules read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sourcewise
from sourcewise.diagnosis.rules import RULES
from sourcewise.integrations.loop.matrices import Matrices
from tests.diagnosis.rules.leaking import walks
from tests.diagnosis.rules.test_dat029_padded_or_turned import SILENCE, to_one_length

CODE = "DAT029"
Batch = dict[str, Any]
Collate = Callable[[list[np.ndarray]], Batch]


def batches(given: Any, collate: Collate, size: int = 12) -> Iterator[Batch]:
    for start in range(0, len(given), size):
        yield collate(list(given[start : start + size]))


def padded(value: float, told: str = "", most: int = 0) -> Collate:
    """Padded to the longest of a batch, or to `most`; lengths, or a mask of one of two kinds, are given or not."""

    def collate(some: list[np.ndarray]) -> Batch:
        lengths = torch.tensor([len(m) for m in some])
        longest = most or int(lengths.max())
        table = torch.full((len(some), longest, some[0].shape[1]), value)
        for row, matrix in zip(table, some, strict=True):
            row[: len(matrix)] = torch.from_numpy(matrix)
        mask = torch.arange(longest) < lengths[:, None]
        more: dict[str, Batch] = {"lengths": {"n": lengths}, "mask": {"mask": mask}, "padding": {"pad_mask": ~mask}}
        return {"frames": table, **more.get(told, {})}

    return collate


def by_time(collate: Collate) -> Collate:
    return lambda some: {**(batch := collate(some)), "frames": batch["frames"].transpose(0, 1)}


def by_channel(collate: Collate) -> Collate:
    return lambda some: {**(batch := collate(some)), "frames": batch["frames"].transpose(1, 2)}


def found(given: Any, collate: Collate, model: nn.Module, turned: bool = False) -> list[str]:
    matrices = Matrices()
    for batch in batches(given, collate):
        matrices.add(batch)
    understood: Any = SimpleNamespace(source=SimpleNamespace(path="frames"), source_turned=turned)
    forms = matrices.forms(understood, [model])
    pairs: Any = SimpleNamespace(forms=lambda: [("training data", forms)] if forms else [])
    return ["turned" if "turned" in each.evidence else "padded" for each in RULES[CODE].check(pairs)]


WALKS = walks(60, 1)
DIMS = WALKS[0].shape[1]
GRU = nn.GRU(DIMS, 8, batch_first=True)
CONVOLUTION = nn.Conv1d(DIMS, 8, 3)


@pytest.mark.parametrize("told", ["", "lengths", "mask", "padding"])
@pytest.mark.parametrize("value", [0.0, SILENCE])
def test_stored_padding(told: str, value: float) -> None:
    if told or value:  # frames of zeros may be told from others by the model
        stored = to_one_length(WALKS, value)
        assert found(stored, padded(0.0, told), GRU) == ["padded"]
        assert found(stored, by_channel(padded(0.0)), CONVOLUTION) == (["padded"] if value else [])
        if told == "lengths":
            assert found(stored, by_time(padded(0.0, told)), GRU, turned=True) == ["padded"]


@pytest.mark.parametrize("made", [lambda: to_one_length(WALKS), lambda: walks(60, 11, frames=(50, 51))])
def test_matrices_that_are_turned(made: Any) -> None:
    stored = [np.ascontiguousarray(m.T) for m in made()]
    assert found(stored, padded(0.0), nn.Linear(stored[0].shape[1], 8)) == ["turned"]


@pytest.mark.parametrize("told", ["", "lengths", "mask", "padding"])
@pytest.mark.parametrize("value", [0.0, SILENCE])
@pytest.mark.parametrize("most", [0, 400])
def test_padding_by_the_loop_is_its_own_matter(told: str, value: float, most: int) -> None:
    if told or not (value and most):  # to one length, by another value, and nothing says so: the model reads it
        assert found(WALKS, padded(value, told, most), GRU) == []
        assert found(WALKS, by_channel(padded(value, told, most)), CONVOLUTION) == [] or (most and value)


def test_a_doctor_tells_of_it() -> None:
    torch.manual_seed(0)

    class Listener(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.GRU(DIMS, 16, batch_first=True), nn.GRU(8, 16, batch_first=True)
            self.embedding, self.out = nn.Embedding(9, 8), nn.Linear(16, 9)

        def forward(self, frames: Tensor, read: Tensor) -> Tensor:
            return self.out(self.decoder(self.embedding(read), self.encoder(frames)[1])[0])  # type: ignore[no-any-return]

    for given, told in ((to_one_length(WALKS, SILENCE), True), (WALKS, False)):
        model = Listener()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        doctor, draw = sourcewise.doctor(model, optimizer), np.random.default_rng(0)
        words = torch.from_numpy(draw.integers(2, 9, (len(given), 6)))
        for step in range(60):
            rows = draw.permutation(len(given))[:12] if step >= 5 else np.arange(step * 12, step * 12 + 12)
            batch = padded(0.0, "lengths")([given[i] for i in rows])
            said = model(batch["frames"], words[rows][:, :-1])
            loss = nn.functional.cross_entropy(said.reshape(-1, 9), words[rows][:, 1:].reshape(-1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            doctor.step(loss, {**batch, "words": words[rows]})
        codes = [each.code for each in doctor.diagnosis.findings]
        assert (CODE in codes) == told, codes
