"""R-Drop: the formula with its gradients, in every family, and that two passes come to agree."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sourcewise.config import TrainConfig
from sourcewise.data.batches import IGNORED, Batch
from sourcewise.errors import RequestError
from sourcewise.model.loss import LinearCrossEntropy
from sourcewise.model.network import Seq2Seq
from sourcewise.training import consistency
from sourcewise.training.consistency import divergence
from sourcewise.training.objective import Objective
from tests.model.families.test_decoder_only import network as decoder_only
from tests.model.networks import feature_source, network, text_source
from tests.model.recurrent_networks import network as recurrent
from tests.training.test_supervision import labels

NETWORKS: dict[str, Callable[..., Seq2Seq]] = {
    "text": network,
    "features": lambda: network("convolution"),
    "decoder": decoder_only,
    "recurrent": lambda: recurrent("gru", "bahdanau"),
}


def reference(first: Tensor, second: Tensor, matrix: Tensor | None) -> Tensor:
    """The formula as it is written, by autograd."""
    log_p, log_q = ((x if matrix is None else x @ matrix.T).float().log_softmax(-1) for x in (first, second))
    return 0.5 * ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum()


@pytest.mark.parametrize("at_hand", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 64, 150])
@pytest.mark.parametrize("projected", [True, False])
def test_divergence_and_its_gradients_are_those_of_the_formula(
    rows: int, projected: bool, at_hand: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consistency, "CACHED_LOGITS", 200)
    monkeypatch.setattr(consistency, "chunk_rows", lambda size: 64)
    owner = LinearCrossEntropy()
    owner.at_hand = at_hand
    torch.manual_seed(rows)
    width, size = (7, 31) if projected else (31, 31)
    first, second = (torch.randn(rows, width, requires_grad=True) for _ in range(2))
    matrix = torch.randn(size, width, requires_grad=True) if projected else None
    wanted = [x for x in (first, second, matrix) if x is not None]
    found, expected = divergence(first, second, matrix, owner), reference(first, second, matrix)
    torch.testing.assert_close(found, expected)
    pairs = zip(*(torch.autograd.grad(3 * loss, wanted) for loss in (found, expected)), strict=True)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_equal_passes_are_not_apart() -> None:
    states, matrix = torch.randn(5, 4, requires_grad=True), torch.randn(9, 4)
    apart = divergence(states, states.detach().clone(), matrix, LinearCrossEntropy())
    assert float(apart.detach()) == pytest.approx(0, abs=1e-6)
    assert not torch.autograd.grad(apart, states)[0].abs().max() > 1e-6


def objective_and_batch(kind: str, **options: float) -> tuple[Objective, Batch]:
    torch.manual_seed(1)
    featured, sizes = kind == "features", [9, 4, 7]
    source = feature_source(sizes, None, 9) if featured else text_source(sizes, 9)
    return Objective(NETWORKS[kind](), TrainConfig(**options)), Batch(source, labels([5, 7, 3]), [0, 1, 2])  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", NETWORKS)
def test_of_a_network_that_drops_nothing_now_it_is_the_loss_alone(kind: str) -> None:
    objective, batch = objective_and_batch(kind, r_drop=3.0, label_smoothing=0.1)
    plain = Objective(objective.network, TrainConfig(label_smoothing=0.1)).eval()
    found, expected = objective.eval()(batch), plain(batch)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.detach(), theirs.detach(), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_two_passes_of_a_step_drop_other_units(kind: str) -> None:
    light, batch = objective_and_batch(kind, r_drop=1e-6)
    heavy = Objective(light.network, TrainConfig(r_drop=8.0))
    costs = []
    for objective in (light, heavy):
        torch.manual_seed(5)
        minimised, _ = objective.train()(batch)
        costs.append(float(minimised.detach()))
        assert all(each is not None for each in torch.autograd.grad(minimised, [*objective.parameters()]))
    assert costs[1] > costs[0] * 1.001  # by four times how far apart they are


def test_padding_costs_nothing() -> None:
    objective, batch = objective_and_batch("text", r_drop=2.0)
    objective.eval()
    wide = Batch(batch.source, torch.nn.functional.pad(batch.labels, (0, 6), value=IGNORED), batch.indices)
    torch.testing.assert_close(objective(batch)[0], objective(wide)[0], atol=1e-4, rtol=1e-5)


def test_training_brings_the_passes_together() -> None:
    ends = []
    for weight in (1e-6, 5.0):
        objective, batch = objective_and_batch("text", r_drop=weight)
        objective.train()
        adam = torch.optim.Adam(objective.parameters(), 3e-3)
        for step in range(60):
            torch.manual_seed(step)
            adam.zero_grad()
            objective(batch)[0].backward()
            adam.step()
        torch.manual_seed(99)
        network, matrix = objective.network, objective.network.body.output_matrix
        tokens = batch.labels.clamp(min=0)
        first, second = (network.projection(tokens, network.read(batch.source), batch.labels)[0] for _ in range(2))
        ends.append(float(divergence(first, second, matrix, network.cross_entropy).detach()))
    assert ends[1] < 0.7 * ends[0], ends


def test_a_network_without_dropout_is_refused() -> None:
    net = network()
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    net.body.config = type(net.body.config)(**{**vars_of(net.body.config), "dropout": 0.0, "attention_dropout": 0.0})
    with pytest.raises(RequestError, match=r"train\.r_drop: nothing is dropped in this network.*model\.dropout"):
        Objective(net, TrainConfig(r_drop=1.0))


def vars_of(config: object) -> dict[str, object]:
    """The fields of a frozen dataclass with slots or without."""
    return {name: getattr(config, name) for name in config.__dataclass_fields__}  # type: ignore[attr-defined]
