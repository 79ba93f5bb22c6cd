"""Builds the network of a recipe's model section."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sourcewise.config import ModelConfig
from sourcewise.data.examples import Dataset
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError
from sourcewise.model.families.registry import FAMILIES
from sourcewise.model.inputs.bridges import Bridge
from sourcewise.model.inputs.registry import behind, build_bridge
from sourcewise.model.inputs.source_encoder import PIXELS, SourceEncoder, make_encoder, open_encoder
from sourcewise.model.network import Seq2Seq
from sourcewise.model.quantised import Quantised
from sourcewise.model.weights.checkpoint import find_folder, load_feature_encoder, load_network
from sourcewise.model.weights.initialization import initialize

STATISTICS_EXAMPLES = 1000  # examples for the mean and deviation of features
CONSTANT = 1e-4  # dimensions with a smaller deviation are constant, and only centred


def build_network(
    model: ModelConfig, tokenizer: Tokenizer, dataset: Dataset, quantised: Quantised | None = None
) -> Seq2Seq:
    """A network for a training set: pretrained if `weights` is set, possibly quantised, else newly initialised.

    Uses torch's global random state. Raises RequestError if weights and tokenizer or features do not fit.
    """
    if model.weights:
        network = _pretrained(model, tokenizer, quantised)
        _check_bridge(model, network, dataset)
    else:
        network = Seq2Seq(FAMILIES[model.family].make(model, tokenizer, bool(dataset.dims)))
        initialize(network, model.initialization)
    if model.route == "bypass" and "encoder" not in network.stacks:
        raise RequestError("model.route: bypass, but this network has no encoder to go past; use encoder")
    if model.route == "bypass" and network.dims and network.bridge is None:
        raise RequestError("model.route: bypass, but this model's encoder reads the features itself; use encoder")
    network.route = model.route
    if dataset.dims and network.bridge is None and not network.dims:
        network.bridge = _bridge(model, network.body.config.d_model, dataset)
    return network


def _bridge(model: ModelConfig, d_model: int, dataset: Dataset) -> Bridge:
    """A new bridge with the statistics of the features, behind a feature encoder, new or of another run."""
    encoder = _source_encoder(model, dataset)
    if encoder is not None:
        bridge = behind(encoder, model.bridge, d_model, model.dropout)
        bridge.encoder = None
        initialize(bridge, model.initialization)
        bridge.encoder = encoder
        return bridge
    before, kept = model.feature_encoder, dict[str, torch.Tensor]()
    if before.weights:
        before, dims, kept = load_feature_encoder(find_folder(before.weights))
        if dims != dataset.dims:
            problem = f"{model.feature_encoder.weights} reads {dims} dims, {dataset.name} has {dataset.dims}"
            raise RequestError(f"model.feature_encoder.weights: {problem}")
    config = model.bridge
    if config.per_stream and not config.streams:
        config = config.model_copy(update={"streams": list(dataset.streams.values())})
    bridge = build_bridge(config, dataset.dims, d_model, model.dropout, before)
    initialize(bridge, model.initialization)
    if model.bridge.normalize:
        mean, deviation = feature_statistics(dataset)
        bridge.mean.copy_(torch.from_numpy(mean))
        bridge.deviation.copy_(torch.from_numpy(deviation))
    bridge.prepare(dataset)
    if kept:
        bridge.load_state_dict(kept, strict=False)
    return bridge


def _source_encoder(model: ModelConfig, dataset: Dataset) -> SourceEncoder | None:
    """Somebody's pretrained encoder before the bridge, if the recipe names one. Raises RequestError."""
    own = model.feature_encoder
    if own.encoder:
        assert own.weights
        return make_encoder(own.encoder, own.options, Path(own.weights).expanduser(), dataset.dims)
    if not model.source_encoder.name:
        return None
    name = model.source_encoder.name
    folder = find_folder(name)
    told = str(folder.resolve()) if Path(name).expanduser().exists() else name
    encoder = open_encoder(folder, told, dataset.dims, dataset.image)
    first = dataset.features(0)
    if encoder.reads == PIXELS and encoder.processor is not None and 0 < first.max() <= 1 and (first % 1).any():
        problem = f"{dataset.name}: pixels are between 0 and 1; its processor takes 0 to 255, so multiply them by 255"
        raise RequestError(f"model.source_encoder: {problem}")
    return encoder


def feature_statistics(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each dimension, (dims,) float32, over examples spread over the set."""
    chosen = np.linspace(0, len(dataset) - 1, min(len(dataset), STATISTICS_EXAMPLES)).astype(int)
    total, squares, frames = np.zeros(dataset.dims), np.zeros(dataset.dims), 0
    for i in chosen:
        matrix = dataset.features(int(i)).astype(np.float64)
        total += matrix.sum(0)
        squares += (matrix**2).sum(0)
        frames += len(matrix)
    mean = total / frames
    deviation = np.sqrt(np.maximum(squares / frames - mean**2, 0))
    deviation[deviation < CONSTANT] = 1.0
    return mean.astype(np.float32), deviation.astype(np.float32)


def _pretrained(model: ModelConfig, tokenizer: Tokenizer, quantised: Quantised | None) -> Seq2Seq:
    assert model.weights
    network = load_network(find_folder(model.weights), quantised)
    assert isinstance(network, Seq2Seq)
    vocabulary = network.body.config.vocabulary
    if not tokenizer.added.issuperset(range(vocabulary, tokenizer.size)):
        raise RequestError(
            f"data.tokenizer: {tokenizer.size} entries, {model.weights} embeds {vocabulary}; use the model's own"
        )
    if tokenizer.eos_id != network.eos_id:
        raise RequestError(
            f"data.tokenizer: ends a text with id {tokenizer.eos_id}, {model.weights} with {network.eos_id}; "
            "use the model's own"
        )
    embed_new(network, tokenizer.size, tokenizer.fresh)
    return network


def _check_bridge(model: ModelConfig, network: Seq2Seq, dataset: Dataset) -> None:
    """Raises RequestError if pretrained weights have a bridge, and the recipe asks for another one."""
    if not network.dims:
        return
    if network.dims != dataset.dims:
        given, reader = f"has {dataset.dims}" if dataset.dims else "is text", "its bridge" if network.bridge else "it"
        raise RequestError(f"{model.weights}: {reader} reads {network.dims} dims, {dataset.name} {given}")
    if network.route != model.route:
        raise RequestError(
            f"model.route: {model.route}, but {model.weights} was trained with {network.route}; "
            f"set --model.route {network.route}"
        )


@torch.no_grad()
def embed_new(network: Seq2Seq, size: int, fresh: Sequence[int]) -> None:
    """Initialise the rows of `fresh` ids, in embedding and head, by the mean of the rows before them.

    Tables with fewer than `size` rows grow to the next multiple of 8; T5's have spare rows.
    """
    rows = network.body.config.vocabulary
    if size > rows:
        network.body = network.body.enlarge(-(-size // 8) * 8)
        network.vocabulary = network.body.config.vocabulary
        network.spoken = network.vocabulary
    new = sorted({*fresh, *range(rows, network.vocabulary)})
    tables: list[Any] = [info.parameter for info in network.parts() if info.part == "embedding"]  # the head, too
    for table in (*tables, network.body.output_bias) if new else ():
        if table is not None:
            table[new] = table[: new[0]].float().mean(0).to(table.dtype)
