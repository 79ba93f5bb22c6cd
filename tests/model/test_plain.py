"""A network is plain torch: it asks no device, is seen by hooks, and can be checkpointed block by block."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointImpl,
    apply_activation_checkpointing,
    checkpoint_wrapper,
)

import sourcewise.model
from sourcewise.config import TrainConfig
from sourcewise.data.batches import IGNORED, Batch
from sourcewise.model.blocks.sublayers import Sublayer
from sourcewise.model.network import Seq2Seq
from sourcewise.training.objective import Objective
from tests.model.families.test_decoder_only import network as decoder_only
from tests.model.networks import feature_source, network, text_source
from tests.model.recurrent_networks import network as recurrent

ASKED = re.compile(r"device\.type|\btakes\(|get_num_threads|is_grad_enabled|is_cpu|cpuinfo|SOURCEWISE_COMPILE")
FAMILIES: dict[str, Any] = {
    "t5": network,
    "bart": lambda: network(family="bart"),
    "decoder": decoder_only,
    "rnn": lambda: recurrent("gru", "bahdanau"),
    "features": lambda: network(bridge="convolution"),
}


def test_the_model_asks_no_device_no_thread_and_no_processor() -> None:
    folder = Path(sourcewise.model.__file__ or "").parent if sourcewise.model.__file__ else None
    folder = folder or Path(next(iter(sourcewise.model.__path__)))
    lines = [
        f"{path.name}:{number}: {line.strip()}"
        for path in sorted(folder.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if ASKED.search(line)
    ]
    assert lines == []


def batch(family: str) -> Batch:
    source = feature_source([9, 4], [3, 1]) if family == "features" else text_source([6, 3])
    return Batch(source, torch.tensor([[5, 6, 7, 1], [8, 1, IGNORED, IGNORED]]), [0, 1])


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "focal": 1.0, "word_dropout": 0.2}])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_reads_nothing_from_the_device(family: str, options: dict[str, float]) -> None:
    """On `meta` there is nothing to read: whoever looks at a number, a count or a place of it fails."""
    objective = Objective(FAMILIES[family](), TrainConfig.model_validate(options)).to("meta").train()
    minimised, nats = objective(batch(family))
    minimised.backward()
    assert minimised.is_meta and nats.is_meta
    assert all(p.grad is not None for p in objective.parameters() if p.ndim > 1)
    with pytest.raises(RuntimeError, match="meta"):
        float(nats)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "rnn"])
def test_hooks_see_every_block_and_every_sublayer_of_a_step(family: str) -> None:
    net: Seq2Seq = FAMILIES[family]()
    met: list[nn.Module] = []
    wanted = [m for m in net.modules() if isinstance(m, (Sublayer, nn.Linear, nn.RMSNorm, nn.LayerNorm, nn.Embedding))]
    wanted = [m for m in wanted if m is not getattr(net.body, "head", None)] + [
        b for s in net.stacks.values() for b in s
    ]
    for module in wanted:
        module.register_forward_hook(lambda module, *_: met.append(module))
    net(batch(family))
    tables = {id(m.table) for m in net.modules() if isinstance(getattr(m, "table", None), nn.Embedding)}
    assert [type(m).__name__ for m in wanted if m not in met and id(m) not in tables] == []


@pytest.mark.parametrize("family", ["t5", "bart", "features"])
def test_blocks_may_forget_what_they_computed(family: str) -> None:
    """Activation checkpointing: each block is computed again in the backward pass, with the same gradients."""
    net: Seq2Seq = FAMILIES[family]()
    before = torch.autograd.grad(net(batch(family)).minimised, list(net.parameters()), allow_unused=True)
    blocks = {type(block) for stack in net.stacks.values() for block in stack}
    wrapper = functools.partial(checkpoint_wrapper, checkpoint_impl=CheckpointImpl.NO_REENTRANT)
    apply_activation_checkpointing(net, wrapper, lambda module: type(module) in blocks)
    again = torch.autograd.grad(net(batch(family)).minimised, list(net.parameters()), allow_unused=True)
    for one, other in zip(before, again, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert torch.equal(one, other)
