"""Source bits of one batch, of any model: ours, Hugging Face's, or a function from a batch to logits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sourcewise.data.batches import IGNORED, Batch, Source
from sourcewise.data.encoding import Encoded
from sourcewise.errors import RequestError
from sourcewise.evaluation import source_bits as sets
from sourcewise.evaluation.source_bits import SourceBits, nearest_others
from sourcewise.generation.model import Model
from sourcewise.model.protocol import Network, token_nats

LABELS = "labels"
MASKS = ("attention_mask", "encoder_attention_mask")  # of sources, (batch, slots)


def source_bits(model: Any, batch: Any) -> SourceBits:
    """What the target tokens of a batch gain from their own source rather than a neighbour's of similar length.

    Three kinds of models:

    - a network of ours (or what `load` returns) with a `Batch`, or with an `Encoded` for a whole set;
    - a torch module that is called as Hugging Face's encoder–decoders are, `model(**batch)`, and gives `.logits`
      (batch, time, vocabulary), with a batch as its collator makes it: `labels` (batch, time) with -100 where nothing
      counts, and the source's tensors (`input_ids`, `inputs_embeds`, `input_features`, `attention_mask`, ...);
    - any other callable, `model(batch)` → logits, with such a batch. It must not use dropout.

    The source's tensors are exchanged, all whose first dimension is the batch but labels and `decoder_...`: the
    decoder reads the example's own target throughout. A module is measured without dropout, on its own device,
    and left in the mode it was in. `.bits`, `.ci95()` and `.loss` of the answer are means over target tokens.

    Raises RequestError where there is no source to exchange: a decoder-only model, fewer than two different sources.
    """
    if isinstance(model, Model):
        model = model.network
    if isinstance(batch, (Batch, Encoded)):
        if not isinstance(model, Network):
            raise RequestError(f"source_bits: a {type(batch).__name__} is for a network of sourcewise; give a dict")
        with at_rest(model):
            return sets.source_bits(model, batch) if isinstance(batch, Encoded) else _of_network(model, batch)
    if not isinstance(batch, Mapping):
        raise RequestError(f"source_bits: a batch is a dict of tensors, not {type(batch).__name__}")
    config = getattr(model, "config", None)
    if config is not None and getattr(config, "is_encoder_decoder", True) is False:
        raise RequestError(f"source_bits: {type(model).__name__} is decoder-only: its source is part of its target")
    with at_rest(model):
        return _of_callable(model, batch)


def _of_network(network: Network, batch: Batch) -> SourceBits:
    source, labels = batch.source.to(network.device), batch.labels.to(network.device)
    table = source.tokens if source.features is None else source.features
    assert table is not None

    def nats(rows: Tensor | None) -> Tensor:
        return token_nats(network, network.encode(source if rows is None else chosen(source, rows)), labels)

    mask = source.token_mask if source.frames is None else source.frame_mask
    return _measured(nats, labels, [table], mask)


def chosen(source: Source, rows: Tensor) -> Source:
    """These rows of a source (int64 indices), its width kept."""
    parts = (source.tokens, source.token_lengths, source.features, source.frames)
    return Source(*(None if part is None else part[rows] for part in parts))


def _of_callable(model: Any, batch: Mapping[str, Any]) -> SourceBits:
    labels = batch.get(LABELS)
    if not isinstance(labels, Tensor) or labels.ndim != 2:
        raise RequestError("source_bits: the batch has no labels (batch, time)")
    own = {k: v for k, v in batch.items() if isinstance(v, Tensor) and v.ndim and len(v) == len(labels)}
    source = {k: v for k, v in own.items() if k != LABELS and not k.startswith(("decoder_", "cross_"))}
    content = [value for name, value in source.items() if name not in MASKS]
    if not content:
        raise RequestError(f"source_bits: no source among the keys {', '.join(map(str, batch))}; as input_ids")
    device = next((p.device for p in model.parameters()), labels.device) if isinstance(model, nn.Module) else None
    given = {k: v.to(device) if isinstance(v, Tensor) and device else v for k, v in batch.items()}

    def nats(rows: Tensor | None) -> Tensor:
        inputs = dict(given)
        if rows is not None:
            inputs |= {name: given[name][rows.to(given[name].device)] for name in source}
        out = model(**inputs) if isinstance(model, nn.Module) else model(inputs)
        return _nats(out if isinstance(out, Tensor) else getattr(out, "logits", None), given[LABELS])

    mask = next((source[name].bool() for name in MASKS if name in source and source[name].ndim == 2), None)
    return _measured(nats, labels, content, mask)


def _measured(
    nats: Callable[[Tensor | None], Tensor], labels: Tensor, content: list[Tensor], mask: Tensor | None
) -> SourceBits:
    """The bits of a batch whose (batch, time) nats are those of `nats(rows)` with the sources of these rows.

    `content` holds the sources' tensors; `mask` (batch, slots) is true where they are real, everywhere without one.
    """
    size = len(labels)
    lengths = np.full(size, 1) if mask is None else mask.sum(1).cpu().numpy().astype(np.int64)
    tables = [_emptied(table.detach(), mask).cpu() for table in content]
    other = nearest_others(lengths, lambda i, j: all(torch.equal(table[i], table[j]) for table in tables))
    if (other < 0).all():
        what = f"the {size} sources of the batch are all alike" if size > 1 else "a batch of 1 holds no other source"
        raise RequestError(f"source_bits: {what}; give a batch of several different ones")
    tokens = (labels != IGNORED).sum(1).cpu().double().numpy()
    if not tokens.any():
        raise RequestError(f"source_bits: no label of the batch counts, all are {IGNORED}")
    rows = torch.from_numpy(np.where(other < 0, np.arange(size), other)).to(labels.device)
    with torch.no_grad():
        mine, theirs = (nats(which).double().sum(1).cpu().numpy() for which in (None, rows))
    return SourceBits(mine, np.where(other < 0, np.nan, theirs), tokens)


def _emptied(table: Tensor, mask: Tensor | None) -> Tensor:
    """A source tensor (batch, slots, ...) with zeros where it is padded, so that padding tells no two sources apart."""
    if mask is None or table.shape[:2] != mask.shape:
        return table
    padded = ~mask.to(table.device)
    return table.masked_fill(padded.view(*padded.shape, *[1] * (table.ndim - 2)), 0)


def _nats(logits: Tensor | None, labels: Tensor) -> Tensor:
    """−ln p(label) of logits (batch, time, vocabulary): (batch, time), 0 where a label does not count."""
    if logits is None:
        raise RequestError("source_bits: the model gives no logits")
    if logits.shape[:2] != labels.shape:
        shapes = f"{tuple(logits.shape)} for labels {tuple(labels.shape)}"
        raise RequestError(f"source_bits: logits {shapes}; one row of logits a label is what an encoder-decoder gives")
    labels = labels.to(logits.device)
    rows = zip(logits, labels, strict=True)
    return torch.stack([F.cross_entropy(r.float(), of, ignore_index=IGNORED, reduction="none") for r, of in rows])


@contextlib.contextmanager
def at_rest(model: Any) -> Iterator[None]:
    """Within: no dropout; afterwards every part is in the mode it was in."""
    modes = {module: module.training for module in model.modules()} if isinstance(model, nn.Module) else {}
    if isinstance(model, nn.Module):
        model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
