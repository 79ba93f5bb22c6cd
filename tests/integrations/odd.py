"""Trainings that somebody else wrote in another way than most: each makes a Trainer, and tells what it has counted."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset
from transformers import Seq2SeqTrainer

from tests.integrations.trainings import EOS, PAD, SIZE, Row, bart, collate, rows, t5, tokenizer, trainer

IGNORED = -100
STEPS = 6
Made = tuple[Any, Callable[[], Any]]


def made(folder: Path, *args: Any, counted: Callable[[], Any] = lambda: None, kind: Any = None, **options: Any) -> Made:
    """A training of a few steps with an evaluation at its end, and what it counts."""
    built = trainer(folder, *args, **({"steps": STEPS, "logging_steps": 2} | options))
    if kind is not None:
        built.__class__ = kind
    return built, counted


def shifted(labels: Tensor, start: int = PAD) -> Tensor:
    """What the decoder reads for labels."""
    out = labels.masked_fill(labels == IGNORED, PAD).roll(1, 1)
    out[:, 0] = start
    return out


def with_inputs(chosen: list[Row]) -> dict[str, Any]:
    batch = collate(chosen)
    return batch | {"decoder_input_ids": shifted(batch["labels"])}


class OwnLoss(Seq2SeqTrainer):
    """Pops the labels, by another name."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        said = inputs.pop("said")
        out = model(**inputs)
        loss = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), said.flatten(), ignore_index=IGNORED)
        return (loss, out) if return_outputs else loss


class Plain(Seq2SeqTrainer):
    """Makes tensors of lists and arrays by itself, and counts no tokens."""

    def _prepare_inputs(self, inputs: Any) -> Any:
        if isinstance(inputs, dict):
            inputs = {name: torch.as_tensor(value) for name, value in inputs.items()}
        return super()._prepare_inputs(inputs)

    def floating_point_ops(self, inputs: Any) -> int:
        return 0


class Late(Plain):
    """Makes them in its loss only."""

    def _prepare_inputs(self, inputs: Any) -> Any:
        return inputs

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        if isinstance(inputs, tuple):
            inputs = dict(zip(("input_ids", "labels", "attention_mask"), inputs, strict=True))
        out = model(**{name: torch.as_tensor(value) for name, value in inputs.items()})
        return (out.loss, out) if return_outputs else out.loss


def said(chosen: list[Row]) -> dict[str, Any]:
    batch = with_inputs(chosen)
    return {("said" if name == "labels" else name): value for name, value in batch.items()}


def without_labels(chosen: list[Row]) -> dict[str, Any]:
    if "labels" in chosen[0]:
        return collate(chosen)
    batch = collate([row | {"labels": [EOS]} for row in chosen])
    del batch["labels"]
    return batch


def masked(where: Callable[[Tensor], Tensor]) -> Callable[[list[Row]], dict[str, Any]]:
    """A collator whose labels do not count in some places."""

    def collator(chosen: list[Row]) -> dict[str, Any]:
        batch = collate(chosen)
        return batch | {"labels": batch["labels"].masked_fill(where(batch["labels"]), IGNORED)}

    return collator


def first(labels: Tensor) -> Tensor:
    return torch.zeros_like(labels, dtype=torch.bool).index_fill(1, torch.tensor([0]), True)


def second(labels: Tensor) -> Tensor:
    return torch.zeros_like(labels, dtype=torch.bool).index_fill(1, torch.tensor([1]), True)


def some_rows(labels: Tensor) -> Tensor:
    return (torch.arange(len(labels)) % 3 == 0)[:, None].expand_as(labels)


def prompted(chosen: list[Row]) -> dict[str, Any]:
    """The decoder is given two tokens that it need not say."""
    batch = collate([row | {"labels": [4, 5, *row["labels"]]} for row in chosen])
    read = shifted(batch["labels"])
    hidden = first(batch["labels"]) | second(batch["labels"])
    return batch | {"decoder_input_ids": read, "labels": batch["labels"].masked_fill(hidden, IGNORED)}


class Drawing(Dataset):  # type: ignore[type-arg]
    """Draws from generators of its own and counts."""

    def __init__(self) -> None:
        self.rows, self.draw, self.calls = rows(200), random.Random(0), 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Row:
        self.calls += 1
        row = self.rows[place]
        return row | {"input_ids": [self.draw.randint(4, 15), *row["input_ids"]]}


class Counting:
    """A collator that draws and remembers."""

    def __init__(self) -> None:
        self.calls, self.draw = 0, np.random.default_rng(0)

    def __call__(self, chosen: list[Row]) -> dict[str, Any]:
        self.calls += 1
        random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
        batch = collate(chosen)
        noise = (torch.from_numpy(self.draw.random(batch["input_ids"].shape)) < 0.1) & (batch["input_ids"] > EOS)
        return batch | {"input_ids": batch["input_ids"].masked_fill(noise, 4 + self.calls % 12)}


class OnePass(IterableDataset):  # type: ignore[type-arg]
    """Gives each row once, whoever asks."""

    def __init__(self, count: int = 2000, seed: int = 0) -> None:
        self.left, self.given = iter(rows(count, seed)), 0

    def __iter__(self) -> Iterator[Row]:
        for row in self.left:
            self.given += 1
            yield row


class Restless(transformers.T5ForConditionalGeneration):
    """Counts its calls, and drops more at each; draws from a generator of its own."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.calls, self.draw = 0, torch.Generator().manual_seed(0)
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, *given: Any, **named: Any) -> Any:
        self.calls += 1
        self.seen += 1
        self.noise = torch.rand((), generator=self.draw)
        out = super().forward(*given, **named)
        if self.training:
            out.loss = out.loss * (1 + 0.01 * self.calls + 0.1 * self.noise + 0.01 * self.seen)
        return out


def streaming() -> Any:
    """Rows of a generator that is never begun twice."""
    left = iter(rows(2000))

    def generate() -> Iterator[Row]:
        yield from left

    return datasets.IterableDataset.from_generator(generate)


def with_dropout(model: Any) -> Any:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    return model


def bert2bert() -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    sides = [transformers.BertConfig(vocab_size=size, **shape) for size in (SIZE + 8, SIZE)]
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(*sides)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, PAD, EOS
    return transformers.EncoderDecoderModel(config)


def hooked(model: Any) -> Any:
    model.encoder.register_forward_hook(lambda module, given, out: None)
    model.decoder.final_layer_norm.register_full_backward_hook(lambda module, given, out: None)
    return model


class Stops(transformers.TrainerCallback):
    """Somebody's own: expects a loss in each log, and ends a training by what is logged."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> Any:
        if "sourcewise_errors" in logs:
            control.should_training_stop = control.should_epoch_stop = True
            return control
        return None


class Strict(Seq2SeqTrainer):
    def log(self, logs: Any, *args: Any, **named: Any) -> None:
        if any(name.startswith("sourcewise") for name in logs):
            raise KeyError("what is that?")
        super().log(logs, *args, **named)


def popping(folder: Path) -> Made:
    built, counted = made(folder, collator=said, eval_strategy="no", kind=OwnLoss)
    return built, counted


def counting(folder: Path) -> Made:
    collator, data = Counting(), Drawing()
    return made(
        folder, train=data, collator=collator, counted=lambda: (collator.calls, data.calls, data.draw.getstate())
    )


def one_pass(folder: Path) -> Made:
    data = OnePass()
    return made(folder, train=data, counted=lambda: (data.given, next(data.left)))


def restless(folder: Path) -> Made:
    model = Restless(t5().config)
    return made(folder, model, counted=lambda: (model.calls, float(model.seen), model.draw.get_state().tolist()))


def stopping(folder: Path) -> Made:
    built, counted = made(folder)
    built.add_callback(Stops())
    return built, counted


def own_func(folder: Path) -> Made:
    built, counted = made(folder, collator=with_inputs)

    def loss(out: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        return torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED) ** 2

    built.compute_loss_func = loss
    return built, counted


def generating(folder: Path) -> Made:
    bare = [{"input_ids": row["input_ids"]} for row in rows(64, seed=1)]
    options = {"predict_with_generate": True, "generation_max_length": 8}
    built, counted = made(folder, valid=bare, collator=without_labels, **options)
    built.compute_metrics = lambda prediction: {}
    return built, counted


def encoded(chosen: list[Row]) -> Any:
    return transformers.BatchEncoding(collate(chosen))


def checkpointed(folder: Path) -> Made:
    return made(folder, with_dropout(t5()), gradient_checkpointing=True, gradient_accumulation_steps=2)


def columns(folder: Path) -> Made:
    table = datasets.Dataset.from_list([row | {"id": "x"} for row in rows(200)])
    model = bart()
    collator = transformers.DataCollatorForSeq2Seq(tokenizer(), model=model)
    return made(folder, model, train=table, collator=collator, remove_unused_columns=True, processing=tokenizer())


def lists(chosen: list[Row]) -> dict[str, Any]:
    return {name: value.tolist() for name, value in collate(chosen).items()}


def arrays(chosen: list[Row]) -> dict[str, Any]:
    return {name: value.numpy() for name, value in collate(chosen).items()}


# How it is made, and words of a line that says what could not be looked at; none where all of it could be.
TRAININGS: dict[str, tuple[Callable[[Path], Made], str]] = {
    "no labels, a loss of its own": (popping, "the wiring: it has no labels"),
    "an evaluation set without labels": (generating, "the evaluation: its batches have no labels"),
    "lists": (lambda f: made(f, collator=lists, kind=Plain, eval_strategy="no"), ""),
    "arrays": (lambda f: made(f, collator=arrays, kind=Plain, eval_strategy="no"), ""),
    "lists to the end": (lambda f: made(f, collator=lists, kind=Late, eval_strategy="no"), ""),
    "tuples": (
        lambda f: made(f, collator=lambda c: tuple(collate(c)[k] for k in ("input_ids", "labels", "attention_mask")),
                       kind=Late, eval_strategy="no"),
        "a batch is a tuple",
    ),
    "BatchEncoding": (lambda f: made(f, collator=encoded), ""),
    "first labels masked": (lambda f: made(f, collator=masked(first)), ""),
    "first labels masked, BART": (lambda f: made(f, bart(), collator=masked(first)), ""),
    "labels masked inside": (lambda f: made(f, collator=masked(second)), ""),
    "some rows without labels": (lambda f: made(f, collator=masked(some_rows)), ""),
    "a prompt for the decoder": (lambda f: made(f, collator=prompted), "a prompt"),
    "compute_loss_func": (own_func, "compute_loss_func"),
    "one-pass data": (one_pass, ""),
    "streamed data": (lambda f: made(f, train=streaming()), ""),
    "a streamed evaluation": (lambda f: made(f, valid=OnePass(64, seed=1)), ""),
    "several evaluation sets": (lambda f: made(f, valid={"a": rows(64, 1), "b": OnePass(64, 2)}), ""),
    "data and collator with a memory": (counting, ""),
    "two workers": (lambda f: made(f, collator=Counting(), dataloader_num_workers=2), ""),
    "a model with a memory": (restless, ""),
    "a model with hooks": (lambda f: made(f, hooked(t5())), ""),
    "one row a batch": (lambda f: made(f, per_device_train_batch_size=1, per_device_eval_batch_size=1), ""),
    "accumulation": (lambda f: made(f, gradient_accumulation_steps=3, per_device_train_batch_size=4), ""),
    "checkpointed activations": (checkpointed, ""),
    "generation in evaluation": (
        lambda f: made(f, bart(), predict_with_generate=True, generation_max_length=8), ""),
    "a table of datasets": (columns, ""),
    "EncoderDecoderModel": (lambda f: made(f, bert2bert()), ""),
    "compiled": (lambda f: made(f, compiled(t5())), ""),
    "a callback that stops at our figures": (stopping, ""),
    "a Trainer that logs nothing of ours": (lambda f: made(f, kind=Strict), "the Trainer's own log: KeyError"),
}  # fmt: skip


def compiled(model: Any) -> Any:
    model.compile(backend="eager")
    return model
