"""Trained models that are only used: three faults that show in what is generated."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from others import adapters, models, tasks, trainers
from others.case import Cases
from others.hosts import Judged
from others.tasks import EOS, UNK

CASES = Cases()
VIETNAMESE = ["không", "một", "hai", "ba", "bốn", "năm", "sáu", "bảy", "tám", "chín"]


def checkpoint(kind: str, seed: int, source: Sequence[str] | None = None) -> tuple[Any, Any, list[tasks.Pair]]:
    """A trained Marian or BART, its tokenizer, and pairs that it has not seen."""
    from transformers import DataCollatorForSeq2Seq

    pairs = tasks.numbers(1900, seed)
    if source is not None:
        spoken = dict(zip(tasks.GERMAN, source, strict=True))
        pairs = [(" ".join(spoken[word] for word in a.split()), b) for a, b in pairs]
    words = tasks.vocabulary(*(source or ()))
    tokenizer = tasks.word_tokenizer(words)
    train, valid = tasks.split(pairs)
    model = getattr(models, kind)(len(words), seed)
    name = f"fifth-{kind}-{seed}-{source is None}"
    model = adapters.trained(
        name, model, trainers.encoded(train, tokenizer), DataCollatorForSeq2Seq(tokenizer), 250, 2e-3
    )
    return model, tokenizer, valid


def saved(folder: Path, model: Any, tokenizer: Any, pairs: Sequence[tasks.Pair]) -> tuple[Path, Path]:
    """Model and tokenizer in one folder, and a table of the pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    data = folder / "valid.tsv"
    data.write_text("".join(f"{a}\t{b}\n" for a, b in (("source", "target"), *pairs)), encoding="utf-8")
    return folder / "model", data


def generated(model: Path, data: Path) -> float:
    """Exact matches of what transformers generates from the folder, as the folder says."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, DataCollatorForSeq2Seq

    network, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    pairs = [line.split("\t") for line in data.read_text(encoding="utf-8").splitlines()[1:]]
    collate, right = DataCollatorForSeq2Seq(tokenizer), 0
    for start in range(0, len(pairs), 32):
        part = pairs[start : start + 32]
        batch = collate([dict(tokenizer(source)) for source, _ in part])
        out = network.eval().generate(**batch, max_new_tokens=12)
        texts = tokenizer.batch_decode(out, skip_special_tokens=True)
        right += sum(text == target for text, (_, target) in zip(texts, part, strict=True))
    return right / len(pairs)


def changed(file: Path, **values: Any) -> None:
    """Change keys of a .json."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values, indent=2) + "\n")


@CASES.fault(
    "banned ids of another vocabulary",
    "diagnose",
    origin="bad_words_ids and suppress_tokens of a published checkpoint after its vocabulary was changed; "
    "huggingface/transformers#20123, #14206",
    what="generation_config.json bans ids that were special in the old vocabulary; in the new one they "
    "are 'three' and 'seven'",
    expected="The generation settings forbid words of the vocabulary (bad_words_ids)",
    accepts="new:words-forbidden",
)
def banned_words(broken: bool, seed: int, folder: Path) -> Judged:
    model, tokenizer, valid = checkpoint("marian", seed)
    old = [[tokenizer.convert_tokens_to_ids(word)] for word in ("three", "seven")]
    model.generation_config.bad_words_ids = old if broken else [[UNK]]
    model_folder, data = saved(folder, model, tokenizer, valid)
    return Judged(model_folder, data, lambda: generated(model_folder, data))


@CASES.fault(
    "end of text of another vocabulary",
    "diagnose",
    origin="QwenLM/Qwen3#927, huggingface/transformers#5674 (BART never stops), vllm-project/vllm#1136: "
    "eos_token_id of config and tokenizer differ",
    what="config.json and generation_config.json keep eos_token_id 2 of the base; this tokenizer ends its texts with 1",
    expected="eos_token_id of the configuration is not the token that ends the targets: outputs do not stop",
    accepts="new:eos-mismatch",
)
def other_end(broken: bool, seed: int, folder: Path) -> Judged:
    model, tokenizer, valid = checkpoint("bart", seed)
    model_folder, data = saved(folder, model, tokenizer, valid)
    if broken:
        for name in ("config.json", "generation_config.json"):
            changed(model_folder / name, eos_token_id=2)
    assert tokenizer.eos_token_id == EOS
    return Judged(model_folder, data, lambda: generated(model_folder, data))


@CASES.fault(
    "accents taken apart",
    "diagnose",
    origin="texts from macOS are decomposed (NFD), a model's vocabulary is NFC: OpenNMT/OpenNMT#230 ('the "
    "dotted circles break a letter in two')",
    what="The sources to translate are NFD, those of the training were NFC: they look alike, and most "
    "words are unknown",
    expected="The sources are in another Unicode form (NFD) than the vocabulary",
    accepts="new:unicode-form",
)
def decomposed(broken: bool, seed: int, folder: Path) -> Judged:
    model, tokenizer, valid = checkpoint("marian", seed, VIETNAMESE)
    form = "NFD" if broken else "NFC"
    valid = [(unicodedata.normalize(form, source), target) for source, target in valid]
    model_folder, data = saved(folder, model, tokenizer, valid)
    return Judged(model_folder, data, lambda: generated(model_folder, data))
