"""One token at a time: greedy and sampling, and the rules both and beam search obey."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sourcewise.config import GenerationConfig
from sourcewise.generation.candidates import likeliest, log_normaliser
from sourcewise.model.protocol import Memory, Network

LEAVING = 16  # sources stay in multiples of these
STAYING_SHARE = 0.8  # while more than this share would stay, all do


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

    logits (rows, vocabulary), tokens (rows, generated so far) → logits, changed in place. A row with nothing
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
    """Generate token by token; finished sources leave the batch, crowd by crowd.

    Yields (sources still open (open,), their next tokens (open,), ln p of those (open,)).
    `indices` name the sources for `Draws`. An end-of-text token is yielded, then its source is gone.
    """
    device = memory.mask.device
    rows = torch.arange(memory.batch, device=device)
    is_open = torch.ones_like(rows, dtype=torch.bool)
    draws = Draws(options.seed, indices) if options.sample else None
    cache = network.new_cache(memory, 1, options.max_new_tokens)
    tokens = torch.empty(memory.batch, 0, dtype=torch.long, device=device)
    last = torch.full((memory.batch, 1), network.start_id, device=device)
    for _ in range(options.max_new_tokens):
        logits = constrain(network.decode(last, memory, cache)[:, -1], tokens, options, network)
        values, picked = likeliest(logits, 1)
        if draws is not None:
            picked[is_open, 0] = draws.pick(filter_logits(logits[is_open].float(), options), rows[is_open])
            values = logits.gather(1, picked).float()
        log_p = (values - log_normaliser(logits)).squeeze(1)
        yield rows[is_open], picked[is_open, 0], log_p[is_open]
        tokens = torch.cat((tokens, picked), dim=1)
        is_open &= picked[:, 0] != network.eos_id
        if not bool(is_open.any()):
            return
        staying = who_stays(is_open)
        if staying is not None:
            memory, rows, tokens, is_open = memory.select(staying), rows[staying], tokens[staying], is_open[staying]
            cache.select(staying[:, None])
        last = tokens[:, -1:]


def who_stays(is_open: Tensor) -> Tensor | None:
    """Which sources of (sources,) to go on with, or None for all of them.

    Finished ones leave a batch in crowds, and a multiple of LEAVING stays: moving the rest costs, and so do new shapes.
    """
    size, count = len(is_open), int(is_open.sum())
    staying = -(-count // LEAVING) * LEAVING
    if staying > size * STAYING_SHARE:
        return None
    return (~is_open).to(torch.uint8).argsort(stable=True)[:staying].sort().values


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
