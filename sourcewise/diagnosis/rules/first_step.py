"""Will the first step teach every weight something? Measured before training; texts are in `wiring_texts.py`."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sourcewise.config import UnfreezeConfig
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.first_step import FirstStep, Weight, layers, measure_first_step
from sourcewise.diagnosis.rules.wiring_texts import (
    ENCODER_PATH,
    NO_GRADIENT,
    NOT_FINITE,
    NOT_TRAINED,
    RATE,
    SCALE,
    SOURCE_UNREACHED,
    VANISHING,
)
from sourcewise.errors import RequestError

if TYPE_CHECKING:
    from sourcewise.data.batches import Batch
    from sourcewise.training.opening import Prepared

EPSILON = 1e-8  # AdamW's
DROWNED = 1e-4  # of the largest layer's gradient
WIPES, LARGE = 1.0, 0.3  # updates as a share of the weights
LEAST_WAY = 0.1  # all updates together, as a share of random weights
FADES, FORGETS = 0.01, 0.1  # of the weights, taken by weight decay in a step
ENDLESS = 4  # times as many steps of warm-up as there are steps
TRIAL = 100  # steps; a training of fewer tries whether all runs, and need not get anywhere


def check(prepared: Prepared, batch: Batch, known: Collection[str] = ()) -> list[Finding]:
    """WIR001, WIR003 and WIR012 to WIR014; what the codes that are `known` imply is not said again."""
    recipe = prepared.recipe
    if not recipe.train.learning_rate:
        return [RATE.finding("train.learning_rate is 0: no weight will ever change")]
    if NOT_FINITE.code in known:
        return []
    try:
        step = measure_first_step(prepared.network, batch, recipe.train, prepared.tokenizer.unk_id)
    except RequestError as nothing:
        return [NOT_TRAINED.finding(str(nothing))]
    steps, epochs = planned(prepared)
    loaded = ("features",) if recipe.model.feature_encoder.weights else ()
    step = _never_unfrozen(step, recipe.train.unfreeze, epochs)
    found = judge(step, known, fresh=not recipe.model.weights, steps=steps, loaded=loaded)
    if faded := decay(recipe.train.learning_rate, recipe.train.weight_decay):
        found = [*faded, *(f for f in found if f.code != RATE.code)]
    if not found and steps >= TRIAL and recipe.train.warmup_steps >= ENDLESS * steps:
        evidence = f"the warm-up has {recipe.train.warmup_steps:,} steps, the training {steps:,}"
        return [RATE.finding(evidence, "warning", "A twentieth of the steps:\n  --train.warmup_steps 200")]
    return found


def judge(
    step: FirstStep, known: Collection[str] = (), *, fresh: bool, steps: int, loaded: Collection[str] = ()
) -> list[Finding]:
    """The findings of a first step; `fresh`: from random weights, but for the parts that were `loaded` by themselves.

    `steps`: how many there are to be.
    """
    if not math.isfinite(step.norm):
        return [NOT_FINITE.finding(f"the norm of the first gradient is {step.norm}, the loss {step.loss:.3g}")]
    found = [*_not_trained(step.weights, fresh, loaded)]
    if {SCALE.code, ENCODER_PATH.code}.isdisjoint(known):
        # Where the source does not reach the logits, no gradient reaches it: that is said already.
        silent = [] if SOURCE_UNREACHED.code in known else _no_gradient(step.weights)
        found += silent or _vanishing(step.weights)
    return found or _rate(step, steps, fresh)


def _never_unfrozen(step: FirstStep, unfreeze: UnfreezeConfig, epochs: float) -> FirstStep:
    """The same with parts frozen whose epoch to begin at does not come."""
    never = {part for part, epoch in unfreeze.model_dump(exclude={"rate"}).items() if epoch and epoch >= epochs}
    weights = tuple(replace(w, frozen=True) if w.part in never and w.learns else w for w in step.weights)
    return replace(step, weights=weights)


def decay(rate: float, weight_decay: float) -> list[Finding]:
    """WIR014 where a step's decay, peak rate times weight decay, takes more than the gradient can give."""
    share = rate * weight_decay
    if share <= FADES:
        return []
    half = math.ceil(math.log(0.5) / math.log1p(-share)) if share < 1 else 1
    evidence = (
        f"a weight decay of {weight_decay:g} at the peak rate of {rate:g} takes {share:.2g} of the weights in a step: "
        f"after {half} {'step' if half == 1 else 'steps'} half of what was learned is gone"
    )
    cure = "Usual is 0.01 to 0.1:\n  --train.weight_decay 0.01"
    return [RATE.finding(evidence, "error" if share > FORGETS else "warning", cure)]


def _not_trained(weights: Sequence[Weight], fresh: bool, loaded: Collection[str]) -> list[Finding]:
    found = []
    for what, rows in (
        ("are frozen, though not by train.freeze", [w for w in weights if not w.learns]),
        ("are not in the optimizer", [w for w in weights if w.learns and not w.frozen and not w.optimised]),
    ):
        if rows:
            found.append(NOT_TRAINED.finding(f"{_counted(rows, weights)} {what}"))
    drawn = [w for w in weights if (fresh or w.part in ("bridge", "features")) and w.part not in loaded]
    frozen = [w for w in drawn if w.frozen]
    if frozen:
        evidence = f"{_counted(frozen, weights)} are frozen at their random initialisation"
        found.append(NOT_TRAINED.finding(evidence, "error" if any(w.part == "bridge" for w in frozen) else "warning"))
    return found


def _no_gradient(weights: Sequence[Weight]) -> list[Finding]:
    learning = [w for w in weights if w.learns and not w.frozen]
    parts = {part: [w for w in learning if w.part == part] for part in dict.fromkeys(w.part for w in learning)}
    silent = [w for rows in parts.values() if not any(w.gradient for w in rows) for w in rows]
    if silent:
        return [NO_GRADIENT.finding(f"the loss has no gradient by {_counted(silent, weights)}")]
    unused = [w for w in learning if w.gradient is None]
    if unused:
        return [NO_GRADIENT.finding(f"the loss does not depend on {_counted(unused, weights)}", "warning")]
    return []


def _vanishing(weights: Sequence[Weight]) -> list[Finding]:
    stacks = layers(weights)
    largest = max((max(stack) for stack in stacks.values()), default=0.0)
    for name, stack in stacks.items():
        least = min(stack)
        drowned = least < min(EPSILON, DROWNED * largest)
        if max(stack) and (drowned or least < DROWNED * max(stack)):
            place = stack.index(least)
            evidence = f"layer {place} of {name.removeprefix('network.body.')} has a gradient of {least:.1e}"
            evidence += f", layer {stack.index(max(stack))} of the {len(stack)} one of {max(stack):.1e}"
            return [VANISHING.finding(evidence, "error" if drowned else "warning")]
    return []


def _rate(step: FirstStep, steps: int, fresh: bool) -> list[Finding]:
    ratios = [w.update / w.value for w in step.weights if w.optimised and w.update > 0 and w.value > 0]
    if not ratios:
        return []
    median = float(np.median(ratios))
    evidence = f"a step at the peak rate changes a tensor by {median:.2g} of its size (median of {len(ratios)})"
    if median > LARGE:
        return [RATE.finding(evidence, "error" if median > WIPES else "warning")]
    if fresh and steps >= TRIAL and median * steps < LEAST_WAY:
        evidence += f"; {steps} such steps in one direction, by {median * steps:.2g}"
        cure = "A higher rate, or more steps:\n  --train.learning_rate 1e-3"
        return [RATE.finding(evidence, "warning", cure)]
    return []


def planned(prepared: Prepared) -> tuple[int, float]:
    """How many steps and epochs the training has; steps with padding left out: at least so many."""
    train, examples = prepared.recipe.train, prepared.train
    tokens = int(examples.source_lengths.sum() + examples.target_lengths.sum())
    batches = max(tokens / train.batch_tokens, len(examples) / (train.batch_size or len(examples)))
    epoch = max(1.0, batches / train.accumulate)
    if train.steps:
        return train.steps, train.steps / epoch
    return max(1, math.ceil(epoch * train.epochs)), float(train.epochs)


def _counted(rows: Sequence[Weight], all_rows: Sequence[Weight]) -> str:
    """'encoder, bridge (52 tensors, 1,234 weights, 61 %)'; up to two tensors by name."""
    names = [w.name.removeprefix("network.") for w in rows]
    said = ", ".join(names if len(names) <= 2 else dict.fromkeys(w.part for w in rows))
    size, total = sum(w.size for w in rows), sum(w.size for w in all_rows)
    return f"{said} ({len(rows)} tensors, {size:,} weights, {100 * size / total:.3g} % of all)"
