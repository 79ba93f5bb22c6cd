"""What is minimised, against torch's own formulas over all the logits: smoothing, features, prompts, a bias, shares."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sourcewise.config import TrainConfig
from sourcewise.data.batches import IGNORED, Batch, Source
from sourcewise.model.network import Seq2Seq
from sourcewise.model.protocol import Aims, shift_right
from sourcewise.training.objective import Objective
from tests.model.networks import VOCABULARY, feature_source, network, text_source
from tests.training.test_gradients import found, nats, pairs

KINDS = [(None, "encoder"), ("convolution", "encoder"), ("perceiver", "bypass")]


def batch_for(net: Seq2Seq) -> Batch:
    source: Source = feature_source([9, 4, 7], [2, 3, 1]) if net.dims else text_source([9, 4, 7])
    labels = torch.randint(3, VOCABULARY, (3, 6), generator=torch.Generator().manual_seed(4))
    labels[1, 2:], labels[2, 5:] = IGNORED, IGNORED
    return Batch(source, labels, [0, 1, 2])


def expected(net: Seq2Seq, batch: Batch, smoothing: float, weights: torch.Tensor | None = None) -> torch.Tensor:
    tokens = shift_right(batch.labels, net.start_id, net.pad_id)
    logits = net.decode(tokens, net.encode(batch.source)).flatten(0, 1)
    return F.cross_entropy(logits, batch.labels.flatten(), weights, reduction="sum", label_smoothing=smoothing)


def gradients_of(net: Seq2Seq, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    named = dict(net.named_parameters())
    if net.body.output_bias is not None:
        named["bias"] = net.body.output_bias  # type: ignore[assignment]  # for the gradient alone
    grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: grad for name, grad in zip(named, grads, strict=True) if grad is not None}


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("biased", [False, True])
def test_label_smoothing_is_that_of_torch(
    kind: tuple[str | None, str], biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network(*kind)
    if biased:
        monkeypatch.setattr(type(net.body), "output_bias", torch.randn(VOCABULARY, requires_grad=True))
    batch = batch_for(net)
    minimised, nats = Objective(net, TrainConfig(label_smoothing=0.2))(batch)
    theirs = expected(net, batch, 0.2)
    assert float(nats) == float(minimised.detach()) == pytest.approx(float(theirs.detach()), rel=1e-5)
    mine, wanted = gradients_of(net, minimised), gradients_of(net, theirs)
    assert mine.keys() == wanted.keys() and ("bias" in mine) == biased
    for name, grad in mine.items():
        torch.testing.assert_close(grad, wanted[name], atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("options", [{"label_smoothing": 0.2}, {"focal": 2.0}], ids=str)
def test_shares_of_a_batch_add_up_to_the_whole(options: dict[str, float]) -> None:
    weights = torch.rand(VOCABULARY, generator=torch.Generator().manual_seed(1))
    objective = Objective(
        network(dropout=0.0, attention_dropout=0.0).train(), TrainConfig.model_validate(options), None, weights
    )
    whole, cut = found(objective, [[0, 1, 2, 3, 4]]), found(objective, [[3, 1], [0], [4, 2]])
    assert nats(whole) == pytest.approx(nats(cut), rel=1e-5)
    for one, other in pairs(whole, cut):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_token_weights_change_what_is_minimised_and_not_what_is_reported() -> None:
    net = network()
    batch, weights = batch_for(net), torch.rand(VOCABULARY, generator=torch.Generator().manual_seed(1))
    minimised, nats = Objective(net, TrainConfig(), None, weights)(batch)
    assert float(minimised.detach()) == pytest.approx(float(expected(net, batch, 0.0, weights).detach()), rel=1e-5)
    assert float(nats) == pytest.approx(float(expected(net, batch, 0.0).detach()), rel=1e-5)


def test_the_alignment_loss_has_the_share_asked_for() -> None:
    net = network("convolution", stride=1)
    batch, train = batch_for(net), TrainConfig(ctc_weight=0.3, word_dropout=0.0)
    torch.manual_seed(0)
    objective = Objective(net, train)
    minimised, nats = objective(batch)
    aligned = net(batch, Aims(terms={"ctc": objective.ctc})).terms["ctc"]
    assert float(minimised.detach()) == pytest.approx(0.7 * float(nats) + 0.3 * float(aligned.detach()), rel=1e-5)
