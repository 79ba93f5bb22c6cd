"""Settings that leave little to learn from: what augmentation leaves of a source, and options far from use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.rules.data import sample
from sourcewise.diagnosis.rules.first_step import planned
from sourcewise.diagnosis.rules.rule import Rule
from sourcewise.training.augment import Augmenter

if TYPE_CHECKING:
    from sourcewise.data.encoding import Encoded
    from sourcewise.training.opening import Prepared

DAMAGED = Rule(
    code="DAT018",
    name="augmentation leaves little of the sources",
    level="error",
    what=(
        "Of features, the squared correlation of augmented sources with what they were (masks and noise, not speed), "
        "over 32 examples; of texts, the share of tokens that is neither left out nor masked."
    ),
    why="What a source says is gone before the network sees it: it learns to do without, as a language model does.",
    threshold=(
        "Error below 0.1, warning below 0.3. SpecAugment's strongest policy for LibriSpeech (Park et al. 2019) leaves "
        "0.6, noise of one standard deviation 0.5, BART's text infilling (Lewis et al. 2020) 0.7."
    ),
    cure=(
        "Fewer and narrower masks, less noise:\n"
        "  --train.augment.time_masks 2 --train.augment.time_width 10 --train.augment.noise 0.3\n"
        "  --train.text_noise.drop 0.1 --train.text_noise.mask 0.1"
    ),
)

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
RULES = (DAMAGED, FAR)

EXAMPLES = 32
LITTLE, NOTHING = 0.3, 0.1
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
    """DAT018 and WIR020."""
    train, (steps, _) = prepared.recipe.train, planned(prepared)
    values = {f"train.{key}": (float(getattr(train, key)), limit) for key, limit in LIMITS.items()}
    values["model.attention_dropout"] = (prepared.recipe.model.attention_dropout, DROPOUT)
    return [*_damaged(prepared), *far_from_use(values, ("train.beta1", train.beta1), steps)]


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


def _damaged(prepared: Prepared) -> list[Finding]:
    noise, bridge, shares = prepared.recipe.train.text_noise, prepared.network.bridge, {}
    if bridge is None:
        shares["the share of source tokens that are neither left out nor masked"] = (1 - noise.drop) * (1 - noise.mask)
    else:
        config = prepared.recipe.train.augment.model_copy(update={"speed": 0.0})
        augmenter = Augmenter(config, bridge.mean.cpu().numpy(), bridge.deviation.cpu().numpy())
        parts = [part for part in prepared.train.parts if part.dataset.dims]
        if augmenter.active and parts:
            kept = min(left(part, augmenter) for part in parts)
            shares["the squared correlation of augmented features with what they were"] = kept
    return [
        DAMAGED.finding(f"{what} is {share:.2g}", "error" if share < NOTHING else "warning")
        for what, share in shares.items()
        if share < LITTLE
    ]


def left(examples: Encoded, augmenter: Augmenter) -> float:
    """Squared correlation of augmented features with the original, both about the set's mean; 1: unchanged."""
    rng, sums = np.random.default_rng(0), np.zeros(3)
    for place in sample(len(examples), EXAMPLES):
        matrix = examples.dataset.features(int(place))[: examples.max_frames]
        x, y = ((each - augmenter.mean) / augmenter.deviation for each in (matrix, augmenter(matrix, rng)))
        sums += [float((x * y).sum()), float((x * x).sum()), float((y * y).sum())]
    return float(sums[0] ** 2 / (sums[1] * sums[2])) if sums[1] * sums[2] else 0.0
