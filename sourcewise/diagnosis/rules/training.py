"""How does a training go, by its losses and evaluations? Asked while it runs and afterwards."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sourcewise.diagnosis.course import (
    FELL,
    Course,
    Line,
    bits_rise,
    getting_better,
    loss_falls,
    middle,
    stretches,
    too_early,
)
from sourcewise.diagnosis.finding import Finding, Level
from sourcewise.diagnosis.rules import training_steps
from sourcewise.diagnosis.rules.training_texts import (
    DIVERGED,
    DROPOUT,
    LANGUAGE_MODEL,
    NOT_FALLING,
    NOT_FINITE,
    OUT_OF_STEP,
    OVERFITTED,
    RULES,
    STILL_LEARNING,
    TOKENS_ALONE,
)
from sourcewise.evaluation.verdict import SOURCE_BITS

__all__ = ["RULES", "check"]

LINES = 9  # of losses from which on a course has a shape
LEAST_RISE = 0.5  # nats
LEAST_FALL = 0.05  # of the first loss
FIRST_STEPS = 100  # in which nothing need be learnt yet
FREQUENCIES = 0.97  # of the target tokens' entropy
WAY, LONG = 0.3, 1000  # a way of the weights, or else steps, after which tokens' frequencies are known
SOME_DROPOUT = 0.3
APART = 3  # times the training loss


def check(course: Course) -> list[Finding]:
    """TRN001 to TRN014; of a training too short to judge, that alone.

    Of one that values which are not finite ended: that, and what leads there, but not what more steps would do.
    """
    if course.stopped is not None:
        return [*_not_finite(course), *training_steps.before_the_stop(course), *_diverged(course)]
    if short := training_steps.too_short(course):
        return [*_not_finite(course), *short]
    found = [*_not_finite(course), *training_steps.check(course)]
    if not course.other_loss:
        found += _diverged(course)
        if course.step > _warm(course):
            found += _not_falling(course) or _tokens_alone(course)
        found += [*_language_model(course), *_overfitted(course), *_dropout(course)]
    return [*found, *_out_of_step(course), *_still_learning(course)]


def _warm(course: Course) -> int:
    """The step by which something should have been learnt, if there is a training worth the name."""
    return max(FIRST_STEPS, course.recipe.train.warmup_steps if course.recipe else 0)


def _not_finite(course: Course) -> list[Finding]:
    line = course.stopped or course.not_finite
    if line is None:
        return []
    evidence = f"at step {line['step']} {line.get('why') or _what_is_not_finite(line)}"
    if line.get("unlabelled"):
        evidence += f"; of the {line['unlabelled']} rows of its batch no label counts: all are -100"
    if line.get("times", 1) > 1:
        evidence += f"; {line['times']} such steps so far"
    before = [n for n in course.train[-3:] if n.get("gradient_norm") is not None and n["step"] < line["step"]]
    if before:
        norms = ", ".join(f"{n['gradient_norm']:.2g} at step {n['step']}" for n in before)
        evidence += f"; the norm before: {norms}"
    return [NOT_FINITE.finding(evidence, cure=line.get("cure"))]


def _what_is_not_finite(line: Line) -> str:
    """The figures and tensors of a step that are not finite, in words."""
    names = {"loss": "the loss is", "gradient_norm": "the norm of its gradient is"}
    figures = {said: line[key] for key, said in names.items() if key in line}
    values = {said: "not finite" if value is None else f"{value:.3g}" for said, value in figures.items()}
    said = [", ".join(f"{name} {value}" for name, value in values.items())] if values else []
    tensors = [what for what in ("weights", "gradients", "moments") if line.get(what)]
    said += [f"not finite are the {what} {line[what]}" for what in tensors]
    return "; ".join([*said, *([line["lost"]] if line.get("lost") else [])])


def _diverged(course: Course) -> list[Finding]:
    fed = course.recipe.train.scheduled_sampling if course.recipe else "none"
    if len(course.train) < LINES or fed != "none":  # who is fed more of his own words from step to step loses by it
        return []
    levels = stretches(course.losses)
    place = int(levels.argmin())
    rise, gained = levels[-1] - levels[place], max(levels[0], course.losses[0]) - levels[place]
    if rise < max(LEAST_RISE, 0.25 * gained):
        return []
    level: Level = "error" if rise >= 0.5 * gained else "warning"
    evidence = f"the loss rose from {levels[place]:.2f} to {levels[-1]:.2f} nats (medians of a {len(levels)}th"
    evidence += f" of the lines), having fallen by {gained:.2f} before"
    return [DIVERGED.finding(evidence, level)]


def _not_falling(course: Course) -> list[Finding]:
    losses, entropy = course.losses, course.target_entropy
    if len(losses) < 5:
        return []
    first, recent = float(losses[0]), middle(losses[-3:])
    if recent < (1 - LEAST_FALL) * first or recent < 0.9 * (entropy or 0):
        return []
    if not course.fresh and not entropy:
        return []  # a loss that pretrained weights begin with may be as low as it gets
    evidence = f"{first:.3f} nats a target token in the first line, {recent:.3f} in the last, at step {course.step}"
    if entropy:
        evidence += f"; knowing how frequent each token is alone gives {entropy:.3f}"
    return [NOT_FALLING.finding(evidence)]


def _tokens_alone(course: Course) -> list[Finding]:
    entropy, parts = course.target_entropy, course.parts("update_ratios")
    way = max((course.way(part) for part in parts), default=0.0)
    moved = way >= WAY or course.step >= LONG
    if not entropy or len(course.train) < 5 or not moved or not (course.finished or course.late):
        return []
    recent = middle(course.losses[-3:])
    if recent < FREQUENCIES * entropy or (not course.finished and loss_falls(course, FELL)):
        return []
    evidence = f"{recent:.3f} nats a target token at step {course.step}; knowing how frequent each token is alone gives"
    return [TOKENS_ALONE.finding(f"{evidence} {entropy:.3f}", "error" if course.finished else "warning")]


def _language_model(course: Course) -> list[Finding]:
    measured = [e for e in course.evaluations if (e.get("source_bits_ci95") or [None])[0] is not None]
    if not measured or not course.train or measured[-1].get("reference_unique_pct", 0) < 50:
        return []  # labels hold few bits to read
    entropy = course.target_entropy
    if course.losses[-1] > (FREQUENCIES * entropy if entropy else (1 - LEAST_FALL) * course.losses[0]):
        return []  # not even a language model
    unread = 0
    for line in reversed(measured):
        if line["source_bits_ci95"][1] >= SOURCE_BITS:
            break
        unread += 1
    last, first = measured[-1], measured[-unread] if unread else {}
    ended = course.finished and last["step"] >= course.total
    if not unread or not (ended or (unread > 1 and course.late)):
        return []
    evidence = (
        f"source bits are {last['source_bits']:.3f} (95 % interval to {last['source_bits_ci95'][1]:.3f}) at step "
        f"{last['step']}, below {SOURCE_BITS} since step {first['step']}, while the loss went from "
        f"{course.losses[0]:.2f} to {course.losses[-1]:.2f}"
    )
    if entropy:
        evidence += f"; tokens' frequencies alone give {entropy:.2f}"
    if early := too_early(course) if ended else "":
        return [LANGUAGE_MODEL.finding(f"{evidence}. No error: {early}", "note")]
    if rising := bits_rise(course):
        evidence += f"; but {rising}"
    return [LANGUAGE_MODEL.finding(evidence, "error" if ended and not rising else "warning")]


def _overfitted(course: Course) -> list[Finding]:
    lines = [line for line in course.evaluations if line.get("loss") is not None and not line.get("averaged")]
    if len(lines) < 3 or not course.train:
        return []
    losses = [float(line["loss"]) for line in lines]
    place = losses.index(min(losses))
    rise = losses[-1] / max(losses[place], 1e-9) - 1
    after = [line["loss"] for line in course.train if line["step"] > lines[place]["step"]]
    before = [line["loss"] for line in course.train if line["step"] <= lines[place]["step"]]
    learnt = middle([line["loss"] for line in course.train[-3:]])
    if losses[-1] >= APART * learnt and losses[-1] - learnt >= LEAST_RISE:
        evidence = f"at step {lines[-1]['step']} the validation loss is {losses[-1]:.3f} nats, the training loss "
        return [OVERFITTED.finding(f"{evidence}{learnt:.3f}")]
    if place > len(losses) - 3 or rise < 0.1 or losses[-1] - losses[place] < 0.1 or not before or not after:
        return []
    if middle(after[-3:]) > middle(before[-3:]):
        return []  # both rise: that is no over-fitting
    name = course.recipe.train.best if course.recipe else "bleu"
    best = _best(lines, name)
    evidence = (
        f"the validation loss was lowest at step {lines[place]['step']}, {losses[place]:.3f} nats, and is "
        f"{losses[-1]:.3f} at step {lines[-1]['step']}, while the training loss went from {middle(before[-3:]):.3f} to "
        f"{middle(after[-3:]):.3f}; {name} was best at step {lines[best]['step']}"
    )
    return [OVERFITTED.finding(evidence, "note" if best > place else "warning")]


def _best(lines: Sequence[Line], name: str) -> int:
    """Which evaluation did best by this figure; the last, where it was not measured."""
    sign = 1.0 if name in ("loss", "wer") else -1.0
    known = [(sign * float(line[name]), i) for i, line in enumerate(lines) if line.get(name) is not None]
    return min(known)[1] if known else len(lines) - 1


def _still_learning(course: Course) -> list[Finding]:
    if not course.finished or not course.fresh:
        return []
    better = getting_better(course, FELL) if len(course.by_step("loss")) > 1 else ""
    return [STILL_LEARNING.finding(better)] if better else []


def _out_of_step(course: Course) -> list[Finding]:
    line = course.evaluations[-1] if course.evaluations else {}
    if any(line.get(key) is None for key in ("loss", "exact_match_pct", "target_tokens", "examples")):
        return []
    examples, exact = int(line["examples"]), float(line["exact_match_pct"]) / 100
    length = line["target_tokens"] / examples
    expected = math.exp(-line["loss"] * length)
    # Below by a factor, and by more than chance: four deviations of a share of so many examples.
    chance = 4 * math.sqrt(expected * (1 - expected) / examples)
    if exact >= expected / 2 or expected - exact < max(chance, 0.05):
        return []
    evidence = (
        f"at step {line['step']} a target of {length:.1f} tokens has {line['loss']:.3f} nats a token: by that "
        f"{100 * expected:.0f} % of {examples} outputs or more should be exactly right, {100 * exact:.1f} % are"
    )
    return [OUT_OF_STEP.finding(evidence, "error" if exact < expected / 4 else "warning")]


def _dropout(course: Course) -> list[Finding]:
    line = course.evaluations[-1] if course.evaluations else {}
    entropy, loss = course.target_entropy, line.get("loss")
    recent = [float(each["loss"]) for each in course.train if each["step"] <= line.get("step", 0)][-3:]
    if not entropy or loss is None or not recent or not course.recipe or course.recipe.model.dropout < SOME_DROPOUT:
        return []
    known, shown = entropy - float(loss), entropy - middle(recent)
    if known < 0.5 or shown > known / 3:
        return []
    evidence = (
        f"at step {line['step']} the validation loss, without dropout, is {loss:.2f} nats, the training loss, with it, "
        f"{middle(recent):.2f}; tokens' frequencies alone give {entropy:.2f}"
    )
    return [DROPOUT.finding(f"{evidence}; model.dropout is {course.recipe.model.dropout}")]
