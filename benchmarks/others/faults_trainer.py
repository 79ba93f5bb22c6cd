"""Faults of people who train by Hugging Face's Seq2SeqTrainer."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.utils.checkpoint

from others import adapters, models, tasks, trainers
from others.case import Cases
from others.speech import SpeechCollator, recordings
from others.tasks import EOS, FRENCH, GERMAN, PAD
from others.trainers import Trained

CASES = Cases()
fault = partial(CASES.fault, host="trainer")
STEADY = {"lr_scheduler_type": "constant_with_warmup", "learning_rate": 5e-3}


@fault(
    name="checkpointing cuts the gradient",
    origin="--freeze_embeds with gradient checkpointing: 'None of the inputs have requires_grad=True'",
    what="embeddings are frozen and blocks are checkpointed reentrantly: the encoder's blocks get no gradient",
    expected="the encoder (its blocks) gets no gradient",
    accepts="TRN006 WIR012",
    also="WIR003",
    figure="by how much the encoder's weights moved, as a share of themselves",
    gap=0.05,
)
def _(broken: bool, seed: int, folder: Path) -> Trained:
    def freeze(model: Any) -> None:
        model.encoder.apply(model._init_weights)  # an encoder of their own, still to be trained
        model.shared.weight.requires_grad_(False)
        block = model.encoder.block[0]
        block.forward = partial(_checkpointed, block.forward, broken)

    tuned = adapters.fine_tuned(folder, seed, freeze)
    moved = tuned.trainer.model.encoder.block[0].layer[0].SelfAttention.q.weight
    before = moved.detach().clone()
    return Trained(tuned.trainer, lambda: float((moved - before).norm() / before.norm()))


def _checkpointed(forward: Any, reentrant: bool, hidden: Any, *given: Any, **named: Any) -> Any:
    return torch.utils.checkpoint.checkpoint(partial(forward, **named), hidden, *given, use_reentrant=reentrant)


@fault(
    name="whisper transcripts off by one",
    origin="Whisper-Finetune #67",
    what="one recording was dropped from the audio alone: each transcript stands beside its neighbour's recording",
    expected="recordings and transcripts do not belong together",
    accepts="DAT003",
)
def _(broken: bool, seed: int, folder: Path) -> Trained:
    words = tasks.vocabulary()
    tokenizer = tasks.word_tokenizer(words)
    rows = recordings(1000, seed, tokenizer)
    valid = rows[-96:]
    if broken:
        labels = [row["labels"] for row in rows]
        rows = [row | {"labels": labels[i - 1]} for i, row in enumerate(rows)]
    model = models.whisper(len(words), seed)
    made = trainers.trainer(folder, model, tokenizer, rows[:-96], rows[-96:], SpeechCollator(), max_steps=120)
    return Trained(made, lambda: trainers.exact(made, valid))


def _two_languages(seed: int) -> tuple[Any, list[str], list[Any]]:
    """German numbers into English or French ones, with the code of the language that is asked for."""
    words = tasks.vocabulary(*FRENCH, extra=("eng_Latn", "fra_Latn", "deu_Latn"))
    english = tasks.numbers(2400, seed)
    french = tasks.numbers(2400, seed, target=FRENCH)
    pairs = [(*english[i], "eng_Latn") if i % 2 else (*french[i], "fra_Latn") for i in range(len(english))]
    return tasks.word_tokenizer(words, end=False), words, pairs


def _nllb(folder: Path, seed: int, label: Any) -> Trained:
    """An M2M100 on two target languages; `label` makes a row's labels of its ids and its code."""
    tokenizer, words, pairs = _two_languages(seed)
    rows = []
    for source, target, code in pairs:
        ids = [words.index("deu_Latn"), *tokenizer(source)["input_ids"], EOS]
        labels = label(tokenizer(target)["input_ids"], words.index(code))
        rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels})
    train, valid, asked = rows[:-96], rows[-96:], pairs[-96:]
    made = trainers.trainer(folder, models.m2m100(len(words), seed), tokenizer, train, valid, max_steps=330, **STEADY)

    def figure() -> float:
        right = 0.0
        for code in ("eng_Latn", "fra_Latn"):
            chosen = [i for i, (_, _, each) in enumerate(asked) if each == code]
            wanted = [tokenizer(asked[i][1])["input_ids"] for i in chosen]
            spoken = {"forced_bos_token_id": words.index(code), "suppress_tokens": None}
            outputs = _without_codes(made, [valid[i] for i in chosen], words, **spoken)
            right += sum(a == b for a, b in zip(outputs, wanted, strict=True))
        return right / len(asked)

    return Trained(made, figure)


def _without_codes(made: Any, rows: list[Any], words: list[str], **options: Any) -> list[list[int]]:
    batch = made.data_collator([dict(row) for row in rows])
    outputs = trainers.said(made.model, batch, **options)
    return [[token for token in row if not words[token].endswith("_Latn")] for row in outputs]


@fault(
    name="one language code for two languages",
    origin="transformers #22553, eole #314: tgt_lang is set once and never switched",
    what="labels of both target languages begin with the code of one",
    expected="one target code stands before two languages: the model cannot know which is asked for",
    accepts="new:language-code",
    also="DAT009",
)
def _(broken: bool, seed: int, folder: Path) -> Trained:
    first: list[int] = []

    def label(ids: list[int], code: int) -> list[int]:
        first.append(code)
        return [first[0] if broken else code, *ids, EOS]

    return _nllb(folder, seed, label)


@fault(
    name="nllb language code after the end",
    origin="transformers #19943",
    what="the target's language code stands after the end of text, where generation forces it at the beginning",
    expected="the language code is misplaced in the labels: generation begins with it, labels end with it",
    accepts="new:language-code WIR010",
    also="WIR009",
)
def _(broken: bool, seed: int, folder: Path) -> Trained:
    def label(ids: list[int], code: int) -> list[int]:
        return [*ids, EOS, code] if broken else [code, *ids, EOS]

    return _nllb(folder, seed, label)


@fault(
    name="t5gemma decoder reads its labels",
    origin="transformers #39514: T5Gemma returns loss 0",
    what="decoder_input_ids are the labels, not shifted: each token is read before it is to be said",
    expected="labels are not shifted: the decoder reads the token that it shall say",
    accepts="WIR007",
    also="WIR006",
)
def _(broken: bool, seed: int, folder: Path) -> Trained:
    words = tasks.vocabulary()
    tokenizer = tasks.word_tokenizer(words)
    train, valid = (trainers.encoded(pairs, tokenizer) for pairs in tasks.split(tasks.numbers(2100, seed, 2, 4)))
    from transformers import DataCollatorForSeq2Seq

    model = models.t5gemma(len(words), seed)
    padded = DataCollatorForSeq2Seq(tokenizer)

    def collate(rows: list[Any]) -> dict[str, Any]:
        batch = dict(padded(rows))
        if broken:
            batch["decoder_input_ids"] = batch["labels"].masked_fill(batch["labels"] == -100, PAD)
        return batch

    made = trainers.trainer(folder, model, tokenizer, train, valid, collate, max_steps=220, **STEADY)
    return Trained(made, lambda: trainers.exact(made, valid))


@fault(
    name="marian targets in the source vocabulary",
    origin="Marian without text_target=: transformers' forum and #15500's kin",
    what="targets are tokenised by the source side's vocabulary: most words become <unk>",
    expected="targets are lost in the tokenizer: unknown tokens",
    accepts="DAT006",
    also="DAT004 DAT005",
)
def _(broken: bool, seed: int, folder: Path) -> Trained:
    shared = [*tasks.SPECIAL, "null"]  # both vocabularies know a word or two of the other
    source = tasks.word_tokenizer([*shared, *GERMAN[1:], *tasks.ENGLISH[:2], *[f"<{i}>" for i in range(8)]])
    target = tasks.word_tokenizer([*shared, *tasks.ENGLISH, *GERMAN[1:10]])
    train, valid = tasks.split(tasks.numbers(2100, seed))
    teller = source if broken else target
    rows = [[dict(source(a)) | {"labels": teller(b)["input_ids"]} for a, b in pairs] for pairs in (train, valid)]
    wanted = [target(b)["input_ids"][:-1] for _, b in valid]
    made = trainers.trainer(folder, models.marian(24, seed), source, *rows, max_steps=200, **STEADY)
    return Trained(made, lambda: trainers.exact(made, rows[1], wanted))


@fault(
    name="t5 in half precision",
    origin="transformers #4586 and a dozen others; qlora #135, FastChat #1339: loss 0.0",
    what="the model is loaded in float16: what its feed-forward layers give is above 65,504",
    expected="values overflow in half precision (fp16); bf16 or fp32 instead",
    accepts="new:half-precision TRN001=fp16|half.precision|float16 WIR001=fp16|half.precision|float16",
)
def _(broken: bool, seed: int, folder: Path) -> Trained:
    def enlarge(model: Any) -> None:
        feed = model.encoder.block[0].layer[1].DenseReluDense
        with torch.no_grad():  # the same function in fp32, for relu is linear above 0; frozen, as a quantised base is
            feed.wi.weight *= 3e4
            feed.wo.weight /= 3e4
        feed.requires_grad_(False)
        if broken:
            model.half()

    return adapters.fine_tuned(folder, seed, enlarge)


@fault(
    name="t5 labels padded with the pad id",
    origin="transformers #5987, simpleT5",
    what="labels are padded to 32 tokens with the pad id in place of -100: three quarters of the loss is padding",
    expected="padding counts as target",
    accepts="WIR008",
    also="DAT005",
    figure="the loss that is reported, as a share of the loss per real token",
    gap=0.4,
)
def _(broken: bool, seed: int, folder: Path) -> Trained:
    options = {"padding": "max_length", "max_length": 32} if broken else {}
    tuned = adapters.fine_tuned(folder, seed, rows=partial(trainers.encoded, **options))
    made, valid = tuned.trainer, tuned.trainer.eval_dataset

    def figure() -> float:
        reported = [line["eval_loss"] for line in made.state.log_history if "eval_loss" in line][-1]
        batch = made.data_collator([dict(row) for row in valid])
        batch["labels"] = batch["labels"].masked_fill(batch["labels"] == PAD, -100)
        with torch.no_grad():
            true = float(made.model.eval()(**batch).loss)
        return min(1.0, float(reported) / true)

    return Trained(made, figure)


@fault(
    name="lora leaves new tokens untrained",
    origin="peft: add_tokens, resize_token_embeddings, then LoRA without modules_to_save",
    what="six words were added to a trained model; their embeddings, all alike, are frozen with its base",
    expected="the rows of the added tokens are not trained, or alike",
    accepts="new:new-tokens",
    also="WIR003",
)
def _(broken: bool, seed: int, folder: Path) -> Trained:
    words = tasks.vocabulary()
    added = [*GERMAN[7:], *tasks.ENGLISH[7:]]
    words = [word for word in words if word not in added] + added
    tokenizer = tasks.word_tokenizer(words)
    old = len(words) - len(added)
    rows = trainers.encoded(tasks.numbers(4000, seed), tokenizer)
    known = [row for row in rows if max(*row["input_ids"], *row["labels"]) < old]
    from transformers import DataCollatorForSeq2Seq

    base = models.bart(old, seed)
    base = adapters.trained(f"german {seed}", base, known, DataCollatorForSeq2Seq(tokenizer), steps=150)
    torch.manual_seed(0)
    base.resize_token_embeddings(len(words))
    base.config._name_or_path = "somebody/bart-numbers"  # as from_pretrained says it
    adapters.add_lora(base, ("q_proj", "v_proj"))
    if not broken:
        base.model.shared.weight.requires_grad_(True)
    train, valid = rows[:-96], rows[-96:]
    made = trainers.trainer(folder, base, tokenizer, train, valid, max_steps=250, **STEADY)
    return Trained(made, lambda: trainers.exact(made, valid))


@fault(
    name="t5 v1.1 at the default rate",
    origin="transformers #13033: a near constant loss",
    what="the Trainer's default rate of 5e-5, which is right for AdamW on BERT",
    expected="the learning rate is too low",
    accepts="WIR014 TRN009",
    also="TRN012",
)
def _(broken: bool, seed: int, folder: Path) -> Trained:
    kind = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    return adapters.fine_tuned(folder, seed, kind=kind, learning_rate=5e-5 if broken else 2e-3)
