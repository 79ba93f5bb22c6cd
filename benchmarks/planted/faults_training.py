"""Faults in a recipe, or in the loop that trains: options that do not fit, and arithmetic that gives out."""

from __future__ import annotations

from typing import Any

import torch

from planted.fault import Fault, around, fault
from planted.material import Material, Row

TEXT = ("dates rnn", "dates t5")
ANY = ("digits t5", "dates t5")
LARGE = 2.0**15


def upwards(usual: Any, self: Any, gradients: Any) -> None:
    """The sign of the loss is wrong: training makes it larger."""
    usual(self, [None if g is None else -g for g in gradients])


def in_half(usual: Any, self: Any, x: torch.Tensor, *given: Any) -> torch.Tensor:
    """What a block adds passes through fp16, as large there as in big pretrained T5s."""
    added: torch.Tensor = usual(self, x, *given) - x
    return x + (added.half() * LARGE).to(x.dtype) / LARGE


def others_language(given: Material, rng: Any) -> Material:
    """Sources in a script that the tokenizer has never seen."""
    table = {ord(a): chr(0x5E00 + i) for i, a in enumerate("abcdefghijklmnopqrstuvwxyz0123456789,./-")}

    def change(rows: list[Row]) -> list[Row]:
        return [Row(r.id, r.source.lower().translate(table), r.target) for r in rows]

    return Material(change(given.train), change(given.valid))


FAULTS: tuple[Fault, ...] = (
    fault("learning rate x1000", "3 instead of 3e-3", "WIR014 TRN009", ANY, options={"train.learning_rate": 3.0}),
    fault(
        "learning rate x30",
        "0.1 without warm-up",
        "WIR014 TRN009",
        ("digits rnn", "dates t5"),
        options={"train.learning_rate": 0.1, "train.warmup_steps": 0},
    ),
    fault("learning rate /1000", "3e-6 instead of 3e-3", "WIR014 TRN009", ANY, options={"train.learning_rate": 3e-6}),
    fault(
        "learning rate 0",
        "the scheduler gives 0",
        "WIR014 TRN009",
        ("digits rnn", "dates bart"),
        options={"train.learning_rate": 0.0},
    ),
    fault(
        "endless warm-up",
        "a warm-up of 1,000,000 steps",
        "WIR014 TRN009",
        ("dates decoder", "dates t5"),
        options={"train.warmup_steps": 1_000_000},
    ),
    fault(
        "gradient upwards",
        "the loss is maximised",
        "TRN002 TRN003 WIR017",
        ("dates decoder", "dates t5"),
        patches=(around("sourcewise.training.optimizer.MasterAdamW.add", upwards),),
    ),
    fault(
        "dropout 0.9",
        "dropout 0.9 where 0.1 was meant",
        "TRN012 WIR018",
        ("digits t5", "dates t5"),
        options={"model.dropout": 0.9},
    ),
    fault(
        "fp16 overflow",
        "blocks are computed in fp16, and their outputs are too large for it",
        "TRN001 WIR001",
        ("digits t5", "dates t5"),
        patches=tuple(
            around(f"sourcewise.model.families.transformer.{block}.forward", in_half)
            for block in ("EncoderBlock", "DecoderBlock")
        ),
    ),
    fault("sources cut to 2 tokens", "max_source 2", "DAT007", TEXT, options={"data.max_source": 2}),
    fault("frames cut", "max_frames 8", "DAT007", ("digits t5", "fsdd t5"), options={"data.max_frames": 8}),
    fault("targets cut", "max_target 4", "DAT007", ("digits rnn", "dates t5"), options={"data.max_target": 4}),
    fault(
        "outputs cut",
        "max_new_tokens 3",
        "DAT007 OUT007",
        ("digits rnn", "dates t5"),
        options={"generation.max_new_tokens": 3},
    ),
    fault(
        "one pooled slot",
        "a perceiver of one latent",
        "WIR019 MEM002",
        ("digits t5", "fsdd t5"),
        options={"model.bridge.kind": "perceiver", "model.bridge.latents": 1},
    ),
    fault(
        "wrong tokenizer",
        "a tokenizer of another language",
        "DAT006",
        TEXT,
        spoil=others_language,
        options={"data.tokenizer": "OF THE CLEAN SET"},
    ),
    fault(
        "weight decay 100",
        "weights shrink by a third each step",
        "TRN009 WIR014",
        ("digits t5", "dates t5"),
        options={"train.weight_decay": 100.0},
    ),
    fault(
        "masks over everything",
        "thirty masks a clip",
        "DAT018",
        ("digits t5", "fsdd t5"),
        options={"train.augment.time_masks": 30, "train.augment.time_width": 60},
    ),
    fault(
        "noise over everything",
        "noise of fifty deviations",
        "DAT018",
        ("digits rnn", "digits decoder"),
        options={"train.augment.noise": 50.0},
    ),
    fault(
        "words left out",
        "19 of 20 source tokens left out",
        "DAT018",
        ("dates rnn", "dates t5"),
        options={"train.text_noise.drop": 0.95},
    ),
    fault(
        "never unfrozen",
        "the bridge waits for epoch 1000",
        "WIR003",
        ("digits rnn", "fsdd t5"),
        options={"train.unfreeze.bridge": 1000.0},
    ),
    fault(
        "label smoothing 0.95",
        "0.95 where 0.05 was meant",
        "WIR020",
        ("digits t5", "dates t5"),
        options={"train.label_smoothing": 0.95},
    ),
    fault(
        "attention dropout 0.99",
        "0.99 where 0.01 was meant",
        "WIR020",
        ("digits t5", "dates t5"),
        options={"model.attention_dropout": 0.99},
    ),
    fault(
        "endless momentum",
        "beta1 0.9999 in a training of hundreds of steps",
        "WIR020",
        ("dates decoder", "dates t5"),
        options={"train.beta1": 0.9999},
    ),
)
