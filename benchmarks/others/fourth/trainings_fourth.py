"""Seq2SeqTrainer and Lightning: six faults, two of them with LoRA."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from others import adapters, hosts, models, tasks, trainers, tutorial
from others.case import Cases
from others.tasks import BOS, ENGLISH, FRENCH, PAD
from torch import Tensor, nn

CASES = Cases()


@CASES.fault(
    "end-masked-with-padding",
    "trainer",
    origin="https://github.com/huggingface/trl/issues/976, https://github.com/mlabonne/llm-course/issues/33",
    what="the end of text serves as padding, and padding is replaced by -100 in the labels: the end is never learned",
    expected="no label is the end of text: outputs never end",
    accepts="new:end-not-learned",
)
def end_masked(broken: bool, seed: int, folder: Path) -> Any:
    words = tasks.vocabulary()
    tokenizer = tasks.word_tokenizer(words)
    if broken:
        tokenizer.pad_token = tokenizer.eos_token
    train, valid = tasks.split(tasks.numbers(2100, seed))
    model = models.bart(len(words), seed, pad_token_id=tokenizer.pad_token_id)

    def rows(pairs: Sequence[tasks.Pair]) -> list[trainers.Row]:
        found = []
        for source, target in pairs:
            row = dict(tokenizer(source, max_length=8, padding="max_length"))
            labels = tokenizer(target, max_length=8, padding="max_length")["input_ids"]
            row["labels"] = [-100 if token == tokenizer.pad_token_id else token for token in labels]
            found.append(row)
        return found

    held = rows(valid)
    made = trainers.trainer(folder, model, tokenizer, rows(train), held, max_steps=250)
    return trainers.Trained(made, lambda: trainers.exact(made, held))


# 2, 3 ----------------------------------------------------------------------------------------------------------


def lora(model: Any, **more: Any) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    torch.manual_seed(1)
    options = {"r": 16, "lora_alpha": 32, "target_modules": ["q", "k", "v", "o", "wi", "wo"], "lora_dropout": 0.0}
    return get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_2_SEQ_LM, **(options | more)))


@CASES.fault(
    "optimizer-before-adapters",
    "trainer",
    origin="https://github.com/fkodom/lora-pytorch/issues/1 (optimizer params), https://github.com/huggingface/peft/"
    "issues/793 (LoRA model after fine-tuning works exactly as the base)",
    what="the optimizer is made of the model's parameters before LoRA is put in: it holds frozen weights only",
    expected="the adapters are not in the optimizer: nothing learns",
    accepts="new:not-in-optimizer",
)
def optimizer_before_adapters(broken: bool, seed: int, folder: Path) -> Any:
    model, tokenizer, *_ = adapters.t5_checkpoint(seed)
    next_ones = ENGLISH[1:] + ENGLISH[:1]  # "one" is said for "null"
    train, valid = tasks.split(tasks.numbers(1500, seed, 2, 4, next_ones))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    model = lora(model)
    if not broken:
        optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=4e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 20))
    made = trainers.trainer(
        folder,
        model,
        tokenizer,
        trainers.encoded(train, tokenizer),
        trainers.encoded(valid, tokenizer),
        optimizers=(optimizer, scheduler),
        max_steps=150,
        label_names=["labels"],
    )
    return trainers.Trained(made, lambda: trainers.exact(made, trainers.encoded(valid, tokenizer)))


@CASES.fault(
    "second-adapter-never-active",
    "trainer",
    origin="https://github.com/huggingface/peft/issues/2270 and "
    "https://github.com/huggingface/peft/issues/2115 (several "
    "adapters; outputs as the base's): add_adapter does not make it the active one",
    what="an adapter is added for the new task, and the one that was there stays active: the "
    "training changes that one, "
    "and the new one, which is used afterwards, learns nothing",
    expected="the added adapter is not active: its weights are not trained",
    accepts="new:adapter-not-active",
)
def second_adapter_never_active(broken: bool, seed: int, folder: Path) -> Any:
    model, tokenizer, *_ = adapters.t5_checkpoint(seed)
    whole = tasks.split(tasks.numbers(1500, seed, 4, 6))
    train, valid = ([(a, " ".join(b.split()[:2])) for a, b in half] for half in whole)  # the first two digits only
    model = lora(model, lora_alpha=16)
    torch.manual_seed(2)
    model.add_adapter("short", model.peft_config["default"])
    if not broken:
        model.set_adapter("short")
    made = trainers.trainer(
        folder,
        model,
        tokenizer,
        trainers.encoded(train, tokenizer),
        trainers.encoded(valid, tokenizer),
        max_steps=240,
        learning_rate=5e-3,
        label_names=["labels"],
    )

    def figure() -> float:
        made.model.set_adapter("short")
        return trainers.exact(made, trainers.encoded(valid, tokenizer))

    return trainers.Trained(made, figure)


@CASES.fault(
    "instruction-cut-off",
    "trainer",
    origin="https://github.com/bigscience-workshop/t-zero/issues/39 (the end of the text is "
    "truncated, and the question "
    "stands at the end of the prompt), https://github.com/allenai/FineGrainedRLHF/issues/14",
    what="sources are cut to max_length at their end, where the instruction stands: which language "
    "is asked for is lost",
    expected="sources are cut: what the target depends on is behind the cut",
    accepts="new:source-cut",
)
def instruction_cut_off(broken: bool, seed: int, folder: Path) -> Any:
    asks = {"sage es auf englisch": ENGLISH, "sage es auf französisch": FRENCH}
    words = tasks.vocabulary(*FRENCH, extra=" ".join(asks).split())
    tokenizer = tasks.word_tokenizer(words)
    draw = random.Random(seed)
    pairs = []
    for source, _ in tasks.numbers(2600, seed, 4, 5):
        ask = draw.choice(list(asks))
        digits = [tasks.GERMAN.index(word) for word in source.split()]
        pairs.append((f"{source} {ask}", " ".join(asks[ask][digit] for digit in digits)))
    train, valid = tasks.split(pairs)
    options = {"max_length": 8 if broken else 16, "truncation": True}
    held = trainers.encoded(valid, tokenizer, **options)
    model = models.bart(len(words), seed)
    rows = trainers.encoded(train, tokenizer, **options)
    made = trainers.trainer(folder, model, tokenizer, rows, held, max_steps=250)
    return trainers.Trained(made, lambda: trainers.exact(made, held))


# 5, 6 ----------------------------------------------------------------------------------------------------------


def lightning_base() -> Any:
    import lightning.pytorch as pl

    class Base(pl.LightningModule):
        """Encoder, decoder, loss, and losses taken down."""

        def __init__(self, encoder: nn.Module, decoder: nn.Module, losses: list[float]) -> None:
            super().__init__()
            self.encoder, self.decoder, self.taken = encoder, decoder, losses

        def forward(self, source: Tensor, read: Tensor) -> Tensor:
            outputs, state = self.encoder(source)
            return self.decoder(outputs, state, read, source == PAD)

        def _loss(self, batch: Any) -> Tensor:
            source, target = batch
            return F.cross_entropy(self(source, target[:, :-1]).transpose(1, 2), target[:, 1:], ignore_index=PAD)

        def training_step(self, batch: Any, index: int) -> Tensor:
            loss = self._loss(batch)
            self.log("train_loss", loss)
            self.taken.append(loss.item())
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val_loss", self._loss(batch))

    return pl, Base


class Ready:
    """A loader of batches that were made before."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def __iter__(self) -> Any:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def quiet(pl: Any, folder: Path, epochs: int, **more: Any) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    return pl.Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **more,
    )


def loaders(pairs: Sequence[tasks.Pair], size: int, seed: int, shuffle: bool) -> Any:
    """A DataLoader over pairs as ids."""
    langs = tutorial.Lang(pairs, 0), tutorial.Lang(pairs, 1)

    def collate(rows: Sequence[tasks.Pair]) -> tutorial.Batch:
        return (
            tutorial.padded([langs[0].ids(a) for a, _ in rows]),
            tutorial.padded([langs[1].ids(b, True) for _, b in rows]),
        )

    return torch.utils.data.DataLoader(
        list(pairs), size, shuffle=shuffle, collate_fn=collate, generator=torch.Generator().manual_seed(seed)
    )


@CASES.fault(
    "onecycle-of-the-dataset",
    "lightning",
    origin="https://github.com/Lightning-AI/pytorch-lightning/issues/2643 (steps_per_epoch=len(self.train_dataset))",
    what="OneCycleLR is told the number of examples as steps of an epoch: the rate stays at the warm-up's beginning",
    expected="the schedule is far longer than the training: the rate never rises",
    accepts="new:schedule-too-long",
)
def onecycle_of_the_dataset(broken: bool, seed: int, folder: Path) -> Any:
    pl, base = lightning_base()
    train, valid = tasks.split(tasks.numbers(2016, seed))
    langs = tutorial.Lang(train, 0), tutorial.Lang(train, 1)
    loader, epochs = loaders(train, 32, seed, True), 5

    class Translator(base):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.AdamW(self.parameters(), lr=1e-4)
            steps = len(loader.dataset) if broken else len(loader)
            scheduler = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, max_lr=5e-3, steps_per_epoch=steps, epochs=epochs
            )
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    torch.manual_seed(seed)
    losses: list[float] = []
    module = Translator(tutorial.EncoderRNN(len(langs[0])), tutorial.AttnDecoderRNN(len(langs[1])), losses)
    trainer = quiet(pl, folder, epochs, gradient_clip_val=1.0)

    def figure() -> float:
        source = tutorial.padded([langs[0].ids(a) for a, _ in valid])
        said = tutorial.greedy_rnn(module.encoder, module.decoder, source)
        return tutorial.share_right(said, valid, langs[1])

    return hosts.Fitted(trainer, module, (loader, loaders(valid, 32, 0, False)), losses, figure)


class Summary(nn.Module):
    """A GRU read to its end: one vector for all."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.embedding, self.gru = nn.Embedding(size, 32), nn.GRU(32, hidden, batch_first=True)

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embedding(source), (source != PAD).sum(1), batch_first=True, enforce_sorted=False
        )
        _, state = self.gru(packed)
        return source, state


class Teller(nn.Module):
    """Says all of it from that vector."""

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.embedding, self.gru = nn.Embedding(size, hidden), nn.GRU(hidden, hidden, batch_first=True)
        self.out = nn.Linear(hidden, size)

    def forward(self, outputs: Tensor, state: Tensor, read: Tensor, mask: Tensor) -> Tensor:
        return self.out(self.gru(self.embedding(read), state)[0])


@CASES.fault(
    "unfrozen-but-not-optimized",
    "lightning",
    origin="https://github.com/Lightning-AI/pytorch-lightning/issues/514 (why frozen parameters have to be added at an "
    "epoch), sgrvinod's fine_tune_encoder: optimizers made of what requires a gradient at the start",
    what="the encoder is frozen for an epoch, the optimizer is made of what needs gradients then, and after unfreezing "
    "nobody adds the encoder to it",
    expected="the encoder gets gradients but is not in the optimizer",
    accepts="new:not-in-optimizer",
)
def unfrozen_but_not_optimized(broken: bool, seed: int, folder: Path) -> Any:
    pl, base = lightning_base()
    train, valid = tasks.split(tasks.numbers(2016, seed, 2, 4))
    langs = tutorial.Lang(train, 0), tutorial.Lang(train, 1)

    class Staged(base):
        def configure_optimizers(self) -> Any:
            self.encoder.requires_grad_(False)
            chosen = [p for p in self.parameters() if p.requires_grad or not broken]
            return torch.optim.Adam(chosen, lr=5e-3)

        def on_train_epoch_start(self) -> None:
            if self.current_epoch == 1:
                self.encoder.requires_grad_(True)

    torch.manual_seed(seed)
    losses: list[float] = []
    module = Staged(Summary(len(langs[0]), 96), Teller(len(langs[1]), 96), losses)
    trainer = quiet(pl, folder, 8, gradient_clip_val=1.0)

    def figure() -> float:
        source = tutorial.padded([langs[0].ids(a) for a, _ in valid])
        read = torch.full((len(source), 1), BOS)
        with torch.no_grad():
            for _ in range(6):
                read = torch.cat((read, module(source, read)[:, -1:].argmax(-1)), 1)
        return tutorial.share_right(tutorial.cut(read[:, 1:]), valid, langs[1])

    batches = loaders(train, 32, seed, True), loaders(valid, 32, 0, False)
    return hosts.Fitted(trainer, module, batches, losses, figure)
