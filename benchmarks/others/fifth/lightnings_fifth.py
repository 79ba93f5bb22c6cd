"""Lightning: two faults, one of them with low-rank adapters of peft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from others import adapters, tasks, trainers
from others.case import Cases
from others.hosts import Fitted
from others.tasks import PAD
from others.tutorial import Lang, Seq2SeqTransformer, greedy_transformer, padded, share_right
from torch import nn
from torch.utils.data import DataLoader

CASES = Cases()


def trainer_of(folder: Path, epochs: int) -> Any:
    """A Lightning trainer that writes nothing."""
    return L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=str(folder), num_sanity_val_steps=0,
    )  # fmt: skip


class Translator(L.LightningModule):
    """nn.Transformer, warmed up by steps."""

    def __init__(self, sizes: tuple[int, int], by_step: bool, warmup: int = 100) -> None:
        super().__init__()
        self.model = Seq2SeqTransformer(*sizes)
        self.criterion = nn.CrossEntropyLoss(ignore_index=PAD)
        self.by_step, self.warmup = by_step, warmup
        self.losses: list[float] = []

    def loss(self, batch: Any) -> Any:
        """Of a batch (source, target)."""
        src, tgt = batch
        return self.criterion(self.model(src, tgt[:, :-1]).flatten(0, 1), tgt[:, 1:].flatten())

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Its loss."""
        loss = self.loss(batch)
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Its loss, logged."""
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        """Adam, with Vaswani's schedule."""
        optimizer = torch.optim.Adam(self.parameters(), 1.2e-3)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda n: min((n + 1) / self.warmup, (self.warmup / (n + 1)) ** 0.5)
        )
        if self.by_step:
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
        return [optimizer], [schedule]


@CASES.fault(
    "warm-up stepped by epoch",
    "lightning",
    origin="ace-step/ACE-Step#198 ('the warmup will take 4000 epochs'), Lightning-AI/pytorch-lightning#328, #18570",
    what="A schedule that counts steps is returned without interval='step': it goes on once an epoch, "
    "the warm-up never ends",
    expected="The learning rate stays near zero: the schedule is stepped by epoch, its warm-up is in steps",
    accepts="new:warmup-by-epoch",
)
def warmup_by_epoch(broken: bool, seed: int, folder: Path) -> Fitted:
    pairs = tasks.numbers(1600, seed)
    train, valid = tasks.split(pairs)
    langs = (Lang(pairs, 0), Lang(pairs, 1))

    def collate(rows: Any) -> Any:
        return padded([langs[0].ids(a) for a, _ in rows]), padded([langs[1].ids(b, start=True) for _, b in rows])

    torch.manual_seed(seed)
    module = Translator((len(langs[0]), len(langs[1])), by_step=not broken)
    order = torch.Generator().manual_seed(seed)
    loaders = (
        DataLoader(train, 32, shuffle=True, collate_fn=collate, generator=order),
        DataLoader(valid, 32, collate_fn=collate),
    )
    sources = padded([langs[0].ids(a) for a, _ in valid])
    return Fitted(
        trainer_of(folder, 8), module, loaders, module.losses,
        lambda: share_right(greedy_transformer(module.model.eval(), sources), valid, langs[1]),
    )  # fmt: skip


class AdaptedT5(L.LightningModule):
    """A pretrained T5 with adapters; its optimizer is made in the constructor."""

    def __init__(self, model: Any, adapters_first: bool) -> None:
        super().__init__()
        from peft import LoraConfig, TaskType, get_peft_model

        config = LoraConfig(
            task_type=TaskType.SEQ_2_SEQ_LM, r=16, lora_alpha=32, target_modules=["q", "k", "v", "o", "wi", "wo"]
        )
        if adapters_first:
            self.model = get_peft_model(model, config)
            self.optimizer = torch.optim.AdamW(self.model.parameters(), 5e-3)
        else:
            self.optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
            self.model = get_peft_model(model, config)
        self.losses: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Its loss."""
        loss = self.model(**batch).loss
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Its loss, logged."""
        self.log("val_loss", self.model(**batch).loss)

    def configure_optimizers(self) -> Any:
        """The one that is there."""
        return self.optimizer


@CASES.fault(
    "optimizer before the adapters",
    "lightning",
    origin="huggingface/peft#793 ('working exactly the same as base model': lora_B stays zero), fkodom/lora-pytorch#1",
    what="The optimizer is made of the base's weights before get_peft_model adds adapters and freezes the base",
    expected="The adapters' weights are not in the optimizer: nothing is trained",
    accepts="new:adapters-not-in-optimizer",
)
def optimizer_first(broken: bool, seed: int, folder: Path) -> Fitted:
    from transformers import DataCollatorForSeq2Seq

    model, tokenizer, *pairs = adapters.t5_checkpoint(seed)
    train, valid = (trainers.encoded(each, tokenizer) for each in pairs)
    torch.manual_seed(seed)
    module = AdaptedT5(model, adapters_first=not broken)
    collate = DataCollatorForSeq2Seq(tokenizer, model=model)
    order = torch.Generator().manual_seed(seed)
    loaders = (
        DataLoader(train, 32, shuffle=True, collate_fn=collate, generator=order),
        DataLoader(valid, 32, collate_fn=collate),
    )

    def figure() -> float:
        right = 0
        for start in range(0, len(valid), 32):
            rows = valid[start : start + 32]
            outputs = trainers.said(module.model, collate([dict(row) for row in rows]))
            wanted = [[token for token in row["labels"] if token > 3] for row in rows]
            right += sum(a == b for a, b in zip(outputs, wanted, strict=True))
        return right / len(valid)

    return Fitted(trainer_of(folder, 4), module, loaders, module.losses, figure)
