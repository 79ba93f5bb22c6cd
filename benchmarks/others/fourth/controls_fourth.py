"""Unusual but healthy: eight controls. Each learns."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from others import adapters, hosts, models, tasks, trainers, tutorial
from others.case import Cases
from others.tasks import BOS, EOS, PAD
from torch import Tensor, nn

CASES = Cases()


def texts(seed: int, count: int = 2100, low: int = 2, high: int = 5) -> Any:
    train, valid = tasks.split(tasks.numbers(count, seed, low, high))
    return train, valid, (tutorial.Lang(train, 0), tutorial.Lang(train, 1))


def source_of(pairs: Sequence[tasks.Pair], langs: Any) -> Tensor:
    return tutorial.padded([langs[0].ids(a) for a, _ in pairs])


class Listener(nn.Module):
    """An encoder under an odd name."""

    def __init__(self, rows: nn.Embedding) -> None:
        super().__init__()
        self.table = rows
        self.ear = nn.LSTM(64, 32, bidirectional=True, batch_first=True)

    def forward(self, heard: Tensor) -> Tensor:
        return self.ear(self.table(heard))[0]


class Speaker(nn.Module):
    """A decoder whose output layer is its embedding; attention by one head, asked before the cell."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.tongue = nn.Embedding(size, 64)
        nn.init.normal_(self.tongue.weight, std=0.3)
        self.cell, self.mix = nn.GRU(64, 64, batch_first=True), nn.Linear(128, 64)

    def forward(self, memory: Tensor, pad: Tensor, spoken: Tensor) -> Tensor:
        h, _ = self.cell(self.tongue(spoken), memory.sum(1).tanh().unsqueeze(0))
        look = (h @ memory.transpose(1, 2)).masked_fill(pad.unsqueeze(1), float("-inf")).softmax(-1) @ memory
        return torch.tanh(self.mix(torch.cat((h, look), -1))) @ self.tongue.weight.t()


@CASES.control(
    "two-optimizers-tied-odd-names",
    "loop",
    origin="two optimizers of different kinds with a scheduler each; the output layer is the target embedding",
)
def two_optimizers(broken: bool, seed: int, folder: Any, watch: Any) -> Any:
    train, valid, langs = texts(seed)
    torch.manual_seed(seed)
    a, b = Listener(nn.Embedding(len(langs[0]), 64)), Speaker(len(langs[1]))
    first, second = torch.optim.RMSprop(a.parameters(), 1e-3), torch.optim.AdamW(b.parameters(), 4e-3)
    plans = [
        torch.optim.lr_scheduler.ExponentialLR(first, 0.998),
        torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(second, 100),
    ]
    doctor, losses = watch((a, b), (first, second)), []
    for heard, said in tutorial.forever(train, langs, 300, seed):
        loss = F.cross_entropy(b(a(heard), heard == PAD, said[:, :-1]).transpose(1, 2), said[:, 1:], ignore_index=PAD)
        for optimizer in (first, second):
            optimizer.zero_grad(set_to_none=False)
        loss.backward()
        nn.utils.clip_grad_norm_([*a.parameters(), *b.parameters()], 5.0)
        for optimizer, plan in zip((first, second), plans, strict=True):
            optimizer.step()
            plan.step()
        losses.append(loss.item())
        doctor.step(loss, (heard, said))
    doctor.evaluate(tutorial.batches(valid, langs, 32, 0))
    heard, read = source_of(valid, langs), torch.full((len(valid), 1), BOS)
    with torch.no_grad():
        for _ in range(7):
            read = torch.cat((read, b(a(heard), heard == PAD, read)[:, -1:].argmax(-1)), 1)
    return losses, tutorial.share_right(tutorial.cut(read[:, 1:]), valid, langs[1])


@CASES.control(
    "autocast-accumulation-smoothing",
    "loop",
    origin="bfloat16 by autocast, two batches a step, label smoothing, layer norm first, an average of the weights",
)
def autocast_accumulation(broken: bool, seed: int, folder: Any, watch: Any) -> Any:
    train, valid, langs = texts(seed)
    torch.manual_seed(seed)
    model = tutorial.Seq2SeqTransformer(len(langs[0]), len(langs[1]), norm_first=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.1)
    criterion = nn.CrossEntropyLoss(ignore_index=PAD, label_smoothing=0.1)
    doctor, losses = watch(model, optimizer), []
    shadow = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    for i, batch in enumerate(tutorial.forever(train, langs, 400, seed, size=24)):
        src, tgt = batch
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(src, tgt[:, :-1])
        loss = criterion(logits.float().flatten(0, 1), tgt[:, 1:].flatten())
        (loss / 2).backward()
        if i % 2:
            optimizer.step()
            optimizer.zero_grad()
            for name, weight in model.named_parameters():
                shadow[name].lerp_(weight.detach(), 0.1)
        losses.append(loss.item())
        doctor.step(loss, batch)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(shadow[name])
    doctor.evaluate(tutorial.batches(valid, langs, 24, 0))
    said = tutorial.greedy_transformer(model, source_of(valid, langs))
    return losses, tutorial.share_right(said, valid, langs[1])


@CASES.control(
    "frozen-vectors-short-first",
    "loop",
    origin="word vectors from elsewhere that stay as they are, short sentences first, teacher forcing in nine of ten",
)
def frozen_vectors(broken: bool, seed: int, folder: Any, watch: Any) -> Any:
    train, valid, langs = texts(seed)
    torch.manual_seed(seed)
    encoder, decoder = tutorial.EncoderRNN(len(langs[0])), tutorial.AttnDecoderRNN(len(langs[1]))
    encoder.embedding = nn.Embedding.from_pretrained(torch.randn(len(langs[0]), 64))  # stays frozen
    weights = [p for p in (*encoder.parameters(), *decoder.parameters()) if p.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=4e-3, amsgrad=True)
    criterion, draw = nn.NLLLoss(ignore_index=PAD), random.Random(seed)
    doctor, losses = watch((encoder, decoder), optimizer), []
    for stage, share in enumerate((0.3, 0.6, 1.0)):
        part = sorted(train, key=lambda pair: len(pair[0].split()))[: int(share * len(train))]
        for batch in tutorial.forever(part, langs, (60, 60, 130)[stage], seed + stage):
            source, target = batch
            outputs, state = encoder(source)
            word, said = target[:, :1], []
            for t in range(1, target.shape[1]):
                logits, state = decoder.step(word, state, outputs, source == PAD)
                said.append(F.log_softmax(logits, -1))
                word = target[:, t : t + 1] if draw.random() < 0.9 else logits.argmax(-1).detach()
            loss = criterion(torch.cat(said, 1).flatten(0, 1), target[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            losses.append(loss.item())
            doctor.step(loss, batch)
    doctor.evaluate(tutorial.batches(valid, langs, 32, 0))
    said_ = tutorial.greedy_rnn(encoder, decoder, source_of(valid, langs))
    return losses, tutorial.share_right(said_, valid, langs[1])


@CASES.control(
    "lightning-by-hand",
    "lightning",
    origin="Lightning's manual optimization with two optimizers in turn, batches of one length, a rate of its own",
)
def lightning_by_hand(broken: bool, seed: int, folder: Path) -> Any:
    import lightning.pytorch as pl

    train, valid, langs = texts(seed, 2016)
    losses: list[float] = []

    class ByHand(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False
            self.net = tutorial.Seq2SeqTransformer(len(langs[0]), len(langs[1]))

        def configure_optimizers(self) -> Any:
            names = dict(self.net.named_parameters())
            tables = [weight for name, weight in names.items() if "emb" in name]
            rest = [weight for name, weight in names.items() if "emb" not in name]
            return torch.optim.Adam(tables, lr=5e-3), torch.optim.AdamW(rest, lr=2e-3)

        def _loss(self, batch: Any) -> Tensor:
            src, tgt = batch
            return F.cross_entropy(self.net(src, tgt[:, :-1]).transpose(1, 2), tgt[:, 1:], ignore_index=PAD)

        def training_step(self, batch: Any, index: int) -> None:
            loss = self._loss(batch)
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                for group in optimizer.param_groups:
                    group["lr"] *= 0.998
                optimizer.step()
            losses.append(loss.item())

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val_loss", self._loss(batch))

    torch.manual_seed(seed)
    module = ByHand()

    class Loader:
        """Batches of one length each, in another order every epoch."""

        def __init__(self, pairs: Any, draw: Any) -> None:
            ordered = sorted(pairs, key=lambda pair: len(pair[0].split()))
            self.parts = [ordered[i : i + 32] for i in range(0, len(ordered), 32)]
            self.draw = draw

        def __len__(self) -> int:
            return len(self.parts)

        def __iter__(self) -> Any:
            if self.draw is not None:
                self.draw.shuffle(self.parts)
            for part in self.parts:
                yield source_of(part, langs), tutorial.padded([langs[1].ids(b, True) for _, b in part])

    folder.mkdir(parents=True, exist_ok=True)
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=6,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )

    def figure() -> float:
        said = tutorial.greedy_transformer(module.net, source_of(valid, langs))
        return tutorial.share_right(said, valid, langs[1])

    return hosts.Fitted(trainer, module, (Loader(train, random.Random(seed)), Loader(valid, None)), losses, figure)


@CASES.control(
    "many-sources-one-label",
    "trainer",
    origin="T5 as a classifier: every target is one of three words",
)
def many_sources_one_label(broken: bool, seed: int, folder: Path) -> Any:
    words = tasks.vocabulary("low", "middle", "high")
    tokenizer = tasks.word_tokenizer(words)

    def labelled(source: str) -> tasks.Pair:
        first = tasks.GERMAN.index(source.split()[0])
        return source, "low" if first < 3 else "middle" if first < 6 else "high"

    train, valid = tasks.split([labelled(a) for a, _ in tasks.numbers(900, seed, 2, 3)])
    held = trainers.encoded(valid, tokenizer)
    model = models.t5(len(words), seed)
    made = trainers.trainer(folder, model, tokenizer, trainers.encoded(train, tokenizer), held, max_steps=250)
    return trainers.Trained(made, lambda: trainers.exact(made, held))


@CASES.control(
    "noisy-references-adafactor",
    "trainer",
    origin="a crawled corpus: one reference in seven belongs to another source; Adafactor at a constant rate",
)
def noisy_references(broken: bool, seed: int, folder: Path) -> Any:
    from transformers import Adafactor

    words = tasks.vocabulary()
    tokenizer = tasks.word_tokenizer(words)
    train, valid = tasks.split(tasks.numbers(2100, seed))
    draw = random.Random(seed)
    noisy = [(a, draw.choice(train)[1] if draw.random() < 1 / 7 else b) for a, b in train]
    model = models.bart(len(words), seed)
    optimizer = Adafactor(model.parameters(), lr=4e-3, scale_parameter=False, relative_step=False, warmup_init=False)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 30))
    held = trainers.encoded(valid, tokenizer)
    made = trainers.trainer(
        folder,
        model,
        tokenizer,
        trainers.encoded(noisy, tokenizer),
        held,
        optimizers=(optimizer, scheduler),
        label_smoothing_factor=0.1,
        max_steps=250,
    )
    return trainers.Trained(made, lambda: trainers.exact(made, held))


@CASES.control(
    "rows-many-times-over",
    "recipe",
    origin="an upsampled table: rows stand there one to five times; a constant rate, half precision, a large decay",
)
def rows_many_times_over(broken: bool, seed: int, folder: Path) -> Any:
    train, valid = tasks.split(tasks.numbers(1600, seed))
    draw = random.Random(seed)
    rows = [row for row in train for _ in range(draw.randint(1, 5))]
    draw.shuffle(rows)
    files = []
    folder.mkdir(parents=True, exist_ok=True)
    for name, half in (("train", rows), ("valid", valid)):
        files.append(str(folder / f"{name}.tsv"))
        lines = "".join(f"{a}\t{b}\n" for a, b in [("quelle", "ziel"), *half])
        Path(files[-1]).write_text(lines, encoding="utf-8")
    named = {"source": "quelle", "target": "ziel"}
    recipe = {
        "name": "upsampled",
        "output": str(folder / "runs"),
        "seed": seed,
        "data": {
            "train": {"pairs": files[0], **named},
            "valid": {"pairs": files[1], **named},
            "vocabulary": 80,
            "unit": "words",
            "max_source": 16,
            "max_target": 16,
        },
        "model": {
            "family": "rnn",
            "cell": "lstm",
            "d_model": 64,
            "d_ff": 96,
            "heads": 2,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "tied": False,
        },
        "train": {
            "steps": 350,
            "batch_size": 32,
            "learning_rate": 4.0e-3,
            "schedule": "constant",
            "warmup_steps": 20,
            "weight_decay": 0.05,
            "evaluate_every": 175,
            "evaluate_examples": 96,
            "best": "exact_match_pct",
            "threads": 1,
        },
        "generation": {"beams": 2, "max_new_tokens": 12},
    }

    def figure(run: Any) -> float:
        import sourcewise

        return float(sourcewise.evaluate(run.folder, files[1], **named).metrics["exact_match_pct"]) / 100

    return hosts.Planned(recipe, figure)


@CASES.control(
    "own-start-token-short-penalty",
    "diagnose",
    origin="a checkpoint whose decoder starts with <s>, with a beam, a length penalty and a bad-words list of its own",
)
def own_start_token(broken: bool, seed: int, folder: Path) -> Any:
    from transformers import DataCollatorForSeq2Seq

    words = tasks.vocabulary()
    tokenizer = tasks.word_tokenizer(words)
    train, valid = tasks.split(tasks.numbers(2100, seed))
    rows = trainers.encoded(train, tokenizer)
    model = models.bart(len(words), seed, decoder_start_token_id=BOS)
    model = adapters.trained(f"bart-bos-{seed}", model, rows, DataCollatorForSeq2Seq(tokenizer, model=model), steps=200)
    kept = {"max_new_tokens": 12, "num_beams": 2, "length_penalty": 0.6, "decoder_start_token_id": BOS}
    for name, value in kept.items():
        setattr(model.generation_config, name, value)
    model.generation_config.eos_token_id = EOS
    place, data = folder / "model", folder / "held.tsv"
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    data.write_text("".join(f"{a}\t{b}\n" for a, b in [("source", "target"), *valid]), encoding="utf-8")

    def figure() -> float:
        right, collate = 0, DataCollatorForSeq2Seq(tokenizer)
        for start in range(0, len(valid), 32):
            part = valid[start : start + 32]
            out = model.eval().generate(**collate([dict(tokenizer(a)) for a, _ in part]))
            said = tokenizer.batch_decode(out, skip_special_tokens=True)
            right += sum(a.strip() == b for a, (_, b) in zip(said, part, strict=True))
        return right / len(valid)

    return hosts.Judged(place, data, figure)
