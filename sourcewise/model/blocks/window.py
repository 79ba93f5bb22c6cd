"""The next tokens of a cache as steps that are all the same work, so that an accelerator records one and repeats it."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.model.attention import MASKED
from sourcewise.model.blocks.cache import SLOTS, KeyValueCache
from sourcewise.model.blocks.sublayers import Extend


class Window:
    """A `KeyValueCache` for a number of further tokens: nothing grows, nothing moves, and the device counts them.

    It writes into the tensors of its cache, which goes on from there after `settle`. Attention covers all slots of the
    window from its first token on; those that are not written yet are masked.
    """

    def __init__(self, cache: KeyValueCache, hypotheses: int, tokens: int) -> None:
        """For the next `tokens` of each of the `hypotheses` of a source."""
        self._cache, self.hypotheses, self.tokens, self.taken = cache, hypotheses, tokens, 0
        end, slots = cache.length + tokens, cache.used + hypotheses * tokens
        cache.reserve(end, slots)
        self.shown = min(-(-slots // SLOTS) * SLOTS, cache.room)
        cache.clear(cache.used, self.shown)
        device = cache.bias.device
        self.length = torch.full((1,), cache.length, device=device)  # place of the next token, counted on the device
        self._slots = cache.used + torch.arange(hypotheses, device=device)  # where the next tokens are written
        self._ancestors: Tensor | None = None
        if hypotheses > 1 or cache.ancestors is not None:
            known = cache.ancestors_of(hypotheses)
            # Tokens to come have a slot behind the last one, whose bias is thrown away.
            self._ancestors = known.new_full((cache.sources, hypotheses, end), self.shown)
            self._ancestors[:, :, : cache.length] = known
            self._rows = cache.bias[:, :, :end].contiguous()
        else:
            free = self.shown - cache.bias.shape[2]
            self._rows = F.pad(cache.bias, (0, free), value=MASKED) if free > 0 else cache.bias[:, :, : self.shown]

    @property
    def full(self) -> bool:
        """Whether it has no place for another token."""
        return self.taken >= self.tokens

    def next_bias(self, hypotheses: int, time: int) -> Tensor:
        """As of `KeyValueCache`, always for one token of each hypothesis."""
        rows = self._rows.index_select(1, self.length)  # (heads, 1, slots or tokens)
        if self._ancestors is None:
            return rows
        sources, _, end = self._ancestors.shape
        self._ancestors.index_copy_(2, self.length, self._slots.view(1, hypotheses, 1).expand(sources, -1, -1))
        shape = (sources, len(rows), hypotheses, time)
        bias = torch.full((*shape, self.shown + 1), MASKED, device=rows.device)
        places = self._ancestors[:, None, :, None].expand(*shape, end)
        bias.scatter_(4, places, rows[None, :, None].expand(*shape, end))
        return bias[..., : self.shown].flatten(2, 3).contiguous()

    def layer(self, place: int) -> Extend:
        """As of `KeyValueCache`."""
        return partial(self._extend, place)

    def _extend(self, place: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self._cache.blocks[place]
        keys.index_copy_(2, self._slots, key.to(keys.dtype))
        values.index_copy_(2, self._slots, value.to(values.dtype))
        return keys[:, :, : self.shown], values[:, :, : self.shown]

    def advance(self, hypotheses: int, time: int) -> None:
        """Count on the device; `taken` is counted by whoever repeats the step."""
        self.length += time
        self._slots += hypotheses * time

    def rewind(self) -> None:
        """Take back one `advance`."""
        self.length -= 1
        self._slots -= self.hypotheses

    def select(self, rows: Tensor) -> None:
        """As of `KeyValueCache`, where all sources stay."""
        if self._ancestors is not None:
            picked = (rows % self.hypotheses)[..., None].expand(-1, -1, self._ancestors.shape[2])
            self._ancestors.copy_(self._ancestors.gather(1, picked))

    def settle(self) -> KeyValueCache:
        """The cache with the tokens that were taken."""
        cache = self._cache
        cache.advance(self.hypotheses, self.taken)
        if self._ancestors is not None:
            cache.ancestors = self._ancestors[:, :, : cache.length].clone()
        return cache
