"""The baselines of a set: a text per example and baseline, and how outputs stand beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sourcewise.baselines.constant import best_constants
from sourcewise.baselines.copying import copied
from sourcewise.baselines.length import typical_of_equal_length
from sourcewise.data.examples import Dataset
from sourcewise.data.mixtures import join
from sourcewise.metrics.counting import Counting, References
from sourcewise.metrics.measure import Held, Measure, resampled
from sourcewise.metrics.significance import percentiles

NAMES = ("constant", "length", "copy")
ALWAYS = ("bleu", "chrf", "wer", "exact_match_pct")  # figures that are measured beside the set's own
MOST_TEXTS, MOST_CLIPS = 200_000, 20_000  # training examples that are read, evenly spread
PERFECT = "references"


@dataclass(frozen=True)
class Baselines:
    """What the baselines give for each example of a set, and what that was taken from."""

    references: References
    texts: Mapping[str, list[str]]  # by name, one per example; without sources there is no copy
    metric: str  # that the set is judged by
    counting: Counting
    taken_from: str
    copied_by: str

    def against(self, outputs: Sequence[str]) -> dict[str, Any]:
        """The `baselines` of metrics.json: scores of each, and what `outputs` are above it.

        The set's own metric has a 95 % interval, as has `difference`, which is above 0 where the outputs are better
        (a paired bootstrap). `can_tell` says whether perfect outputs would be above the baseline beyond chance.
        """
        sign, value = self._measure(self.metric).sign, self._held.score(outputs)
        counted = self._held.counts(outputs)
        drawn = self._drawn | (resampled({"outputs": counted}) if counted is not None else {})
        given, perfect = (drawn.get("outputs"), value), (drawn.get(PERFECT), self._scores[PERFECT][self.metric])
        found: dict[str, Any] = {}
        for name in self.texts:
            own = drawn.get(name), self._scores[name][self.metric]
            can_tell = _difference(sign, perfect, own).get("difference_ci95", [0.0])[0] > 0
            difference = _difference(sign, given, own)
            found[name] = self._scores[name] | _with_interval(self.metric, own) | difference | {"can_tell": can_tell}
        found["constant"]["text"] = Counter(self.texts["constant"]).most_common(1)[0][0]
        about = {"metric": self.metric, "taken_from": self.taken_from, "copied_by": self.copied_by}
        return {**about, **found, "outputs": _with_interval(self.metric, given)}

    def _measure(self, key: str) -> Measure:
        return Measure(key, self.counting)

    @cached_property
    def _held(self) -> Held:
        """The set's own metric."""
        return self._measure(self.metric).of(self.references)

    @cached_property
    def _systems(self) -> dict[str, Sequence[str]]:
        return {**self.texts, PERFECT: [each[0] for each in self.references]}

    @cached_property
    def _drawn(self) -> dict[str, np.ndarray]:
        """By name, the set's own metric over drawn examples: the same draws each time, so they are made once."""
        counted = {name: self._held.counts(texts) for name, texts in self._systems.items()}
        return resampled({name: each for name, each in counted.items() if each is not None})

    @cached_property
    def _scores(self) -> dict[str, dict[str, float]]:
        every = {key: self._measure(key).of(self.references) for key in ALWAYS} | {self.metric: self._held}
        found = {name: {key: each.score(texts) for key, each in every.items()} for name, texts in self.texts.items()}
        return found | {PERFECT: {self.metric: self._held.score(self._systems[PERFECT])}}


Measured = tuple[np.ndarray | None, float]  # (resamples,) values over drawn examples, and the value over all


def _with_interval(key: str, measured: Measured) -> dict[str, Any]:
    drawn, value = measured
    return {key: value} | ({f"{key}_ci95": list(percentiles(drawn))} if drawn is not None else {})


def _difference(sign: int, one: Measured, other: Measured) -> dict[str, Any]:
    if one[0] is None or other[0] is None:
        return {}
    low, high = percentiles(sign * (one[0] - other[0]))
    return {"difference": sign * (one[1] - other[1]), "difference_ci95": [low, high]}


def take(
    dataset: Dataset,
    training: Sequence[Dataset],
    measure: Measure,
    why_not: str = "",
    nothing_to_copy: str = "",
) -> Baselines | None:
    """The baselines of a set, from training sets; without any, from the other examples of the set itself.

    `why_not` says why training sets are not known, `nothing_to_copy` why sources are not: then nothing is copied. None
    where there is no other example.
    """
    own = not training
    whole = dataset if own else join(training)
    some = _evenly(whole, MOST_CLIPS if whole.dims else MOST_TEXTS) if not own else whole
    if len(some) <= own:
        return None
    targets = [example.target for example in some]
    references = [example.references for example in dataset]
    best = best_constants(targets, measure)
    once = {text for text in best if targets.count(text) == 1} if own else set()
    constants = [best[-1] if each[0] == best[0] and each[0] in once else best[0] for each in references]
    texts = {"constant": constants, "length": typical_of_equal_length(references, targets, measure, own=own)}
    way = f"nothing, since {nothing_to_copy}"
    if not nothing_to_copy:
        nearest = copied(dataset, some, measure, own=own)
        together = zip(nearest.targets, nearest.found, constants, strict=True)
        texts["copy"] = [copy if found else constant for copy, found, constant in together]
        way = nearest.way
    said = _taken_from(whole, some, own, why_not), way
    return Baselines(references, texts, measure.key, measure.counting, *said)


def joined(parts: Sequence[Baselines | None], metric: str) -> Baselines | None:
    """The baselines of a mixture, judged as one set; None if a part has none."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or not known:
        return None
    if len(known) == 1 and known[0].metric == metric:
        return known[0]  # with what it has counted
    texts = {name: [text for part in known for text in part.texts[name]] for name in NAMES}
    said = ("; ".join(dict.fromkeys(getattr(part, key) for part in known)) for key in ("taken_from", "copied_by"))
    references = [each for part in known for each in part.references]
    return Baselines(references, texts, metric, known[0].counting, *said)


def _evenly(dataset: Dataset, most: int) -> Dataset:
    if len(dataset) <= most:
        return dataset
    return dataset.select(np.linspace(0, len(dataset) - 1, most).astype(int).tolist())


def _taken_from(whole: Dataset, some: Dataset, own: bool, why_not: str) -> str:
    if own:
        why = why_not or "the training data are not known"
        return f"the other {len(whole) - 1:,} examples of this set, leaving each one out ({why})"
    size = f"{len(some):,}" + (f" of {len(whole):,}" if len(some) < len(whole) else "")
    return f"{size} training examples ({whole.name})"
