"""Faults in Lightning: a schedule by the epoch, and an encoder that thaws outside the optimizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from others.case import Cases
from others.hosts import Fitted
from others.tasks import PAD, numbers, split
from others.tutorial import (
    AttnDecoderRNN,
    EncoderRNN,
    Lang,
    Seq2SeqTransformer,
    greedy_rnn,
    greedy_transformer,
    padded,
    share_right,
)
from torch import Tensor
from torch.utils.data import DataLoader

CASES = Cases()


class Task:
    """Pairs, languages, and loaders that shuffle by a seed."""

    def __init__(self, seed: int, count: int, low: int = 2, high: int = 5) -> None:
        pairs = numbers(count, seed, low, high)
        self.train, self.valid = split(pairs)
        self.langs = (Lang(pairs, 0), Lang(pairs, 1))
        self.seed = seed

    def collate(self, rows: Any) -> tuple[Tensor, Tensor]:
        """Padded ids of both sides."""
        source, target = self.langs
        return padded([source.ids(a) for a, _ in rows]), padded([target.ids(b, True) for _, b in rows])

    def loaders(self, size: int = 32) -> tuple[Any, Any]:
        """For training and for validation."""
        order = torch.Generator().manual_seed(self.seed)
        train = DataLoader(self.train, size, shuffle=True, generator=order, collate_fn=self.collate)
        return train, DataLoader(self.valid, size, collate_fn=self.collate)

    def sources(self) -> Tensor:
        """Of the validation set."""
        return self.collate(self.valid)[0]


class Module(L.LightningModule):
    """What the modules here share: the loss, and a list it is written down in."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def logits(self, source: Tensor, read: Tensor) -> Tensor:
        """(batch, target, size)."""
        raise NotImplementedError

    def loss(self, batch: Any) -> Tensor:
        """The cross-entropy of a batch."""
        source, target = batch
        said = self.logits(source, target[:, :-1])
        return F.cross_entropy(said.flatten(0, 1), target[:, 1:].flatten(), ignore_index=PAD)

    def training_step(self, batch: Any, index: int) -> Tensor:
        """One batch."""
        loss = self.loss(batch)
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        """One batch of the other loader."""
        self.log("val_loss", self.loss(batch))


def fitter(folder: Path, **more: Any) -> Any:
    """A quiet Trainer on the CPU."""
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return L.Trainer(default_root_dir=folder, accelerator="cpu", logger=False, num_sanity_val_steps=0, **quiet, **more)


class Translator(Module):
    """nn.Transformer; OneCycleLR over all steps."""

    def __init__(self, sizes: tuple[int, int], per_epoch: bool) -> None:
        super().__init__()
        self.per_epoch = per_epoch
        self.model = Seq2SeqTransformer(*sizes)

    def logits(self, source: Tensor, read: Tensor) -> Tensor:
        """(batch, target, size)."""
        return self.model(source, read)

    def configure_optimizers(self) -> Any:
        """Adam, and the schedule."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps, div_factor=100)
        named = {"scheduler": scheduler, "name": "learning_rate"}
        return [optimizer], [named if self.per_epoch else named | {"interval": "step"}]


@CASES.fault(
    "one_cycle_by_the_epoch",
    "lightning",
    origin="Lightning-AI/pytorch-lightning#3869, #5631, pytorch/pytorch#65417: OneCycleLR without interval='step'",
    what="OneCycleLR counts all steps, but Lightning steps it once an epoch: the rate stays at its first hundredth",
    expected="the learning rate hardly leaves its first value: the schedule is stepped by the epoch, not by the step",
    accepts="new:schedule-too-slow",
)
def one_cycle(broken: bool, seed: int, folder: Path) -> Fitted:
    """16 epochs of 31 steps."""
    task = Task(seed, 1096)
    torch.manual_seed(seed)
    module = Translator((len(task.langs[0]), len(task.langs[1])), per_epoch=broken)
    trainer = fitter(folder, max_epochs=16, gradient_clip_val=1.0)

    def figure() -> float:
        said = greedy_transformer(module.model.eval(), task.sources())
        return share_right(said, task.valid, task.langs[1])

    return Fitted(trainer, module, task.loaders(), module.losses, figure)


class Thawing(Module):
    """A GRU with attention; its encoder is frozen for the first epoch, as for one that was pretrained."""

    def __init__(self, sizes: tuple[int, int], filtered: bool) -> None:
        super().__init__()
        self.filtered = filtered
        self.encoder, self.decoder = EncoderRNN(sizes[0]), AttnDecoderRNN(sizes[1])
        self.encoder.requires_grad_(False)

    def logits(self, source: Tensor, read: Tensor) -> Tensor:
        """(batch, target, size)."""
        outputs, state = self.encoder(source)
        return self.decoder(outputs, state, read, source == PAD)

    def on_train_epoch_start(self) -> None:
        """Thaw."""
        if self.current_epoch == 1:
            self.encoder.requires_grad_(True)

    def configure_optimizers(self) -> Any:
        """Adam over what learns."""
        chosen = self.parameters()
        if self.filtered:
            chosen = filter(lambda weight: weight.requires_grad, self.parameters())  # type: ignore[assignment]
        return torch.optim.Adam(chosen, lr=3e-3)


@CASES.fault(
    "thawed_outside_the_optimizer",
    "lightning",
    origin="Lightning's BaseFinetuning ('make sure to filter the parameters'), PR 5744, and forum threads: unfreezing "
    "without add_param_group",
    what="the optimizer is built of what requires a gradient at the start; the encoder thaws later and is not in it",
    expected="the encoder is in no optimizer: thawed, it gets gradients and does not move",
    accepts="new:not-in-optimizer",
)
def thawed(broken: bool, seed: int, folder: Path) -> Fitted:
    """12 epochs of 31 steps."""
    task = Task(seed, 1096)
    torch.manual_seed(seed)
    module = Thawing((len(task.langs[0]), len(task.langs[1])), filtered=broken)
    trainer = fitter(folder, max_epochs=12)

    def figure() -> float:
        said = greedy_rnn(module.encoder, module.decoder, task.sources())
        return share_right(said, task.valid, task.langs[1])

    return Fitted(trainer, module, task.loaders(), module.losses, figure)


class Manual(Thawing):
    """Nothing frozen; two optimizers by hand."""

    def __init__(self, sizes: tuple[int, int]) -> None:
        super().__init__(sizes, filtered=False)
        self.encoder.requires_grad_(True)
        self.automatic_optimization = False

    def training_step(self, batch: Any, index: int) -> None:  # type: ignore[override]
        """Zero, backward, clip and step."""
        loss = self.loss(batch)
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            self.clip_gradients(optimizer, gradient_clip_val=1.0, gradient_clip_algorithm="norm")
            optimizer.step()
        self.losses.append(loss.item())

    def configure_optimizers(self) -> Any:
        """One for each side."""
        encoder, decoder = self.encoder.parameters(), self.decoder.parameters()
        return [torch.optim.Adam(encoder, lr=2e-3), torch.optim.Adam(decoder, lr=4e-3)]


@CASES.control("manual_two_optimizers", "lightning", origin="Lightning's documentation on manual optimization")
def manual(broken: bool, seed: int, folder: Path) -> Fitted:
    """10 epochs of 31 steps, by hand."""
    task = Task(seed, 1096)
    torch.manual_seed(seed)
    module = Manual((len(task.langs[0]), len(task.langs[1])))

    def figure() -> float:
        said = greedy_rnn(module.encoder, module.decoder, task.sources())
        return share_right(said, task.valid, task.langs[1])

    return Fitted(fitter(folder, max_epochs=10), module, task.loaders(), module.losses, figure)
