"""AdamW over masters: in fp32 torch's own, in bf16 no small update is lost, and broken gradients change nothing."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from sourcewise.config import TrainConfig
from sourcewise.errors import RequestError
from sourcewise.training.freezing import freeze
from sourcewise.training.optimizer import LEAST_RMS, MasterAdamW
from tests.model.networks import network

STEPS = 12


def module() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def config(**options: object) -> TrainConfig:
    return TrainConfig.model_validate({"weight_decay": 0.1, "clip": 0.5, "beta2": 0.95, **options})


def inputs(step: int) -> Tensor:
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(step))


def add(optimizer: MasterAdamW, loss: torch.Tensor) -> None:
    optimizer.add(torch.autograd.grad(loss, optimizer.parameters, allow_unused=True))


def test_in_fp32_masters_do_what_plain_adamw_does() -> None:
    ours, plain = module(), module()
    optimizer = MasterAdamW(ours, config(), torch.float32)
    matrices = [p for p in plain.parameters() if p.ndim > 1]
    others = [p for p in plain.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    for step in range(STEPS):
        rate = 0.01 * (step + 1)
        for part in inputs(step).split(2):  # gradients of two batches add up
            add(optimizer, ours(part).pow(2).sum())
        norm = optimizer.step(rate)
        optimizer.zero_grad()
        plain.zero_grad()
        plain(inputs(step)).pow(2).sum().backward()
        expected = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        for group in adamw.param_groups:
            group["lr"] = rate
        adamw.step()
        assert float(norm) == pytest.approx(float(expected), rel=1e-4)
        for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)


def test_updates_too_small_for_bf16_still_add_up_in_the_masters() -> None:
    layer = nn.Linear(4, 4, bias=False)
    nn.init.ones_(layer.weight)
    optimizer = MasterAdamW(layer, config(weight_decay=0, clip=0), torch.bfloat16)
    assert layer.weight.dtype == torch.bfloat16
    for _ in range(40):
        add(optimizer, layer.weight.sum())
        optimizer.step(1e-4)
        optimizer.zero_grad()
    torch.testing.assert_close(optimizer.masters[0], torch.full((4, 4), 1 - 40e-4), atol=1e-5, rtol=0)
    torch.testing.assert_close(layer.weight, optimizer.masters[0].bfloat16())
    with optimizer.in_full():
        assert layer.weight.dtype == torch.float32 and torch.equal(layer.weight, optimizer.masters[0])
    assert layer.weight.dtype == torch.bfloat16


def test_scaled_updates_are_a_share_of_the_size_of_the_weights() -> None:
    layer = nn.ParameterList([nn.Parameter(torch.full((3, 3), size)) for size in (10.0, 0.1, 0.0)])
    optimizer = MasterAdamW(layer, config(weight_decay=0, clip=0, scale_updates=True), torch.float32)
    before = copy.deepcopy(list(layer))
    add(optimizer, torch.stack([p.sum() for p in layer]).sum())
    optimizer.step(0.01)
    moved = [float((b - a).detach().abs().mean()) for a, b in zip(layer, before, strict=True)]
    assert moved == pytest.approx([0.01 * 10, 0.01 * 0.1, 0.01 * LEAST_RMS], rel=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float, clip: float) -> None:
    layer = module()
    optimizer = MasterAdamW(layer, config(clip=clip), torch.float32)
    before = copy.deepcopy(layer.state_dict())
    add(optimizer, layer(inputs(0)).sum() * bad)
    assert not math.isfinite(optimizer.step(0.1))
    assert all(torch.equal(before[name], weight) for name, weight in layer.state_dict().items())


def test_a_state_taken_up_again_goes_on_exactly() -> None:
    first, second = module(), module()
    ours, other = (MasterAdamW(m, config(), torch.bfloat16) for m in (first, second))
    for step in range(STEPS):
        if step == 5:
            other.load_state_dict(copy.deepcopy(ours.state_dict()))
        for each, net in ((ours, first), (other, second)):
            if each is ours or step >= 5:
                add(each, net(inputs(step).bfloat16()).float().pow(2).sum())
                each.step(0.01)
                each.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(ours.masters, other.masters, strict=True))


def test_a_state_of_before_with_a_group_per_tensor_goes_on_exactly() -> None:
    """Older versions saved what torch's AdamW gives, moments by number in the order of the masters."""
    first, second = module(), module()
    ours, other = (MasterAdamW(m, config(), torch.float32) for m in (first, second))
    for step in range(STEPS):
        if step == 5:
            state = copy.deepcopy(ours.state_dict())
            moments = list(state.pop("moments").values())
            groups = [{"lr": 0.3, "weight_decay": 0.1, "params": [i]} for i in range(len(moments))]
            other.load_state_dict(state | {"adamw": {"state": dict(enumerate(moments)), "param_groups": groups}})
        for each, net in ((ours, first), (other, second)):
            if each is ours or step >= 5:
                add(each, net(inputs(step)).pow(2).sum())
                each.step(0.01)
                each.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(ours.masters, other.masters, strict=True))


def test_tensors_share_a_group_but_where_rates_differ() -> None:
    groups = [
        [len(group["params"]) for group in MasterAdamW(module(), config(**options), torch.float32).adamw.param_groups]
        for options in ({}, {"weight_decay": 0}, {"scale_updates": True}, {"unfreeze": {"encoder": 1}})
    ]
    assert groups == [[2, 2], [4], [1] * 4, [1] * 4]


def test_where_nobody_asks_a_gradient_that_is_not_finite_ends_all_updates() -> None:
    layer = module()
    optimizer = MasterAdamW(layer, config(), torch.float32)
    optimizer.lazy = True
    add(optimizer, layer(inputs(0)).sum())
    optimizer.step(0.1)
    before, moments = copy.deepcopy(layer.state_dict()), copy.deepcopy(optimizer.state_dict()["moments"])
    for bad in (math.nan, 1.0):
        optimizer.zero_grad()
        add(optimizer, layer(inputs(1)).sum() * bad)
        assert math.isfinite(optimizer.step(0.1)) == math.isfinite(bad)
    assert all(torch.equal(before[name], weight) for name, weight in layer.state_dict().items())
    for name, kept in moments.items():
        assert all(torch.equal(value, optimizer.state_dict()["moments"][name][key]) for key, value in kept.items())


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
def test_a_state_brings_the_frozen_weights_back(precision: torch.dtype) -> None:
    first, second = module(), module()
    torch.nn.init.zeros_(second[0].weight)
    for net in (first, second):
        net[0].requires_grad_(False)
    saved, other = (MasterAdamW(net, config(), precision) for net in (first, second))
    other.load_state_dict(copy.deepcopy(saved.state_dict()))
    assert torch.equal(second[0].weight, first[0].weight)
    with saved.in_full(), other.in_full():
        assert torch.equal(second[0].weight, first[0].weight)
        assert second[0].weight.any()


def test_frozen_parts_have_no_master_and_keep_their_fp32_weights_for_checkpoints() -> None:
    net = network("projection")
    exact = {name: p.detach().clone() for name, p in net.named_parameters()}
    freeze(net, ["encoder", "embedding"])
    optimizer = MasterAdamW(net, config(), torch.bfloat16)
    assert all(name.startswith(("body.decoder", "bridge")) for name in optimizer.names)
    with optimizer.in_full():
        assert all(torch.equal(p, exact[name]) for name, p in net.named_parameters())
    with pytest.raises(RequestError, match="'head' is not one of"):
        freeze(net, ["head"])
    freeze(net, ["decoder", "bridge"])
    with pytest.raises(RequestError, match="nothing is left"):
        MasterAdamW(net, config(), torch.bfloat16)
