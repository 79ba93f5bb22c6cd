"""Seq2SeqTrainer: four faults, one of them with low-rank adapters of peft."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from others import adapters, models, speech, tasks, trainers
from others.case import Cases
from others.tasks import EOS, PAD
from others.trainers import Row, Trained
from torch import nn

CASES = Cases()


def text(seed: int, count: int = 1600) -> tuple[Any, int, list[Row], list[Row]]:
    """A tokenizer, the size of its vocabulary, and rows to train and to validate on."""
    words = tasks.vocabulary()
    tokenizer = tasks.word_tokenizer(words)
    train, valid = (trainers.encoded(pairs, tokenizer) for pairs in tasks.split(tasks.numbers(count, seed)))
    return tokenizer, len(words), train, valid


# --- the features of a model with **kwargs are removed as unused columns


class PromptedSigns(nn.Module):
    """A T5 that reads a prompt and, behind it, projected features; rows without features are texts alone."""

    def __init__(self, size: int, seed: int) -> None:
        super().__init__()
        self.t5 = models.t5(size, seed)
        self.config, self.generation_config = self.t5.config, self.t5.generation_config
        torch.manual_seed(seed)
        self.project = nn.Linear(speech.BANDS, self.config.d_model)

    def read(self, input_ids: Any, attention_mask: Any, features: Any) -> tuple[Any, Any]:
        """The encoder's outputs, and which of them count."""
        embeds = self.t5.get_input_embeddings()(input_ids)
        if features is not None:
            embeds = torch.cat((embeds, self.project(features)), 1)
            attention_mask = torch.cat((attention_mask, attention_mask.new_ones(features.shape[:2])), 1)
        return self.t5.encoder(inputs_embeds=embeds, attention_mask=attention_mask), attention_mask

    def forward(self, input_ids: Any = None, attention_mask: Any = None, labels: Any = None, **kwargs: Any) -> Any:
        """The T5's own output, with its loss."""
        encoded, mask = self.read(input_ids, attention_mask, kwargs.get("features"))
        return self.t5(encoder_outputs=encoded, attention_mask=mask, labels=labels)

    def generate(self, input_ids: Any = None, attention_mask: Any = None, features: Any = None, **options: Any) -> Any:
        """As the T5 generates."""
        encoded, mask = self.read(input_ids, attention_mask, features)
        return self.t5.generate(encoder_outputs=encoded, attention_mask=mask, **options)


@CASES.fault(
    "features removed as unused",
    "trainer",
    origin="huggingface/transformers#17166, #19599, #25054: the Trainer removes columns that forward() does not name",
    what="remove_unused_columns=True drops the column `features`, which forward takes by **kwargs: "
    "prompts alone are left",
    expected="The features never reach the model: the Trainer removed their column, forward does not name it",
    accepts="new:columns-removed",
)
def features_removed(broken: bool, seed: int, folder: Path) -> Trained:
    from transformers import default_data_collator

    words = tasks.vocabulary("translate", "the", "clip")
    tokenizer = tasks.word_tokenizer(words)
    prompt = tokenizer("translate the clip")
    rows: list[Row] = []
    for row in speech.recordings(1296, seed, tokenizer, 1, 3):
        labels = row["labels"] + [-100] * (5 - len(row["labels"]))
        rows.append({**prompt, "features": row["input_features"].T[0:30:3].copy(), "labels": labels})
    train, valid = rows[:-96], rows[-96:]
    made = trainers.trainer(
        folder, PromptedSigns(len(words), seed), tokenizer, train, valid, default_data_collator,
        remove_unused_columns=broken, max_steps=400,
    )  # fmt: skip
    return Trained(made, lambda: whole(made, valid))


def whole(made: Any, rows: Sequence[Row]) -> float:
    """Exact matches, the rows in their own collator."""
    from transformers import default_data_collator

    right = 0
    for start in range(0, len(rows), 32):
        part = rows[start : start + 32]
        outputs = trainers.said(made.model, default_data_collator([dict(row) for row in part]))
        wanted = [[token for token in row["labels"] if token not in (-100, EOS)] for row in part]
        right += sum(a == b for a, b in zip(outputs, wanted, strict=True))
    return right / len(rows)


# --- a loss of one's own that shifts once more


def shifting(shifts: bool) -> Any:
    """A Seq2SeqTrainer with a loss of its own, as trainings of causal models have it."""
    from transformers import Seq2SeqTrainer

    class OwnLoss(Seq2SeqTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            labels = inputs["labels"]
            outputs = model(**inputs)
            logits = outputs.logits
            if shifts:
                logits, labels = logits[..., :-1, :].contiguous(), labels[..., 1:].contiguous()
            loss = nn.CrossEntropyLoss(label_smoothing=0.05)(logits.view(-1, logits.size(-1)), labels.view(-1))
            return (loss, outputs) if return_outputs else loss

    return OwnLoss


@CASES.fault(
    "loss shifted once more",
    "trainer",
    origin="huggingface/transformers#14089, #46903: the labels of an encoder-decoder are shifted a second "
    "time in the loss",
    what="compute_loss shifts logits and labels as for a causal model; the decoder's inputs are shifted already",
    expected="The loss wants the token after next: labels are shifted twice",
    accepts="new:shifted-twice",
)
def loss_shifted(broken: bool, seed: int, folder: Path) -> Trained:
    tokenizer, size, train, valid = text(seed)
    model = models.bart(size, seed)
    made = trainers.trainer(folder, model, tokenizer, train, valid, kind=shifting(broken), learning_rate=2e-3)
    return Trained(made, lambda: trainers.exact(made, valid))


# --- the best checkpoint is that of the highest error rate


def word_errors(tokenizer: Any) -> Any:
    """compute_metrics: the word error rate, in per cent."""

    def compute(prediction: Any) -> dict[str, float]:
        from sacrebleu.metrics import TER

        said = np.where(prediction.predictions < 0, PAD, prediction.predictions)
        wanted = np.where(prediction.label_ids < 0, PAD, prediction.label_ids)
        said, wanted = (tokenizer.batch_decode(ids, skip_special_tokens=True) for ids in (said, wanted))
        return {"wer": TER().corpus_score(said, [wanted]).score}

    return compute


@CASES.fault(
    "worst checkpoint kept as best",
    "trainer",
    origin="huggingface/transformers#31142 ('I realized that the worst model was saved'): "
    "greater_is_better is True by default",
    what="load_best_model_at_end by metric_for_best_model='wer', and greater_is_better is not set: the worst is loaded",
    expected="The checkpoint is chosen by the highest error rate (greater_is_better)",
    accepts="new:best-is-worst",
)
def worst_kept(broken: bool, seed: int, folder: Path) -> Trained:
    tokenizer, size, train, valid = text(seed)
    model = models.marian(size, seed)
    made = trainers.trainer(
        folder, model, tokenizer, train, valid, learning_rate=2e-3, max_steps=320, eval_steps=80,
        save_strategy="steps", save_steps=80, save_total_limit=2, load_best_model_at_end=True,
        metric_for_best_model="wer", greater_is_better=None if broken else False,
        predict_with_generate=True, generation_max_length=12,
    )  # fmt: skip
    made.compute_metrics = word_errors(tokenizer)
    return Trained(made, lambda: trainers.exact(made, valid))


# --- adapters at the rate of full fine-tuning


@CASES.fault(
    "adapters at the default rate",
    "trainer",
    origin="sillsdev/silnlp#394, huggingface/diffusers#6288, microsoft/LoRA#169: LoRA at a rate for full fine-tuning",
    what="LoRA by peft with alpha / rank 1/4 at the Trainer's default learning rate 5e-5: the outputs stay the base's",
    expected="The learning rate is far too small for the adapters: they hardly move",
    accepts="new:rate-too-small",
)
def adapters_slow(broken: bool, seed: int, folder: Path) -> Trained:
    from peft import LoraConfig, TaskType, get_peft_model

    model, tokenizer, *pairs = adapters.t5_checkpoint(seed)
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM,
        r=16,
        lora_alpha=4,
        lora_dropout=0.05,
        target_modules=["q", "k", "v", "o", "wi", "wo"],
    )
    model = get_peft_model(model, config)
    train, valid = (trainers.encoded(each, tokenizer) for each in pairs)
    made = trainers.trainer(
        folder, model, tokenizer, train, valid, max_steps=240, learning_rate=5e-5 if broken else 1e-2,
        lr_scheduler_type="linear", warmup_steps=0,
    )  # fmt: skip
    return Trained(made, lambda: trainers.exact(made, valid))
