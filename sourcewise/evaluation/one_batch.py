"""Source bits of one batch for any model: ours, Hugging Face's, or a function from a batch to logits."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sourcewise.data.batches import IGNORED, Batch
from sourcewise.data.encoding import ExampleSet
from sourcewise.errors import RequestError
from sourcewise.evaluation import plain_call
from sourcewise.evaluation import source_bits as sets
from sourcewise.evaluation.logits import checked, pad_ids, refuse_not_finite, without_padding
from sourcewise.evaluation.plain_call import Loop
from sourcewise.evaluation.source_bits import SourceBits, nearest_others
from sourcewise.generation.model import Model
from sourcewise.model.finite import refuse_damaged
from sourcewise.model.protocol import Network, token_nats

LABELS = "labels"
MASKS = ("attention_mask", "encoder_attention_mask")  # of sources, (batch, positions)


def source_bits(model: Any, batch: Any) -> SourceBits:
    """Source bits of a batch: the gain of target tokens from their own source over another one of similar length.

    Four kinds of models are supported:

    - a network of ours (or what `load` returns) with a `Batch`, or with an `ExampleSet` for a whole set;
    - a torch module that is called like Hugging Face's encoder–decoders, `model(**batch)`, and returns `.logits`
      (batch, time, vocabulary), with a batch of its collator: `labels` (batch, time) with -100 for ignored ones, and
      the source's tensors (`input_ids`, `inputs_embeds`, `input_features`, `attention_mask`, ...);
    - a torch module that is called as `model(src, trg)`, or a pair (encoder, decoder), with a tuple (src, trg) or a
      dict of token ids; these may be (time, batch), and a `teacher_forcing_ratio` is set to 1;
    - any other callable, `model(batch)` → logits, with a dict with labels. It must not use dropout.

    Exchanged are all tensors whose first dimension is the batch, except labels and `decoder_...`: the decoder always
    reads the example's own target. A module is measured without dropout, on its own device, and keeps its mode.
    `.bits`, `.ci95()` and `.loss` of the result are means over target tokens. Assumptions, such as padding among
    labels, are a UserWarning and in `.understood` of the result.

    Raises RequestError if there is no source to exchange (a decoder-only model, fewer than two different sources), if
    the model returns probabilities or sees future tokens, and if the call is not understood; NotFinite if weights,
    logits or the nats of a label are NaN or infinite.
    """
    if isinstance(model, Model):
        model = model.network
    if isinstance(batch, (Batch, ExampleSet)):
        if not isinstance(model, Network):
            raise RequestError(f"source_bits: a {type(batch).__name__} is for a network of sourcewise; give a dict")
        with eval_mode(model):
            return sets.source_bits(model, batch) if isinstance(batch, ExampleSet) else _of_network(model, batch)
    whole = model
    if isinstance(model, (tuple, list)):
        whole = nn.ModuleList([part for part in model if isinstance(part, nn.Module)])
    refuse_damaged(whole, f"source_bits: {type(model).__name__}")
    if not (isinstance(batch, Mapping) and LABELS in batch):
        with eval_mode(whole):
            return _with_warning(_of_loop(model, plain_call.read(batch), whole))
    config = getattr(model, "config", None)
    if config is not None and getattr(config, "is_encoder_decoder", True) is False:
        raise RequestError(f"source_bits: {type(model).__name__} is decoder-only: its source is part of its target")
    with eval_mode(model):
        return _with_warning(_of_callable(model, batch))


def _with_warning(bits: SourceBits) -> SourceBits:
    """The bits, after a warning about assumptions at the caller's line."""
    if bits.understood:
        warnings.warn(f"source_bits: {bits.understood}", stacklevel=3)
    return bits


def _of_loop(model: Any, loop: Loop, whole: Any) -> SourceBits:
    device = next((p.device for p in whole.parameters()), None) if isinstance(whole, nn.Module) else None
    if device is not None:
        loop.src, loop.trg = loop.src.to(device), loop.trg.to(device)
        loop.extras = {k: v.to(device) if isinstance(v, Tensor) and v.ndim > 1 else v for k, v in loop.extras.items()}
    other = _others([loop.sources], None, len(loop.sources))
    partner = torch.from_numpy(np.where(other < 0, np.arange(len(other)), other)).to(loop.src.device)
    with torch.no_grad():
        logits, labels = plain_call.aligned(model, loop, plain_call.call(model, loop), partner)
    models = model if isinstance(model, (tuple, list)) else (model, getattr(model, "decoder", None))
    labels, padding = without_padding(labels, pad_ids(*models))
    bits = measured(lambda rows: _nats(logits(rows), labels), labels, [loop.sources], None)
    bits.understood = "; ".join([*loop.notes, *([padding] if padding else [])])
    return bits


def _of_network(network: Network, batch: Batch) -> SourceBits:
    source, labels = batch.source.to(network.device), batch.labels.to(network.device)

    def nats(rows: Tensor | None) -> Tensor:
        return token_nats(network, network.encode(source if rows is None else source.select(rows)), labels)

    return measured(nats, labels, [source.content], source.mask)


def _of_callable(model: Any, batch: Mapping[str, Any]) -> SourceBits:
    labels = batch.get(LABELS)
    if not isinstance(labels, Tensor) or labels.ndim != 2:
        raise RequestError("source_bits: the batch has no labels (batch, time)")
    own = {k: v for k, v in batch.items() if isinstance(v, Tensor) and v.ndim and len(v) == len(labels)}
    source = {k: v for k, v in own.items() if k != LABELS and not k.startswith(("decoder_", "cross_"))}
    content = [value for name, value in source.items() if name not in MASKS]
    if not content:
        raise RequestError(f"source_bits: no source among the keys {', '.join(map(str, batch))}; as input_ids")
    _not_the_answer(labels, batch.get("decoder_input_ids"))
    device = next((p.device for p in model.parameters()), labels.device) if isinstance(model, nn.Module) else None
    given = {k: v.to(device) if isinstance(v, Tensor) and device else v for k, v in batch.items()}
    counted, padding = without_padding(given[LABELS], pad_ids(model))

    def logits(rows: Tensor | None) -> Tensor:
        inputs = dict(given)
        if rows is not None:
            inputs |= {name: given[name][rows.to(given[name].device)] for name in source}
        out = model(**inputs) if isinstance(model, nn.Module) else model(inputs)
        out = out if isinstance(out, Tensor) else getattr(out, "logits", None)
        if out is None:
            raise RequestError("source_bits: the model gives no logits")
        return checked(out)

    mask = next((source[name].bool() for name in MASKS if name in source and source[name].ndim == 2), None)
    with torch.no_grad():
        _rows_are_examples(logits, _others(content, mask, len(labels)), labels)
    bits = measured(lambda rows: _nats(logits(rows), counted), counted, content, mask)
    bits.understood = padding
    return bits


def _not_the_answer(labels: Tensor, inputs: Any) -> None:
    """Raises RequestError if the decoder's inputs equal the labels position by position."""
    if not isinstance(inputs, Tensor) or inputs.shape != labels.shape:
        return
    counted = labels != IGNORED
    same = (inputs.to(labels.device) == labels)[counted]
    moved = (inputs.to(labels.device)[:, 1:] == labels[:, :-1])[counted[:, 1:]]
    if len(same) and same.float().mean() > 0.9 and not (len(moved) and moved.float().mean() > 0.9):
        raise RequestError(
            "source_bits: decoder_input_ids are the labels, so the decoder reads each token that it is to say; shift "
            "them by one, behind a start token, or leave them out"
        )


def _rows_are_examples(logits: Callable[[Tensor | None], Tensor], other: np.ndarray, labels: Tensor) -> None:
    """Raises RequestError if outputs of other rows change with one row's source, so that rows are not examples."""
    one = int(np.flatnonzero(other >= 0)[0])
    rows = torch.arange(len(labels))
    rows[one] = int(other[one])
    before, after = logits(None), logits(rows.to(labels.device))
    if before.shape[:1] != labels.shape[:1] or before.shape != after.shape:
        return
    change = (after - before).abs().flatten(1).amax(1)
    others = torch.cat((change[:one], change[one + 1 :]))
    if len(others) and float(others.max()) > 0.05 * float(change.max()) > 0:
        raise RequestError(
            f"source_bits: outputs of other rows change with the source of row {one}: either the batch is (time, "
            "batch), and is to be given (batch, time), or the model draws at random, or mixes the examples of a batch"
        )


def measured(
    nats: Callable[[Tensor | None], Tensor], labels: Tensor, content: list[Tensor], mask: Tensor | None
) -> SourceBits:
    """Source bits of a batch; `nats(rows)` returns the nats (batch, time) with the sources of these rows.

    `content` holds the sources' tensors; `mask` (batch, positions) is false at padding; None: no padding.
    """
    size = len(labels)
    other = _others(content, mask, size)
    tokens = (labels != IGNORED).sum(1).cpu().double().numpy()
    if not tokens.any():
        raise RequestError(f"source_bits: no label of the batch counts, all are {IGNORED}")
    rows = torch.from_numpy(np.where(other < 0, np.arange(size), other)).to(labels.device)
    with torch.no_grad():
        mine, theirs = (nats(which).double().sum(1).cpu().numpy() for which in (None, rows))
    return SourceBits(mine, np.where(other < 0, np.nan, theirs), tokens)


def _others(content: list[Tensor], mask: Tensor | None, size: int) -> np.ndarray:
    """For each example, the index of one with another source, or −1. Raises RequestError if all sources are equal."""
    lengths = np.full(size, 1) if mask is None else mask.sum(1).cpu().numpy().astype(np.int64)
    tables = [_emptied(table.detach(), mask).cpu() for table in content]
    other = nearest_others(lengths, lambda i, j: all(torch.equal(table[i], table[j]) for table in tables))
    if (other < 0).all():
        what = f"the {size} sources of the batch are all alike" if size > 1 else "a batch of 1 holds no other source"
        raise RequestError(f"source_bits: {what}; give a batch of several different ones")
    return other


def _emptied(table: Tensor, mask: Tensor | None) -> Tensor:
    """A source tensor (batch, positions, ...) with zeros at padding, so that padding makes no two sources differ."""
    if mask is None or table.shape[:2] != mask.shape:
        return table
    padded = ~mask.to(table.device)
    return table.masked_fill(padded.view(*padded.shape, *[1] * (table.ndim - 2)), 0)


def _nats(logits: Tensor, labels: Tensor) -> Tensor:
    """−ln p(label) (batch, time) of logits (batch, time, vocabulary); 0 for ignored labels."""
    if logits.shape[:2] != labels.shape:
        shapes = f"{tuple(logits.shape)} for labels {tuple(labels.shape)}"
        raise RequestError(f"source_bits: logits {shapes}; an encoder-decoder gives one row of logits per label")
    labels = labels.to(logits.device)
    if int(labels.max()) >= logits.shape[-1]:
        what = f"labels reach {int(labels.max())}, but outputs have {logits.shape[-1]} numbers per token"
        raise RequestError(f"source_bits: {what}; logits have one for each word of the vocabulary")
    rows = zip(logits, labels, strict=True)
    nats = torch.stack([F.cross_entropy(r.float(), of, ignore_index=IGNORED, reduction="none") for r, of in rows])
    refuse_not_finite(nats, labels, logits)
    return nats


@contextlib.contextmanager
def eval_mode(model: Any) -> Iterator[None]:
    """Within: evaluation mode, without dropout; afterwards every module has its previous mode."""
    modes = {module: module.training for module in model.modules()} if isinstance(model, nn.Module) else {}
    if isinstance(model, nn.Module):
        model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
