"""Whether a loop holds its outputs to labels that were flattened in another order than they lie."""

from __future__ import annotations

import torch
from torch import Tensor

from sourcewise.diagnosis.rules.wiring.wir038_flattened_otherwise import FlattenedOtherwise
from sourcewise.integrations.loop.batches import Named
from sourcewise.integrations.loop.explained import views
from sourcewise.integrations.loop.watching import Watching

KINDS = 3  # different labels


def flattened_otherwise(seen: Watching, named: Named) -> str:
    """How, in words; "" where outputs (a, b, vocabulary) are held to the labels of their places, or it does not show.

    A target (b, a) that was viewed as (a, b) is found: the labels are its entries in the order in which they lie in
    memory, and not those of its transpose. Where both axes have one length the two cannot be told apart.
    """
    said = [each for call in seen.saying for each in call.said.values()]
    if len(said) != 1 or said[0].labels.ndim != 2:
        return ""
    labels, counts = said[0].labels.cpu(), said[0].counts.cpu()
    known = labels[counts]
    if labels.shape[0] == labels.shape[1] or len(known) < FlattenedOtherwise.fewest or len(known.unique()) < KINDS:
        return ""
    viewed = ""
    for path, tensor in named.items():
        if tensor.ndim != 2 or tensor.is_floating_point() or tensor.dtype == torch.bool:
            continue
        for words, make in views(tensor):
            made = make(tensor.cpu())
            if made.numel() != labels.numel():
                continue
            if made.shape == labels.shape and _same(made, labels, counts):
                return ""
            if made.shape == labels.shape[::-1] and _same(made.reshape(labels.shape), labels, counts):
                viewed = viewed or f"{path}{words} {tuple(made.shape)}"
    if not viewed:
        return ""
    shape = f"({labels.shape[0]}, {labels.shape[1]}, vocabulary)"
    return (
        f"the outputs are {shape}, and their labels are {viewed}, flattened as it lies: each is held to another place"
    )


def _same(made: Tensor, labels: Tensor, counts: Tensor) -> bool:
    return bool((made[counts] == labels[counts]).all())
