"""How likely a set's targets are with sources turned from end to beginning, beside their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sourcewise.data.batches import IGNORED, Budget, Source, sorted_batches
from sourcewise.data.encoding import ExampleSet
from sourcewise.diagnosis.likelihood import Likelihood
from sourcewise.diagnosis.measures.changed import begun, changes_of
from sourcewise.model.protocol import Network, token_nats

MOST = 96  # examples
GOOD = 0.5  # nats per token, below which no change of the sources is tried


@torch.inference_mode()
def measure_likelihood(network: Network, encoded: ExampleSet, trained: bool, batch_tokens: int = 8192) -> Likelihood:
    """The nats of up to `MOST` examples, spread over a set; `trained` says whether the network is."""
    chosen = encoded.select(np.linspace(0, len(encoded) - 1, min(MOST, len(encoded))).astype(int).tolist())
    own, turned, tokens = np.zeros(len(chosen)), np.zeros(len(chosen)), np.zeros(len(chosen))
    changed, begins = False, begun(network, chosen)
    for rows in sorted_batches(chosen.source_lengths, chosen.target_lengths, Budget(batch_tokens)):
        batch = chosen.batch(rows)
        labels = batch.labels.to(network.device)
        labels = torch.cat((labels.new_tensor(begins).expand(len(labels), -1), labels), 1)

        def nats(source: Source, labels: Tensor = labels) -> np.ndarray:
            found = token_nats(network, network.encode(source), labels) * (labels != IGNORED)
            return np.asarray(found[:, len(begins) :].double().sum(1).cpu())

        own[rows], tokens[rows] = nats(batch.source), (batch.labels != IGNORED).sum(1)
        other = batch.source.turned()
        turned[rows], changed = own[rows] if other is None else nats(other), changed or other is not None
    found = Likelihood(own, tokens, turned if changed else None, network.vocabulary, trained)
    if not trained or found.loss < GOOD or not math.isfinite(found.loss):
        return found
    return replace(found, changes=list(changes_of(network, chosen, found.each)))


def likelier(nats: Callable[[int], np.ndarray | None]) -> np.ndarray | None:
    """Of the ways to turn sources around, with the last token left in its place or not, the one that is likelier."""
    found = [each for each in (nats(kept) for kept in (1, 0)) if each is not None]
    return min(found, key=lambda each: float(each.sum())) if found else None
