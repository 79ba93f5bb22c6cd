"""Healthy habits that look unusual; each learns."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from others import adapters, models, tasks, trainers, tutorial
from others.case import Cases
from others.hosts import Fitted, Planned
from others.tasks import BOS, ENGLISH, EOS, PAD
from torch import Tensor, nn

CASES = Cases()


class NoamOpt:
    """A schedule of one's own around an optimizer: it sets the rate, and steps."""

    def __init__(self, model_size: int, factor: float, warmup: int, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.warmup, self.factor, self.model_size = optimizer, warmup, factor, model_size
        self._step = 0

    def step(self) -> None:
        """One step."""
        self._step += 1
        rate = self.factor * self.model_size**-0.5 * min(self._step**-0.5, self._step * self.warmup**-1.5)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()


@CASES.control(
    "noam-with-three-tied",
    "loop",
    origin="the Annotated Transformer: NoamOpt around Adam(lr=0), one embedding for source, target and generator",
)
def noam(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """One vocabulary, weights shared in three places, a rate that begins at nought."""
    pairs = tasks.numbers(1600, seed)
    train, valid = tasks.split(pairs)
    both = tutorial.Lang([(f"{a} {b}", "") for a, b in pairs], 0)
    langs = (both, both)
    torch.manual_seed(seed)
    model = tutorial.Seq2SeqTransformer(len(both), len(both))
    model.tgt_tok_emb = model.src_tok_emb
    model.generator.weight = model.src_tok_emb.weight
    nn.init.normal_(model.src_tok_emb.weight, std=0.2)
    opt = NoamOpt(64, 0.4, 80, torch.optim.Adam(model.parameters(), lr=0, betas=(0.9, 0.98), eps=1e-9))
    doctor = watch(model, opt.optimizer)
    losses = []
    for src, trg in tutorial.forever(train, langs, 300, seed):
        logits = model(src, trg[:, :-1])
        loss = F.cross_entropy(logits.transpose(1, 2), trg[:, 1:], ignore_index=PAD, label_smoothing=0.1)
        loss.backward()
        opt.step()
        opt.optimizer.zero_grad(set_to_none=False)
        losses.append(loss.item())
        doctor.step(loss, (src, trg))
    model.eval()
    doctor.evaluate(tutorial.batches(valid, langs, 32, 0))
    src = tutorial.padded([both.ids(a) for a, _ in valid])
    return losses, tutorial.share_right(tutorial.greedy_transformer(model, src), valid, both)


class Lector(nn.Module):
    """Reads; time first."""

    def __init__(self, voc: int, dim: int = 64) -> None:
        super().__init__()
        self.wte = nn.Embedding(voc, dim, padding_idx=PAD)
        self.rnn = nn.GRU(dim, dim // 2, bidirectional=True)
        self.handover = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (time, batch, dim), state (1, batch, dim)."""
        packed = nn.utils.rnn.pack_padded_sequence(self.wte(x), (x != PAD).sum(0), enforce_sorted=False)
        outputs, last = self.rnn(packed)
        outputs, _ = nn.utils.rnn.pad_packed_sequence(outputs)
        return outputs, torch.tanh(self.handover(torch.cat((last[0], last[1]), 1)))[None]


class Orator(nn.Module):
    """Speaks; time first."""

    def __init__(self, voc: int, dim: int = 64) -> None:
        super().__init__()
        self.wte, self.rnn = nn.Embedding(voc, dim), nn.GRU(2 * dim, dim)
        self.mixer, self.lm = nn.MultiheadAttention(dim, 2), nn.Linear(2 * dim, voc)

    def word(self, y: Tensor, h: Tensor, outputs: Tensor, blank: Tensor) -> tuple[Tensor, Tensor]:
        """One word (batch): logits and state."""
        seen, _ = self.mixer(h, outputs, outputs, key_padding_mask=blank)
        out, h = self.rnn(torch.cat((self.wte(y)[None], seen), -1), h)
        return self.lm(torch.cat((out, seen), -1))[0], h

    def forward(self, y: Tensor, h: Tensor, outputs: Tensor, blank: Tensor) -> Tensor:
        """Logits (time, batch, voc)."""
        said = []
        for one in y:
            logits, h = self.word(one, h, outputs, blank)
            said.append(logits)
        return torch.stack(said)


@CASES.control(
    "two-optimizers-odd-names-short-first",
    "loop",
    origin="tutorials with an optimizer each for encoder and decoder, at two rates; a curriculum: short examples first",
)
def two(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """Modules called Lector and Orator, keys called q and a, SGD-like updates of two sizes, short sources first."""
    pairs = tasks.numbers(1600, seed)
    train, valid = tasks.split(pairs)
    langs = (tutorial.Lang(pairs, 0), tutorial.Lang(pairs, 1))
    torch.manual_seed(seed)
    lector, orator = Lector(len(langs[0])), Orator(len(langs[1]))
    opts = (torch.optim.Adam(lector.parameters(), 2e-3), torch.optim.Adam(orator.parameters(), 5e-3))

    def generate(batch: dict[str, Tensor]) -> list[list[int]]:
        with torch.no_grad():
            outputs, h = lector(batch["q"])
            y, said = torch.full((batch["q"].shape[1],), BOS), []
            for _ in range(8):
                logits, h = orator.word(y, h, outputs, (batch["q"] == PAD).t())
                y = logits.argmax(-1)
                said.append(y)
        return tutorial.cut(torch.stack(said, 1))

    doctor = watch((lector, orator), opts, generate=generate)
    short = [pair for pair in train if len(pair[0].split()) <= 3]
    losses = []
    for kept, steps in ((short, 60), (train, 240)):
        for src, trg in tutorial.forever(kept, langs, steps, seed):
            batch = {"q": src.t().contiguous(), "a": trg.t().contiguous()}
            outputs, h = lector(batch["q"])
            logits = orator(batch["a"][:-1], h, outputs, (batch["q"] == PAD).t())
            loss = F.cross_entropy(logits.flatten(0, 1), batch["a"][1:].flatten(), ignore_index=PAD)
            for opt in opts:
                opt.zero_grad()
            loss.backward()
            for opt in opts:
                opt.step()
            losses.append(loss.item())
            doctor.step(loss, batch)
    doctor.evaluate(
        [{"q": a.t().contiguous(), "a": b.t().contiguous()} for a, b in tutorial.batches(valid, langs, 32, 0)]
    )
    src = tutorial.padded([langs[0].ids(a) for a, _ in valid])
    return losses, tutorial.share_right(generate({"q": src.t().contiguous()}), valid, langs[1])


@CASES.control(
    "many-sources-one-answer",
    "trainer",
    origin="intent and classification data as text to text: thousands of sources, a dozen targets",
)
def many(broken: bool, seed: int, folder: Path) -> trainers.Trained:
    """What the first digit is, in a short sentence: ten targets in all."""
    words = tasks.vocabulary("the", "answer", "is")
    tokenizer = tasks.word_tokenizer(words)
    said = {word: number for number, word in enumerate(tasks.GERMAN)}
    pairs = []
    for source, _ in tasks.numbers(2600, seed, 3, 5):
        digits = [said[word] for word in source.split()]
        pairs.append((source, f"the answer is {ENGLISH[digits[0]]}"))
    train, valid = (trainers.encoded(each, tokenizer) for each in tasks.split(pairs))
    made = trainers.trainer(folder, models.bart(len(words), seed), tokenizer, train, valid, max_steps=240)
    return trainers.Trained(made, lambda: trainers.exact(made, valid))


@CASES.control(
    "adapters-and-a-whole-head",
    "trainer",
    origin="peft: LoRA on queries and values with modules_to_save, a high rate, a constant schedule, no decay",
)
def head(broken: bool, seed: int, folder: Path) -> trainers.Trained:
    """Most weights frozen, adapters of rank 16, layer norms trained whole."""
    from peft import LoraConfig, TaskType, get_peft_model

    model, tokenizer, _ = adapters.bart_checkpoint(seed)
    train, valid = (trainers.encoded(p, tokenizer) for p in tasks.split(tasks.numbers(1500, seed, 2, 4, ENGLISH[::-1])))
    torch.manual_seed(1)
    told = {"target_modules": ["q_proj", "v_proj", "fc1", "fc2"], "modules_to_save": ["final_layer_norm"]}
    model = get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_2_SEQ_LM, r=16, lora_alpha=32, **told))
    made = trainers.trainer(
        folder, model, tokenizer, train, valid, max_steps=180, learning_rate=1e-2, lr_scheduler_type="constant"
    )
    return trainers.Trained(made, lambda: trainers.exact(made, valid))


class Frozen(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Rows of dictionaries."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Any:
        return self.rows[i]


@CASES.control(
    "frozen-encoder-accumulated",
    "lightning",
    origin="a pretrained encoder that is frozen on purpose, bf16-mixed, four batches to a step, Lightning's clipping",
)
def frozen(broken: bool, seed: int, folder: Path) -> Fitted:
    """Only the decoder of a trained BART learns a second way to say digits."""
    import lightning
    from transformers import DataCollatorForSeq2Seq

    model, tokenizer, _ = adapters.bart_checkpoint(seed)
    train, valid = (trainers.encoded(p, tokenizer) for p in tasks.split(tasks.numbers(1500, seed, 2, 4, ENGLISH[::-1])))
    for weight in model.model.encoder.layers.parameters():
        weight.requires_grad_(False)
    losses: list[float] = []

    class LitBart(lightning.LightningModule):
        """A decoder under training."""

        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def training_step(self, batch: Any, i: int) -> Tensor:
            loss = self.net(**batch).loss
            losses.append(loss.item())
            return loss  # type: ignore[no-any-return]

        def validation_step(self, batch: Any, i: int) -> None:
            self.log("val/loss", self.net(**batch).loss, prog_bar=True)

        def configure_optimizers(self) -> Any:
            weights = [weight for weight in self.parameters() if weight.requires_grad]
            optimizer = torch.optim.AdamW(weights, lr=4e-3, weight_decay=0.0)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=140)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    module, collate = LitBart(), DataCollatorForSeq2Seq(tokenizer)
    kind = torch.utils.data.DataLoader
    order = torch.Generator().manual_seed(seed)
    given = (
        kind(Frozen(train), 8, shuffle=True, generator=order, collate_fn=collate),
        kind(Frozen(valid), 32, collate_fn=collate),
    )

    def figure() -> float:
        right = 0
        for i in range(0, len(valid), 32):
            rows = valid[i : i + 32]
            said = trainers.said(module.net, collate([dict(row) for row in rows]))
            right += sum(a == [t for t in row["labels"] if t != EOS] for a, row in zip(said, rows, strict=True))
        return right / len(valid)

    told = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    told |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "default_root_dir": str(folder)}
    trainer = lightning.Trainer(
        **told, max_epochs=3, precision="bf16-mixed", accumulate_grad_batches=4, gradient_clip_val=0.5
    )
    return Fitted(trainer, module, given, losses, figure)


@CASES.control(
    "references-with-slips",
    "recipe",
    origin="crowd-sourced transcripts: in every tenth reference a word is wrong",
)
def slips(broken: bool, seed: int, folder: Path) -> Planned:
    """Features to text from scratch; a random digit in 10 % of the training texts, and of the validation texts."""
    spoken = np.random.default_rng(31).normal(size=(10, 6, 12))
    sets = {}
    for split, count in (("train", 900), ("valid", 96)):
        draw, noise = random.Random(f"{split}{seed}"), np.random.default_rng([33, seed, count])
        place = folder / "features" / split
        place.mkdir(parents=True, exist_ok=True)
        lines = ["id\ttext"]
        for i in range(count):
            digits = [draw.randrange(10) for _ in range(draw.randint(3, 5))]
            frames = np.concatenate([spoken[d] for d in digits]) + 0.2 * noise.normal(size=(6 * len(digits), 12))
            np.save(place / f"{i:04}.npy", frames.astype(np.float32))
            if draw.random() < 0.1:
                digits[draw.randrange(len(digits))] = draw.randrange(10)
            lines.append(f"{i:04}\t{' '.join(ENGLISH[d] for d in digits)}")
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
        sets[split] = {"manifest": str(folder / f"{split}.tsv"), "features": str(place)}
    recipe = {
        "name": "run",
        "output": str(folder / "runs"),
        "seed": seed,
        "data": {**sets, "vocabulary": 64, "max_target": 16},
        "model": {"d_model": 64, "d_ff": 128, "heads": 4, "encoder_layers": 2, "decoder_layers": 1, "dropout": 0.1},
        "train": {"steps": 400, "batch_tokens": 1024, "learning_rate": 3e-3, "warmup_steps": 60, "threads": 1},
        "generation": {"beams": 1, "max_new_tokens": 16},
    }
    recipe["model"]["bridge"] = {"kind": "convolution", "stride": 3}
    recipe["train"] |= {"evaluate_every": 200, "evaluate_examples": 64, "best": "wer", "precision": "fp32"}
    return Planned(recipe, lambda run: json.loads((run.folder / "metrics.json").read_text())["exact_match_pct"] / 100)


class Hybrid(nn.Module):
    """A BLSTM that halves its frames, CTC on it, and an attention decoder."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.down, self.blstm = nn.Linear(32, width), nn.LSTM(width, width // 2, bidirectional=True, batch_first=True)
        self.ctc_lo, self.embed = nn.Linear(width, 14), nn.Embedding(14, width)
        self.cell, self.out = nn.GRUCell(2 * width, width), nn.Linear(2 * width, 14)
        self.query = nn.Linear(width, width)

    def listen(self, xs: Tensor) -> Tensor:
        """(batch, frames / 2, width); 16 bands a frame."""
        return self.blstm(torch.relu(self.down(xs.reshape(len(xs), -1, 32))))[0]  # type: ignore[no-any-return]

    def forward(self, xs: Tensor, ilens: Tensor, ys: Tensor, steps: int = 0) -> tuple[Tensor, Tensor]:
        """CTC's log-probabilities (frames, batch, 14), and logits (batch, tokens, 14)."""
        hs = self.listen(xs)
        blank = torch.arange(hs.shape[1])[None] >= (ilens // 2)[:, None]
        z, y, said = hs.new_zeros(len(xs), hs.shape[2]), ys[:, 0], []
        for t in range(steps or ys.shape[1]):
            y = y if steps else ys[:, t]
            scores = (hs @ self.query(z)[:, :, None])[:, :, 0] / 8
            context = (scores.masked_fill(blank, -1e4).softmax(1)[:, None] @ hs)[:, 0]
            z = self.cell(torch.cat((self.embed(y), context), 1), z)
            said.append(self.out(torch.cat((z, context), 1)))
            y = said[-1].argmax(1)
        return F.log_softmax(self.ctc_lo(hs), -1).transpose(0, 1), torch.stack(said, 1)


@CASES.control(
    "few-recordings-two-losses",
    "loop",
    origin="hybrid CTC and attention (ESPnet's mtlalpha 0.3) on a few hundred recordings, many epochs, noise, Adadelta",
)
def hybrid(broken: bool, seed: int, folder: Any, watch: Any) -> tuple[list[float], float]:
    """A sum of two losses; keys as in ESPnet; 300 recordings, seen thirty times."""
    spoken = np.random.default_rng(41).normal(size=(10, 8, 16))

    def recordings(count: int, seed: int) -> list[tuple[Tensor, list[int]]]:
        draw, noise = random.Random(seed), np.random.default_rng([43, seed])
        found = []
        for _ in range(count):
            digits = [draw.randrange(10) for _ in range(draw.randint(2, 4))]
            xs = np.concatenate([spoken[d] for d in digits]) + 0.3 * noise.normal(size=(8 * len(digits), 16))
            found.append((torch.tensor(xs, dtype=torch.float32), [4 + d for d in digits]))
        return found

    def batch(rows: Any) -> dict[str, Tensor]:
        return {
            "xs": nn.utils.rnn.pad_sequence([xs for xs, _ in rows], batch_first=True),
            "ilens": torch.tensor([len(xs) for xs, _ in rows]),
            "ys": tutorial.padded([[BOS, *ids, EOS] for _, ids in rows]),
        }

    train, valid = recordings(300, seed), recordings(96, seed + 1000)
    torch.manual_seed(seed)
    model = Hybrid()
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0, rho=0.95, eps=1e-6)
    doctor = watch(model, optimizer)
    draw, losses = random.Random(seed), []
    for _ in range(360):
        given = batch([(xs + 0.2 * torch.randn_like(xs), ids) for xs, ids in draw.sample(train, 25)])
        logp, logits = model(given["xs"], given["ilens"], given["ys"][:, :-1])
        gold = given["ys"][:, 1:]
        olens = ((gold != PAD) & (gold != EOS)).sum(1)
        ctc = F.ctc_loss(logp, gold, given["ilens"] // 2, olens, blank=0, zero_infinity=True)
        loss = 0.3 * ctc + 0.7 * F.cross_entropy(logits.transpose(1, 2), gold, ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        losses.append(loss.item())
        doctor.step(loss, given)
    model.eval()
    doctor.evaluate([batch(valid[i : i + 32]) for i in range(0, 96, 32)])
    given = batch(valid)
    with torch.no_grad():
        said = tutorial.cut(model(given["xs"], given["ilens"], given["ys"], steps=6)[1].argmax(-1))
    return losses, sum(a == b for a, (_, b) in zip(said, valid, strict=True)) / len(valid)
