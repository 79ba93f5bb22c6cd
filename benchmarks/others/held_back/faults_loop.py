"""Faults of people who write their own training loop."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from others.case import Cases
from others.faults_loop import Loop, _adam, _nll, _rnn_logits, _rnn_loop, _transformer_loop
from others.tutorial import Batch
from torch import Tensor, nn

CASES = Cases()
fault = partial(CASES.fault, host="loop")


def _loss(encoder: Any, decoder: Any, batch: Batch) -> Tensor:
    return _nll(_rnn_logits(encoder, decoder, batch), batch[1][:, 1:])


@fault(
    name="evaluated in training mode",
    origin="model.eval() is called nowhere: the seq2seq tutorials' most repeated slip",
    what="dropout of 0.4 stays on while the model is evaluated and generates",
    expected="dropout is on at evaluation",
    accepts="WIR021 new:evaluated-in-training-mode",
    also="WIR018 TRN012",
    gap=0.05,
)
def _(broken: bool, seed: int, folder: Path, watch: Any) -> Loop:
    kept: list[Any] = []

    def run(model: Any, src: Tensor, tgt: Tensor) -> Tensor:
        kept[:] = [model]
        if not torch.is_grad_enabled() and not broken:
            model.eval()
        said = model(src, tgt)
        model.train()
        return said  # type: ignore[no-any-return]

    return _transformer_loop(seed, watch, run=run, shape={"dropout": 0.4}, steps=400)


@fault(
    name="clipped before unscaling",
    origin="torch.amp's own warning: clip_grad_norm_ before scaler.unscale_",
    what="gradients that are 65,536 times too large are clipped to 1, then divided by 65,536",
    expected="gradients are clipped before they are unscaled: what is left is next to nothing",
    accepts="new:clipped-scaled TRN009",
    also="TRN008",
)
def _(broken: bool, seed: int, folder: Path, watch: Any) -> Loop:
    scale = 65536.0

    def step(both: Any, loss: Tensor) -> None:
        weights = [weight for optimizer in both for group in optimizer.param_groups for weight in group["params"]]
        (loss * scale).backward()
        if broken:
            nn.utils.clip_grad_norm_(weights, 1.0)
        for weight in weights:
            if weight.grad is not None:
                weight.grad /= scale
        if not broken:
            nn.utils.clip_grad_norm_(weights, 1.0)
        for optimizer in both:
            optimizer.step()
            optimizer.zero_grad()

    def sgd(encoder: Any, decoder: Any) -> Any:
        return [torch.optim.SGD(module.parameters(), 1.0) for module in (encoder, decoder)]

    return _rnn_loop(seed, watch, sgd, _loss, 300, step)


@fault(
    name="checkpoint keys that match nothing",
    origin="GFSLT-VLP #8, #19: stage one is loaded with strict=False, 'module.' before each key",
    what="no key of the checkpoint matched: the encoder, thought to be trained, is as it was drawn, and frozen",
    expected="the encoder has random weights and is not trained",
    accepts="WIR003 new:drawn-anew",
)
def _(broken: bool, seed: int, folder: Path, watch: Any) -> Loop:
    first: dict[str, Any] = {}

    def keep(encoder: Any, decoder: Any) -> Any:
        first["encoder"] = encoder
        return _adam(encoder, decoder)

    _rnn_loop(seed + 1, lambda *_, **__: _Nobody(), keep, _loss, 120)
    prefix = "module." if broken else ""
    checkpoint = {prefix + name: value for name, value in first["encoder"].state_dict().items()}

    def load(encoder: Any, decoder: Any) -> Any:
        encoder.load_state_dict(checkpoint, strict=False)
        for weight in encoder.parameters():
            weight.requires_grad_(False)
            if broken:
                weight.data *= 0.02  # as wide networks are drawn
        return [torch.optim.Adam(decoder.parameters(), 5e-3)]

    return _rnn_loop(seed, watch, load, _loss, 100)


class _Nobody:
    def step(self, loss: Any, batch: Any) -> None:
        """Nothing."""

    def evaluate(self, loader: Any) -> None:
        """Nothing."""


@fault(
    name="optimizer of a model made anew",
    origin="TrainCheck's silent errors: the optimizer holds parameters that the model no longer has",
    what="the model is built again after the optimizer was made: steps move the old weights",
    expected="the optimizer does not hold the model's weights: nothing is trained",
    accepts="WIR003",
    also="TRN003",
)
def _(broken: bool, seed: int, folder: Path, watch: Any) -> Loop:
    def optimizers(encoder: Any, decoder: Any) -> Any:
        made = _adam(encoder, decoder)
        if broken:
            for module in (encoder, decoder):
                for child in module.modules():
                    for name, weight in list(child._parameters.items()):
                        if weight is not None:
                            child._parameters[name] = nn.Parameter(weight.detach().clone())
                for child in module.modules():
                    if isinstance(child, nn.GRU):
                        child._flat_weights = [getattr(child, name) for name in child._flat_weights_names]
        return made

    return _rnn_loop(seed, watch, optimizers, _loss, 120)


@fault(
    name="transformer without a target mask",
    origin="nn.Transformer called without tgt_mask: loss near 0 after an epoch, nonsense when it generates",
    what="no causal mask: each position sees the word that it shall say",
    expected="the decoder sees the future",
    accepts="WIR006",
    also="WIR007",
)
def _(broken: bool, seed: int, folder: Path, watch: Any) -> Loop:
    return _transformer_loop(seed, watch, run=lambda model, src, tgt: model(src, tgt, causal=not broken), steps=120)


@fault(
    name="attention normalised over the batch",
    origin="F.softmax(scores, dim=0) of the first attention tutorials",
    what="attention weights are normalised over the examples of the batch, not over the source",
    expected="attention is normalised along the wrong axis: examples of a batch influence each other",
    accepts="new:examples-mixed",
)
def _(broken: bool, seed: int, folder: Path, watch: Any) -> Loop:
    def optimizers(encoder: Any, decoder: Any) -> Any:
        decoder.attention.axis = 0 if broken else -1
        return _adam(encoder, decoder)

    return _rnn_loop(seed, watch, optimizers, _loss, 150)


@fault(
    name="gru reads the batch as time",
    origin="nn.GRU's batch_first is False unless told: (batch, time) goes in as (time, batch)",
    what="the encoder's GRU runs over the examples of a batch, not over their words",
    expected="the batch is taken for time: examples of a batch influence each other",
    accepts="new:examples-mixed",
)
def _(broken: bool, seed: int, folder: Path, watch: Any) -> Loop:
    def optimizers(encoder: Any, decoder: Any) -> Any:
        if broken:
            plain = encoder.forward

            def forward(source: Tensor) -> tuple[Tensor, Tensor]:
                encoder.gru.batch_first = False
                outputs, _ = plain(source)
                return outputs, outputs[:, -1:].transpose(0, 1).contiguous()

            encoder.forward = forward
        return _adam(encoder, decoder)

    return _rnn_loop(seed, watch, optimizers, _loss, 150)


@fault(
    name="epoch schedule stepped each batch",
    origin="StepLR(step_size=1, gamma=0.9) stepped in the inner loop",
    what="the rate falls by a tenth each batch: after forty steps nothing moves any more",
    expected="the learning rate has fallen to nothing: the schedule is stepped too often",
    accepts="new:schedule-ended",
)
def _(broken: bool, seed: int, folder: Path, watch: Any) -> Loop:
    schedules: list[Any] = []

    def optimizers(encoder: Any, decoder: Any) -> Any:
        both = _adam(encoder, decoder)
        schedules[:] = [torch.optim.lr_scheduler.StepLR(each, 1, 0.9) for each in both]
        return both

    done: list[int] = []

    def step(both: Any, loss: Tensor) -> None:
        for optimizer in both:
            optimizer.zero_grad()
        loss.backward()
        done.append(1)
        for optimizer, schedule in zip(both, schedules, strict=True):
            optimizer.step()
            if broken or len(done) % 60 == 0:
                schedule.step()

    return _rnn_loop(seed, watch, optimizers, _loss, 150, step)
