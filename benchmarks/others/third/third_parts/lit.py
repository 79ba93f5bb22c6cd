"""Lightning modules as people write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from others.hosts import Fitted
from others.tutorial import Lang, padded, share_right
from torch import Tensor, nn

from third_parts.senses import greedy, masked_loss


class Translator(L.LightningModule):
    """Any network (src, tgt) → logits. `losses` are taken down."""

    def __init__(self, net: nn.Module, configure: Callable[[Any], Any]) -> None:
        super().__init__()
        self.net, self.configure, self.losses = net, configure, []

    def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
        """Logits."""
        return self.net(src, tgt)  # type: ignore[no-any-return]

    def training_step(self, batch: Any, index: int) -> Tensor:
        """The loss."""
        src, tgt = batch
        loss = masked_loss(self(src, tgt[:, :-1]), tgt[:, 1:])
        self.losses.append(float(loss.detach()))
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        """The loss of the validation set."""
        src, tgt = batch
        self.log("val_loss", masked_loss(self(src, tgt[:, :-1]), tgt[:, 1:]))

    def configure_optimizers(self) -> Any:
        """Whatever the case wants."""
        return self.configure(self)


def loaders(train: Sequence[Any], valid: Sequence[Any], langs: tuple[Lang, Lang], size: int = 32) -> tuple[Any, Any]:
    """DataLoaders of both sets; the training set is shuffled."""

    def collate(rows: Any) -> tuple[Tensor, Tensor]:
        return padded([langs[0].ids(a) for a, _ in rows]), padded([langs[1].ids(b, True) for _, b in rows])

    make = torch.utils.data.DataLoader
    return (
        make(train, size, shuffle=True, drop_last=True, collate_fn=collate),
        make(valid, size, collate_fn=collate),
    )


def fitted(folder: Path, module: Translator, sets: Any, langs: tuple[Lang, Lang], epochs: int, **more: Any) -> Fitted:
    """A training of some epochs; the figure is the share of exact outputs on the validation set."""
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=str(folder),
        **more,
    )
    train, valid = sets

    def figure() -> float:
        module.eval()
        source = padded([langs[0].ids(a) for a, _ in valid])
        longest = max(len(b.split()) for _, b in valid) + 2
        return share_right(greedy(lambda read: module.net(source, read), len(valid), longest), valid, langs[1])

    return Fitted(trainer, module, loaders(train, valid, langs), module.losses, figure)
