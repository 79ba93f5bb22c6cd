"""A trained base, and low-rank adapters as people write them by hand."""

from __future__ import annotations

import copy
import os
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from others import models, tasks, trainers
from others.tasks import FRENCH
from others.trainers import Row

_TRAINED: dict[str, Any] = {}  # by name: a base is trained once a process
_OWN = tempfile.TemporaryDirectory(prefix="others-base-")


def bases() -> Path:
    """Where trained bases are kept: processes of one exam share a folder."""
    return Path(os.environ.get("OTHERS_BASES") or _OWN.name)


class LoraLinear(nn.Module):
    """A frozen projection, and a trained one of low rank beside it that starts at zero."""

    def __init__(self, base: nn.Linear, rank: int = 8, alpha: int = 16) -> None:
        super().__init__()
        self.base, self.scaling = base, alpha / rank
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """The sum of the two."""
        out: Tensor = self.base(hidden) + self.scaling * self.lora_B(self.lora_A(hidden))
        return out


def add_lora(model: nn.Module, targets: Sequence[str], inside: str = "", rank: int = 8) -> int:
    """Freeze all, put adapters beside the projections named `targets`; gives how many there are."""
    for weight in model.parameters():
        weight.requires_grad_(False)
    torch.manual_seed(1)
    found = 0
    for name, module in list(model.named_modules()):
        for child, layer in list(module.named_children()):
            if child in targets and isinstance(layer, nn.Linear) and inside in name:
                setattr(module, child, LoraLinear(layer, rank))
                found += 1
    return found


def trained(name: str, model: Any, rows: Sequence[Row], collate: Any, steps: int, rate: float = 3e-3) -> Any:
    """A copy of the model after so many steps on these rows: somebody's pretrained checkpoint."""
    file = bases() / f"{name.replace(' ', '-')}.pt"
    if name not in _TRAINED and file.is_file():
        model.load_state_dict(torch.load(file, weights_only=True))
        _TRAINED[name] = model
    if name not in _TRAINED:
        torch.manual_seed(0)
        optimizer = torch.optim.AdamW(model.parameters(), rate)
        draw = random.Random(0)
        for _ in range(steps):
            loss = model(**collate([dict(row) for row in draw.sample(list(rows), 32)])).loss
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        _TRAINED[name] = model
        kept = file.with_suffix(f".{os.getpid()}")  # another process may be at it, too
        torch.save(model.state_dict(), kept)
        kept.replace(file)
    return copy.deepcopy(_TRAINED[name])


def t5_checkpoint(seed: int, **kind: Any) -> tuple[Any, Any, list[tasks.Pair], list[tasks.Pair]]:
    """A T5 that speaks English numbers, its tokenizer, and French pairs to fine-tune it on."""
    from transformers import DataCollatorForSeq2Seq

    words = tasks.vocabulary(*FRENCH)
    tokenizer = tasks.word_tokenizer(words)
    rows = trainers.encoded(tasks.numbers(4000, seed + 1, 2, 4), tokenizer)
    name = f"t5-{seed}-{'-'.join(map(str, kind.values()))}"
    model = trained(name, models.t5(len(words), seed, **kind), rows, DataCollatorForSeq2Seq(tokenizer), steps=600)
    train, valid = tasks.split(tasks.numbers(1500, seed, 2, 4, FRENCH))
    return model, tokenizer, train, valid


def bart_checkpoint(seed: int, **more: Any) -> tuple[Any, Any, list[tasks.Pair]]:
    """A BART that speaks English numbers, its tokenizer, and pairs that it has not seen."""
    from transformers import DataCollatorForSeq2Seq

    words = tasks.vocabulary()
    tokenizer = tasks.word_tokenizer(words)
    train, valid = tasks.split(tasks.numbers(2100, seed))
    model = models.bart(len(words), seed, **more)
    rows = trainers.encoded(train, tokenizer)
    model = trained(
        f"bart-{seed}-{'-'.join(map(str, more.values()))}", model, rows, DataCollatorForSeq2Seq(tokenizer), steps=150
    )
    return model, tokenizer, valid


def fine_tuned(
    folder: Path, seed: int, change: Any = None, rows: Any = None, kind: Any = None, **options: Any
) -> trainers.Trained:
    """The T5 checkpoint, fine-tuned by a Seq2SeqTrainer on French; `change` is made to it, `rows` makes the rows."""
    from transformers import T5ForConditionalGeneration

    model, tokenizer, *pairs = t5_checkpoint(seed, **(kind or {}))
    checkpoint = folder.with_name(f"{folder.name}-checkpoint")
    model.save_pretrained(checkpoint)
    model = T5ForConditionalGeneration.from_pretrained(checkpoint)
    if change is not None:
        change(model)
    train, valid = ((rows or trainers.encoded)(each, tokenizer) for each in pairs)
    options = {"max_steps": 120, "learning_rate": 2e-3, "lr_scheduler_type": "constant_with_warmup"} | options
    made = trainers.trainer(folder, model, tokenizer, train, valid, **options)
    return trainers.Trained(made, lambda: trainers.exact(made, trainers.encoded(pairs[1], tokenizer)))
