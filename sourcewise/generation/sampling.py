"""One token at a time: greedy and sampling, and the rules both and beam search obey."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sourcewise.config import GenerationConfig
from sourcewise.model.protocol import Memory, Network


@dataclass(slots=True)
class Hypothesis:
    """One output: its ids without start and end, its score, and whether the end of text was reached.

    The score is Σ ln p; beam search divides it by length^length_penalty.
    """

    ids: list[int]
    score: float
    finished: bool


def constrain(logits: Tensor, tokens: Tensor, options: GenerationConfig, network: Network) -> Tensor:
    """Bar what may not come next: the end of text too early, an n-gram twice, ids the network never says.

    logits (rows, vocabulary) float32, tokens (rows, generated so far) → logits, changed in place. A row with nothing
    left may only end.
    """
    generated = tokens.shape[1]
    ends = logits[:, network.eos_id].clone()
    if network.barred_ids:
        logits[:, list(network.barred_ids)] = -torch.inf
    if generated < options.min_new_tokens:
        logits[:, network.eos_id] = -torch.inf
    n = options.no_repeat_ngram
    if n and generated + 1 >= n:
        # The start counts, as in transformers.
        history = torch.nn.functional.pad(tokens, (1, 0), value=network.start_id)
        windows = history.unfold(1, n, 1)  # (rows, positions, n)
        last = history[:, history.shape[1] - n + 1 :]
        again = (windows[:, :, : n - 1] == last[:, None]).all(-1)
        rows, places = again.nonzero(as_tuple=True)
        logits[rows, windows[rows, places, n - 1]] = -torch.inf
        stuck = logits.amax(-1) == -torch.inf
        logits[:, network.eos_id] = torch.where(stuck, ends, logits[:, network.eos_id])
    return logits


def filter_logits(logits: Tensor, options: GenerationConfig) -> Tensor:
    """Temperature, top-k (Fan et al. 2018) and top-p (Holtzman et al. 2020) over (rows, vocabulary)."""
    logits = (logits - logits.amax(-1, keepdim=True)) / options.temperature  # ≤ 0: no temperature overflows
    if options.top_k and options.top_k < logits.shape[-1]:
        least = logits.topk(options.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if options.top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        mass = ordered.softmax(-1)
        beyond = mass.cumsum(-1) - mass >= options.top_p  # the first token to cross the mass stays
        logits = logits.masked_fill(beyond.scatter(1, order, beyond), -torch.inf)
    return logits


class Draws:
    """Uniform numbers that belong to an example, so that a sample never depends on its neighbours."""

    def __init__(self, seed: int, indices: list[int]) -> None:
        self.streams = [np.random.default_rng([seed, i]) for i in indices]

    def pick(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Draw a token a row by inverting the cumulative distribution; rows says whose draw it is."""
        uniform = [self.streams[i].random() for i in rows.tolist()]
        precise = torch.float32 if logits.device.type == "mps" else torch.float64  # MPS has no float64
        mass = logits.to(precise).softmax(-1).cumsum(-1)
        wanted = torch.tensor(uniform, dtype=mass.dtype, device=mass.device)[:, None] * mass[:, -1:]
        return torch.searchsorted(mass, wanted, right=True).squeeze(1).clamp(max=logits.shape[-1] - 1)


def steps(
    network: Network, memory: Memory, options: GenerationConfig, indices: list[int]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Generate token by token; finished sources leave the batch.

    Yields (sources still open (open,), their next tokens (open,), ln p of those (open,)).
    `indices` name the sources for `Draws`. An end-of-text token is yielded, then its source is gone.
    """
    device = memory.mask.device
    rows = torch.arange(memory.batch, device=device)
    draws = Draws(options.seed, indices) if options.sample else None
    cache = network.new_cache(memory, 1, options.max_new_tokens)
    tokens = torch.empty(memory.batch, 0, dtype=torch.long, device=device)
    last = torch.full((memory.batch, 1), network.start_id, device=device)
    for _ in range(options.max_new_tokens):
        logits = constrain(network.decode(last, memory, cache)[:, -1].float(), tokens, options, network)
        if draws is None:
            picked = logits.argmax(-1)
        else:
            picked = draws.pick(filter_logits(logits, options), rows)
        log_p = logits.gather(1, picked[:, None]).squeeze(1) - logits.logsumexp(-1)
        yield rows, picked, log_p
        tokens = torch.cat((tokens, picked[:, None]), dim=1)
        keep = (picked != network.eos_id).nonzero().squeeze(1)
        if len(keep) == 0:
            return
        if len(keep) < len(rows):
            memory, rows, tokens = memory.select(keep), rows[keep], tokens[keep]
            cache.select(keep)
        last = tokens[:, -1:]


def greedy_or_sample(
    network: Network, memory: Memory, options: GenerationConfig, indices: list[int]
) -> list[Hypothesis]:
    """One hypothesis a source."""
    out = [Hypothesis([], 0.0, False) for _ in range(memory.batch)]
    for rows, tokens, log_p in steps(network, memory, options, indices):
        for row, token, score in zip(rows.tolist(), tokens.tolist(), log_p.tolist(), strict=True):
            out[row].score += score
            if token == network.eos_id:
                out[row].finished = True
            else:
                out[row].ids.append(token)
    return out
