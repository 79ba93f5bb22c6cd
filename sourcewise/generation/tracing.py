"""Traces a generation: search first, then teacher forcing of the output that was found.

That works for every search and every network. Probabilities are the network's own, before temperature and before any
token is suppressed or forced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sourcewise.config import GenerationConfig
from sourcewise.data.encoding import ExampleSet
from sourcewise.data.examples import Dataset
from sourcewise.data.open import open_sources
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError
from sourcewise.generation.beam import beam_search
from sourcewise.generation.generate import reader, search
from sourcewise.generation.in_memory import opened
from sourcewise.generation.lineage import Lineage
from sourcewise.generation.model import Model
from sourcewise.generation.others import Others, find_others
from sourcewise.generation.risk import LOCAL, least_risk
from sourcewise.generation.sampling import Hypothesis
from sourcewise.generation.slots import slots_of
from sourcewise.generation.trace import Candidate, Step, Trace
from sourcewise.generation.what_if import without_each
from sourcewise.model.protocol import Network, shift_right, token_nats

LIKELIEST = 5  # next tokens shown per step

Sources = str | Sequence[str] | Sequence[np.ndarray] | Dataset


def trace(
    model: Model | str | Path | Any,
    sources: Sources,
    index: int = 0,
    *,
    against: Sources | None = None,
    tokenizer: Any = None,
    what_if: bool = False,
    **options: Any,
) -> Trace:
    """Generate for the source at `index`, as `Model.generate` would, and trace it.

    Source bits are measured against the sources `against`, by default the others in `sources`, else the run's own (see
    `others.py`). A model of Hugging Face's in memory is given with its `tokenizer`. With `what_if`, each word of the
    source, or each stretch of its frames, is taken away in turn, and the trace says what changes.
    `options` are those of GenerationConfig: beams=4, …. Raises RequestError.
    """
    model = opened(model, tokenizer)
    wanted = model.options(**options)
    model.check_weights()
    encoded = model.lay_out(_dataset(sources))
    others = find_others(model, encoded, index, None if against is None else model.lay_out(_dataset(against)))
    with torch.inference_mode():
        found, lineage = _search(model.network, encoded, index, wanted)
        traced = trace_output(model, encoded, index, found, others, wanted, lineage)
        traced.self_attention = _self_attention(model.network, encoded, index, found.said)
        if what_if:
            traced.what_if = without_each(model.network, encoded, index, found.said, wanted)
        return traced


@torch.inference_mode()
def trace_output(
    model: Model,
    encoded: ExampleSet,
    index: int,
    found: Hypothesis,
    others: Others | None,
    options: GenerationConfig,
    lineage: Lineage | None = None,
) -> Trace:
    """The trace of an existing output: the one that `options` found for `encoded[index]`."""
    network, tokenizer, example = model.network, model.tokenizer, encoded.dataset[index]
    memory = network.encode(encoded.source([index]))
    ids = found.said
    labels = torch.tensor([ids], device=network.device)
    tokens = shift_right(labels, network.start_id, network.pad_id)
    weights = network.cross_attention(tokens, memory)
    attention = None if weights is None else weights[:, 0, :, :, memory.mask[0]].cpu().numpy()
    paths = [] if lineage is None else lineage.paths()
    slots, unread = slots_of(network, encoded, index, None if attention is None else attention.shape[-1])
    return Trace(
        model=model.name,
        id=example.id,
        source=example.source,
        slots=slots,
        unread=unread,
        features=encoded.read(index) if encoded.dataset.dims else None,
        output=tokenizer.decode(found.said),
        finished=found.finished,
        score=found.score,
        search=_told(options),
        steps=_steps(tokenizer, ids, network.decode(tokens, memory)[0], _log2_with(network, labels, others)),
        against="no other source is at hand" if others is None else others.told,
        attention=attention,
        beams=None if lineage is None else lineage.steps,
        beam_texts=[[tokenizer.piece(path[:-1], path[-1]) for path in step] for step in paths],
        length_penalty=options.length_penalty,
    )


@torch.inference_mode()
def token_bits(network: Network, encoded: ExampleSet, index: int, ids: list[int], others: Others | None) -> list[float]:
    """Source bits (time,) of target tokens given the source of `encoded[index]`; NaNs without other sources."""
    labels = torch.tensor([ids], device=network.device)
    with_others = _log2_with(network, labels, others)
    if with_others is None:
        return [math.nan] * len(ids)
    own = -token_nats(network, network.encode(encoded.source([index])), labels)[0].double() / math.log(2)
    return [float(bits) for bits in own - with_others]


def _self_attention(network: Network, encoded: ExampleSet, index: int, ids: list[int]) -> dict[str, np.ndarray]:
    """Weights of each stack (layers, heads, queries, keys), without padding."""
    tokens = shift_right(torch.tensor([ids], device=network.device), network.start_id, network.pad_id)
    source = encoded.source([index])
    found = {name: each[:, 0].cpu().numpy() for name, each in network.self_attention(source, tokens).items()}
    if "encoder" in found:
        real = network.encode(source).mask[0].cpu().numpy()
        if found["encoder"].shape[-1] != len(real):  # some encoders read more positions than they give
            del found["encoder"]
        else:
            found["encoder"] = found["encoder"][:, :, real][..., real]
    return {name: each for name, each in found.items() if each.shape[-1]}


def _search(
    network: Network, encoded: ExampleSet, index: int, options: GenerationConfig
) -> tuple[Hypothesis, Lineage | None]:
    """The output of one source as in `generate.search`, and the lineage of its beams, if it has any."""
    feed, read = [([index], network.encode(encoded.source([index])))], reader(encoded)
    if options.mbr == "comet":
        raise RequestError("generation: mbr comet is for generate and evaluate; trace with chrf, bleu or none")
    if options.sample or options.beams == 1:
        return search(network, feed, options, read)[index][0], None
    lineage = Lineage()
    results = beam_search(network, feed, options, lineage, read)[index]
    if options.mbr in LOCAL:
        results = least_risk(results, options.mbr, read)
    lineage.rank(results)
    return results[0], lineage


def _log2_with(network: Network, labels: Tensor, others: Others | None) -> Tensor | None:
    """The mean log2 p of each target token with other sources: (time,)."""
    if others is None:
        return None
    rows = labels.expand(len(others.source), -1)
    return -token_nats(network, others.read_by(network), rows).double().mean(0) / math.log(2)


def _steps(tokenizer: Tokenizer, ids: list[int], logits: Tensor, with_others: Tensor | None) -> list[Step]:
    """ids (time), logits (time, vocabulary), and log2 p with other sources (time,)."""
    log_p = logits.float() - logits.float().logsumexp(-1, keepdim=True)
    own = log_p.gather(1, torch.tensor(ids, device=logits.device)[:, None])[:, 0].double()
    bits = own / math.log(2) - with_others if with_others is not None else torch.full_like(own, math.nan)
    best = log_p.topk(min(LIKELIEST, log_p.shape[1]))
    rows = zip(ids, own.exp().tolist(), bits.tolist(), best.indices.tolist(), best.values.exp().tolist(), strict=True)
    steps = []
    for t, (token, p, gained, candidates, their_p) in enumerate(rows):
        read = [tokenizer.piece(ids[:t], each) for each in candidates]
        likeliest = [Candidate(*each) for each in zip(candidates, read, their_p, strict=True)]
        steps.append(Step(token, tokenizer.piece(ids[:t], token), p, gained, likeliest))
    return steps


def _dataset(sources: Sources) -> Dataset:
    if isinstance(sources, Dataset):
        return sources
    return open_sources([sources] if isinstance(sources, str) else sources)


def _told(options: GenerationConfig) -> str:
    """The options of the search in words."""
    if options.sample:
        limits = [f"temperature {options.temperature:g}"]
        limits += [f"top {options.top_k}"] if options.top_k else []
        limits += [f"top {options.top_p:g} of the mass"] if options.top_p < 1 else []
        return f"sampled, {', '.join(limits)}, seed {options.seed}"
    if options.beams == 1:
        return "greedy"
    return f"beam search, {options.beams} beams, length penalty {options.length_penalty:g}"
