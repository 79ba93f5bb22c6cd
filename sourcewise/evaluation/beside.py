"""The baselines that an evaluation stands beside: from the training sets where they are known."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from sourcewise.baselines.cache import take_or_read
from sourcewise.baselines.measure import Baselines
from sourcewise.config import DataConfig, EvaluationConfig
from sourcewise.data.encoding import ExampleSet
from sourcewise.data.examples import Dataset
from sourcewise.data.open import open_sets
from sourcewise.data.readers.pairs import HUB
from sourcewise.errors import Notice, RequestError
from sourcewise.evaluation.verdict import judging_metric
from sourcewise.metrics.measure import Measure


def baselines_for(
    encoded: ExampleSet,
    data: DataConfig | None = None,
    run: Path | None = None,
    training: Sequence[Dataset] | None = None,
    measuring: EvaluationConfig | None = None,
) -> list[Baselines | None]:
    """The baselines of each part of a set, None where a part has a single example.

    They are taken from `training` if given, else from the training sets of `data`; where these are not known or cannot
    be opened, from the other examples of the set. They are kept in the folder `run`.
    """
    why, measuring = "", measuring or EvaluationConfig()
    if training is None:
        training, why = _opened(data)
    return [_of(part, training, why, run, measuring) for part in encoded.parts]


def _of(
    part: ExampleSet, training: Sequence[Dataset], why: str, run: Path | None, measuring: EvaluationConfig
) -> Baselines | None:
    dataset = part.dataset
    measure = Measure(judging_metric([e.target for e in dataset], dataset.task.metric), measuring.counting)
    alike = [each for each in training if each.dims == dataset.dims and each.plain is None and not part.drawn]
    named = [each for each in alike if each.task.name == dataset.task.name and dataset.task.name]
    if training and not alike:
        why = "the training data are of another kind"
    try:
        return take_or_read(dataset, named or alike, measure, why, run)
    except RequestError as problem:  # a matrix that was there is gone, or is damaged
        return take_or_read(dataset, [], measure, f"the training data cannot be read: {problem}", run)


def _opened(data: DataConfig | None) -> tuple[list[Dataset], str]:
    """The training sets of a recipe, read from disk as they are needed, or why there are none."""
    configs = data.sets("train") if data is not None else []
    if data is None or not configs:
        return [], ""
    from_hub = next((c.pairs for c in configs if c.pairs and c.pairs.startswith(HUB)), None)
    if from_hub:
        return [], f"{from_hub} is not fetched again"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Notice)  # the training told them
            return open_sets(data.model_copy(update={"cache_gb": 0.0}), "train"), ""
    except RequestError as problem:
        return [], f"the training data cannot be opened: {problem}"


def run_folder(name: str) -> Path | None:
    """The run folder of a model that was loaded by this name; None if it is of no run."""
    path = Path(name)
    return next((p for p in (path, path.parent.parent) if name and (p / "recipe.yaml").is_file()), None)
