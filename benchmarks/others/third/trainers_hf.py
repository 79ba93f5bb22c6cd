"""Faults in a Seq2SeqTrainer: a double shift, the worst checkpoint, Adafactor's own warm-up, the other adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from others import adapters, models, speech, tasks, trainers
from others.case import Cases
from others.tasks import BOS, EOS, PAD
from torch.nn import functional as F

CASES = Cases()


@CASES.fault(
    "shifted-as-for-gpt",
    "trainer",
    origin="huggingface/transformers#14089, #46901 (double shift), and compute_loss copied from decoder-only code",
    what="compute_loss shifts logits and labels against each other, though a BART's labels stand behind its inputs",
    expected="labels are shifted twice: the model learns to say the token after the next",
    accepts="new:shifted-twice",
    gap=0.4,
)
def shifted_as_for_gpt(broken: bool, seed: int, folder: Path) -> trainers.Trained:
    """A weighted loss of one's own in compute_loss."""
    from transformers import Seq2SeqTrainer

    class WeightedTrainer(Seq2SeqTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            outputs, labels = model(**inputs), inputs["labels"]
            logits = outputs.logits
            if broken:
                logits, labels = logits[..., :-1, :], labels[..., 1:]
            loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=-100)
            return (loss, outputs) if return_outputs else loss

    words = tasks.vocabulary()
    tokenizer = tasks.word_tokenizer(words)
    train, valid = (trainers.encoded(each, tokenizer) for each in tasks.split(tasks.numbers(2100, seed)))
    model = models.bart(len(words), seed)
    made = trainers.trainer(folder, model, tokenizer, train, valid, kind=WeightedTrainer, max_steps=200)
    return trainers.Trained(made, lambda: trainers.exact(made, valid))


@CASES.fault(
    "best-by-rising-wer",
    "trainer",
    origin="Whisper fine-tuning forums; huggingface/transformers#31142 (“the worst model was saved”)",
    what="metric_for_best_model='wer' without greater_is_better=False: the checkpoint with the highest WER is kept",
    expected="the best checkpoint is chosen by a metric that is read the wrong way round",
    accepts="new:best-wrong-way",
    gap=0.3,
)
def best_by_rising_wer(broken: bool, seed: int, folder: Path) -> trainers.Trained:
    """A Whisper with the notebook's compute_metrics, best checkpoint loaded at the end."""
    words = tasks.vocabulary()
    tokenizer = tasks.word_tokenizer(words)
    rows = speech.recordings(1100, seed, tokenizer)
    train, valid = rows[:-64], rows[-64:]

    def compute_metrics(predicted: Any) -> dict[str, float]:
        wrong = total = 0
        for said, wanted in zip(predicted.predictions, predicted.label_ids, strict=True):
            said, wanted = ([t for t in row if t not in (PAD, EOS, BOS, -100)] for row in (said, wanted))
            longest = max(len(said), len(wanted))
            wrong += sum(a != b for a, b in zip(said, wanted, strict=False)) + longest - min(len(said), len(wanted))
            total += len(wanted)
        return {"wer": 100 * wrong / max(total, 1)}

    made = trainers.trainer(
        folder,
        models.whisper(len(words), seed),
        tokenizer,
        train,
        valid,
        collator=speech.SpeechCollator(),
        max_steps=180,
        eval_steps=30,
        save_strategy="steps",
        save_steps=30,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="wer",
        predict_with_generate=True,
        generation_max_length=10,
        **({} if broken else {"greater_is_better": False}),
    )
    made.compute_metrics = compute_metrics
    return trainers.Trained(made, lambda: trainers.exact(made, valid, max_new_tokens=8))


@CASES.fault(
    "adafactor-warms-up-for-ever",
    "trainer",
    origin="huggingface/transformers#7789 and #10526, jettify/pytorch-optimizer#535: rate = min(1e-6·step, 1/√step)",
    what="Adafactor(relative_step=True, warmup_init=True) in a short fine-tuning: the rate is 1e-6 a step all along",
    expected="the learning rate is far too small: the optimizer's own warm-up is longer than the training",
    accepts="new:warm-up-longer",
    gap=0.4,
)
def adafactor_warms_up(broken: bool, seed: int, folder: Path) -> trainers.Trained:
    """T5 from a checkpoint, with the optimizer that T5's pages name."""
    from transformers.optimization import Adafactor, AdafactorSchedule

    model, tokenizer, *pairs = adapters.t5_checkpoint(seed)
    train, valid = (trainers.encoded(each, tokenizer) for each in pairs)
    optimizer = Adafactor(model.parameters(), scale_parameter=True, relative_step=True, warmup_init=broken, lr=None)
    optimizers = (optimizer, AdafactorSchedule(optimizer))
    made = trainers.trainer(folder, model, tokenizer, train, valid, optimizers=optimizers, max_steps=200)
    return trainers.Trained(made, lambda: trainers.exact(made, valid))


@CASES.fault(
    "optimizer-of-the-other-adapter",
    "trainer",
    origin="huggingface/peft#1303 (the second adapter does not train) and #3580 (the wrong adapter is updated)",
    what="the optimizer is made while another LoRA adapter is active; the one that is then trained is not in it",
    expected="the weights of the active adapter are not in the optimizer",
    accepts="new:not-in-optimizer",
    gap=0.4,
)
def optimizer_of_the_other_adapter(broken: bool, seed: int, folder: Path) -> trainers.Trained:
    """Two LoRA adapters of peft on one T5; the second is to learn French."""
    from peft import LoraConfig, get_peft_model

    base, tokenizer, *pairs = adapters.t5_checkpoint(seed)
    torch.manual_seed(seed)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q", "k", "v", "o", "wi", "wo"], task_type="SEQ_2_SEQ_LM")
    model = get_peft_model(base, lora, adapter_name="general")
    model.add_adapter("french", lora)
    if not broken:
        model.set_adapter("french")
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], 1e-2)
    model.set_adapter("french")
    train, valid = (trainers.encoded(each, tokenizer) for each in pairs)
    made = trainers.trainer(
        folder, model, tokenizer, train, valid, optimizers=(optimizer, None), max_steps=200, label_names=["labels"]
    )
    return trainers.Trained(made, lambda: trainers.exact(made, valid))
