"""In what a set differs from the data that a model was trained on, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sourcewise.data.profiles.features import FeatureProfile
from sourcewise.data.profiles.texts import TextProfile

SHARE = 0.5  # difference of the shares of texts with a habit, from which on two sets are written differently
TIMES = 3  # as many trigrams, or shapes, that are new, as in texts that were held back from training
FEWEST_NEW = 0.05  # trigrams, at least
MOST_ODD = 0.3  # held-back texts of a shape of their own: above that shapes tell nothing
LONGER = 0.3  # texts that are longer than any of training
FEWEST_ODD = 0.5  # texts of a shape that training lacks, at least
SHIFT, SCALE = 1.0, 2.0  # of features: in deviations; times
APART = 0.3  # of correlations: below that they are others
LESS = 0.5  # as much that neighbouring frames tell each other
TREND = 3.0  # standard errors from which on a movement is one
RATE = 1.6  # times as many frames a word


def texts_unlike(trained: TextProfile, own: TextProfile, texts: Sequence[str]) -> Iterator[str]:
    """What is new, what is missing and what is written otherwise in texts."""
    new = trained.unseen(texts)
    if new >= max(FEWEST_NEW, TIMES * trained.fresh):
        usual = f"of held-back training texts {100 * trained.fresh:.2g} %"
        yield f"{100 * new:.0f} % of their letter triples do not occur in training ({usual})"
    if lost := missing(trained, own):
        yield f"nearly all training texts have {lost}, these have not"
    if added := missing(own, trained):
        yield f"nearly all of these have {added}, the training texts have not"
    longer = sum(len(text.split()) > trained.longest for text in texts) / max(1, len(texts))
    if trained.longest and longer >= LONGER:
        yield f"{100 * longer:.0f} % have more words than the longest training text, which has {trained.longest}"
    for habit, share in trained.habits.items():
        if abs(own.habits[habit] - share) >= SHARE:
            yield f"{100 * own.habits[habit]:.0f} % {_plural(habit)}, in training {100 * share:.0f} %"


def shapes_unlike(trained: TextProfile, own: TextProfile) -> Iterator[str]:
    """Whether texts have another shape than in training, such as dates with the year first."""
    if trained.odd > MOST_ODD:
        return
    odd = sum(share for shape, share in own.shapes.items() if shape not in trained.shapes)
    if odd >= max(FEWEST_ODD, TIMES * trained.odd):
        theirs, ours = max(trained.shapes, key=trained.shapes.__getitem__), max(own.shapes, key=own.shapes.__getitem__)
        yield f'{100 * odd:.0f} % have a shape that no training text has, such as "{ours}" (in training "{theirs}")'


def missing(has: TextProfile, lacks: TextProfile) -> str:
    """What nearly all texts of one side have and at most half of the other, in quotes; empty if there is nothing."""
    gone = {gram for gram in has.common if lacks.common.get(gram, 0.0) <= SHARE}
    gone = {gram for gram in gone if sum(gram in text for text in lacks.examples) <= SHARE * len(lacks.examples)}
    for text in has.examples:
        at = [i for i in range(len(text) - 2) if text[i : i + 3] in gone]
        if not at:
            continue
        runs = np.split(at, np.flatnonzero(np.diff(at) > 1) + 1)
        longest = max(runs, key=len)
        return f'"{text[longest[0] : longest[-1] + 3]}"'
    return ""


def features_unlike(trained: FeatureProfile, own: FeatureProfile) -> Iterator[str]:
    """Another level, scale, order of dimensions, or another course in time."""
    moving = trained.deviation > 1e-9
    if not moving.any():
        return
    yield from _levels(trained, own, moving)
    yield from _together(trained, own)
    yield from _time(trained, own)


def _levels(trained: FeatureProfile, own: FeatureProfile, moving: np.ndarray) -> Iterator[str]:
    shift = (own.mean - trained.mean)[moving] / np.maximum(trained.deviation, trained.speakers)[moving]
    if (size := float(np.sqrt(np.mean(shift**2)))) >= SHIFT:
        yield f"their dimensions lie {size:.1f} deviations of the training features from these, on average"
    scale = float(np.median(own.deviation[moving] / trained.deviation[moving]))
    if not 1 / SCALE < scale < SCALE:
        yield f"they vary {scale:.2g} times as much as the training features"


def _together(trained: FeatureProfile, own: FeatureProfile) -> Iterator[str]:
    """Correlations of dimensions are those of training, unless the dimensions are in another order, or others."""
    above = np.triu_indices(len(trained.together), 1)
    theirs, ours = trained.together[above], own.together[above]
    if len(theirs) < 6 or min(np.std(theirs), np.std(ours)) < 0.05:
        return
    alike = float(np.corrcoef(theirs, ours)[0, 1])
    if alike < APART:
        why = "in another order, or are others"
        yield f"their dimensions go together otherwise (correlations agree by {alike:.2f}): they are {why}"


def _time(trained: FeatureProfile, own: FeatureProfile) -> Iterator[str]:
    if trained.neighbours > APART and own.neighbours < LESS * trained.neighbours:
        frames = f"{own.neighbours:.2f}, in training {trained.neighbours:.2f}"
        yield f"a frame hardly tells the next one (correlation {frames}): shuffled in time, or at another frame rate"
    sizes = [float(np.sqrt(np.mean(each.trend**2))) for each in (trained, own)]
    if min(sizes) >= TREND:
        cosine = float(trained.trend @ own.trend / (np.linalg.norm(trained.trend) * np.linalg.norm(own.trend)))
        if cosine < -SHARE:
            yield f"what rises from beginning to end in training falls here (cosine {cosine:.2f}): turned in time"
    rate = own.frames_per_word / trained.frames_per_word
    if not 1 / RATE < rate < RATE:
        words = f"{own.frames_per_word:.3g} frames a target word, in training {trained.frames_per_word:.3g}"
        yield f"{words}: another frame rate, or other texts"


def _plural(habit: str) -> str:
    """begins with a capital → begin with a capital."""
    verb, _, rest = habit.partition(" ")
    return f"{ {'is': 'are', 'has': 'have'}.get(verb, verb.removesuffix('s')) } {rest}"
