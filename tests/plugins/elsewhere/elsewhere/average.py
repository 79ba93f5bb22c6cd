from torch import Tensor, nn

from sourcewise.config import BridgeConfig
from sourcewise.data.layout import Layout
from sourcewise.model.inputs.bridges import Bridge


class Average(Bridge):
    """The mean of every `stride` frames through a linear layer."""

    kind = "average"

    def __init__(self, config: BridgeConfig, dims: int, d_model: int, p: float) -> None:
        super().__init__(config, dims, d_model, p)
        self.linear = nn.Linear(dims, d_model)

    def slots(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """See Bridge."""
        windows, layout, mask = self.windows(x, layout)
        real = mask.sum(2, keepdim=True).clamp(min=1).to(x.dtype)
        return self.linear(windows.sum(2) / real), layout
