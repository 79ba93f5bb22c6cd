"""Guided attention: the formula, that padding and neighbours change nothing, and that a training follows it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from sourcewise.config import TrainConfig
from sourcewise.data.batches import IGNORED, Batch
from sourcewise.errors import RequestError
from sourcewise.model.network import Seq2Seq
from sourcewise.training.objective import Objective
from sourcewise.training.supervision import mass_elsewhere, off_diagonal
from tests.model.families.test_decoder_only import network as decoder_only
from tests.model.networks import VOCABULARY, feature_source, network, text_source
from tests.model.recurrent_networks import network as recurrent


def labels(lengths: list[int], width: int = 7) -> torch.Tensor:
    made = torch.full((len(lengths), width), IGNORED)
    for i, length in enumerate(lengths):
        made[i, :length] = torch.randint(3, VOCABULARY, (length,), generator=torch.Generator().manual_seed(i))
    return made


def test_the_penalty_is_that_of_the_paper() -> None:
    weights = torch.zeros(1, 1, 1, 2, 4)
    weights[0, 0, 0, 0, 0] = weights[0, 0, 0, 1, 0] = 1.0  # both tokens read the first of three slots
    slots, real = torch.tensor([[True, True, True, False]]), torch.tensor([[True, True]])
    places = [(0.25 - 1 / 6) ** 2, (0.75 - 1 / 6) ** 2]
    expected = sum(1 - math.exp(-d / (2 * 0.2**2)) for d in places)
    assert float(off_diagonal(weights, slots, real, 0.2)) == pytest.approx(expected, rel=1e-5)


def test_mass_off_the_source_costs_its_logarithm() -> None:
    weights = torch.tensor([0.5, 0.25, 0.25]).expand(2, 1, 3, 2, 3)
    slots, real = torch.tensor([[True, True, False]]), torch.tensor([[True, False]])
    assert float(mass_elsewhere(weights, slots, real)) == pytest.approx(-math.log(0.75), rel=1e-5)


@pytest.mark.parametrize("kind", ["text", "features", "prompted", "decoder", "recurrent"])
def test_padding_and_neighbours_change_nothing(kind: str) -> None:
    options = TrainConfig(guided_attention=2.0, attention_mass=1.0)
    made: dict[str, Callable[[], Seq2Seq]] = {
        "text": network,
        "decoder": decoder_only,
        "recurrent": lambda: recurrent("gru", "bahdanau"),
    }
    net = made.get(kind, lambda: network("convolution"))()
    objective = Objective(net, options).eval()
    sizes, prompts = [9, 4, 7], [2, 3, 1] if kind == "prompted" else None

    def cost(rows: list[int], width: int) -> float:
        featured = kind in ("features", "prompted")
        source = feature_source(sizes, prompts, width) if featured else text_source(sizes, width)
        for name in ("tokens", "token_lengths", "features", "frames"):
            if (part := getattr(source, name)) is not None:
                setattr(source, name, part[rows])
        minimised, nats = objective(Batch(source, labels([5, 7, 3])[rows], rows))
        cost = float((minimised - nats).detach())
        assert cost > 0
        return cost

    alone = sum(cost([row], 9) for row in range(3))
    assert cost([0, 1, 2], 9) == pytest.approx(alone, rel=1e-4)
    assert cost([2, 0, 1], 14) == pytest.approx(alone, rel=1e-4)


def test_learning_turns_attention_to_the_diagonal() -> None:
    net = network()
    batch = Batch(text_source([8, 8]), labels([6, 6], 6), [0, 1])
    objective = Objective(net, TrainConfig(guided_attention=5.0))
    adam = torch.optim.Adam(objective.parameters(), 3e-3)
    costs = []
    for _ in range(40):
        minimised, nats = objective(batch)
        adam.zero_grad()
        minimised.backward()
        adam.step()
        costs.append(float((minimised - nats).detach()))
    assert costs[-1] < 0.5 * costs[0]


def test_where_nothing_can_be_guided_it_is_refused() -> None:
    with pytest.raises(RequestError, match=r"train\.guided_attention: the bridge's slots are not places"):
        Objective(network("perceiver"), TrainConfig(guided_attention=1.0))
    with pytest.raises(RequestError, match=r"train\.attention_mass: this network has no attention"):
        Objective(recurrent("gru", "none"), TrainConfig(attention_mass=1.0))
