"""Features that pass in somebody else's training, small enough to keep: what the rules over pairs ask of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.diagnosis.measures.forms import Form, form_of

DIMS = 16  # mixtures of dimensions that are kept
MOST = 1024  # dimensions that are mixed
FRAMES = 256  # of a matrix; longer ones are averaged
SEED = 21  # of the mixtures


def projected(features: Tensor) -> Tensor:
    """Features (…, …, dims) as fixed random mixtures of their dimensions (…, …, at most `DIMS`); zeros stay zeros."""
    flat = features.flatten(2).float().cpu()
    flat = flat[..., :: max(1, -(-flat.shape[-1] // MOST))]
    if flat.shape[-1] <= DIMS:
        return flat
    mixtures = torch.randn(flat.shape[-1], DIMS, generator=torch.Generator().manual_seed(SEED))
    return flat @ (mixtures / flat.shape[-1] ** 0.5)


def kept(features: Tensor, mask: Tensor | None, bands: int | None) -> tuple[Tensor, Tensor]:
    """(batch, frames, dims) and a mask (batch, frames), of at most `FRAMES` frames, of what a model of speech is given.

    `bands` is how many dimensions its frames have, where these come first, as in Whisper. Without a mask frames that
    are the same to the end are padding.
    """
    if bands is not None and features.shape[1] == bands != features.shape[2]:
        features = features.transpose(1, 2)
    if mask is None or mask.shape != features.shape[:2]:
        differs = (features != features[:, -1:]).flatten(2).any(-1)
        mask = differs.flip(1).cumsum(1).flip(1) > 0
        mask = mask | ~mask.any(1, keepdim=True)
    small, real = projected(features) * mask[..., None].cpu(), mask.float().cpu()
    step = -(-small.shape[1] // FRAMES)
    if step > 1:
        small = F.avg_pool1d(small.transpose(1, 2), step, ceil_mode=True).transpose(1, 2)
        real = F.max_pool1d(real[:, None], step, ceil_mode=True)[:, 0]
    return small, real.bool()


def forms_of(features: Tensor, mask: Tensor | None, bands: int | None) -> list[Form]:
    """The forms of matrices (batch, frames, dims), as far as the mask (batch, frames) calls their frames real.

    None of what a model of speech is given at a fixed length, and without a mask: its padding is the collator's.
    """
    if bands is not None or mask is None or mask.ndim != 2 or mask.shape[1] != features.shape[1]:
        return []
    held = zip(features.detach().flatten(2).float().cpu(), mask[: len(features)].bool().cpu(), strict=True)
    return [form_of(one[real].numpy()) for one, real in held if real.any()]
