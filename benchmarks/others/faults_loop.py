"""Faults of people who write their own training loop: the doctor is three lines in it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from others import tasks, tutorial
from others.case import Cases
from others.tasks import PAD
from others.tutorial import AttnDecoderRNN, Batch, EncoderRNN, Lang, Seq2SeqTransformer

CASES = Cases()
fault = partial(CASES.fault, host="loop")
Loop = tuple[list[float], float]


def _data(seed: int, low: int = 2, high: int = 4, count: int = 2000) -> Any:
    train, valid = tasks.split(tasks.numbers(count, seed, low, high))
    return train, valid, (Lang(train, 0), Lang(train, 1))


def _nll(logits: Tensor, target: Tensor) -> Tensor:
    return F.nll_loss(logits.log_softmax(-1).flatten(0, 1), target.flatten(), ignore_index=PAD)


def _rnn_loop(
    seed: int,
    watch: Any,
    optimizers: Callable[[Any, Any], Any],
    loss_of: Callable[[Any, Any, Batch], Tensor],
    steps: int = 150,
    train_step: Callable[[Any, Tensor], None] | None = None,
    logits_of: Callable[[Any, Any, Batch], Tensor] | None = None,
) -> Loop:
    """The tutorial's training: two modules, two optimizers, a batch at a time."""
    train, valid, langs = _data(seed)
    torch.manual_seed(seed)
    encoder, decoder = EncoderRNN(len(langs[0])), AttnDecoderRNN(len(langs[1]))
    both = optimizers(encoder, decoder)
    hints = {"logits": lambda batch: (logits_of or _rnn_logits)(encoder, decoder, batch), "pad": PAD}
    hints |= {"source": lambda batch: batch[0], "target": lambda batch: batch[1][:, 1:]}
    hints |= {"generate": lambda batch: tutorial.greedy_rnn(encoder, decoder, batch[0])}
    doctor = watch((encoder, decoder), tuple(both), **hints)
    losses = []
    for batch in tutorial.forever(train, langs, steps, seed):
        loss = loss_of(encoder, decoder, batch)
        if train_step is None:
            for optimizer in both:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in both:
                optimizer.step()
        else:
            train_step(both, loss)
        doctor.step(loss, batch)
        losses.append(float(loss))
    doctor.evaluate(tutorial.batches(valid, langs, 32, 0))
    sources = tutorial.padded([langs[0].ids(source) for source, _ in valid])
    outputs = tutorial.greedy_rnn(encoder, decoder, sources)
    return losses, tutorial.share_right(outputs, valid, langs[1])


def _rnn_logits(encoder: Any, decoder: Any, batch: Batch) -> Tensor:
    source, target = batch
    outputs, state = encoder(source)
    return decoder(outputs, state, target[:, :-1], source == PAD)  # type: ignore[no-any-return]


def _adam(encoder: Any, decoder: Any) -> Any:
    return [torch.optim.Adam(module.parameters(), 5e-3) for module in (encoder, decoder)]


@fault(
    name="encoder outputs detached",
    origin="tutorials' kin: encoder run under no_grad 'to save memory'; TrainCheck's kind of silent error",
    what="the decoder gets detached outputs and state: nothing reaches the encoder",
    expected="no gradient reaches the encoder",
    accepts="WIR012 TRN006",
    figure="by how much the encoder's weights moved, as a share of themselves",
    gap=0.05,
)
def _(broken: bool, seed: int, folder: Path, watch: Any) -> Loop:
    kept: list[Any] = []

    def logits(encoder: Any, decoder: Any, batch: Batch) -> Tensor:
        if not kept:
            kept.extend((encoder, encoder.gru.weight_ih_l0.detach().clone()))
        outputs, state = encoder(batch[0])
        if broken:
            outputs, state = outputs.detach(), state.detach()
        return decoder(outputs, state, batch[1][:, :-1], batch[0] == PAD)  # type: ignore[no-any-return]

    losses, _ = _rnn_loop(
        seed, watch, _adam, lambda e, d, b: _nll(logits(e, d, b), b[1][:, 1:]), logits_of=logits, steps=100
    )
    now = kept[0].gru.weight_ih_l0.detach()
    return losses, float((now - kept[1]).norm() / kept[1].norm())


@fault(
    name="softmax before cross entropy",
    origin="pytorch forum, tutorials' comments: nn.CrossEntropyLoss behind nn.Softmax",
    what="the decoder ends in a softmax, and the loss takes another",
    expected="the model gives probabilities where the loss takes logits",
    accepts="new:probabilities",
)
def _(broken: bool, seed: int, folder: Path, watch: Any) -> Loop:
    def logits(encoder: Any, decoder: Any, batch: Batch) -> Tensor:
        said = _rnn_logits(encoder, decoder, batch)
        return said.softmax(-1) if broken else said

    def loss(encoder: Any, decoder: Any, batch: Batch) -> Tensor:
        given = logits(encoder, decoder, batch)
        return F.cross_entropy(given.flatten(0, 1), batch[1][:, 1:].flatten(), ignore_index=PAD)

    def sgd(encoder: Any, decoder: Any) -> Any:
        return [torch.optim.SGD(module.parameters(), 1.0) for module in (encoder, decoder)]

    return _rnn_loop(seed, watch, sgd, loss, logits_of=logits, steps=450)


@fault(
    name="loss over the padding",
    origin="CrossEntropyLoss() without ignore_index, over targets padded to one length; transformers #5987's kin",
    what="targets are padded to 20 tokens, and the padding is learned with the rest",
    expected="padding counts as target",
    accepts="WIR008",
    also="DAT005",
    figure="the loss that is reported, as a share of the loss per real token",
    gap=0.4,
)
def _(broken: bool, seed: int, folder: Path, watch: Any) -> Loop:
    shares: list[float] = []

    def loss(encoder: Any, decoder: Any, batch: Batch) -> Tensor:
        source, target = batch
        target = F.pad(target, (0, 20 - target.shape[1]), value=PAD)
        said = _rnn_logits(encoder, decoder, (source, target)).flatten(0, 1)
        right = target[:, 1:].flatten()
        true = F.cross_entropy(said, right, ignore_index=PAD)
        told = F.cross_entropy(said, right) if broken else true
        shares.append(float(told) / float(true))
        return told

    def wide(encoder: Any, decoder: Any, batch: Batch) -> Tensor:
        source, target = batch
        return _rnn_logits(encoder, decoder, (source, F.pad(target, (0, 20 - target.shape[1]), value=PAD)))

    losses, _ = _rnn_loop(seed, watch, _adam, loss, steps=60, logits_of=wide if broken else None)
    return losses, shares[-1]


@fault(
    name="gradients never zeroed",
    origin="TennisCourtDetector #7, TrainCheck's missing zero_grad",
    what="optimizer.zero_grad() is not called: each step goes along the sum of all gradients so far",
    expected="gradients are never set to zero: they add up from step to step",
    accepts="new:zero-grad",
    also="TRN007",
)
def _(broken: bool, seed: int, folder: Path, watch: Any) -> Loop:
    def step(both: Any, loss: Tensor) -> None:
        loss.backward()
        for optimizer in both:
            optimizer.step()
            if not broken:
                optimizer.zero_grad()

    def sgd(encoder: Any, decoder: Any) -> Any:
        return [torch.optim.SGD(module.parameters(), 0.5, momentum=0.5) for module in (encoder, decoder)]

    return _rnn_loop(seed, watch, sgd, lambda e, d, b: _nll(_rnn_logits(e, d, b), b[1][:, 1:]), 450, step)


@fault(
    name="sources sorted, targets not",
    origin="pack_padded_sequence asks for lengths in falling order: the classic of the first tutorials",
    what="sources of each batch are sorted by length for packing, their targets stay as they were",
    expected="sources and targets do not belong together",
    accepts="DAT003",
)
def _(broken: bool, seed: int, folder: Path, watch: Any) -> Loop:
    train, valid, langs = _data(seed)
    torch.manual_seed(seed)
    encoder, decoder = EncoderRNN(len(langs[0])), AttnDecoderRNN(len(langs[1]))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 5e-3)
    doctor = watch((encoder, decoder), optimizer, logits=lambda b: _rnn_logits(encoder, decoder, b), pad=PAD)
    losses = []

    def packed(batch: Batch) -> Batch:
        order = (batch[0] != PAD).sum(1).argsort(descending=True, stable=True)
        return batch[0][order], batch[1] if broken else batch[1][order]

    for batch in map(packed, tutorial.forever(train, langs, 150, seed)):
        loss = _nll(_rnn_logits(encoder, decoder, batch), batch[1][:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        doctor.step(loss, batch)
        losses.append(float(loss))
    doctor.evaluate(list(map(packed, tutorial.batches(valid, langs, 32, 0))))
    sources = tutorial.padded([langs[0].ids(source) for source, _ in valid])
    return losses, tutorial.share_right(tutorial.greedy_rnn(encoder, decoder, sources), valid, langs[1])


def _transformer_loop(seed: int, watch: Any, steps: int = 150, rate: float = 2e-3, **how: Any) -> Loop:
    """The translation tutorial's training of nn.Transformer. `how`: layers, read (what the decoder reads), warmup …"""
    train, valid, langs = _data(seed)
    torch.manual_seed(seed)
    model = Seq2SeqTransformer(len(langs[0]), len(langs[1]), how.get("layers", 1), **how.get("shape", {}))
    for weight in model.parameters():
        if weight.dim() > 1:
            nn.init.xavier_uniform_(weight)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.98), eps=1e-9)
    warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / how.get("warmup", 20)))
    run = how.get("run", lambda model, src, tgt: model(src, tgt))
    cutting = how.get("cutting", lambda tgt: (tgt[:, :-1], tgt[:, 1:]))
    hints: dict[str, Any] = {"logits": lambda batch: run(model, batch[0], cutting(batch[1])[0]), "pad": PAD}
    doctor = watch(model, optimizer, **hints, **how.get("hints", {}))
    losses = []
    for batch in tutorial.forever(train, langs, steps, seed, start=how.get("start", True)):
        read, right = cutting(batch[1])
        said = run(model, batch[0], read)
        loss = F.cross_entropy(said.reshape(-1, said.shape[-1]), right.reshape(-1), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        warm.step()
        doctor.step(loss, batch)
        losses.append(float(loss))
    doctor.evaluate(tutorial.batches(valid, langs, 32, 0, start=how.get("start", True)))
    sources = tutorial.padded([langs[0].ids(source) for source, _ in valid])
    outputs = tutorial.greedy_transformer(
        lambda src, tgt: run(model, src, tgt), sources, start=how.get("first", tasks.BOS)
    )
    return losses, tutorial.share_right(outputs, valid, langs[1])


@fault(
    name="memory mask inverted",
    origin="nn.Transformer's key_padding_mask is True where padding is: half of the forum gets it the other way round",
    what="memory_key_padding_mask is source != pad: of each source only its padding can be read",
    expected="the mask is the wrong way round: padding is read and the source is not",
    accepts="WIR005 new:mask-inverted",
)
def _(broken: bool, seed: int, folder: Path, watch: Any) -> Loop:
    def run(model: Any, src: Tensor, tgt: Tensor) -> Tensor:
        src = F.pad(src, (0, 2), value=PAD)  # "so that no row is masked whole"
        return model(src, tgt, memory_mask=src != PAD if broken else None)  # type: ignore[no-any-return]

    return _transformer_loop(seed, watch, run=run)


@fault(
    name="no start token at training",
    origin="attention-is-all-you-need-pytorch #44: all translations start with the same word",
    what="targets were made without <s>: the first word is read and never learned, and generation begins with <s>",
    expected="generation begins with a token that training never showed the decoder",
    accepts="WIR010 new:start-token",
)
def _(broken: bool, seed: int, folder: Path, watch: Any) -> Loop:
    if not broken:
        return _transformer_loop(seed, watch)
    return _transformer_loop(seed, watch, start=False)


@fault(
    name="deep stack without warm-up",
    origin="texar #79: the memory collapsed, every translation the same",
    what="six post-norm layers, Adam at 5e-3 from the first step",
    expected="the learning rate is too high for this depth without warm-up",
    accepts="WIR014 TRN009",
    also="WIR013",
)
def _(broken: bool, seed: int, folder: Path, watch: Any) -> Loop:
    if broken:
        return _transformer_loop(seed, watch, layers=6, rate=5e-3, warmup=1, steps=160)
    return _transformer_loop(seed, watch, layers=6, rate=1e-3, warmup=60, steps=160, shape={"norm_first": True})
