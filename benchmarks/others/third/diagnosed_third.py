"""Faults that show when a finished model is used: its base, its tokenizer, its settings, its frames."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch
from others import adapters, models, tasks, trainers
from others.case import Cases
from others.hosts import Judged
from others.tasks import FRENCH

sys.path.insert(0, str(Path(__file__).parent))
from third_parts import plans, senses
from third_parts.kept import MADE

CASES = Cases()


def exact(model: Any, tokenizer: Any, pairs: Any, **options: Any) -> float:
    """The share of texts that transformers itself generates exactly."""
    right = 0
    for start in range(0, len(pairs), 32):
        part = pairs[start : start + 32]
        batch = tokenizer([a for a, _ in part], padding=True, return_tensors="pt")
        given = {key: batch[key] for key in ("input_ids", "attention_mask")}
        said = trainers.said(model, given, **options)
        wanted = [tokenizer(text_target=b)["input_ids"][:-1] for _, b in part]
        right += sum(a == b for a, b in zip(said, wanted, strict=True))
    return right / len(pairs)


def trained(model: Any, rows: Any, steps: int, rate: float, seed: int) -> None:
    """Train what can be trained, in place."""
    from transformers import DataCollatorForSeq2Seq

    collate = DataCollatorForSeq2Seq(tasks.word_tokenizer(tasks.vocabulary(*FRENCH, "merci")))
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], rate)
    model.train()
    for chosen in senses.shuffled(rows, steps, 32, seed):
        loss = model(**collate([dict(row) for row in chosen])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


@CASES.fault(
    "adapter-on-the-first-base",
    "diagnose",
    origin="haotian-liu/LLaVA#390 and #1008, huggingface/peft#1932: a base that the adapter was not trained on",
    what="LoRA was trained on a base that had been fine-tuned; adapter_config.json names the base before that",
    expected="the adapter does not belong to this base",
    accepts="new:adapter-other-base",
    gap=0.4,
)
def adapter_on_the_first_base(broken: bool, seed: int, folder: Path) -> Judged:
    """A T5 that spoke English, was fine-tuned to French, and got an adapter that thanks."""
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import T5ForConditionalGeneration

    words = tasks.vocabulary(*FRENCH, "merci")
    tokenizer = tasks.word_tokenizer(words)
    french = tasks.numbers(2000, seed, 2, 4, FRENCH)
    thanked = [(a, f"{b} merci") for a, b in french]
    if (seed, "adapter") not in MADE:
        first = models.t5(len(words), seed)
        trained(first, trainers.encoded(tasks.numbers(3000, seed + 1, 2, 4), tokenizer), 300, 3e-3, seed)
        second = copy.deepcopy(first)
        trained(second, trainers.encoded(french[:-96], tokenizer), 200, 2e-3, seed)
        torch.manual_seed(seed)
        lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q", "k", "v", "o", "wi", "wo"], task_type="SEQ_2_SEQ_LM")
        adapted = get_peft_model(copy.deepcopy(second), lora)
        trained(adapted, trainers.encoded(thanked[:-96], tokenizer), 200, 1e-2, seed)
        MADE[seed, "adapter"] = first, second, adapted
    first, second, adapted = MADE[seed, "adapter"]
    for name, model in (("t5-numbers", first), ("t5-numbers-french", second)):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    adapter, base = folder / "adapter", folder / ("t5-numbers" if broken else "t5-numbers-french")
    adapted.save_pretrained(adapter)
    tokenizer.save_pretrained(adapter)
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(base)}, indent=2))
    data = plans.tsv(folder / "test.tsv", ("source", "target"), thanked[-96:])

    def figure() -> float:
        opened = PeftModel.from_pretrained(T5ForConditionalGeneration.from_pretrained(base), adapter)
        return exact(opened, tokenizer, thanked[-96:])

    return Judged(adapter, Path(data), figure)


@CASES.fault(
    "tokenizer-forgot-lower-case",
    "diagnose",
    origin="digitalepidemiologylab/covid-twitter-bert#5, huggingface/transformers#131, huggingface/tokenizers#1017",
    what="the model was trained on lower-cased sources; the saved tokenizer does not lower-case, so that capitals are"
    " unknown",
    expected="words of the sources are unknown to the tokenizer: it does not lower-case as it did in training",
    accepts="new:sources-unknown-tokens",
    gap=0.4,
)
def tokenizer_forgot_lower_case(broken: bool, seed: int, folder: Path) -> Judged:
    """A BART of number words, and a set with capitals, as people write."""
    from tokenizers import normalizers
    from transformers import AutoTokenizer, BartForConditionalGeneration

    model, tokenizer, valid = adapters.bart_checkpoint(seed)
    if not broken:
        tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    pairs = [(a.title(), b) for a, b in valid]
    data = plans.tsv(folder / "test.tsv", ("source", "target"), pairs)

    def figure() -> float:
        opened = BartForConditionalGeneration.from_pretrained(folder / "model")
        return exact(opened, AutoTokenizer.from_pretrained(folder / "model"), pairs)

    return Judged(folder / "model", Path(data), figure)


@CASES.fault(
    "suppressed-by-old-ids",
    "diagnose",
    origin="huggingface/transformers#20123 and #22465, jianfch/stable-ts#320: suppress_tokens of another vocabulary",
    what="generation_config.json suppresses ids that were of no use in an older vocabulary; in that of the model they"
    " are words",
    expected="words that references need are suppressed in generation",
    accepts="new:tokens-suppressed",
    gap=0.4,
)
def suppressed_by_old_ids(broken: bool, seed: int, folder: Path) -> Judged:
    """A T5 of number words whose generation_config came from another checkpoint."""
    from transformers import GenerationConfig, T5ForConditionalGeneration

    words = tasks.vocabulary(*FRENCH, "merci")
    tokenizer = tasks.word_tokenizer(words)
    pairs = tasks.numbers(2096, seed)
    if (seed, "plain") not in MADE:
        model = models.t5(len(words), seed)
        trained(model, trainers.encoded(pairs[:-96], tokenizer), 450, 3e-3, seed)
        MADE[seed, "plain"] = model
    model = copy.deepcopy(MADE[seed, "plain"])
    ids = {"pad_token_id": tasks.PAD, "eos_token_id": tasks.EOS, "decoder_start_token_id": tasks.PAD}
    more = {"suppress_tokens": [2, 3, 17, 18, 21]} if broken else {}
    model.generation_config = GenerationConfig(**ids, max_new_tokens=16, **more)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    data = plans.tsv(folder / "test.tsv", ("source", "target"), pairs[-96:])

    def figure() -> float:
        opened = T5ForConditionalGeneration.from_pretrained(folder / "model")
        return exact(opened, tokenizer, pairs[-96:])

    return Judged(folder / "model", Path(data), figure)


@CASES.fault(
    "test-clips-at-half-the-frame-rate",
    "diagnose",
    origin="YudongGuo/AD-NeRF#117 and #10, espnet/espnet#2131, Sxjdwang/TalkLip#7: another rate than in training",
    what="features of the test clips were extracted at half the frame rate of the training clips",
    expected="the test set has half as many frames a word as the training set",
    accepts="new:frame-rate-differs",
    gap=0.4,
)
def test_clips_at_half_the_frame_rate(broken: bool, seed: int, folder: Path) -> Judged:
    """A run of ours on signed digits, judged on another set."""
    from others.hosts import unchecked

    import sourcewise

    sets = {}
    for split, count, offset in (("train", 1300, 0), ("valid", 96, 5000), ("test", 96, 9000)):
        rows = senses.clips(count, seed + offset)
        names = [f"{split}{i:04}" for i in range(count)]
        change = (lambda frames: frames[::2]) if broken and split == "test" else (lambda frames: frames)
        features = plans.save(folder / split, names, [frames for frames, _ in rows], change)
        table = [(name, text) for name, (_, text) in zip(names, rows, strict=True)]
        manifest = plans.tsv(folder / f"{split}.tsv", ("id", "text"), table)
        sets[split] = {"manifest": manifest, "features": features}
    recipe = plans.signs(folder, seed, sets["train"], sets["valid"])
    run = sourcewise.train(unchecked(recipe))
    figure = plans.measured(manifest, features=features)
    return Judged(run.folder, Path(manifest), lambda: figure(run), {"features": features})
