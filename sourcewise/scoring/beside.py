"""The baselines that scored systems stand beside: taken from a training set that the user names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sourcewise.baselines.measure import Baselines, take
from sourcewise.config import DataConfig
from sourcewise.data.examples import Dataset, Example
from sourcewise.data.request import SourceRequest
from sourcewise.errors import RequestError
from sourcewise.evaluation.verdict import among, judging_metric
from sourcewise.metrics.counting import Counting
from sourcewise.metrics.measure import Measure
from sourcewise.scoring.reading import Columns, ReferenceSet, holds_rows, training_targets
from sourcewise.scoring.table import Scores

CALLED = "{} (baseline)"


def baselines_of(
    known: ReferenceSet,
    train: str | Path,
    counting: Counting,
    columns: Columns = Columns(),
    train_features: str | None = None,
) -> Baselines:
    """The baselines of a set, from a training set: a text file of targets, a table of pairs, or a manifest.

    Without sources on both sides nothing is copied. Raises RequestError for what cannot be read.
    """
    measure = Measure(judging_metric([each[0] for each in known.references]), counting)
    training, without = _training(str(train), columns, train_features)
    asked, without = (_asked(known, columns), "") if not without else (_texts(known), without)
    if not without and bool(asked.dims) != bool(training.dims):
        without = f"{known.name} and {train} have sources of different kinds"
    elif not without and not asked.dims and not known.sources:
        without = f"{known.name} has no sources"
    elif not without and asked.dims != training.dims:
        raise RequestError(f"{train}: {training.dims} dims a frame, but {known.name} has {asked.dims}")
    found = take(asked, [training], measure, nothing_to_copy=without)
    if found is None:
        raise RequestError(f"{train}: no examples to take baselines from")
    return found


def systems_of(baselines: Baselines, taken: Sequence[str]) -> dict[str, list[str]]:
    """Name → outputs of every baseline. Raises RequestError if a system has the name of one."""
    found = {CALLED.format(name): list(texts) for name, texts in baselines.texts.items()}
    if clash := next((name for name in taken if name in found), None):
        raise RequestError(f"{clash}: is the name of a baseline; give the system another name")
    return found


def placed(found: Scores, baselines: Baselines, own: Mapping[str, Sequence[str]]) -> Scores:
    """The table with the place of every system of the user among the baselines."""
    systems = []
    for system in found.systems:
        level, why = among(baselines.against(system.outputs)) if system.name in own else ("", "")
        systems.append(replace(system, level=level, place=why))
    copied = f"copied by {baselines.copied_by}" if "copy" in baselines.texts else baselines.copied_by
    said = f"baselines: from {baselines.taken_from}; {copied}"
    return replace(found, systems=systems, remarks=[*found.remarks, said])


def _training(train: str, columns: Columns, features: str | None) -> tuple[Dataset, str]:
    """The training set, and why it has no sources, if so."""
    if not holds_rows(train):
        rows = [Example(str(i), text) for i, text in enumerate(training_targets(train, columns.target))]
        return Dataset(rows, train), f"{train} is a list of targets, without sources"
    try:
        asked = SourceRequest(DataConfig(), features=features, source=columns.source, target=columns.target)
        return asked.examples(train), ""
    except RequestError as problem:
        if features is not None:
            raise
        rows = [Example(str(i), text) for i, text in enumerate(training_targets(train, columns.target))]
        return Dataset(rows, train), f"the sources of {train} cannot be read: {problem}"


def _asked(known: ReferenceSet, columns: Columns) -> Dataset:
    """The scored set with its sources: matrices of a manifest, else the texts beside the references."""
    if columns.features is None:
        return _texts(known)
    asked = SourceRequest(DataConfig(), features=columns.features, target=columns.target)
    found = asked.examples(known.name)
    found = found.select(known.rows) if known.rows else found
    if len(found) != len(known):
        raise RequestError(f"{known.name}: {len(known):,} references, but {len(found):,} examples with features")
    return found


def _texts(known: ReferenceSet) -> Dataset:
    sources = known.sources or [""] * len(known)
    rows = [
        Example(str(i), texts[0], source, others=tuple(texts[1:]))
        for i, (texts, source) in enumerate(zip(known.references, sources, strict=True))
    ]
    return Dataset(rows, known.name)
