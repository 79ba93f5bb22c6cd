"""Kinds of faults in a `Seq2SeqTrainer` with a T5 or a BART, of six steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sourcewise.diagnosis.answer import Diagnosis
from sourcewise.integrations.transformers import SourcewiseCallback
from tests.diagnosis.instances import test_layout_of_trainers as layout
from tests.diagnosis.instances.instance import Build, Instance
from tests.integrations import trainings
from tests.integrations.loops import PAD


def trained(
    model: Callable[[], Any],
    change: Callable[[Any], None] | None = None,
    train: Any = layout.as_it_is,
    evaluation: Any = layout.as_it_is,
    **options: Any,
) -> Build:
    """A Trainer of six steps, its model changed before and its batches on their way."""

    def run(folder: Path) -> Diagnosis:
        made = model()
        if change is not None:
            change(made)
        callback: SourcewiseCallback = layout.run(folder, made, train, evaluation, **options)
        return callback.diagnosis

    return run


def labels(change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda batch: batch | {"labels": change(batch["labels"].clone())}


def without_last(ids: Tensor) -> Tensor:
    return ids.masked_fill(ids == trainings.EOS, -100)


def counted(ids: Tensor) -> Tensor:
    return ids.masked_fill(ids == -100, PAD)


def frozen(part: str) -> Callable[[Any], None]:
    return lambda model: getattr(model, part)().requires_grad_(False)  # type: ignore[no-any-return]


def shifted(times: int) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """decoder_input_ids made by hand, shifted so often."""

    def change(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        read = batch["labels"].masked_fill(batch["labels"] == -100, PAD)
        for _ in range(times):
            read = torch.cat((torch.full_like(read[:, :1], PAD), read[:, :-1]), 1)
        return batch | {"decoder_input_ids": read}

    return change


def spoilt(value: float) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        next(model.parameters()).data[5, 0] = value

    return change


def bart_drawn(deviation: float) -> Callable[[], Any]:
    def made() -> Any:
        config = copy.deepcopy(trainings.bart().config)
        config.init_std = deviation
        torch.manual_seed(0)
        return type(trainings.bart())(config)

    return made


def trainers() -> Iterator[Instance]:
    """Of all kinds in a Trainer."""
    models = {"t5": trainings.t5, "bart": trainings.bart}
    for host, model in models.items():
        for way in (layout.dropped, layout.of_ones, layout.inverted):
            yield Instance(
                "the mask is wrong", host, f"{way.__name__} in training", "WIR005", trained(model, train=way)
            )
            yield Instance(
                "the mask is wrong", host, f"{way.__name__} at evaluation", "WIR005", trained(model, evaluation=way)
            )
        yield Instance("the end is missing", host, "labels", "WIR009", trained(model, train=labels(without_last)))
        yield Instance("padding counts", host, "labels", "WIR008", trained(model, train=labels(counted)))
        for value in (float("nan"), float("inf")):
            yield Instance("not finite", host, f"{value}", "WIR001", trained(model, spoilt(value)))
        for rate in (3.0, 30.0):
            yield Instance("a rate too high", host, f"{rate:g}", "WIR014 TRN009", trained(model, learning_rate=rate))
        yield Instance("frozen at random", host, "encoder", "WIR003", trained(model, frozen("get_encoder")))
        for times in (0, 2):
            yield Instance(
                "not shifted once", host, f"{times} times", "WIR007 WIR010", trained(model, train=shifted(times))
            )
        lengths = {"predict_with_generate": True, "generation_max_length": 3}
        yield Instance("outputs are cut", host, "generation_max_length=3", "OUT014", trained(model, **lengths))
    yield Instance(
        "padded on the other side",
        "bart",
        "evaluation",
        "WIR033",
        trained(trainings.bart, evaluation=layout.on_the_left),
    )
    yield Instance(
        "padded on the other side", "bart", "training", "WIR033", trained(trainings.bart, train=layout.on_the_left)
    )
    for deviation in (0.005, 0.01, 0.02):
        yield Instance(
            "drawn for another width", "bart", f"{deviation}", "WIR034 WIR002", trained(bart_drawn(deviation))
        )
