"""What native code is let into, and that a network is afterwards what it was: its weights, names, hooks, copies."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sourcewise.model.attention import Attention
from sourcewise.model.blocks import sublayers
from sourcewise.model.families import transformer
from sourcewise.model.place import place
from sourcewise.native.install import OURS, install
from sourcewise.native.training.forwards import FORWARDS, WHOLE
from tests.model.networks import logits, network, text_source


def test_every_name_is_that_of_a_class() -> None:
    classes = {**vars(nn), **vars(sublayers), "Attention": Attention}
    classes |= {"SplitHeads": sublayers.SplitHeads}
    assert {*FORWARDS, *WHOLE} <= {name for name, found in classes.items() if isinstance(found, type)}
    assert all(classes[name].__module__.startswith(OURS) for name in (*FORWARDS, *WHOLE))
    assert transformer.Arrangement.__name__ == "Arrangement"


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_placed_network_computes_the_same(family: str) -> None:
    net, source, tokens = network(family=family).eval(), text_source([5, 2]), torch.tensor([[0, 4, 5], [0, 6, 7]])
    names, expected = list(net.state_dict()), logits(net, source, tokens)
    assert place(net, "cpu") is net and list(net.state_dict()) == names
    torch.testing.assert_close(logits(net, source, tokens), expected, rtol=1e-5, atol=1e-5)
    again = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    torch.testing.assert_close(logits(again, source, tokens), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("home", "let_in"), [("transformers.models.t5", False), ("a_plug_in", True)])
def test_a_model_of_transformers_stays_as_it_is(home: str, let_in: bool) -> None:
    class Foreign(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 3)

    Foreign.__module__ = home
    foreign = Foreign()
    net = network()
    net.register_module("foreign", foreign)
    install(net)
    assert ("forward" in vars(foreign.inner)) == let_in and "forward" in vars(net.body.embedding)  # type: ignore[attr-defined]
