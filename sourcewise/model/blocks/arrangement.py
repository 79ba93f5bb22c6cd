"""How a stack lays out what it reads."""

from __future__ import annotations

from torch import Tensor, nn

from sourcewise.data.layout import Layout


class Arrangement(nn.Module):
    """Leaves the rectangle as it is; where attention can do without padding, what packs it is put here from outside."""

    def forward(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """x (batch, width, d_model) and its layout → the same, or (rows, d_model) and the packed layout."""
        return x, layout
