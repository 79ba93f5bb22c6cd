"""Settings that leave little to learn from: options far from use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.rules.first_step import planned
from sourcewise.diagnosis.rules.rule import Rule

if TYPE_CHECKING:
    from sourcewise.training.opening import Prepared

FAR = Rule(
    code="WIR020",
    name="a setting far from any in use",
    level="warning",
    what="Options that take something away from the training, or weigh a loss against the main one.",
    why=(
        "Each is a cure in small amounts. In large ones the loss hardly depends on what is right any more, and what "
        "follows looks like a fault of the network."
    ),
    threshold=(
        "train.label_smoothing from 0.5 (0.1 is usual), model.attention_dropout, and any dropout of a Trainer's model, "
        "from 0.7 (0.1), train.word_dropout from 0.9 (Bowman et al. 2016 go to 0.75), the weights of guided_attention, "
        "attention_mass and contrastive from 10 (1), and a train.beta1 that remembers more than a fifth of the "
        "training, and 30 steps: 1 / (1 - beta1) (10)."
    ),
    cure="As usual:\n  --train.label_smoothing 0.1 --model.attention_dropout 0.1 --train.beta1 0.9",
)

# Causes before symptoms.
RULES = (FAR,)

SMOOTHING, WEIGHT = 0.5, 10
LIMITS = {
    "label_smoothing": SMOOTHING,
    "word_dropout": 0.9,
    "guided_attention": WEIGHT,
    "attention_mass": WEIGHT,
    "contrastive": WEIGHT,
}
DROPOUT = 0.7
MEMORY, USUAL, TRIAL = 0.2, 30, 100  # of a training; steps that any may remember; steps below which it is none


def check(prepared: Prepared) -> list[Finding]:
    """WIR020."""
    train, (steps, _) = prepared.recipe.train, planned(prepared)
    values = {f"train.{key}": (float(getattr(train, key)), limit) for key, limit in LIMITS.items()}
    values["model.attention_dropout"] = (prepared.recipe.model.attention_dropout, DROPOUT)
    return far_from_use(values, ("train.beta1", train.beta1), steps)


def far_from_use(
    values: Mapping[str, tuple[float, float]], first_moment: tuple[str, float], steps: int
) -> list[Finding]:
    """WIR020 of options with their values and limits, and of AdamW's first decay in a training of so many steps."""
    found = [f"{name} {value:g}" for name, (value, limit) in values.items() if value >= limit]
    name, decay = first_moment
    if steps >= TRIAL and 1 - decay < 1 / max(MEMORY * steps, USUAL):
        memory = f"remembers {1 / (1 - decay):,.0f} steps of {steps:,}" if decay < 1 else "never forgets"
        found.append(f"{name} {decay:g} ({memory})")
    return [FAR.finding(", ".join(found))] if found else []
