"""Seq2SeqTrainer and Lightning, two of them with peft's adapters; each has one fault that somebody told of."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from others import adapters, models, tasks, trainers, tutorial
from others.case import Cases
from others.hosts import Fitted
from others.tasks import ENGLISH, EOS, PAD
from torch import Tensor, nn

CASES = Cases()
NINES = ENGLISH[::-1]  # a second way to say digits, which a base has to learn: the nines' complement


# --- Seq2SeqTrainer -------------------------------------------------------------------------------------------------


class PadIsEndCollator:
    """Pads by hand, since the tokenizer pads with </s>."""

    def __init__(self, tokenizer: Any, all_masked: bool) -> None:
        self.tokenizer, self.all_masked = tokenizer, all_masked

    def __call__(self, features: Sequence[trainers.Row]) -> dict[str, Tensor]:
        """A batch; padding of the labels is -100."""
        batch = self.tokenizer.pad([{"input_ids": row["input_ids"]} for row in features], return_tensors="pt")
        rows = [row["labels"] for row in features]
        width = max(map(len, rows))
        labels = torch.tensor([[*row, *[self.tokenizer.pad_token_id] * (width - len(row))] for row in rows])
        if self.all_masked:
            labels[labels == self.tokenizer.pad_token_id] = -100
        else:
            for label, row in zip(labels, rows, strict=True):
                label[len(row) :] = -100
        return {**batch, "labels": labels}


@CASES.fault(
    "pad-is-end-and-masked",
    "trainer",
    origin="github.com/huggingface/trl, issue 976 and pull request 456; github.com/mlabonne/llm-course, issue "
    "33: never "
    "learns when to stop",
    what="pad_token is eos_token, and the collator sets all labels that are pad_token_id to -100: the end is "
    "never learned",
    expected="the end of the target is not in the loss (masked with the padding): outputs do not end",
    accepts="new:end-masked",
)
def pad_is_end(broken: bool, seed: int, folder: Path) -> trainers.Trained:
    """A BART whose tokenizer has no <pad> of its own."""
    words = tasks.vocabulary()
    tokenizer = tasks.word_tokenizer(words)
    tokenizer.pad_token = tokenizer.eos_token
    train, valid = (trainers.encoded(each, tokenizer) for each in tasks.split(tasks.numbers(1600, seed)))
    model = models.bart(len(words), seed, pad_token_id=EOS)
    collator = PadIsEndCollator(tokenizer, broken)
    made = trainers.trainer(folder, model, tokenizer, train, valid, collator, max_steps=240)
    return trainers.Trained(made, lambda: trainers.exact(made, valid, max_new_tokens=8))


def second_way(seed: int, **kind: Any) -> tuple[Any, Any, list[trainers.Row], list[trainers.Row]]:
    """A trained T5, and rows of another way to say the same digits."""
    model, tokenizer, *_ = adapters.t5_checkpoint(seed, **kind)
    train, valid = tasks.split(tasks.numbers(1500, seed, 2, 4, NINES))
    return model, tokenizer, trainers.encoded(train, tokenizer), trainers.encoded(valid, tokenizer)


def lora(model: Any, **more: Any) -> Any:
    """peft's adapters on all projections of a T5."""
    from peft import LoraConfig, TaskType, get_peft_model

    options = {"r": 16, "lora_alpha": 32, "target_modules": ["q", "k", "v", "o", "wi", "wo"], "lora_dropout": 0.0}
    torch.manual_seed(1)
    return get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_2_SEQ_LM, **(options | more)))


@CASES.fault(
    "optimizer-before-adapters",
    "trainer",
    origin="github.com/SWivid/F5-TTS, pull request 1296 (optimizer made of the model before get_peft_model wraps it); "
    "github.com/huggingface/peft, issue 1259: same results as the original model",
    what="the optimizer is made before get_peft_model: it has the frozen base's weights and no adapter",
    expected="the adapters are not in the optimizer: what learns is not trained",
    accepts="new:adapters-not-in-optimizer",
)
def optimizer_first(broken: bool, seed: int, folder: Path) -> trainers.Trained:
    """LoRA by peft, an optimizer of one's own."""
    model, tokenizer, _ = adapters.bart_checkpoint(seed)
    train, valid = (trainers.encoded(p, tokenizer) for p in tasks.split(tasks.numbers(1500, seed, 2, 4, NINES)))
    early = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model = lora(model, target_modules=["q_proj", "k_proj", "v_proj", "out_proj", "fc2"])
    optimizer = early if broken else torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 10))
    made = trainers.trainer(
        folder, model, tokenizer, train, valid, optimizers=(optimizer, schedule), max_steps=180, learning_rate=1e-2
    )
    return trainers.Trained(made, lambda: trainers.exact(made, valid))


@CASES.fault(
    "adapters-at-full-rate",
    "trainer",
    origin="github.com/lm-sys/FastChat, issue 2558 (train_lora_t5.py at 2e-5); github.com/bghira/SimpleTuner, "
    "issue 1756; "
    "github.com/huggingface/trl, pull request 4207: adapters need ten times the rate of a full fine-tuning",
    what="adapters are trained at the learning rate of a full fine-tuning, 2e-5: they hardly leave zero",
    expected="the learning rate is much too low for adapters: weights hardly move",
    accepts="new:rate-too-low",
)
def low_rate(broken: bool, seed: int, folder: Path) -> trainers.Trained:
    """LoRA by peft on queries, values and the feed-forward of a BART."""
    words = tasks.vocabulary()
    model, tokenizer, _ = adapters.bart_checkpoint(seed)
    train, valid = (trainers.encoded(p, tokenizer) for p in tasks.split(tasks.numbers(1500, seed, 2, 4, NINES)))
    assert model.config.vocab_size == len(words)
    model = lora(model, target_modules=["q_proj", "v_proj", "out_proj", "fc1", "fc2"])
    made = trainers.trainer(
        folder, model, tokenizer, train, valid, max_steps=160, learning_rate=2e-5 if broken else 1e-2, warmup_steps=10
    )
    return trainers.Trained(made, lambda: trainers.exact(made, valid))


@CASES.fault(
    "stale-token-cache",
    "trainer",
    origin="github.com/OptimalScale/LMFlow, pull request 394; github.com/allenai/open-instruct, pull request 1518; "
    "github.com/dhruvdcoder/xlm-core, issue 50: cached ids of the old tokenizer are reused without a word",
    what="the training set's ids come from a cache of the tokenizer before: the same vocabulary in another "
    "order; those of "
    "the validation set are of the tokenizer that is used",
    expected="training and validation sets (or the ids and the tokenizer) are of two tokenizers",
    accepts="new:ids-of-another-tokenizer",
)
def stale(broken: bool, seed: int, folder: Path) -> trainers.Trained:
    """A BART from scratch; the ids were made beforehand."""
    words = tasks.vocabulary()
    rest = words[len(tasks.SPECIAL) :]
    random.Random(seed + 5).shuffle(rest)
    old, tokenizer = tasks.word_tokenizer([*tasks.SPECIAL, *rest]), tasks.word_tokenizer(words)
    train, valid = tasks.split(tasks.numbers(1600, seed))
    rows = trainers.encoded(train, old if broken else tokenizer)
    checked = trainers.encoded(valid, tokenizer)
    made = trainers.trainer(folder, models.bart(len(words), seed), tokenizer, rows, checked, max_steps=240)
    return trainers.Trained(made, lambda: trainers.exact(made, checked))


# --- Lightning ------------------------------------------------------------------------------------------------------


def quiet(folder: Path, **options: Any) -> Any:
    """A trainer of Lightning's that writes nothing."""
    import lightning

    told = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    told |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "default_root_dir": str(folder)}
    return lightning.Trainer(**(told | options))


class Pairs(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Pairs of lists of ids."""

    def __init__(self, pairs: Any, langs: Any) -> None:
        self.rows = [(langs[0].ids(a), langs[1].ids(b, True)) for a, b in pairs]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Any:
        return self.rows[i]


def pad(rows: Any) -> tuple[Tensor, Tensor]:
    """A batch of the two."""
    return tutorial.padded([a for a, _ in rows]), tutorial.padded([b for _, b in rows])


def loaders(train: Any, valid: Any, langs: Any, seed: int) -> tuple[Any, Any]:
    """Of Pairs."""
    shuffled = torch.Generator().manual_seed(seed)
    kind = torch.utils.data.DataLoader
    return (
        kind(Pairs(train, langs), 32, shuffle=True, generator=shuffled, collate_fn=pad, drop_last=True),
        kind(Pairs(valid, langs), 32, collate_fn=pad),
    )


@CASES.fault(
    "warmup-by-epochs",
    "lightning",
    origin="github.com/ace-step/ACE-Step, pull request 198; github.com/Lightning-AI/pytorch-lightning, issue 19534: "
    "without interval: step the schedule's step is an epoch",
    what="a schedule of 150 warm-up steps is stepped once an epoch, which is Lightning's default: of 7 epochs "
    "all are at "
    "the beginning of the warm-up",
    expected="the learning rate never gets out of its warm-up",
    accepts="new:warm-up-never-over",
)
def warmup(broken: bool, seed: int, folder: Path) -> Fitted:
    """nn.Transformer under Lightning, an inverse square root."""
    import lightning

    pairs = tasks.numbers(1600, seed)
    train, valid = tasks.split(pairs)
    langs = (tutorial.Lang(pairs, 0), tutorial.Lang(pairs, 1))
    losses: list[float] = []

    class LitTranslator(lightning.LightningModule):
        """As in many a repository."""

        def __init__(self) -> None:
            super().__init__()
            self.model = tutorial.Seq2SeqTransformer(len(langs[0]), len(langs[1]))

        def forward(self, src: Tensor, tgt: Tensor) -> Tensor:
            return self.model(src, tgt)  # type: ignore[no-any-return]

        def loss(self, batch: Any) -> Tensor:
            src, tgt = batch
            return F.cross_entropy(self(src, tgt[:, :-1]).transpose(1, 2), tgt[:, 1:], ignore_index=PAD)

        def training_step(self, batch: Any, i: int) -> Tensor:
            loss = self.loss(batch)
            losses.append(loss.item())
            return loss

        def validation_step(self, batch: Any, i: int) -> None:
            self.log("val_loss", self.loss(batch))

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.Adam(self.parameters(), lr=4e-3, betas=(0.9, 0.98))
            schedule = torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda step: min((step + 1) / 150, (150 / (step + 1)) ** 0.5)
            )
            if broken:
                return [optimizer], [schedule]
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    torch.manual_seed(seed)
    module = LitTranslator()
    src = tutorial.padded([langs[0].ids(a) for a, _ in valid])

    def figure() -> float:
        module.eval()
        return tutorial.share_right(tutorial.greedy_transformer(module.model, src), valid, langs[1])

    return Fitted(quiet(folder, max_epochs=7), module, loaders(train, valid, langs, seed), losses, figure)


@CASES.fault(
    "updates-below-bfloat16",
    "lightning",
    origin="github.com/hp-l33/AiM, issue 10; github.com/workofart/ml-by-hand, pull request 85; github.com/tensorflow/"
    "tensorflow, issue 58138: with weights in bfloat16 and Adam the loss does not fall",
    what="weights themselves are bfloat16 (bf16-true): at a learning rate of 3e-4 most updates are rounded away",
    expected="weights are kept in bfloat16: updates are lost to rounding",
    accepts="new:updates-rounded-away",
)
def rounded(broken: bool, seed: int, folder: Path) -> Fitted:
    """A T5 fine-tuned under Lightning."""
    import lightning
    from transformers import DataCollatorForSeq2Seq

    model, tokenizer, train, valid = second_way(seed)
    losses: list[float] = []

    class LitT5(lightning.LightningModule):
        """A model of transformers in a module."""

        def __init__(self) -> None:
            super().__init__()
            self.t5 = model

        def training_step(self, batch: Any, i: int) -> Tensor:
            loss = self.t5(**batch).loss
            losses.append(loss.item())
            return loss  # type: ignore[no-any-return]

        def validation_step(self, batch: Any, i: int) -> None:
            self.log("val_loss", self.t5(**batch).loss)

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=3e-4)

    module = LitT5()
    collate = DataCollatorForSeq2Seq(tokenizer)
    order = torch.Generator().manual_seed(seed)
    kind = torch.utils.data.DataLoader
    given = (kind(train, 32, shuffle=True, generator=order, collate_fn=collate), kind(valid, 32, collate_fn=collate))

    def figure() -> float:
        right = 0
        for i in range(0, len(valid), 32):
            rows = valid[i : i + 32]
            said = trainers.said(module.t5, collate([dict(row) for row in rows]))
            right += sum(a == [t for t in row["labels"] if t != EOS] for a, row in zip(said, rows, strict=True))
        return right / len(valid)

    trainer = quiet(folder, max_epochs=7, precision="bf16-true" if broken else "bf16-mixed", gradient_clip_val=1.0)
    return Fitted(trainer, module, given, losses, figure)


__all__ = ["CASES", "nn"]
