"""Do signals get through the network, forwards and backwards, and can it learn one batch? Texts: `signals_texts.py`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sourcewise.diagnosis import signals
from sourcewise.diagnosis.finding import Finding, Level
from sourcewise.diagnosis.rules.signals_texts import ACTIVATIONS, DROPOUT, FADING, NOT_BY_HEART, ONE_VECTOR, RULES
from sourcewise.diagnosis.rules.wiring import one_batch

if TYPE_CHECKING:
    from sourcewise.data.batches import Batch
    from sourcewise.training.opening import Prepared

__all__ = ["RULES", "check", "not_tried"]

FADED, GONE = 1e-4, 1e-6  # the weakest eighth of a source beside the strongest
LARGE, HUGE, SMALL = 50.0, 1e3, 0.01  # root mean square of what a block gives
HEAVY, MUFFLED, SILENT = 0.5, 0.1, 0.05  # dropout, and how alike two draws of the logits are
STUCK = 0.9  # of what tokens' frequencies alone give
STILL_FALLING = 0.05  # a share of the loss, over a quarter of the steps
LONG, SAID = 16, 4  # source slots or frames, and target tokens, for which one vector is little


def check(prepared: Prepared) -> list[Finding]:
    """WIR015 to WIR019. A network whose values are not finite shows nothing here: WIR001 says so."""
    network, batch = prepared.network, one_batch(prepared.train)
    found = [*_activations(prepared, batch), *_dropout(prepared, batch), *_one_vector(prepared, batch)]
    fading = signals.measure_fading(network, signals.long_batch(prepared.train))
    return [*found, *_fading(fading, _one_vector_asked(prepared)), *_by_heart(prepared, batch)]


def _activations(prepared: Prepared, batch: Batch) -> list[Finding]:
    stacks = signals.measure_activations(prepared.network, batch)
    if prepared.recipe.model.weights:
        return []  # pretrained blocks may be large: T5's are
    found: list[tuple[Level, str]] = []
    for stack, sizes in stacks.items():
        most, least = max(sizes), min(sizes)
        name = stack.removeprefix("body.")
        if most > LARGE:
            what = f"block {sizes.index(most)} of the {name}'s {len(sizes)} gives values of {most:.3g}"
            found.append(("error" if most > HUGE else "warning", what))
        elif least < SMALL:
            found.append(("warning", f"block {sizes.index(least)} of the {name}'s {len(sizes)} gives {least:.2g}"))
    if not found:
        return []
    level: Level = "error" if any(level == "error" for level, _ in found) else "warning"
    return [ACTIVATIONS.finding("; ".join(what for _, what in found) + " (root mean square)", level)]


def _dropout(prepared: Prepared, batch: Batch) -> list[Finding]:
    rate = prepared.recipe.model.dropout
    if rate < HEAVY:
        return []
    alike = signals.measure_noise(prepared.network, batch)
    if math.isnan(alike) or alike >= MUFFLED:
        return []
    evidence = f"with model.dropout {rate} the logits of two draws have a correlation of {alike:.2f}"
    return [DROPOUT.finding(evidence, "error" if alike < SILENT else "warning")]


def _one_vector(prepared: Prepared, batch: Batch) -> list[Finding]:
    train = prepared.train
    length, said = float(train.source_lengths.mean()), float(train.target_lengths.mean())
    if length < LONG or said < SAID or signals.memory_slots(prepared.network, batch) > 1:
        return []
    units = "frames" if train.dataset.dims else "tokens"
    evidence = (
        f"sources of {length:.0f} {units} on average become one vector, from which {said:.0f} target tokens are told"
    )
    if train.dataset.dims and signals.bridge_slots(prepared.network, batch) == 1:
        cure = "More slots:\n  --model.bridge.kind convolution --model.bridge.stride 4"
        return [ONE_VECTOR.finding(evidence, "warning", cure)]
    return [ONE_VECTOR.finding(evidence, "note" if _one_vector_asked(prepared) else "warning")]


def _one_vector_asked(prepared: Prepared) -> bool:
    """Whether it is a recurrent network without attention, as its recipe has it."""
    return getattr(prepared.network.body.config, "attention", "") == "none"


def _fading(fading: signals.Fading | None, asked: bool) -> list[Finding]:
    if fading is None or not max(fading.eighths) > 0:
        return []
    share = min(fading.eighths) / max(fading.eighths)
    if share >= FADED:
        return []
    weakest = fading.eighths.index(min(fading.eighths)) + 1
    evidence = f"in sources of {fading.slots} slots the {weakest}th eighth has {share:.1e} of the strongest's gradient"
    gone = share < GONE
    return [FADING.finding(evidence, ("warning" if gone else "note") if asked else "error" if gone else "warning")]


def _by_heart(prepared: Prepared, batch: Batch) -> list[Finding]:
    if not_tried(prepared):
        return []
    some = prepared.train.batch(batch.indices[:: max(1, len(batch) // signals.TRIAL_EXAMPLES)])
    trial = signals.learn_by_heart(prepared.network, some)
    if trial is None or not math.isfinite(trial.before) or trial.frequencies < 0.5:
        return []
    if trial.after < STUCK * trial.frequencies or trial.falling > STILL_FALLING:
        return []
    evidence = (
        f"{trial.examples} examples, {trial.steps} steps at {signals.TRIAL_RATE:g} without dropout: from "
        f"{trial.before:.2f} to {trial.after:.2f} nats a target token, by {100 * trial.falling:.1f} % over the last "
        f"quarter; their frequencies alone give {trial.frequencies:.2f}"
    )
    return [NOT_BY_HEART.finding(evidence)]


def not_tried(prepared: Prepared) -> str:
    """Why learning a batch by heart is not tried; empty where it is."""
    flops = signals.trial_flops(prepared.network, one_batch(prepared.train))
    if flops <= signals.TRIAL_FLOPS:
        return ""
    size = sum(p.numel() for p in prepared.network.parameters())
    return f"whether it can learn one batch by heart (WIR017): {size:,} parameters take too long for that"
