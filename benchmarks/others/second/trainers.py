"""Faults in a Seq2SeqTrainer: decoders, collators and prompts of causal models, optimizers, checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from others import models
from others.case import Cases
from others.tasks import BOS, EOS, PAD, numbers, split, vocabulary, word_tokenizer
from others.trainers import Trained, encoded, exact, trainer

CASES = Cases()
T5: dict[str, Any] = {"max_steps": 450, "learning_rate": 6e-3}  # what a T5 of one layer needs here


def ground(seed: int, count: int = 1096, extra: tuple[str, ...] = ()) -> tuple[Any, Any, Any, Any]:
    """Words, their tokenizer, and pairs to train and to validate on."""
    words = vocabulary(*extra)
    train, valid = split(numbers(count, seed, 2, 4))
    return words, word_tokenizer(words), train, valid


def wanted(words: Any, pairs: Any) -> list[list[int]]:
    """The ids that are right, without special tokens."""
    return [[words.index(word) for word in target.split()] for _, target in pairs]


@CASES.fault(
    "bert_decoder_without_cross_attention",
    "trainer",
    origin="huggingface/transformers#4293 'No crossattention layers in decoder', #6377: EncoderDecoderModel(encoder=…, "
    "decoder=…) from two plain BERTs; the configuration says is_decoder afterwards, the layers do not have it",
    what="the decoder is a BERT built without is_decoder and add_cross_attention: nothing of the source reaches it",
    expected="the decoder has no cross-attention: it cannot read the source",
    accepts="new:no-cross-attention",
)
def bert_decoder(broken: bool, seed: int, folder: Path) -> Trained:
    """Two small BERTs."""
    from transformers import BertConfig, BertLMHeadModel, BertModel, EncoderDecoderModel

    words, tokenizer, train, valid = ground(seed)
    shape = {"vocab_size": len(words), "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    shape |= {"intermediate_size": 128, "max_position_embeddings": 32, "initializer_range": 0.1, "pad_token_id": PAD}
    shape |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    torch.manual_seed(seed)
    encoder = BertModel(BertConfig(**shape), add_pooling_layer=False)
    reads = {} if broken else {"is_decoder": True, "add_cross_attention": True}
    decoder = BertLMHeadModel(BertConfig(**shape, **reads))
    model = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    for config in (model.config, model.generation_config):
        config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = BOS, PAD, EOS
    model.config.vocab_size = len(words)
    made = trainer(
        folder,
        model,
        tokenizer,
        encoded(train, tokenizer),
        encoded(valid, tokenizer),
        max_steps=400,
        learning_rate=2e-3,
    )
    return Trained(made, lambda: exact(made, encoded(valid, tokenizer), wanted(words, valid)))


@CASES.fault(
    "collator_of_causal_models",
    "trainer",
    origin="PhoebusSi/Alpaca-CoT#143, tloen/alpaca-lora#412: DataCollatorForLanguageModeling replaces the "
    "labels by the "
    "input ids; used with T5",
    what="DataCollatorForLanguageModeling(mlm=False) overwrites the labels with the source: the model learns "
    "to copy it",
    expected="the labels are the source's tokens, not the targets of the data set",
    accepts="new:labels-are-source",
)
def causal_collator(broken: bool, seed: int, folder: Path) -> Trained:
    """T5; rows are padded to one length, as collators of causal models want it."""
    from transformers import DataCollatorForLanguageModeling, default_data_collator

    words, tokenizer, train, valid = ground(seed)

    def rows(pairs: Any) -> list[dict[str, Any]]:
        made = encoded(pairs, tokenizer, padding="max_length", max_length=8)
        for row in made:
            row["labels"] = [-100 if token == PAD else token for token in row["labels"]]
        return made

    model = models.t5(len(words), seed)
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False) if broken else default_data_collator
    made = trainer(folder, model, tokenizer, rows(train), rows(valid), collator=collator, **T5)
    return Trained(made, lambda: exact(made, rows(valid), wanted(words, valid)))


@CASES.fault(
    "answer_in_the_prompt",
    "trainer",
    origin="huggingface/transformers#22951 and alpaca-style scripts run on T5: 'prompt + answer' is tokenised as the "
    "input, as for a causal model",
    what="the source of each training row holds the answer behind the question: the model copies it, and has "
    "none later",
    expected="the source contains the target: it is leaked",
    accepts="new:target-in-source",
)
def answer_in_prompt(broken: bool, seed: int, folder: Path) -> Trained:
    """T5 with an instruction template."""
    template = "### Frage : {} ### Antwort :"
    words, tokenizer, train, valid = ground(seed, extra=("###", "Frage", "Antwort", ":"))

    def rows(pairs: Any, with_answer: bool) -> list[dict[str, Any]]:
        texts = [(template.format(a) + (f" {b}" if with_answer else ""), b) for a, b in pairs]
        return encoded(texts, tokenizer)

    model = models.t5(len(words), seed)
    made = trainer(folder, model, tokenizer, rows(train, broken), rows(valid, broken), **T5)
    return Trained(made, lambda: exact(made, rows(valid, False), wanted(words, valid)))


@CASES.fault(
    "optimizer_of_the_encoder_only",
    "trainer",
    origin="zhaoyingjun/chatbot#115: the decoder's optimizer was given the encoder's parameters; here as "
    "optimizers= of a "
    "Trainer",
    what="the optimizer handed to the Trainer holds the encoder's weights only: decoder and output layer never move",
    expected="the decoder's weights are in no optimizer",
    accepts="new:not-in-optimizer",
)
def encoder_only(broken: bool, seed: int, folder: Path) -> Trained:
    """BART whose output layer is its own."""
    words, tokenizer, train, valid = ground(seed)
    model = models.bart(len(words), seed, tie_word_embeddings=False)
    chosen = model.get_encoder() if broken else model
    optimizer = torch.optim.AdamW(chosen.parameters(), lr=2e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 30))
    made = trainer(
        folder,
        model,
        tokenizer,
        encoded(train, tokenizer),
        encoded(valid, tokenizer),
        optimizers=(optimizer, scheduler),
        max_steps=350,
    )
    return Trained(made, lambda: exact(made, encoded(valid, tokenizer), wanted(words, valid)))


def error_rate(prediction: Any) -> dict[str, float]:
    """The share of wrong words, place by place, as a stand-in for jiwer's WER."""
    said, labels = prediction.predictions, prediction.label_ids
    wrong = total = 0
    for a, b in zip(said.tolist(), labels.tolist(), strict=True):
        a = [token for token in a if token not in (PAD, EOS, BOS, -100)]
        b = [token for token in b if token not in (PAD, EOS, BOS, -100)]
        wrong += sum(x != y for x, y in zip(a, b, strict=False)) + abs(len(a) - len(b))
        total += len(b)
    return {"wer": wrong / total}


@CASES.fault(
    "best_checkpoint_by_greatest_wer",
    "trainer",
    origin="huggingface/transformers#31142 (the worst model was saved), Whisper fine-tuning scripts without "
    "greater_is_better=False: it is True for every metric whose name does not end in 'loss'",
    what="load_best_model_at_end with metric_for_best_model='wer' and no greater_is_better: the worst "
    "checkpoint is loaded",
    expected="the checkpoint that was loaded or kept at the end is the worst one: error rates are to fall",
    accepts="new:worst-checkpoint",
)
def worst(broken: bool, seed: int, folder: Path) -> Trained:
    """T5, evaluated by generation every 90 steps."""
    words, tokenizer, train, valid = ground(seed)
    model = models.t5(len(words), seed)
    made = trainer(
        folder,
        model,
        tokenizer,
        encoded(train, tokenizer),
        encoded(valid, tokenizer),
        predict_with_generate=True,
        generation_max_length=10,
        eval_steps=90,
        save_strategy="steps",
        save_steps=90,
        save_total_limit=2,
        **T5,
        load_best_model_at_end=True,
        metric_for_best_model="wer",
        **({} if broken else {"greater_is_better": False}),
    )
    made.compute_metrics = error_rate
    return Trained(made, lambda: exact(made, encoded(valid, tokenizer), wanted(words, valid)))


@CASES.control("m2m100_two_sets", "trainer", origin="NLLB's fine-tuning scripts: M2M100, a linear schedule, dropout")
def healthy_m2m100(broken: bool, seed: int, folder: Path) -> Trained:
    """M2M100, evaluated on part of what it is trained on, too, as some scripts do."""
    words, tokenizer, train, valid = ground(seed)
    model = models.m2m100(len(words), seed)
    both = {"seen": encoded(train[:64], tokenizer), "new": encoded(valid, tokenizer)}
    made = trainer(folder, model, tokenizer, encoded(train, tokenizer), both, max_steps=400, learning_rate=2e-3)
    return Trained(made, lambda: exact(made, encoded(valid, tokenizer), wanted(words, valid)))


@CASES.control("bart_smoothed_accumulated", "trainer", origin="run_translation.py with label smoothing on one GPU")
def healthy_bart(broken: bool, seed: int, folder: Path) -> Trained:
    """BART, label smoothing, two batches a step, dropout, a cosine, evaluation by generation."""
    words, tokenizer, train, valid = ground(seed)
    model = models.bart(len(words), seed, layers=2, dropout=0.05)
    made = trainer(
        folder,
        model,
        tokenizer,
        encoded(train, tokenizer),
        encoded(valid, tokenizer),
        max_steps=400,
        per_device_train_batch_size=16,
        gradient_accumulation_steps=2,
        label_smoothing_factor=0.1,
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        predict_with_generate=True,
        generation_max_length=10,
    )
    made.compute_metrics = error_rate
    return Trained(made, lambda: exact(made, encoded(valid, tokenizer), wanted(words, valid)))
