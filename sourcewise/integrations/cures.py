"""Cures in the words of who trains: arguments of a Hugging Face Trainer, or lines of PyTorch in a loop of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sourcewise.diagnosis.answer import Diagnosis
from sourcewise.diagnosis.cure import Cure, said


@dataclass(frozen=True, slots=True)
class Host:
    """Who runs a training, and how it takes our options: option → call and argument, or a line with `{}`."""

    taken: Mapping[str, tuple[str, str] | str]
    not_finite: str  # what to do about values that are not finite
    log: str  # what its findings are written to


ARGUMENTS, GENERATION = "Seq2SeqTrainingArguments", "GenerationConfig"
TRAINER = Host(
    {
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
    },
    "Go back to the last checkpoint before that step. Where norms grew before it, a lower learning_rate, more "
    "warmup_steps, or max_grad_norm=1.0; where they did not, look at the data of that batch, and at whatever writes to "
    "the weights; with fp16, train in bf16 or fp32.",
    "the Trainer's own log",
)
LOOP = Host(
    {
        "train.learning_rate": "optimizer = torch.optim.Adam(model.parameters(), lr={})",
        "train.warmup_steps": "scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, 1.0, total_iters={})",
        "train.weight_decay": "optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay={})",
        "train.clip": "torch.nn.utils.clip_grad_norm_(model.parameters(), {})  # between backward() and step()",
        "train.label_smoothing": "criterion = torch.nn.CrossEntropyLoss(label_smoothing={})",
        "train.freeze": 'optimizer.add_param_group({{"params": module.parameters()}})  # of each module left out',
    },
    "Go back to the last checkpoint before that step. Where norms grew before it, a lower learning rate, or "
    "torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0) before optimizer.step(); where they did not, look at the "
    "data of that batch, and at whatever writes to the weights; with fp16, train in bf16 or fp32.",
    "the terminal",
)


def translated(diagnosis: Diagnosis, host: Host) -> Diagnosis:
    """The same, its cures in the words of a host."""
    findings = [
        replace(each, cure=as_arguments(each.cures, host)) if each.cures else each for each in diagnosis.findings
    ]
    return replace(diagnosis, findings=findings)


def as_arguments(cures: Iterable[Cure], host: Host = TRAINER) -> str:
    """Cures as paragraphs, and lines to paste, which begin with two spaces."""
    lines: list[str] = []
    for cure in cures:
        pasted = [line for way in cure.ways for line in _lines(way, host)]
        words = cure.words if cure.instead is None else cure.instead
        if not pasted and words.endswith(":"):
            words = words[:-1] + "."
        lines += [*([words] if words else []), *(f"  {line}" for line in pasted)]
    return "\n".join(lines)


def _lines(way: Mapping[str, Any] | str, host: Host) -> list[str]:
    """A call per what takes some of the options; those that nothing takes are left out, with our own commands."""
    if isinstance(way, str):
        return [] if way.startswith(("sourcewise ", "--")) else [way]
    calls: dict[str, list[str]] = {}
    lines = []
    for name, value in way.items():
        match host.taken.get(name):
            case (call, argument):
                calls.setdefault(call, []).append(f"{argument}={said(value)}")
            case str(line):
                lines.append(line.format(said(value)))
    return [*lines, *(f"{call}({', '.join(arguments)})" for call, arguments in calls.items())]
