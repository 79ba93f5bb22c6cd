"""Are the features worth training on? What a sample of the matrices shows before the first step (row E3)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sourcewise.data.encoding import Encoded
from sourcewise.diagnosis.finding import Finding, Level
from sourcewise.diagnosis.rules.data import FEWEST, named, sample
from sourcewise.diagnosis.rules.data_texts import ALIKE, DEAD, LEAK, OUTLIERS, SCALE
from sourcewise.model.builder import CONSTANT

if TYPE_CHECKING:
    from sourcewise.training.opening import Prepared

SAMPLE = 500  # matrices, spread through a set
EXPLODED = 100  # times what nine of ten examples reach
DROWNED = 0.1  # deviations within which standardised features tell nothing
IDENTICAL = 1e-3  # of the deviation of both


@dataclass(frozen=True, slots=True)
class Summary:
    """A sample of matrices: `places` in the set, and what they hold.

    `means`, `lows` and `highs` are (examples, dims): mean, smallest and largest number of each example and dimension;
    `flat` (examples,) which are one number throughout; `mean` and `deviation` (dims,) over all frames.
    """

    places: np.ndarray
    means: np.ndarray
    lows: np.ndarray
    highs: np.ndarray
    flat: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray


def check(prepared: Prepared) -> list[Finding]:
    """DAT008 of features, and DAT011 to DAT014. Raises RequestError where a file cannot be read."""
    found: list[Finding] = []
    for part in prepared.train.parts:
        if not part.dataset.dims or len(part) < FEWEST:
            continue
        summary = summarised(part, sample(len(part), SAMPLE))
        dead = _dead(part, summary)
        found += dead
        if not any(finding.level == "error" for finding in dead):
            found += [*_alike(part, summary), *_outliers(part, summary)]
        found += _scale(part, summary, prepared)
    alike = any(finding.level == "error" for finding in found)  # then examples of both sets are, too
    if prepared.train.dataset.dims and prepared.valid is not None and not alike:
        found += _leak(prepared.train, prepared.valid)
    return found


def summarised(part: Encoded, places: np.ndarray) -> Summary:
    """Read these examples, as far as `max_frames` lets the model see them."""
    means, lows, highs, flat = [], [], [], []
    squares, frames = np.zeros(part.dataset.dims), 0
    for place in places:
        matrix = part.dataset.features(int(place))[: part.max_frames].astype(np.float64)
        means.append(matrix.mean(0))
        lows.append(matrix.min(0))
        highs.append(matrix.max(0))
        flat.append(matrix.min() == matrix.max())
        squares += np.square(matrix).sum(0)
        frames += len(matrix)
    lengths = np.minimum([part.dataset[int(i)].frames for i in places], part.max_frames)
    mean = np.average(means, axis=0, weights=lengths)
    deviation = np.sqrt(np.maximum(squares / frames - mean**2, 0))
    return Summary(places, np.array(means), np.array(lows), np.array(highs), np.array(flat), mean, deviation)


def _dead(part: Encoded, summary: Summary) -> list[Finding]:
    flat, still = summary.flat, (summary.highs.max(0) - summary.lows.min(0)) < CONSTANT
    level: Level | None = None
    if flat.mean() >= 0.5 or still.all():
        level = "error"
    elif flat.mean() >= 0.01 or still.mean() >= 0.5:
        level = "warning"
    if level is None:
        return []
    evidence = f"{100 * flat.mean():.0f} % of {len(flat)} matrices are one number throughout"
    if flat.any():
        evidence += f", such as {part.dataset[int(summary.places[flat][0])].where}"
    evidence += f"; {still.sum()} of {len(still)} dimensions never change"
    return [DEAD.finding(named(part, evidence), level)]


def _alike(part: Encoded, summary: Summary) -> list[Finding]:
    """Neighbours by length, frame by frame, relative to how far both lie from the middle of all."""
    living = summary.places[~summary.flat]
    order = living[np.argsort(part.source_lengths[living], kind="stable")]
    centre = np.median(summary.means, axis=0)
    differences, twins = [], []
    before = part.dataset.features(int(order[0]))
    for left, right in pairwise(order):
        after = part.dataset.features(int(right))
        frames = min(len(before), len(after), part.max_frames)
        both = np.stack((before[:frames], after[:frames])).astype(np.float64)
        apart = float(np.sqrt(np.square(both[0] - both[1]).mean()))
        differences.append(apart / max(float(np.sqrt(np.square(both - centre).mean())), CONSTANT))
        if differences[-1] < IDENTICAL and part.dataset[int(left)].target != part.dataset[int(right)].target:
            twins.append((int(left), int(right)))
        before = after
    median = float(np.median(differences))
    evidence = f"two of {len(order)} matrices, of nearest length, differ by {median:.2g} of their deviation"
    if median < 0.1:
        return [ALIKE.finding(named(part, evidence))]
    if len(twins) < 0.05 * len(differences):
        return []
    one, other = (part.dataset[i] for i in twins[0])
    evidence += f"; {100 * len(twins) / len(differences):.0f} % do not differ at all, but their targets do, such as "
    return [ALIKE.finding(named(part, f"{evidence}{one.where} and {other.where}"), "warning")]


def _outliers(part: Encoded, summary: Summary) -> list[Finding]:
    """Examples that lie further out than what nine of ten reach, in their dimension and in half of them all."""
    centre = np.median(summary.means, axis=0)
    reach = np.maximum(np.abs(summary.lows - centre), np.abs(summary.highs - centre))
    usual = np.quantile(reach, 0.9, axis=0)
    far = reach > EXPLODED * np.maximum(usual, max(float(np.median(usual)), CONSTANT))
    if not far.any():
        return []
    row, dim = np.unravel_index(int(np.argmax(np.where(far, reach, 0))), far.shape)
    evidence = (
        f"{far.any(1).sum()} of {len(far)} examples, in {far.any(0).sum()} of {far.shape[1]} dimensions; "
        f"{part.dataset[int(summary.places[row])].where} reaches {reach[row, dim]:.3g} in dimension {dim}, nine of ten "
        f"examples stay within {usual[dim]:.3g}"
    )
    left = usual / np.maximum(summary.deviation, CONSTANT)
    drowned = (left < DROWNED).mean() >= 0.5
    if drowned:
        evidence += f"; over the deviation of all, they stay within {float(np.median(left)):.2g}"
    return [OUTLIERS.finding(named(part, evidence), "error" if drowned else "warning")]


def _scale(part: Encoded, summary: Summary, prepared: Prepared) -> list[Finding]:
    bridge = prepared.network.bridge
    if bridge is None:
        return []
    mean, deviation = (each.detach().double().cpu().numpy() for each in (bridge.mean, bridge.deviation))
    energy = np.square(summary.deviation) + np.square(summary.mean - mean)
    size = float(np.sqrt((energy / np.square(deviation)).mean()))
    if 0.1 <= size <= 10 or not summary.deviation.any():
        return []
    evidence = f"as the bridge gets them, features have a root mean square of {size:.3g}"
    return [SCALE.finding(named(part, evidence))]


def _leak(train: Encoded, valid: Encoded) -> list[Finding]:
    """Matrices are compared where target and frames are the same: up to a sample of the validation set."""
    places = sample(len(valid), SAMPLE)
    asked = {(valid.dataset[int(i)].target, valid.dataset[int(i)].frames) for i in places}
    like: dict[tuple[str, int], list[int]] = {}
    for i, example in enumerate(train.dataset):
        if (example.target, example.frames) in asked:
            like.setdefault((example.target, example.frames), []).append(i)
    both = []
    for place in map(int, places):
        example = valid.dataset[place]
        candidates = like.get((example.target, example.frames), [])[:5]
        matrix = valid.dataset.features(place) if candidates else np.empty(0)
        if any(np.array_equal(matrix, train.dataset.features(i)) for i in candidates):
            both.append(example)
    if len(both) < 0.05 * len(places):
        return []
    evidence = f"{100 * len(both) / len(places):.0f} % of {len(places)} validation matrices are in the training set"
    return [LEAK.finding(named(valid, f"{evidence}, such as {both[0].where}"))]
