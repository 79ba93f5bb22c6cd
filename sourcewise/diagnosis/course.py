"""The course of a training, as the lines of metrics.jsonl tell it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sourcewise.diagnosis.plan import UNKNOWN, Plan
from sourcewise.diagnosis.rule import CannotTell

Line = Mapping[str, Any]
LAST = 1 / 3  # of the steps, over which a training gets better or does not
LEAST_NATS, LEAST_BITS = 0.05, 0.05  # a token, that count as getting better
EARLY, PLATEAU = 0.2, 300  # of a training, and steps, in which a source need not be read yet
RISE = 0.1  # of the source bits, too
FALLS = 0.05  # of the loss, while a training goes on
FELL = 0.1  # of the loss, over the last third of a training that is over
SOME_BITS = 0.01  # that a source is read by, from which on a training has left the plateau where it begins
FEW_LINES = 3  # of the training loss, which do not tell how it goes
FEWEST = 6  # lines from which on a fall can be told
LEAST_FALL = 0.05  # of the first loss
FREQUENCIES = 0.03  # of the target tokens' entropy; a loss further below it knows more than how frequent they are
FIRST_STEPS = 100  # in which nothing need be learnt yet
SLOW = 1e-4  # an update at the peak rate, of the weights, below which the rate is at fault, not the number of steps
ENOUGH = 300  # steps
MEASURED = (
    "Measured on healthy trainings of digits, dates, fsdd and Multi30k (T5 of two sizes, BART, GRU with and without "
    "attention, decoder-only)"
)


@dataclass(frozen=True, slots=True)
class Course:
    """What was logged so far; what older or foreign lines lack is left out of the judgement, never guessed."""

    train: tuple[Line, ...]
    evaluations: tuple[Line, ...]
    stopped: Line | None = None  # of a training that ended by values that are not finite
    start: Line | None = None
    plan: Plan = UNKNOWN
    not_finite: Line | None = None  # a loss of a training that went on, its weights unharmed
    under_way: bool = False  # whether it is known to go on: its last step may be logged before that is evaluated

    about = "the course of training"

    @classmethod
    def read(cls, lines: Sequence[Line], plan: Plan | None = None, *, under_way: bool = False) -> Course:
        """From the lines of metrics.jsonl, in the order in which they were written."""
        last = {line.get("kind"): line for line in lines}
        train = tuple(line for line in lines if line.get("kind") == "train" and line.get("loss") is not None)
        evaluations = tuple(line for line in lines if line.get("kind") == "evaluation")
        start, ended = last.get("start"), last.get("ended")
        if start and ended and not any(line["step"] > ended["step"] for line in train):
            start = {**start, "steps": ended["step"]}  # train.patience ended it: it was not to go further
        known = last.get("stopped"), start, plan or UNKNOWN, last.get("not_finite")
        return cls(train, evaluations, *known, under_way)

    @property
    def empty(self) -> bool:
        """Whether nothing of it was logged."""
        return not self.train and self.stopped is None and self.not_finite is None

    @property
    def step(self) -> int:
        """The last step that was logged."""
        return max((int(line["step"]) for line in (*self.train, *self.evaluations)), default=0)

    @property
    def total(self) -> int:
        """Steps that the training was to have; 0 where nobody noted them."""
        return int((self.start or {}).get("steps") or self.plan.steps)

    @property
    def finished(self) -> bool:
        """Whether it went to its end."""
        return self.stopped is None and 0 < self.total <= self.step

    @property
    def going_on(self) -> bool:
        """Whether it is under way; or ended while its loss still fell, where no earlier evaluation tells more."""
        if self.plan.trained:
            return False
        if self.stopped is not None or self.under_way or 0 < self.step < self.total:
            return self.stopped is None
        earlier = any(int(line["step"]) <= (1 - LAST) * self.step for line in self.evaluations)
        if earlier or len(self.train) < FEWEST:
            return False
        third = len(self.train) // 3
        before, last = middle(self.losses[-2 * third : -third]), middle(self.losses[-third:])
        return before - last >= max(FELL * before, LEAST_NATS)

    @property
    def better_at_the_end(self) -> str:
        """What a training from random weights still got better at when it ended, in words; "" where nothing."""
        looked = self.finished and self.fresh and len(self.by_step("loss")) > 1
        return getting_better(self, FELL) if looked else ""

    @property
    def late(self) -> bool:
        """Whether a source should be read by now."""
        return self.step >= max(PLATEAU, EARLY * self.total)

    @property
    def warm(self) -> bool:
        """Whether something should have been learnt by now, if there is a training worth the name."""
        return self.step > max(FIRST_STEPS, self.plan.warmup)

    @property
    def broken(self) -> bool:
        """Whether values that are not finite ended it. Raises CannotTell where its losses are no cross-entropies."""
        if self.plan.other_loss and self.stopped is None:
            what = "the training loss in the course"
            raise CannotTell(what, f"{self.plan.other_loss}, so what is logged is no cross-entropy")
        return self.stopped is not None

    @property
    def fresh(self) -> bool:
        """Whether it began from random weights, as far as is known."""
        return self.plan.fresh

    @property
    def losses(self) -> np.ndarray:
        """(lines,) training loss in nats per target token, averaged over the steps of a line."""
        return np.array([float(line["loss"]) for line in self.train])

    @property
    def target_entropy(self) -> float | None:
        """Nats per target token for whoever knows the tokens' frequencies alone."""
        noted = (self.start or {}).get("target_entropy")
        return float(noted) if noted else None

    def values(self, key: str, part: str | None = None) -> np.ndarray:
        """(lines,) a figure of the training lines where it is finite; with `part`, of that part of the network."""
        found = [line.get(key) for line in self.train]
        if part is not None:
            found = [each.get(part) if isinstance(each, Mapping) else None for each in found]
        return np.array([float(each) for each in found if each is not None and math.isfinite(each)])

    def parts(self, key: str) -> list[str]:
        """The parts of the network of which the training lines have this figure."""
        return list(dict.fromkeys(part for line in self.train for part in line.get(key) or ()))

    @property
    def at_the_peak(self) -> tuple[dict[str, float], str]:
        """How far a step near the peak rate moves each part, as a share of its size, and in words; empty: unknown."""
        rates = self.values("learning_rate")
        parts = [part for part in self.parts("update_ratios") if part != "other"]
        if not parts or not len(rates):
            return {}, ""
        near = rates >= 0.5 * rates.max()
        ratios = {part: self.values("update_ratios", part) for part in parts}
        largest = {part: middle(found[near]) if len(found) == len(rates) else 0.0 for part, found in ratios.items()}
        said = ", ".join(f"{name} {ratio:.1e}" for name, ratio in largest.items())
        evidence = f"a step near the peak rate ({rates.max():.2g}) moves the weights by this share of their size"
        return largest, f"{evidence}: {said}"

    def by_step(self, key: str, end: int | None = None) -> list[tuple[int, float]]:
        """Steps, and a figure of the evaluations there: the mean, where several sets were looked at.

        `end` is that of an interval. Averaged weights are left out.
        """
        found: dict[int, list[float]] = {}
        for line in self.evaluations:
            value = line.get(key) if end is None else (line.get(key) or (None, None))[end]
            if value is not None and not line.get("averaged"):
                found.setdefault(int(line["step"]), []).append(float(value))
        return [(step, sum(values) / len(values)) for step, values in found.items()]

    def way(self, part: str) -> float:
        """How far a part's weights would be, in their own size, had all updates gone in one direction."""
        found, before = 0.0, 0
        for line in self.train:
            ratio = (line.get("update_ratios") or {}).get(part)
            found += (int(line["step"]) - before) * float(ratio or 0)
            before = int(line["step"])
        return found


def getting_better(course: Course, share: float) -> str:
    """What got better over the last third of the steps by such a share of itself, in words; "" where nothing did."""
    return bits_rise(course) or loss_falls(course, share)


def too_early(course: Course) -> str:
    """Why a training cannot be judged yet, in words; "" where it can.

    While its loss falls or its source bits rise; as long as a source need not be read yet; and at its first evaluation
    with hardly a line of its loss. One that has ended, only if it was short, and got better or begins to read.
    """
    if course.stopped is not None or not course.step or course.plan.trained:
        return ""
    better = getting_better(course, FALLS)
    looked = int(course.evaluations[-1]["step"]) if course.evaluations else course.step
    if course.finished and looked >= course.total:  # a Trainer logs its last step before it evaluates it
        better = better or _begins_to_read(course)
        short = course.fresh and course.step < PLATEAU
        return f"these were {course.step} steps from random weights, and {better}" if short and better else ""
    reached = f"step {course.step} of {course.total}" if course.total else f"step {course.step}"
    if better:
        return f"{reached}, and {better}"
    if not course.late:
        return f"{reached}: many trainings rest for {PLATEAU} steps, or a fifth of them, before they learn to read"
    known = len(course.by_step("source_bits")) > 1 or len(course.train) >= FEW_LINES
    return "" if known else f"{reached}, the first look at what it has learned"


def _begins_to_read(course: Course) -> str:
    """Source bits that are few, but not none, in words; "" where they may be none."""
    low = course.by_step("source_bits_ci95", 0)
    if not low or low[-1][1] < SOME_BITS:
        return ""
    (step, bits), least = course.by_step("source_bits")[-1], low[-1][1]
    return f"source bits are {bits:.2f} at step {step}, {least:.2f} at least"


def loss_falls(course: Course, share: float) -> str:
    """How the validation loss fell over the last third of the steps, in words; the training loss before that is known.

    "" where it did not fall by that share of itself.
    """
    losses = course.by_step("loss")
    if found := _third(losses):
        (then, high), (now, low) = found
        if high - low >= max(share * high, LEAST_NATS):
            return f"the validation loss went from {high:.3f} nats at step {then} to {low:.3f} at step {now}"
    lines = len(course.train) // 3
    if found or not lines:
        return ""
    high, low = middle(course.losses[-2 * lines : -lines]), middle(course.losses[-lines:])
    if high - low < max(share * high, LEAST_NATS):
        return ""
    return f"the training loss went from {high:.3f} nats to {low:.3f} over the last {2 * lines} lines"


def bits_rise(course: Course) -> str:
    """How the source bits rose over the last third of the steps, in words.

    "" where they did not rise by a tenth, or by less than `LEAST_BITS` and than their intervals tell apart.
    """
    lowest, highest = (dict(course.by_step("source_bits_ci95", end)) for end in (0, 1))
    if not (found := _third(course.by_step("source_bits"))):
        return ""
    (then, before), (now, after) = found
    apart = lowest.get(now, -math.inf) > highest.get(then, math.inf)
    if after - before < RISE * abs(before) or not (apart or after - before >= LEAST_BITS):
        return ""
    return f"source bits went from {before:.2f} at step {then} to {after:.2f} at step {now}"


def _third(values: Sequence[tuple[int, float]]) -> tuple[tuple[int, float], tuple[int, float]] | None:
    """Of these figures that of two thirds of the steps, or the first, and the last; None where there is but one."""
    if len(values) < 2:
        return None
    before = [each for each in values[:-1] if each[0] <= (1 - LAST) * values[-1][0]]
    return (before[-1] if before else values[0]), values[-1]


def middle(values: Sequence[float] | np.ndarray) -> float:
    """The median."""
    return float(np.median(np.asarray(values, dtype=np.float64)))


def stretches(values: np.ndarray) -> np.ndarray:
    """Medians of consecutive tenths of a series, of at least three values each."""
    count = max(1, min(10, len(values) // 3))
    return np.array([middle(part) for part in np.array_split(values, count)])
