"""Cures as a Hugging Face Trainer takes them: arguments of its training and of generation, and words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sourcewise.diagnosis.answer import Diagnosis
from sourcewise.diagnosis.cure import Cure, said

ARGUMENTS, GENERATION = "Seq2SeqTrainingArguments", "GenerationConfig"
TAKEN = {  # options of ours → what takes them, and as which argument
    "train.steps": (ARGUMENTS, "max_steps"),
    "train.learning_rate": (ARGUMENTS, "learning_rate"),
    "train.warmup_steps": (ARGUMENTS, "warmup_steps"),
    "train.weight_decay": (ARGUMENTS, "weight_decay"),
    "train.beta1": (ARGUMENTS, "adam_beta1"),
    "train.clip": (ARGUMENTS, "max_grad_norm"),
    "train.label_smoothing": (ARGUMENTS, "label_smoothing_factor"),
    "generation.beams": (GENERATION, "num_beams"),
    "generation.max_new_tokens": (GENERATION, "max_new_tokens"),
    "generation.min_new_tokens": (GENERATION, "min_new_tokens"),
    "generation.length_penalty": (GENERATION, "length_penalty"),
    "generation.no_repeat_ngram": (GENERATION, "no_repeat_ngram_size"),
}


def translated(diagnosis: Diagnosis) -> Diagnosis:
    """The same, its cures in the words of a Trainer."""
    findings = [replace(each, cure=as_arguments(each.cures)) if each.cures else each for each in diagnosis.findings]
    return replace(diagnosis, findings=findings)


def as_arguments(cures: Iterable[Cure]) -> str:
    """Cures as paragraphs, and lines to paste, which begin with two spaces."""
    lines: list[str] = []
    for cure in cures:
        pasted = [line for way in cure.ways for line in _lines(way)]
        words = cure.words if cure.instead is None else cure.instead
        if not pasted and words.endswith(":"):
            words = words[:-1] + "."
        lines += [*([words] if words else []), *(f"  {line}" for line in pasted)]
    return "\n".join(lines)


def _lines(way: Mapping[str, Any] | str) -> list[str]:
    """A call per what takes some of the options; those that nothing takes are left out, with our own commands."""
    if isinstance(way, str):
        return [] if way.startswith(("sourcewise ", "--")) else [way]
    calls: dict[str, list[str]] = {}
    for name, value in way.items():
        if name in TAKEN:
            call, argument = TAKEN[name]
            calls.setdefault(call, []).append(f"{argument}={said(value)}")
    return [f"{call}({', '.join(arguments)})" for call, arguments in calls.items()]
