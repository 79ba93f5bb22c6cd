"""The memory positions of a source, with what each of them holds."""

from __future__ import annotations

from typing import Any, Literal

import torch

from sourcewise.data.encoding import ExampleSet
from sourcewise.generation.trace import Slot


def slots_of(network: Any, encoded: ExampleSet, index: int, count: int | None) -> tuple[list[Slot], int]:
    """The memory positions of a source (`count` of them, if known), and the number of truncated tokens or frames."""
    example = encoded.dataset[index]
    slots: list[Slot] = []
    unread = 0
    if encoded.sources is not None:
        ids = encoded.sources[index]
        kind: Literal["prompt", "token"] = "prompt" if encoded.dataset.dims else "token"
        slots = [Slot(kind, piece) for piece in encoded.tokenizer.pieces([int(i) for i in ids])]
        unread = max(0, len(encoded.tokenizer.encode(example.source)) - len(ids))
    if encoded.dataset.dims:
        frames = int(encoded.source_lengths[index])
        unread = example.frames - frames
        spans = network.spans(torch.from_numpy(encoded.read(index)), count)
        if spans is not None and (network.bridge is None or count in (None, len(slots) + len(spans))):
            slots += [Slot("frames", frames=span) for span in spans]
        elif count is not None:
            slots += [Slot("latent")] * (count - len(slots))
    if count is not None:  # a family may add positions of its own, such as a separator
        slots = slots[:count] + [Slot("other")] * (count - len(slots))
    return slots, unread
