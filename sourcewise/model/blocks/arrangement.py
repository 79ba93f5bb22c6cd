"""The layout in which a stack of blocks computes: padded or packed."""

from __future__ import annotations

from torch import Tensor, nn

from sourcewise.data.layout import Layout


class Arrangement(nn.Module):
    """Keeps the padded layout; native code replaces `forward` to pack it if attention supports packed layouts."""

    def forward(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """x (batch, width, d_model) and its layout → both unchanged, or (rows, d_model) and the packed layout."""
        return x, layout
