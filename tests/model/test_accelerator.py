"""What a network computes on an accelerator, on the CPU: torch's attention, compiled and checkpointed blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sourcewise.config import TrainConfig
from sourcewise.data.batches import IGNORED, Batch
from sourcewise.errors import RequestError
from sourcewise.model import attention
from sourcewise.model.loss import Emphasis
from sourcewise.model.network import Seq2Seq
from sourcewise.model.place import place
from sourcewise.native.training.draws import dropout_seed
from sourcewise.training.checkpointing import checkpoint_blocks
from sourcewise.training.compiled import compile_blocks
from sourcewise.training.learner import suit
from sourcewise.training.objective import Objective
from tests.model.families.test_decoder_only import network as decoder_only
from tests.model.networks import feature_source, network, text_source
from tests.model.recurrent_networks import network as recurrent

BRIDGES = ("projection", "attention", "convolution", "perceiver", "units")
NETWORKS: dict[str, Any] = {
    "t5": network,
    "t5, gated": lambda: network(activation="gated-gelu", tied=False),
    "bart": lambda: network(family="bart"),
    "mbart": lambda: network(family="mbart"),
    "marian": lambda: network(family="marian"),
    "decoder": decoder_only,
    **{f"{kind} bridge": lambda kind=kind: network(bridge=kind) for kind in BRIDGES},
    "bypass": lambda: network(bridge="projection", route="bypass"),
}
WIDTHS = [([16, 9], 16), ([32, 20], 12), ([27, 30], 24), ([14, 31], 32)]  # lengths of sources, of targets


def batch(net: Seq2Seq, lengths: list[int], time: int) -> Batch:
    labels = torch.randint(3, 39, (len(lengths), time), generator=torch.Generator().manual_seed(time))
    labels[1, time // 2 :] = IGNORED
    source = text_source(lengths) if net.bridge is None else feature_source(lengths, [3, 1])
    return Batch(source, labels, [0, 1])


def gradients(net: nn.Module, *given: Batch) -> list[Tensor | None]:
    """By each weight, of the loss of these batches."""
    found = net.zero_grad()
    for each in given:
        found = net(each)
        found = found.minimised if hasattr(found, "minimised") else found[0]
        found.backward()
    return [p.grad for p in net.parameters()]


def close(some: list[Tensor | None], others: list[Tensor | None]) -> None:
    """Within 1e-4 of the largest, as the accelerator's way has to be."""
    assert sum(g is not None and bool(g.any()) for g in some) > 8
    for one, other in zip(some, others, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert (one - other).abs().max() <= 1e-4 * other.abs().max().clamp(min=1e-2)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_accelerators_way_has_the_logits_and_gradients_of_the_reference(name: str) -> None:
    reference, net = NETWORKS[name](), NETWORKS[name]()
    attention.choose(net, "sdpa")
    given = batch(net, [13, 8], 6)
    tokens = given.labels.clamp(min=0)
    with torch.no_grad():
        wanted, found = (each.decode(tokens, each.encode(given.source)) for each in (reference, net))
    assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()
    close(gradients(net, given), gradients(reference, given))


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "focal": 1.0}, {"label_smoothing": 0.2}])
def test_a_loss_whose_labels_nobody_may_look_at_is_the_same(
    options: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device which labels count is not known to the host: all rows are computed, and those are masked."""
    net = network(tied=False)
    objective = Objective(net, TrainConfig.model_validate(options))
    states, flat = torch.randn(40, 24, requires_grad=True), torch.randint(0, 40, (40,))
    flat[torch.rand(40) < 0.4] = IGNORED
    matrix = net.body.output_matrix
    assert matrix is not None
    emphasis = Emphasis(torch.rand(40), objective.focal) if objective.focal else None
    results = []
    for hidden in (False, True):
        monkeypatch.setattr("sourcewise.model.loss.is_host", lambda device, hidden=hidden: not hidden)
        minimised, nats = net.cross_entropy(states, matrix, flat, objective.smoothing, emphasis)
        results.append([minimised, nats, *torch.autograd.grad(minimised, [states, matrix])])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.fixture
def counted() -> Iterator[Any]:
    """The counters of torch.compile, whose state is as new before and after."""
    import torch._dynamo

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters["stats"]
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "graphs"), [("t5", 2), ("t5, gated", 2), ("bart", 2), ("mbart", 2)])
def test_a_kind_of_block_is_one_graph_for_all_widths(name: str, graphs: int, counted: Any) -> None:
    """`fullgraph` raises where a graph would break; encoder blocks share one, decoder blocks another."""
    reference, net = NETWORKS[name](), NETWORKS[name]()
    attention.choose(net, "sdpa")
    compile_blocks(net, backend="aot_eager")
    for lengths, time in WIDTHS:
        given = batch(net, lengths, time)
        close(gradients(net, given), gradients(reference, given))
        assert counted["unique_graphs"] == graphs


@pytest.mark.slow
def test_blocks_of_a_decoder_alone_have_all_their_graphs_after_two_widths(counted: Any) -> None:
    """They read a source, then a target, and the last keeps only keys of a source: a graph each."""
    net = decoder_only()
    compile_blocks(net, backend="aot_eager")
    seen = []
    for lengths, time in WIDTHS:
        gradients(net, batch(net, lengths, time))
        seen.append(counted["unique_graphs"])
    assert seen[1:] == [seen[1]] * 3


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("name", ["t5", "t5, gated", "bart", "decoder", "convolution bridge"])
def test_checkpointed_blocks_draw_the_same_and_have_the_same_gradients(name: str, native: bool) -> None:
    results = []
    for how in ("", "light", "blocks"):
        net = NETWORKS[name]().train()
        if native:
            place(net, "cpu")
        if how:
            checkpoint_blocks(net, how)
        torch.manual_seed(3)
        with dropout_seed(5):
            results.append(gradients(net, batch(net, [13, 8], 6), batch(net, [9, 10], 4)))
    first, *others = results
    close(first, others[0])
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True) if a is not None and b is not None)


def test_a_checkpointed_block_keeps_its_inputs_alone() -> None:
    """What autograd keeps for the backward pass, in bytes."""

    def kept(how: str = "") -> int:
        net, sizes = network(encoder_layers=6, decoder_layers=6).train(), []
        if how:
            checkpoint_blocks(net, how)
        weights = {p.untyped_storage().data_ptr() for p in net.parameters()}

        def pack(x: Tensor) -> Tensor:
            if x.untyped_storage().data_ptr() not in weights:
                sizes.append(x.numel() * x.element_size())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            net(batch(net, [60, 50], 40))
        return sum(sizes)

    assert kept("blocks") < 0.5 * kept()
    assert kept("blocks") < kept("light") < 0.9 * kept()


def test_what_cannot_be_checkpointed_or_compiled_says_so() -> None:
    for change, named in ((checkpoint_blocks, "checkpointing"), (compile_blocks, "compile")):
        with pytest.raises(RequestError, match=rf"train\.{named}: .*; leave it out"):
            change(recurrent("gru", "bahdanau"))
    with pytest.raises(RequestError, match=r"train\.compile: compiled blocks choose themselves"):
        suit(network(), TrainConfig(compile=True, checkpointing="light"))
    with pytest.raises(RequestError, match=r"train\.compile: on a CPU"):
        suit(network(), TrainConfig(compile=True))
