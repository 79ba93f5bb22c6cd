"""Groups of sources that are decoded together; stragglers of several batches are joined.

A long output should not keep a batch running for itself. Finished sources are removed in groups. When few sources are
left, they wait until those of other batches have as many tokens, and continue together with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sourcewise.generation import recorded
from sourcewise.model.finite import not_finite
from sourcewise.model.protocol import Memory, Network
from sourcewise.runtime.device import is_host

Feed = Iterable[tuple[list[int], Memory]]  # batches of sources: indices in the set, and memory
Known = dict[str, Tensor]  # state of a search; the first axis of each tensor is the sources

MULTIPLE = 16  # groups keep a multiple of so many sources: moving them costs time, and so do new shapes
STAYING_SHARE = 0.8  # if more than this share would stay, none is removed
STOP = 8  # tokens after which stragglers may stop, and multiples of it
STRAGGLERS = 0.5  # at most this share of a full batch waits for others
PEEK = 16  # tokens between looks at an accelerator, each of which waits for all that it was given to do
ENOUGH = 0.75  # from this share of a full batch on, waiting sources continue


class Group:
    """Sources with equally many tokens so far; `known["is_open"]` marks the unfinished ones.

    Only after every `every` tokens is it asked on the host who is finished; until then they are decoded with the rest.
    """

    def __init__(self, network: Network, memory: Memory, known: Known, beams: int, steps: int, every: int) -> None:
        self.network, self.memory, self.known, self.beams = network, memory, known, beams
        self.cache = network.new_cache(memory, beams, steps)
        self.step, self.steps, self.every = 0, steps, every
        self.last: Tensor | None = None
        self.records = recorded.can_record(network)
        self.recorded: recorded.Recorded | None = None  # the next steps, where they are; it has the cache then
        self.odd: Tensor | None = None  # whether any ln p was NaN since the last look

    def looks(self, step: int) -> bool:
        """Whether the host looks at what there is after so many tokens."""
        return step % self.every == 0 or step >= self.steps

    def __len__(self) -> int:
        return len(self.known["is_open"])

    def decode(self, last: Tensor) -> Tensor:
        """Logits (sources × beams, vocabulary) after the tokens `last` (sources × beams, 1)."""
        self.last = last
        if self.recorded is not None and self.recorded.window.full:
            self.settle()
        if self.records and self.recorded is None:
            left = self.steps - self.step
            self.recorded = recorded.next_steps(self.network, self.memory, self.cache, self.beams, left, last)
        if self.recorded is not None:
            return self.recorded(last)[:, -1]
        return self.network.decode(last, self.memory, self.cache)[:, -1]

    def settle(self) -> None:
        """Let the cache go on from where the recorded steps have come."""
        if self.recorded is not None:
            self.cache, self.recorded = self.recorded.window.settle(), None

    def check_finite(self, log_p: Tensor) -> None:
        """Raises NotFinite if any ln p (any shape) is NaN, since no token is then the likeliest."""
        last, odd = self.last, log_p.isnan().any()
        self.odd = odd if self.odd is None else self.odd | odd
        if last is not None and self.looks(self.step + 1) and bool(self.odd):
            states = getattr(self.memory, "states", None)
            if isinstance(states, Tensor) and not bool(torch.isfinite(states).all()):
                raise not_finite(self.network, "the states of the encoder")
            self.settle()
            again = partial(self.network.decode, last, self.memory, self.cache)
            raise not_finite(self.network, "the logits of the next token", again)

    def go_on(self, chosen: Tensor) -> None:
        """Continue after a token with the hypotheses `chosen` (sources, beams), indices within each source."""
        self.step += 1
        staying = self._who_stays() if self.looks(self.step) else None
        if staying is not None:
            self._keep(staying, chosen)
        elif self.beams > 1:
            every = torch.arange(len(self), device=chosen.device)
            cache = self.cache if self.recorded is None else self.recorded.window
            cache.select(every[:, None] * self.beams + chosen)

    def keep_open(self) -> None:
        """Remove all finished sources."""
        staying = self.known["is_open"].nonzero().squeeze(1)
        self._keep(staying, torch.arange(self.beams, device=staying.device).expand(len(self), -1))

    def join(self, other: Group) -> None:
        """Add the sources of another group with as many tokens."""
        self.settle()
        other.settle()
        self.memory = self.memory.join(other.memory)
        self.cache.join(other.cache)
        self.known = {name: torch.cat((mine, other.known[name])) for name, mine in self.known.items()}

    def _keep(self, staying: Tensor, chosen: Tensor) -> None:
        self.settle()
        self.memory = self.memory.select(staying)
        self.cache.select(staying[:, None] * self.beams + chosen[staying])
        self.known = {name: tensor[staying] for name, tensor in self.known.items()}

    def _who_stays(self) -> Tensor | None:
        """Indices of the open sources, with finished ones up to a multiple; None if too few would leave."""
        is_open = self.known["is_open"]
        staying = -(-int(is_open.sum()) // MULTIPLE) * MULTIPLE
        if staying == 0 or staying > len(self) * STAYING_SHARE:
            return None
        return (~is_open).to(torch.uint8).argsort(stable=True)[:staying].sort().values


def groups(
    network: Network,
    feed: Feed,
    beams: int,
    steps: int,
    fresh: Callable[[list[int]], Known],
    every: int | None = None,
) -> Iterator[Group]:
    """Yields the group that needs its next token, until all are finished; the search updates it and calls `go_on`.

    `fresh` returns the state of the search for sources without a token; `every` as in `Group`: 1 on the host.
    """
    every = every or (1 if is_host(network.device) else PEEK)
    batches = iter(feed)
    waiting: dict[int, Group] = {}  # by number of tokens
    full = 0
    while True:
        ready = [step for step, group in waiting.items() if len(group) >= ENOUGH * full]
        batch: Any = None if ready else next(batches, None)
        if batch is not None:
            indices, memory = batch
            group = Group(network, memory, fresh(indices), beams, steps, every)
            full = max(full, len(group))
        elif waiting:
            group = waiting.pop(min(ready or waiting))
        else:
            return
        while not group.step or not group.looks(group.step) or bool(group.known["is_open"].any()):
            yield group
            if not group.looks(group.step):
                continue
            if network.joins and group.step % STOP == 0 and group.known["is_open"].sum() <= STRAGGLERS * full:
                group.keep_open()
                if group.step in waiting:
                    group.join(waiting.pop(group.step))
                if len(group):
                    waiting[group.step] = group
                break
