"""Sources from the wrong end, and networks that know less than somebody who guesses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sourcewise.data.batches import turned_rows
from sourcewise.diagnosis.likelihood import Change, Likelihood
from sourcewise.diagnosis.measures.changed import CHANGES
from sourcewise.diagnosis.measures.freshness import looks_trained
from sourcewise.diagnosis.rules import look


def found(likelihood: Likelihood) -> list[str]:
    return [finding.code for finding in look(likelihood).findings]


def nats(per_token: float, spread: float = 0.2, seed: int = 0) -> np.ndarray:
    return np.abs(np.random.default_rng(seed).normal(per_token, spread, 40)) * 10


def likelihood(own: float, turned: float | None, *, trained: bool = True, vocabulary: int = 74) -> Likelihood:
    other = None if turned is None else nats(turned, seed=1)
    return Likelihood(nats(own), np.full(40, 10.0), other, vocabulary, trained)


@pytest.mark.parametrize(
    ("own", "turned", "trained", "codes"),
    [
        (7.8, 0.3, True, ["SRC004", "SRC005"]),
        (2.0, 0.5, False, ["SRC004"]),  # a young network that can read, from the other side
        (10.3, 10.4, True, ["SRC005"]),
        (10.3, 10.4, False, []),  # a network that nobody trained begins anywhere
        (0.3, 8.0, True, []),
        (4.3, 4.31, False, []),  # knows nothing yet
        (4.9, 4.9, True, []),  # poor, but not surer of what is wrong than a guess
        (0.3, None, True, []),
    ],
)
def test_what_is_named(own: float, turned: float | None, trained: bool, codes: list[str]) -> None:
    assert found(likelihood(own, turned, trained=trained)) == codes


@pytest.mark.parametrize(
    ("own", "changed", "trained", "codes"),
    [
        (2.8, 0.3, True, ["SRC007"]),
        (2.8, 0.3, False, []),  # what nobody trained reads nothing
        (2.8, 2.0, True, []),  # better, and poor all the same
        (0.8, 0.4, True, []),
        (9.0, 4.9, True, ["SRC005"]),  # no better than a guess
    ],
)
def test_one_change_of_the_sources(own: float, changed: float, trained: bool, codes: list[str]) -> None:
    changes = [
        Change("numbers divided by 255", nats(own - 0.1, seed=2) / 10),
        Change("that", nats(changed, seed=3) / 10),
    ]
    said = look(replace(likelihood(own, None, trained=trained), changes=changes)).findings
    assert [finding.code for finding in said] == codes
    assert all("with that the loss is" in finding.evidence for finding in said if finding.code == "SRC007")


def test_changes_of_frames_are_undone_by_their_twins() -> None:
    frames = np.random.default_rng(0).random((23, 4)).astype(np.float32)
    words = "order of their numbers as text"
    there = [change for what, change in CHANGES.items() if f"into the {words}" in what]
    back = [change for what, change in CHANGES.items() if f"from the {words}" in what]
    for one, other in [*zip(there, back, strict=True), *zip(back, there, strict=True)]:
        assert np.array_equal(other(one(frames)), frames) and not np.array_equal(one(frames), frames)
    assert np.array_equal(there[1](frames)[:4], frames[[0, 1, 10, 11]])
    assert np.array_equal(there[0](frames)[:4], frames[[0, 9, 10, 11]])  # files 1, 10, 11, 12
    for change in CHANGES.values():
        assert np.isfinite(change(frames)).all() and change(frames).shape[1] == 4


def test_a_gain_of_few_examples_is_chance() -> None:
    own, turned = np.full(7, 80.0), np.full(7, 3.0)
    assert not found(Likelihood(own, np.full(7, 10.0), turned, 10_000, False))
    uneven = nats(3.0).copy()
    uneven[0] += 400  # one example makes the whole difference
    assert not found(Likelihood(uneven, np.full(40, 10.0), nats(3.0), 10_000, False))


def test_rows_are_turned_within_their_lengths() -> None:
    table = torch.tensor([[5, 6, 7, 2, 0], [8, 9, 2, 0, 0]])
    lengths = torch.tensor([4, 3])
    assert turned_rows(table, lengths, 1).tolist() == [[7, 6, 5, 2, 0], [9, 8, 2, 0, 0]]
    assert turned_rows(table, lengths, 0).tolist() == [[2, 7, 6, 5, 0], [2, 9, 8, 0, 0]]
    frames = torch.arange(12.0).view(1, 4, 3)
    assert torch.equal(turned_rows(frames, torch.tensor([3]), 0)[0, :3], frames[0, :3].flip(0))


MODULES: dict[str, Callable[[], nn.Module]] = {
    "GRU": lambda: nn.Sequential(nn.Embedding(20, 16), nn.GRU(16, 32, batch_first=True)),
    "LSTM cell": lambda: nn.ModuleList([nn.LSTMCell(8, 16), nn.Linear(16, 9)]),
    "Transformer": lambda: nn.Transformer(16, 2, 1, 1, 32, batch_first=True),
    "linear": lambda: nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 5)),
    "convolutions": lambda: nn.Sequential(nn.Conv1d(8, 16, 3), nn.BatchNorm1d(16)),
}


@pytest.mark.parametrize("name", MODULES)
def test_what_was_trained_looks_so_and_what_was_not_does_not(name: str) -> None:
    torch.manual_seed(0)
    module = MODULES[name]()
    assert not looks_trained(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * parameter.std().nan_to_num(1.0).clamp(min=0.1) * torch.randn_like(parameter)
    assert looks_trained(module)


def test_hugging_faces_models_begin_untrained(hugging_face: nn.Module) -> None:
    assert not looks_trained(hugging_face)


@pytest.fixture(params=["T5Config", "BartConfig", "MarianConfig", "WhisperConfig"])
def hugging_face(request: pytest.FixtureRequest) -> nn.Module:
    import transformers

    small = {"d_model": 16, "vocab_size": 40, "encoder_layers": 1, "decoder_layers": 1, "num_layers": 1, "d_kv": 8}
    small |= {"d_ff": 32, "num_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "pad_token_id": 0}
    small |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_start_token_id": 0}
    small |= {"bos_token_id": 1, "eos_token_id": 1, "num_mel_bins": 8, "max_position_embeddings": 32}
    config = getattr(transformers, request.param)(**small)
    return transformers.AutoModel.from_config(config)


def test_nothing_to_tell_by_is_not_trained() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.table

    assert not looks_trained(Bare())
