"""A folder whose weights never arrived, and one that is well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from others import models
from others.case import Cases
from others.hosts import Judged
from others.tasks import numbers, split, vocabulary, word_tokenizer
from others.trainers import said
from torch import nn

CASES = Cases()


class Wrapped(nn.Module):
    """A module with the network as its `model`, as a LightningModule has it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model


class Work:
    """Pairs, their tokenizer, and what training and judging need."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.words = vocabulary()
        self.tokenizer = word_tokenizer(self.words)
        self.train, self.valid = split(numbers(1096, seed, 2, 4))
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def batch(self, pairs: Any) -> Any:
        """Ids of both sides; -100 where labels are padding."""
        made = self.tokenizer(
            [a for a, _ in pairs], text_target=[b for _, b in pairs], padding=True, return_tensors="pt"
        )
        made.pop("token_type_ids", None)
        made["labels"] = made["labels"].masked_fill(made["labels"] == self.tokenizer.pad_token_id, -100)
        return made

    def learn(self, model: Any, seed: int, steps: int = 450, rate: float = 6e-3) -> None:
        """Adam on batches of 32."""
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        draw = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            rows = torch.randint(len(self.train), (32,), generator=draw).tolist()
            loss = model(**self.batch([self.train[i] for i in rows])).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def saved(self, model: Any) -> Judged:
        """The folder and the set, to be judged."""
        model.save_pretrained(self.folder / "model")
        self.tokenizer.save_pretrained(self.folder / "model")
        lines = ["source\ttarget", *(f"{a}\t{b}" for a, b in self.valid)]
        (self.folder / "valid.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")

        def figure() -> float:
            outputs = said(model, self.batch(self.valid))
            wanted = [[self.words.index(word) for word in b.split()] for _, b in self.valid]
            return sum(a == b for a, b in zip(outputs, wanted, strict=True)) / len(wanted)

        return Judged(self.folder / "model", self.folder / "valid.tsv", figure)


@CASES.fault(
    "no_key_matched",
    "diagnose",
    origin="pytorch/examples#1029 'load_state_dict strict=False can silently load a corrupted model', #141256: "
    "keys with "
    "'model.' or 'module.' before them",
    what="a checkpoint of a wrapper was loaded with strict=False: no key matches, so the saved folder has "
    "random weights",
    expected="the folder's weights are as they were drawn: nothing was loaded into it",
    accepts="new:untrained-weights",
)
def unmatched(broken: bool, seed: int, folder: Path) -> Judged:
    """A T5 that was trained in a wrapper, exported for use."""
    work = Work(seed, folder)
    wrapper = Wrapped(models.t5(len(work.words), seed))
    work.learn(wrapper.model, seed)
    state = wrapper.state_dict()
    if not broken:
        state = {name.removeprefix("model."): value for name, value in state.items()}
    exported = models.t5(len(work.words), seed + 1)
    exported.load_state_dict(state, strict=False)
    return work.saved(exported)


@CASES.control("marian_folder", "diagnose", origin="Helsinki-NLP's Marian models, exported after fine-tuning")
def marian(broken: bool, seed: int, folder: Path) -> Judged:
    """A Marian that has learned its task."""
    work = Work(seed, folder)
    model = models.marian(len(work.words), seed)
    work.learn(model, seed, steps=400, rate=3e-3)
    return work.saved(model)
