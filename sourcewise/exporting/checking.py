"""Compares the greedy outputs of an exported model with those of the model itself, source by source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sourcewise.config import GenerationConfig
from sourcewise.data.encoding import ExampleSet
from sourcewise.data.examples import Dataset
from sourcewise.data.open import open_sources
from sourcewise.exporting.kinds import Ids
from sourcewise.generation.generate import generate
from sourcewise.generation.model import Model
from sourcewise.model.network import Seq2Seq
from sourcewise.model.weights.generation_config import OPTIONS

SOURCES = 100  # that are compared
LONGEST = 64  # tokens of an output that are compared
TOKENS, FRAMES = (3, 16), (20, 80)  # least and most in a source that is made


@dataclass(frozen=True, slots=True)
class Check:
    """How many of the outputs are the same, and the first that is not."""

    sources: int
    same: int
    made: bool  # whether the sources were made, not given
    by: str  # what computed the outputs of the files
    first: str = ""  # the first difference, in words

    @property
    def equal(self) -> bool:
        """Whether all outputs are the same."""
        return self.same == self.sources


def sources_for(model: Model, given: Dataset | None) -> Dataset:
    """The first 100 of the given sources, or 100 that are made: texts of random tokens, or random features."""
    if given is not None:
        return given[: min(SOURCES, len(given))]
    rng = np.random.default_rng(0)
    network = model.network
    assert isinstance(network, Seq2Seq)
    if not network.dims:
        return open_sources(_texts(model, rng))
    bridge = network.bridge
    mean = 0.0 if bridge is None else bridge.mean.numpy(force=True)
    deviation = 1.0 if bridge is None else bridge.deviation.numpy(force=True)
    lengths = rng.integers(*FRAMES, size=SOURCES, endpoint=True)
    drawn = [rng.standard_normal((frames, network.dims)) * deviation + mean for frames in lengths]
    return open_sources([matrix.astype(np.float32) for matrix in drawn])


def _texts(model: Model, rng: np.random.Generator) -> list[str]:
    """Texts of random tokens that are none of the special ones."""
    tokenizer = model.tokenizer
    words = [i for i in range(min(tokenizer.size, model.network.vocabulary)) if tokenizer.decode([i]).strip()]
    texts: list[str] = []
    while len(texts) < SOURCES:
        text = tokenizer.decode(rng.choice(words, rng.integers(*TOKENS, endpoint=True)).tolist())
        texts += [text] if text.strip() else []
    return texts


def greedy(model: Model) -> GenerationConfig:
    """The model's options for greedy outputs, as far as its generation_config.json can hold them."""
    kept = {option: getattr(model.generation, option) for option in OPTIONS.values()}
    most = min(LONGEST, model.generation.max_new_tokens)
    own = {**kept, "beams": 1, "sample": False, "max_new_tokens": most}
    own["min_new_tokens"] = min(own["min_new_tokens"], most)
    return GenerationConfig.model_validate({**own, "batch_tokens": model.generation.batch_tokens})


@torch.inference_mode()
def own_outputs(model: Model, encoded: ExampleSet, options: GenerationConfig) -> list[Ids]:
    """The model's own greedy output of each source, as ids without the start."""
    return [found.said for found in generate(model.network, encoded, options)]


def compared(model: Model, ours: Sequence[Ids], theirs: Sequence[Ids], by: str, made: bool) -> Check:
    """The comparison of outputs; padding after the end does not count."""
    pad, ends = model.network.pad_id, model.network.defaults.ends
    pairs = [(_plain(a, pad, ends), _plain(b, pad, ends)) for a, b in zip(ours, theirs, strict=True)]
    other = [i for i, (a, b) in enumerate(pairs) if a != b]
    first = ""
    if other:
        own, found = (model.tokenizer.decode(ids) for ids in pairs[other[0]])
        first = f"source {other[0] + 1}: {own!r:.100} here, {found!r:.100} there"
        if own == found:
            first = f"source {other[0] + 1}: {pairs[other[0]][0]} here, {pairs[other[0]][1]} there"
    return Check(len(pairs), len(pairs) - len(other), made, by, first)


def _plain(ids: Ids, pad: int, ends: Sequence[int]) -> Ids:
    """Ids up to the first end of text, which is left out: where it is forced, programs differ in giving it."""
    stop = next((i for i, each in enumerate(ids) if each in ends), len(ids))
    kept = list(ids[:stop])
    while kept and kept[-1] == pad:
        kept.pop()
    return kept
