"""Eight healthy trainings with unusual habits; each learns."""

from __future__ import annotations

import importlib.util
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from others import adapters, models, tasks, trainers
from others.case import Cases
from others.hosts import Fitted, Planned
from others.tasks import FRENCH, PAD
from others.trainers import Trained
from others.tutorial import Lang, Seq2SeqTransformer, batches, forever, greedy_transformer, padded, share_right
from torch import Tensor, nn
from torch.utils.data import DataLoader

CASES = Cases()
Made = tuple[list[float], float]


def beside(name: str) -> Any:
    """A module of this folder."""
    key = f"unseen_{name}_for_controls"
    if key not in sys.modules:
        spec = importlib.util.spec_from_file_location(key, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[key] = module
        spec.loader.exec_module(module)
    return sys.modules[key]


def sides(pairs: list[tasks.Pair]) -> tuple[Lang, Lang]:
    """The words of both sides."""
    return Lang(pairs, 0), Lang(pairs, 1)


def sources(pairs: list[tasks.Pair], langs: tuple[Lang, Lang]) -> Tensor:
    """The sources of all pairs."""
    return padded([langs[0].ids(source) for source, _ in pairs])


@CASES.control(
    "two optimizers, a rate set by hand, tied output", "loop", "the annotated Transformer's NoamOpt; tied embeddings"
)
def noam_by_hand(broken: bool, seed: int, folder: Path, watch: Callable[..., Any]) -> Made:
    pairs = tasks.numbers(1600, seed)
    (train, valid), langs = tasks.split(pairs), sides(pairs)
    torch.manual_seed(seed)
    model = Seq2SeqTransformer(len(langs[0]), len(langs[1]))
    model.generator.weight = model.tgt_tok_emb.weight
    nn.init.normal_(model.tgt_tok_emb.weight, std=0.1)
    reads = [*model.src_tok_emb.parameters(), *model.transformer.encoder.parameters()]
    known = {id(weight) for weight in reads}
    says = [weight for weight in model.parameters() if id(weight) not in known]
    optimizers = (torch.optim.Adam(reads, 0.0, betas=(0.9, 0.98)), torch.optim.AdamW(says, 0.0))
    doctor = watch(model, optimizers)
    losses = []
    for step, (src, tgt) in enumerate(forever(train, langs, 500, seed), 1):
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = 0.25 * 64**-0.5 * min(step**-0.5, step * 60**-1.5)
            optimizer.zero_grad()
        logits = model(src, tgt[:, :-1])
        loss = nn.functional.cross_entropy(logits.transpose(1, 2), tgt[:, 1:], ignore_index=PAD, label_smoothing=0.1)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        doctor.step(loss, (src, tgt))
        losses.append(loss.item())
    doctor.evaluate(batches(valid, langs, 32, seed))
    return losses, share_right(greedy_transformer(model, sources(valid, langs)), valid, langs[1])


@CASES.control(
    "a trained encoder kept frozen under a new decoder",
    "loop",
    "a pretrained encoder is kept, a decoder is trained for another language",
)
def frozen_encoder(broken: bool, seed: int, folder: Path, watch: Callable[..., Any]) -> Made:
    torch.manual_seed(seed)
    english = tasks.numbers(1600, seed + 1)
    old = sides(english)
    first = Seq2SeqTransformer(len(old[0]), len(old[1]))
    optimizer = torch.optim.Adam(first.parameters(), 2e-3)
    for src, tgt in forever(english, old, 250, seed):
        loss = nn.functional.cross_entropy(first(src, tgt[:, :-1]).transpose(1, 2), tgt[:, 1:], ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pairs = tasks.numbers(1600, seed, target=FRENCH)
    (train, valid), langs = tasks.split(pairs), (old[0], Lang(pairs, 1))
    model = Seq2SeqTransformer(len(langs[0]), len(langs[1]))
    model.src_tok_emb.load_state_dict(first.src_tok_emb.state_dict())
    model.transformer.encoder.load_state_dict(first.transformer.encoder.state_dict())
    for part in (model.src_tok_emb, model.transformer.encoder):
        part.requires_grad_(False)
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], 2e-3)
    doctor = watch(model, optimizer)
    losses = []
    for src, tgt in forever(train, langs, 350, seed):
        loss = nn.functional.cross_entropy(model(src, tgt[:, :-1]).transpose(1, 2), tgt[:, 1:], ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        doctor.step(loss, (src, tgt))
        losses.append(loss.item())
    doctor.evaluate(batches(valid, langs, 32, seed))
    return losses, share_right(greedy_transformer(model, sources(valid, langs)), valid, langs[1])


class Hase(nn.Module):
    """Two LSTMs with names of their own; the source is read backwards."""

    def __init__(self, links: int, rechts: int, breite: int = 96) -> None:
        super().__init__()
        self.ohr, self.pfote = nn.Embedding(links, breite), nn.Embedding(rechts, breite)
        self.kopf, self.fuss = nn.LSTM(breite, breite, batch_first=True), nn.LSTM(breite, breite, batch_first=True)
        self.schwanz = nn.Linear(breite, rechts)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Logits (batch, target, size)."""
        _, zustand = self.kopf(self.ohr(a.flip(1)))
        return self.schwanz(self.fuss(self.pfote(b), zustand)[0])  # type: ignore[no-any-return]


@CASES.control(
    "short sentences first, odd names, sources backwards",
    "loop",
    "curriculum by length (Kocmi and Bojar 2017), sources reversed (Sutskever et al. 2014)",
)
def short_first(broken: bool, seed: int, folder: Path, watch: Callable[..., Any]) -> Made:
    pairs = tasks.numbers(1600, seed, 2, 4)
    (train, valid), langs = tasks.split(pairs), sides(pairs)
    torch.manual_seed(seed)
    hase = Hase(len(langs[0]), len(langs[1]))
    optimizer = torch.optim.Adam(hase.parameters(), 4e-3)
    doctor = watch(hase, optimizer)
    losses = []
    for epoch in range(20):
        known = [pair for pair in train if len(pair[0].split()) <= (2, 3, 4)[min(epoch // 2, 2)]]
        for i, (a, b) in enumerate(batches(known, langs, 8, seed + epoch)):
            loss = nn.functional.cross_entropy(hase(a, b[:, :-1]).transpose(1, 2), b[:, 1:], ignore_index=PAD)
            (loss / 4).backward()
            if i % 4 == 3:
                nn.utils.clip_grad_norm_(hase.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
            doctor.step(loss, (a, b))
            losses.append(loss.item())
    doctor.evaluate(batches(valid, langs, 32, seed))
    return losses, share_right(greedy_transformer(hase, sources(valid, langs), 6), valid, langs[1])


@CASES.control(
    "four targets for all sources", "trainer", "classification as text to text (T5), with Adafactor and label smoothing"
)
def four_targets(broken: bool, seed: int, folder: Path) -> Trained:
    words = tasks.vocabulary("even", "odd", "small", "big")
    tokenizer = tasks.word_tokenizer(words)
    pairs = []
    for source, _ in tasks.numbers(1600, seed):
        row = source.split()
        first = tasks.GERMAN.index(row[0])
        pairs.append((source, f"{'odd' if first % 2 else 'even'} {'small' if first < 5 else 'big'}"))
    train, valid = (trainers.encoded(each, tokenizer) for each in tasks.split(pairs))
    made = trainers.trainer(
        folder, models.bart(len(words), seed), tokenizer, train, valid, optim="adafactor", learning_rate=2e-3,
        label_smoothing_factor=0.1, max_steps=300,
    )  # fmt: skip
    return Trained(made, lambda: trainers.exact(made, valid))


@CASES.control(
    "small adapters at a high rate",
    "trainer",
    "LoRA by peft on all linear layers, rank 8, rate 4e-3, two batches a step",
)
def small_adapters(broken: bool, seed: int, folder: Path) -> Trained:
    from peft import LoraConfig, TaskType, get_peft_model

    model, tokenizer, *pairs = adapters.t5_checkpoint(seed)
    torch.manual_seed(seed)
    config = LoraConfig(task_type=TaskType.SEQ_2_SEQ_LM, r=8, lora_alpha=16, target_modules="all-linear", bias="none")
    model = get_peft_model(model, config)
    train, valid = (trainers.encoded(each, tokenizer) for each in pairs)
    made = trainers.trainer(
        folder, model, tokenizer, train, valid, max_steps=260, learning_rate=4e-3, per_device_train_batch_size=16,
        gradient_accumulation_steps=2, lr_scheduler_type="cosine", warmup_steps=20,
    )  # fmt: skip
    return Trained(made, lambda: trainers.exact(made, valid))


class ByHand(L.LightningModule):
    """Manual optimization under bf16: one cycle, stepped by hand."""

    def __init__(self, sizes: tuple[int, int], steps: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net, self.steps = Seq2SeqTransformer(*sizes, activation=nn.functional.silu), steps
        self.losses: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        """Forward, backward, and all the rest."""
        src, tgt = batch
        loss = nn.functional.cross_entropy(self.net(src, tgt[:, :-1]).transpose(1, 2), tgt[:, 1:], ignore_index=PAD)
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(optimizer, gradient_clip_val=1.0, gradient_clip_algorithm="norm")
        optimizer.step()
        schedule.step()
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """The loss, logged."""
        src, tgt = batch
        logits = self.net(src, tgt[:, :-1])
        self.log("val_loss", nn.functional.cross_entropy(logits.transpose(1, 2), tgt[:, 1:], ignore_index=PAD))

    def configure_optimizers(self) -> Any:
        """RAdam and one cycle."""
        optimizer = torch.optim.RAdam(self.net.parameters(), 3e-3)
        return [optimizer], [torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=self.steps)]


@CASES.control(
    "optimized by hand in mixed precision", "lightning", "manual optimization in Lightning, bf16-mixed, OneCycleLR"
)
def by_hand(broken: bool, seed: int, folder: Path) -> Fitted:
    pairs = tasks.numbers(1696, seed)
    (train, valid), langs = tasks.split(pairs), sides(pairs)

    def collate(rows: Any) -> Any:
        return padded([langs[0].ids(a) for a, _ in rows]), padded([langs[1].ids(b, start=True) for _, b in rows])

    torch.manual_seed(seed)
    module = ByHand((len(langs[0]), len(langs[1])), steps=10 * 50)
    trainer = L.Trainer(
        max_epochs=10, accelerator="cpu", precision="bf16-mixed", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=str(folder), num_sanity_val_steps=0,
    )  # fmt: skip
    loaders = (
        DataLoader(train, 32, shuffle=True, collate_fn=collate, generator=torch.Generator().manual_seed(seed)),
        DataLoader(valid, 32, collate_fn=collate),
    )
    read = sources(valid, langs)
    figure = lambda: share_right(greedy_transformer(module.net.eval().float(), read), valid, langs[1])  # noqa: E731
    return Fitted(trainer, module, loaders, module.losses, figure)


@CASES.control("one reference in twelve is wrong", "recipe", "crowd-sourced references: some have a wrong word")
def noisy_references(broken: bool, seed: int, folder: Path) -> Planned:
    recipes = beside("recipes")
    train, valid = tasks.split(tasks.numbers(1600, seed, 2, 4))
    draw, noisy = random.Random(seed), []
    for source, target in train:
        words = target.split()
        if draw.random() < 1 / 12:
            words[draw.randrange(len(words))] = draw.choice(tasks.ENGLISH)
        noisy.append((source, " ".join(words)))
    files = (
        {"pairs": recipes.table(folder / f"{name}.tsv", rows)} for name, rows in (("train", noisy), ("valid", valid))
    )
    return Planned(recipes.recipe(folder, *files, seed), recipes.exact)


@CASES.control(
    "two speakers, slow and fast, loud and soft", "recipe", "speakers of different tempo and loudness in all sets"
)
def two_speakers(broken: bool, seed: int, folder: Path) -> Planned:
    recipes = beside("recipes")
    sets = []
    for name, count in (("train", 1200), ("valid", 96)):
        matrices, texts = recipes.clips(folder, name, count, seed)
        for i in range(1, count, 2):  # the second one is faster, and louder
            kept = np.arange(len(matrices[i])) % 5 != 4
            matrices[i] = (1.5 * matrices[i][kept] + 0.5).astype(np.float32)
        sets.append(recipes.manifest(folder, name, [f"{name}{i:05}" for i in range(count)], matrices, texts))
    train = {"schedule": "constant", "label_smoothing": 0.1}
    return recipes.of_frames(folder, *sets, seed, train=train)
