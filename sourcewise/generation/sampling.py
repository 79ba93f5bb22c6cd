"""One token at a time: greedy and sampling, and the rules both and beam search obey."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sourcewise.config import GenerationConfig
from sourcewise.generation.candidates import likeliest, log_normaliser
from sourcewise.generation.flow import Feed, Known, groups
from sourcewise.model.protocol import Network


@dataclass(slots=True)
class Hypothesis:
    """One output: its ids without start and end, its score, and whether the end of text was reached.

    The score is Σ ln p; beam search divides it by length^length_penalty.
    """

    ids: list[int]
    score: float
    finished: bool


def forced_token(generated: int, options: GenerationConfig, network: Network) -> int | None:
    """The token that alone may follow so many generated ones, whatever is barred; None: any may."""
    if generated + 1 == options.max_new_tokens and network.forced_last is not None:
        return network.forced_last
    return network.forced_first if generated == 0 else None


def force(logits: Tensor, token: int) -> Tensor:
    """Give one token all the probability of (rows, vocabulary), in place."""
    logits.fill_(-torch.inf)
    logits[:, token] = 0.0
    return logits


def constrains(options: GenerationConfig, network: Network) -> bool:
    """Whether `constrain` may bar anything."""
    return bool(options.min_new_tokens or options.no_repeat_ngram or network.barred_ids)


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

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.streams: dict[int, np.random.Generator] = {}

    def _uniform(self, index: int) -> float:
        if index not in self.streams:
            self.streams[index] = np.random.default_rng([self.seed, index])
        return self.streams[index].random()

    def pick(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Draw a token a row by inverting the cumulative distribution; rows says whose draw it is."""
        uniform = [self._uniform(i) for i in rows.tolist()]
        precise = torch.float32 if logits.device.type == "mps" else torch.float64  # MPS has no float64
        mass = logits.to(precise).softmax(-1).cumsum(-1)
        wanted = torch.tensor(uniform, dtype=mass.dtype, device=mass.device)[:, None] * mass[:, -1:]
        return torch.searchsorted(mass, wanted, right=True).squeeze(1).clamp(max=logits.shape[-1] - 1)


def steps(network: Network, feed: Feed, options: GenerationConfig) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Generate token by token.

    Yields (positions in the set of the sources still open (open,), their next tokens (open,), ln p of those (open,)).
    An end-of-text token is yielded, then its source is gone.
    """

    def fresh(indices: list[int]) -> Known:
        names = torch.tensor(indices, device=network.device)
        return {
            "names": names,
            "is_open": torch.ones_like(names, dtype=torch.bool),
            "last": torch.full_like(names, network.start_id)[:, None],
            "tokens": names.new_empty(len(names), 0),
        }

    draws = Draws(options.seed) if options.sample else None
    for group in groups(network, feed, 1, options.max_new_tokens, fresh):
        known = group.known
        is_open = known["is_open"]
        logits, forced = group.decode(known["last"]), forced_token(group.step, options, network)
        if forced is None:
            logits = constrain(logits, known["tokens"], options, network)
        else:
            logits = force(logits, forced)
        top, picked = likeliest(logits, 1)
        values = top
        if draws is not None:
            picked[is_open, 0] = draws.pick(filter_logits(logits[is_open].float(), options), known["names"][is_open])
            values = logits.gather(1, picked).float()
        log_p = (values - log_normaliser(logits, top)).squeeze(1)
        group.check_finite(log_p)
        yield known["names"][is_open], picked[is_open, 0], log_p[is_open]
        known["tokens"] = torch.cat((known["tokens"], picked), dim=1)
        known["last"] = picked
        known["is_open"] = is_open & (picked[:, 0] != network.eos_id) & (group.step + 1 < options.max_new_tokens)
        group.go_on(torch.zeros_like(picked))


def greedy_or_sample(network: Network, feed: Feed, options: GenerationConfig) -> dict[int, Hypothesis]:
    """One hypothesis a source, by its position in the set."""
    out: dict[int, Hypothesis] = {}
    for names, tokens, log_p in steps(network, feed, options):
        for name, token, score in zip(names.tolist(), tokens.tolist(), log_p.tolist(), strict=True):
            hypothesis = out.setdefault(name, Hypothesis([], 0.0, False))
            hypothesis.score += score
            if token == network.eos_id:
                hypothesis.finished = True
            else:
                hypothesis.ids.append(token)
    return out
