"""Decoder inputs in training: the reference, with scheduled sampling or word dropout.

```
reference              start  y1  y2     y3  y4      the labels, shifted by one step
scheduled sampling     start  y1  ŷ2     y3  ŷ4      ŷ2: the network's prediction after start, y1
decoder word dropout   start  y1  <unk>  y3  y4
```

Labels are always those of the reference: only the decoder's inputs change, except for the start token, a forced first
token, and padding.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.config import TrainConfig
from sourcewise.data.batches import IGNORED
from sourcewise.generation.candidates import top_k
from sourcewise.model.loss import ROWS, chunk_rows
from sourcewise.model.network import Seq2Seq
from sourcewise.model.protocol import shift_right
from sourcewise.native.training.draws import uniform


def reference_share(step: int, total: int, train: TrainConfig) -> float:
    """Probability of a reference token as input at step `step` (from 0) of `total`: Bengio et al. 2015, section 2.4.

    Their ε falls with the step i as k − c·i, k^i or k / (k + exp(i / k)). Here all three reach one half at the step
    `half` = `sampling_half` · total: linear k = 1, c = 1 / (2·half); exponential k = 0.5^(1 / half); inverse sigmoid
    k·ln k = half. None falls below `sampling_floor`.
    """
    half = train.sampling_half * total
    if train.scheduled_sampling == "none":
        return 1.0
    if train.scheduled_sampling == "linear":
        share = 1 - step / (2 * half)
    elif train.scheduled_sampling == "exponential":
        share = 0.5 ** (step / half)
    else:
        k = _inverse_sigmoid_k(half)
        share = 0.5 - 0.5 * math.tanh((step / k - math.log(k)) / 2)  # the same, without an exp that overflows
    return max(train.sampling_floor, share)


def _inverse_sigmoid_k(half: float) -> float:
    """The k ≥ 1 with k·ln k = half: of ln k = u, Newton on u·exp(u) = half."""
    u = math.log1p(half)
    for _ in range(50):
        u -= (u - half * math.exp(-u)) / (1 + u)
    return math.exp(u)


def decoder_inputs(
    network: Seq2Seq, memory: object, labels: Tensor, reference: float, word_dropout: float, unknown: int
) -> Tensor:
    """Labels (batch, time) → decoder inputs (batch, time), with draws from the random state of dropout.

    Labels are best on the host, where they can be looked at without waiting for the network's device.

    Each reference token is kept with the probability `reference`, else replaced by the network's prediction; then each
    token is replaced by `unknown` with the probability `word_dropout` (Bowman et al. 2016).
    """
    tokens = shift_right(labels, network.start_id, network.pad_id)
    if reference >= 1 and not word_dropout:
        return tokens
    words = labels != IGNORED
    words[:, 1:] &= labels[:, :-1] != IGNORED
    words[:, 0] = False
    if network.defaults.forced_bos:
        words[:, 1:2] &= ~torch.isin(labels[:, :1], torch.tensor(network.defaults.forced_bos, device=labels.device))
    if reference < 1:
        own = words & (uniform(labels.shape) >= reference).to(words.device)
        tokens = tokens.to(network.device, non_blocking=True)
        tokens = _with_own(network, memory, tokens, own)
    if word_dropout:
        left_out = words & (uniform(labels.shape) < word_dropout).to(words.device)
        tokens = tokens.masked_fill(left_out.to(tokens.device, non_blocking=True), unknown)
    return tokens


@torch.no_grad()
def _with_own(network: Seq2Seq, memory: object, tokens: Tensor, own: Tensor) -> Tensor:
    """Decoder inputs (batch, time) with the network's own predictions where `own` is true.

    The parallel form (Mihaylova & Martins 2019; Duckworth et al. 2019): one pass over the reference, with dropout,
    predicts all tokens at once, each the likeliest as in greedy search. Predictions that no search continues from (end
    of text, padding, start, suppressed ids) are not used. The pass is taken even for no prediction: processes that hold
    the weights together have to take as many.
    """
    places = own.flatten().nonzero().squeeze(1)
    states = network.body.run_decoder(tokens, memory).flatten(0, 1)
    if not len(places):
        return tokens
    places = places.to(tokens.device, non_blocking=True)
    said = _top_one(network, states, places - 1)
    defaults = network.defaults
    never = torch.tensor([*defaults.ends, network.pad_id, network.start_id, *defaults.suppressed])
    never = never.to(said.device, non_blocking=True)
    flat = tokens.flatten()
    return flat.scatter(0, places, torch.where(torch.isin(said, never), flat[places], said)).view_as(tokens)


def _top_one(network: Seq2Seq, states: Tensor, places: Tensor) -> Tensor:
    """The likeliest next token (places,) after these of the states (tokens, width), with logits in chunks."""
    filled = F.pad(places, (0, -len(places) % ROWS))
    found = [
        top_k(network.logits(states[rows]), 1)[1].squeeze(1) for rows in filled.split(chunk_rows(network.vocabulary))
    ]
    return torch.cat(found)[: len(places)]
