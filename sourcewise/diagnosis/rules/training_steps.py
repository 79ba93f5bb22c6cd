"""What the steps of a training do: its gradients, and how far they move the weights."""

from __future__ import annotations

from sourcewise.diagnosis.course import Course, middle, stretches
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.rules.training_texts import CLIPPED, EXPLODING, FADING, MOVES, TOO_SHORT

WIPES, LARGE = 1.0, 0.3  # an update as a share of the weights, at the peak rate
LEAST_WAY = 0.05  # of the weights that move most, over a whole training
SLOW = 1e-4  # an update at the peak rate below which the rate is at fault, not the number of steps
ENOUGH, FEW = 300, 50  # steps, and those that are too few at any rate
DROWNED, SILENT = 1e-4, 1e-6  # the gradient of a part beside that of all
HIGH, GROWN = 100.0, 100.0  # norms of gradients: their median, and how much they grew
OFTEN, FAR = 0.99, 10.0  # steps that are clipped, and how far beyond the limit


def check(course: Course) -> list[Finding]:
    """TRN006 to TRN009."""
    if len(course.train) < 3:
        return []
    return [*_fading(course), *_exploding(course), *_clipped(course), *_moves(course)]


def before_the_stop(course: Course) -> list[Finding]:
    """What leads to values that are not finite: gradients that explode, steps that are too large."""
    if len(course.train) < 3:
        return []
    return [*_exploding(course), *_too_large(course)]


def _fading(course: Course) -> list[Finding]:
    bypass = course.recipe is not None and course.recipe.model.route == "bypass"
    shares = {}
    for part in course.parts("gradient_norms"):
        if not (bypass and part == "encoder"):
            both = [(line.get("gradient_norms") or {}, line.get("gradient_norm")) for line in course.train]
            shares[part] = middle([norms[part] / norm for norms, norm in both if part in norms and norm] or [1.0])
    weak = {part: share for part, share in shares.items() if share < DROWNED}
    if not weak:
        return []
    said = ", ".join(f"{part} {share:.1e}" for part, share in weak.items())
    rest = ", ".join(f"{part} {share:.2g}" for part, share in shares.items() if part not in weak)
    evidence = (
        f"of the gradient's norm have: {said} (median of {len(course.train)} lines); the others: {rest or 'none'}"
    )
    return [FADING.finding(evidence, "error" if min(weak.values()) < SILENT else "warning")]


def _exploding(course: Course) -> list[Finding]:
    norms = course.values("gradient_norm")
    if not len(norms):
        return []
    levels, median = stretches(norms), middle(norms)
    if median > HIGH:
        return [EXPLODING.finding(f"the norm of the gradient is {median:.3g} (median of {len(norms)} lines)")]
    if len(levels) > 2 and levels[-1] > GROWN * max(levels[: len(levels) // 2].min(), 1e-2):
        evidence = f"the norm of the gradient grew from {levels[: len(levels) // 2].min():.2g} to {levels[-1]:.3g}"
        return [EXPLODING.finding(f"{evidence} (medians of a {len(levels)}th of the lines)")]
    return []


def _clipped(course: Course) -> list[Finding]:
    shares, limit = course.values("clipped"), course.recipe.train.clip if course.recipe else 1.0
    norm = middle(course.values("gradient_norm"))
    if not len(shares) or not limit or shares.mean() < OFTEN or norm < FAR * limit:
        return []
    evidence = f"{100 * shares.mean():.0f} % of the steps were clipped to {limit:g}; the norm is {norm:.3g} (median)"
    return [CLIPPED.finding(evidence)]


def _moves(course: Course) -> list[Finding]:
    """Updates at the peak rate, and where they lead."""
    largest, evidence = _at_the_peak(course)
    if not largest or max(largest.values()) > LARGE:
        return _too_large(course)
    way, most = max(course.way(name) for name in largest), max(largest.values())
    planned = course.total and course.step < 0.5 * course.total  # the rate is still to do its work
    if not course.fresh or planned or way >= LEAST_WAY or (most >= SLOW and course.step < ENOUGH):
        return []
    cure = "A higher rate; from random weights about 1e-3:\n  --train.learning_rate 1e-3"
    evidence += f"; {course.step} of them, all in one direction, by {way:.2g}"
    return [MOVES.finding(evidence, "error" if most < SLOW else "warning", cure)]


def _too_large(course: Course) -> list[Finding]:
    largest, evidence = _at_the_peak(course)
    most = max(largest.values(), default=0.0)
    return [MOVES.finding(evidence, "error" if most > WIPES else "warning")] if most > LARGE else []


def _at_the_peak(course: Course) -> tuple[dict[str, float], str]:
    """How far a step near the peak rate moves each part, as a share of its size, and that in words; empty: unknown."""
    rates = course.values("learning_rate")
    parts = [part for part in course.parts("update_ratios") if part != "other"]
    if not parts or not len(rates):
        return {}, ""
    near = rates >= 0.5 * rates.max()
    largest = {}
    for part in parts:
        ratios = course.values("update_ratios", part)
        largest[part] = middle(ratios[near]) if len(ratios) == len(rates) else 0.0
    said = ", ".join(f"{name} {ratio:.1e}" for name, ratio in largest.items())
    return (
        largest,
        f"a step near the peak rate ({rates.max():.2g}) moves the weights by this share of their size: {said}",
    )


def too_short(course: Course) -> list[Finding]:
    """TRN013, of a training that ended as planned."""
    parts = [part for part in course.parts("update_ratios") if part != "other"]
    if not course.finished or not course.fresh or not parts or course.step >= ENOUGH:
        return []
    way = max(course.way(part) for part in parts)
    peak = max(float(course.values("update_ratios", part).max()) for part in parts)
    if peak < SLOW or (way >= 2 * LEAST_WAY and course.step >= FEW):
        return []
    evidence = f"{course.step} steps; their updates, all in one direction, move the weights by {way:.2g} of their size"
    return [TOO_SHORT.finding(f"{evidence}; the loss went from {course.losses[0]:.2f} to {course.losses[-1]:.2f}")]
