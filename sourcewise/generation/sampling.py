"""One token at a time: greedy and sampling."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sourcewise.config import GenerationConfig
from sourcewise.generation.candidates import logsumexp, top_k
from sourcewise.generation.flow import Feed, Known, groups
from sourcewise.generation.rules import ReadSource, Rules
from sourcewise.model.protocol import Network


@dataclass(slots=True)
class Hypothesis:
    """One output: its ids without start and end, its score, and the token that ended it, where one did.

    The score is Σ ln p; beam search divides it by length^length_penalty.
    """

    ids: list[int]
    score: float
    end: int | None = None

    @property
    def finished(self) -> bool:
        """Whether it ended by itself."""
        return self.end is not None

    @property
    def said(self) -> list[int]:
        """Its ids with the end: of several ends one may be a word."""
        return self.ids if self.end is None else [*self.ids, self.end]


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
    for unlikely, setting in (
        (_below_share, options.min_p),
        (_untypical, options.typical_p % 1),
        (_below, options.epsilon_cutoff),
        (_below_eta, options.eta_cutoff),
    ):
        if setting:
            logits = logits.masked_fill(unlikely(logits, setting), -torch.inf)
    return logits


def _below_share(logits: Tensor, share: float) -> Tensor:
    """What is less likely than this share of the likeliest (Nguyen et al. 2024)."""
    p = logits.softmax(-1)
    return p < share * p.amax(-1, keepdim=True)


def _untypical(logits: Tensor, mass: float) -> Tensor:
    """All but the tokens of this mass whose information is nearest to its mean (Meister et al. 2022)."""
    log_p = logits.log_softmax(-1)
    entropy = -(log_p.exp() * log_p).nansum(-1, keepdim=True)
    distance, order = (-log_p - entropy).abs().sort(-1)
    before = (log_p.gather(1, order).exp().cumsum(-1) < mass).sum(1, keepdim=True).clamp(max=logits.shape[-1] - 1)
    beyond = distance > distance.gather(1, before)
    beyond[:, 0] = False
    return beyond.scatter(1, order, beyond)


def _below(logits: Tensor, least: float | Tensor) -> Tensor:
    """What is less likely than this, but the likeliest (Hewitt et al. 2022)."""
    return (logits.softmax(-1) < least) & (logits < logits.amax(-1, keepdim=True))


def _below_eta(logits: Tensor, least: float) -> Tensor:
    """The same, where the bound falls with the entropy."""
    log_p = logits.log_softmax(-1)
    entropy = -(log_p.exp() * log_p).nansum(-1, keepdim=True)
    return _below(logits, (math.sqrt(least) * (-entropy).exp()).clamp(max=least))


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


def steps(
    network: Network, feed: Feed, options: GenerationConfig, read: ReadSource | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Generate token by token. `read` gives the tokens of a source to the rules that ask for them.

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
    rules, ends = Rules(network, options, read), torch.tensor(network.habits.ends, device=network.device)
    for group in groups(network, feed, 1, options.max_new_tokens, fresh):
        known = group.known
        is_open = known["is_open"]
        logits = rules(group.decode(known["last"]), known["tokens"], known["names"])
        top, picked = top_k(logits, 1)
        values = top
        if draws is not None:
            picked[is_open, 0] = draws.pick(filter_logits(logits[is_open].float(), options), known["names"][is_open])
            values = logits.gather(1, picked).float()
        log_p = (values - logsumexp(logits, top)).squeeze(1)
        group.check_finite(log_p)
        yield known["names"][is_open], picked[is_open, 0], log_p[is_open]
        known["tokens"] = torch.cat((known["tokens"], picked), dim=1)
        known["last"] = picked
        ended = torch.isin(picked[:, 0], ends)
        known["is_open"] = is_open & ~ended & (group.step + 1 < options.max_new_tokens)
        group.go_on(torch.zeros_like(picked))


def greedy_or_sample(
    network: Network, feed: Feed, options: GenerationConfig, read: ReadSource | None = None
) -> dict[int, Hypothesis]:
    """One hypothesis a source, by its position in the set."""
    out: dict[int, Hypothesis] = {}
    for names, tokens, log_p in steps(network, feed, options, read):
        for name, token, score in zip(names.tolist(), tokens.tolist(), log_p.tolist(), strict=True):
            hypothesis = out.setdefault(name, Hypothesis([], 0.0))
            hypothesis.score += score
            if token in network.habits.ends:
                hypothesis.end = token
            else:
                hypothesis.ids.append(token)
    return out
