"""A trainable encoder of the features before the bridge, which keeps the number of frames.

```
features (frames × dims) → feature encoder (frames × width) → bridge → slots
```
It may be taken from another run (`model.feature_encoder.weights`), frozen (`train.freeze: features`), and unfrozen
later (`train.unfreeze.features`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from sourcewise.config import FeatureEncoderConfig
from sourcewise.data.layout import Layout

if TYPE_CHECKING:
    from sourcewise.model.inputs.bridges import Bridge


class FeatureEncoder(nn.Module):
    """Residual convolutions in time whose receptive field doubles with every block (Bai et al. 2018)."""

    def __init__(self, config: FeatureEncoderConfig, dims: int, p: float) -> None:
        super().__init__()
        self.config, self.dims, self.dropout = config, dims, nn.Dropout(p)
        self.enter = nn.Linear(dims, config.width)
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(config.layers))
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.width, config.width, config.kernel, padding="same", dilation=2**layer)
            for layer in range(config.layers)
        )
        self.out = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(config.layers))

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Features (batch, frames, dims) → (batch, frames, width), both zero at padding."""
        real = layout.on(x.device).mask.to(x.dtype)[..., None]
        x = self.enter(x) * real
        for norm, convolution, out in zip(self.norms, self.convolutions, self.out, strict=True):
            seen = convolution((norm(x) * real).transpose(1, 2)).transpose(1, 2)
            x = x + self.dropout(out(F.gelu(seen))) * real
        return x


def attach(bridge: Bridge, config: FeatureEncoderConfig, dims: int, p: float) -> None:
    """Put a fresh encoder of features `dims` wide before a bridge that was made to read its width."""
    bridge.encoder = FeatureEncoder(config, dims, p)
    bridge.dims = dims
    bridge.mean, bridge.deviation = bridge.mean.new_zeros(dims), bridge.deviation.new_ones(dims)
