"""Greedy search and sampling, token by token."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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
    """One output: ids without start and end, score, and the end token, if there is one.

    The score is Σ ln p; beam search divides it by length^length_penalty.
    """

    ids: list[int]
    score: float
    end: int | None = None
    stopped: bool = False  # it holds a text that ends an output
    forced: bool = False  # its end token was forced at the maximum length
    given: int = 0  # ids at its beginning that were given, and are not counted in its score
    utility: float | None = None  # of minimum Bayes risk: the mean score against the other candidates

    @property
    def finished(self) -> bool:
        """Whether it ended by an end token or a text that ends outputs, not by its length."""
        return (self.end is not None or self.stopped) and not self.forced

    @property
    def said(self) -> list[int]:
        """The ids with the end token, which may be a word if there are several end tokens."""
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
        beyond = mass.cumsum(-1) - mass >= options.top_p  # the first token beyond the mass stays
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
    """Mask of tokens less likely than this share of the largest probability (min-p, Nguyen et al. 2024)."""
    p = logits.softmax(-1)
    return p < share * p.amax(-1, keepdim=True)


def _untypical(logits: Tensor, mass: float) -> Tensor:
    """Mask of all but the tokens of this mass with information nearest to the entropy (Meister et al. 2022)."""
    log_p = logits.log_softmax(-1)
    entropy = -(log_p.exp() * log_p).nansum(-1, keepdim=True)
    distance, order = (-log_p - entropy).abs().sort(-1)
    before = (log_p.gather(1, order).exp().cumsum(-1) < mass).sum(1, keepdim=True).clamp(max=logits.shape[-1] - 1)
    beyond = distance > distance.gather(1, before)
    beyond[:, 0] = False
    return beyond.scatter(1, order, beyond)


def _below(logits: Tensor, least: float | Tensor) -> Tensor:
    """Mask of tokens less likely than `least`, except the likeliest (epsilon sampling, Hewitt et al. 2022)."""
    return (logits.softmax(-1) < least) & (logits < logits.amax(-1, keepdim=True))


def _below_eta(logits: Tensor, least: float) -> Tensor:
    """The same with a bound that falls with the entropy (eta sampling)."""
    log_p = logits.log_softmax(-1)
    entropy = -(log_p.exp() * log_p).nansum(-1, keepdim=True)
    return _below(logits, (math.sqrt(least) * (-entropy).exp()).clamp(max=least))


class Draws:
    """Uniform random numbers per output, so that a sample does not depend on the rest of the batch.

    With `count` outputs per source, the first is the one that would be drawn alone.
    """

    def __init__(self, seed: int, count: int = 1) -> None:
        self.seed, self.count = seed, count
        self.streams: dict[int, np.random.Generator] = {}

    def pick(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Draw one token per row by inverting the cumulative distribution; `rows` are indices of examples."""
        for index in rows.tolist():
            if index not in self.streams:
                number = [index % self.count] if index % self.count else []
                self.streams[index] = np.random.default_rng([self.seed, index // self.count, *number])
        uniform = [self.streams[index].random() for index in rows.tolist()]
        precise = torch.float32 if logits.device.type == "mps" else torch.float64  # MPS has no float64
        mass = logits.to(precise).softmax(-1).cumsum(-1)
        wanted = torch.tensor(uniform, dtype=mass.dtype, device=mass.device)[:, None] * mass[:, -1:]
        return torch.searchsorted(mass, wanted, right=True).squeeze(1).clamp(max=logits.shape[-1] - 1)


Said = tuple[list[int], list[int], list[float]]  # indices of sources, a next token of each, ln p of these


def steps(
    network: Network,
    feed: Feed,
    options: GenerationConfig,
    read: ReadSource | None = None,
    count: int = 1,
    every: int | None = None,
) -> Iterator[Said]:
    """Generate token by token. `read` knows the examples, for rules that use them; `count` as in `Draws`.

    Yields the unfinished sources with their next tokens. The end of text is yielded, too; then its source is left out.
    On an accelerator `every` tokens (16) are decoded before any is yielded.
    """

    def fresh(indices: list[int]) -> Known:
        names = torch.tensor(indices, device=network.device)
        return {
            "names": names,
            "is_open": torch.ones_like(names, dtype=torch.bool),
            "last": torch.full_like(names, network.start_id)[:, None],
            "tokens": names.new_empty(len(names), 0),
        }

    draws = Draws(options.seed, count) if options.sample else None
    rules, ends = Rules(network, options, read), torch.tensor(network.defaults.ends, device=network.device)
    said: list[tuple[Tensor, ...]] = []  # of the group at hand, since the last look
    for group in groups(network, feed, 1, rules.steps, fresh, every):
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
        said.append((known["names"], picked[:, 0], log_p, is_open))
        known["tokens"] = torch.cat((known["tokens"], picked), dim=1)
        known["last"] = picked
        ended = torch.isin(picked[:, 0], ends) | rules.words.ended(known["tokens"], rules.given)
        known["is_open"] = is_open & ~ended & (group.step + 1 < rules.steps)
        group.go_on(torch.zeros_like(picked))
        if group.looks(group.step):
            yield from _on_the_host(said)
            said.clear()


def _on_the_host(said: list[tuple[Tensor, ...]]) -> Iterator[Said]:
    """(names, tokens, ln p, whether open), each (sources,), of some steps → those of the open ones, step by step."""
    for names, tokens, log_p, is_open in zip(
        *(torch.stack(each).cpu() for each in zip(*said, strict=True)), strict=True
    ):
        yield names[is_open].tolist(), tokens[is_open].tolist(), log_p[is_open].tolist()


def greedy_or_sample(
    network: Network, feed: Feed, options: GenerationConfig, read: ReadSource | None = None, count: int = 1
) -> dict[int, Hypothesis]:
    """Index in the set → one hypothesis; `count` as in `Draws`."""
    out: dict[int, Hypothesis] = {}
    for said in steps(network, feed, options, read, count):
        for name, token, score in zip(*said, strict=True):
            hypothesis = out.setdefault(name, Hypothesis([], 0.0))
            hypothesis.score += score
            if token in network.defaults.ends:
                hypothesis.end = token
            else:
                hypothesis.ids.append(token)
    rules = Rules(network, options, read)
    for hypothesis in out.values() if rules.given or rules.words.stops else ():
        hypothesis.given = rules.given
        hypothesis.stopped = rules.words.ends(hypothesis.ids, rules.given)
    return out


def samples(
    network: Network, feed: Feed, options: GenerationConfig, read: ReadSource | None = None, count: int = 1
) -> dict[int, list[Hypothesis]]:
    """Index in the set → `count` samples, of which the first is the one that would be drawn alone."""

    def spread() -> Iterator[tuple[list[int], Any]]:
        for indices, memory in feed:
            rows = torch.arange(len(indices), device=network.device).repeat_interleave(count)
            yield [index * count + k for index in indices for k in range(count)], memory.select(rows)

    found = greedy_or_sample(network, spread(), options, None if read is None else read.spread(count), count)
    out: dict[int, list[Hypothesis]] = {}
    for name in sorted(found):
        out.setdefault(name // count, []).append(found[name])
    return out
