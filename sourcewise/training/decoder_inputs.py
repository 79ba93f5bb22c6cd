"""What the decoder is fed while it learns: the reference, its own predictions, or a word withheld.

```
reference              start  y1  y2     y3  y4      the labels, a step late
scheduled sampling     start  y1  ŷ2     y3  ŷ4      ŷ2: the network's own choice after start, y1
decoder word dropout   start  y1  <unk>  y3  y4
```

The labels stay the reference's: only what the decoder reads of its own past changes. The start token, a first token
that is forced, and padding stay.
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
    """Probability of feeding the reference at step `step` (from 0) of `total`: Bengio et al. 2015, section 2.4.

    Their ε falls with the step i as k − c·i, k^i or k / (k + exp(i / k)). Here all three are at one half at the step
    `half` = `sampling_half` · total, whatever the length of the training: linear k = 1, c = 1 / (2·half);
    exponential k = 0.5^(1 / half); inverse sigmoid k·ln k = half. None falls below `sampling_floor`.
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
    """Labels (batch, time) → what the decoder is fed (batch, time), drawn from where dropout draws.

    Each word of the reference stays with the probability `reference`, else the network's own prediction takes its
    place; then each word is withheld (`unknown` in its place) with the probability `word_dropout` (Bowman et al. 2016).
    """
    tokens = shift_right(labels, network.start_id, network.pad_id)
    if reference >= 1 and not word_dropout:
        return tokens
    words = labels != IGNORED
    words[:, 1:] &= labels[:, :-1] != IGNORED
    words[:, 0] = False
    if network.habits.forced_first:
        words[:, 1:2] &= ~torch.isin(labels[:, :1], torch.tensor(network.habits.forced_first, device=labels.device))
    if reference < 1:
        own = words & (uniform(labels.shape) >= reference).to(words.device)
        tokens = _with_own(network, memory, tokens, own)
    if word_dropout:
        tokens = tokens.masked_fill(words & (uniform(labels.shape) < word_dropout).to(words.device), unknown)
    return tokens


@torch.no_grad()
def _with_own(network: Seq2Seq, memory: object, tokens: Tensor, own: Tensor) -> Tensor:
    """Decoder inputs (batch, time) with the network's own predictions where `own` is true.

    The parallel form (Mihaylova & Martins 2019; Duckworth et al. 2019): one pass over the reference, with dropout as
    the network learns, predicts all words at once; the likeliest, as greedy search would say. Where that is one that no
    search goes on from (end of text, padding, the start, a barred id) the reference stays.
    """
    places = own.flatten().nonzero().squeeze(1)
    if not len(places):
        return tokens
    states = network.body.run_decoder(tokens, memory).flatten(0, 1)
    said = _top_one(network, states, places - 1)
    habits = network.habits
    never = torch.tensor([*habits.ends, network.pad_id, network.start_id, *habits.barred], device=said.device)
    flat = tokens.flatten()
    return flat.scatter(0, places, torch.where(torch.isin(said, never), flat[places], said)).view_as(tokens)


def _top_one(network: Seq2Seq, states: Tensor, places: Tensor) -> Tensor:
    """The likeliest next token (places,) after these of the states (tokens, width); logits exist a chunk at a time."""
    filled = F.pad(places, (0, -len(places) % ROWS))
    found = [
        top_k(network.logits(states[rows]), 1)[1].squeeze(1) for rows in filled.split(chunk_rows(network.vocabulary))
    ]
    return torch.cat(found)[: len(places)]
