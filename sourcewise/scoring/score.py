"""Scores what is in files and folders; models write their outputs first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sourcewise.errors import RequestError
from sourcewise.metrics.buckets import Bucket, by_frequency, by_group, by_length, by_training_text
from sourcewise.metrics.counting import Counting, Scorer
from sourcewise.metrics.significance import PairedTest
from sourcewise.scoring.beside import baselines_of, placed, systems_of
from sourcewise.scoring.reading import (
    Columns,
    ReferenceSet,
    has_outputs,
    joined,
    other_references,
    read_outputs,
    read_references,
    read_sources,
    training_targets,
)
from sourcewise.scoring.table import Scores, chosen, score_texts

FOREIGN = 0.5  # share of a run's references that are not of this set, above which its outputs are of another one


def score(
    references: str | Path,
    outputs: Sequence[str | Path] = (),
    *,
    more_references: Sequence[str | Path] = (),
    columns: Columns = Columns(),
    sources: str | Path | None = None,
    train: str | Path | None = None,
    train_features: str | Path | None = None,
    further: Mapping[str, Sequence[str]] | None = None,
    metrics: Sequence[str] | str = "all",
    comet_model: str | None = None,
    **how: Any,
) -> Scores:
    """Score outputs that exist against references that exist, one text per example.

    `references` is a text file, a table or a run folder; `outputs` are text files, tables, run folders (their
    translations.tsv), or folders of models, which write outputs for the sources beside the references; with `train`
    there may be none, and the baselines stand alone. `further` are more systems by name, their outputs one per example.
    `train` is the training set: its target texts make buckets, and baselines are taken from it, with its folder
    `train_features` where it is a manifest. `sources` are for COMET. `how` is `counting`, `paired` and `samples` of
    `score_texts`. Raises RequestError for what cannot be read or does not match.
    """
    keys = chosen(metrics)
    more = [str(each) for each in more_references]
    whole = read_references(str(references), more, columns=columns)
    if sources is not None:
        whole.sources = read_sources(str(sources), whole)
    known = joined(whole) if columns.join_sources else whole
    systems = _systems([str(each) for each in outputs], whole, known, columns)
    systems |= {name: list(texts) for name, texts in (further or {}).items()}
    beside, own = None, dict(systems)
    if train is not None:
        folder = None if train_features is None else str(train_features)
        counting = how.get("counting") or Counting()
        beside = baselines_of(known, train, counting, columns, folder)
        systems |= systems_of(beside, list(systems))
    extra = {"comet": _comet(known, systems, comet_model)} if "comet" in keys else {}
    buckets = _buckets(known, train)
    found = score_texts(known.references, systems, metrics=keys, buckets=buckets, extra=extra, name=known.name, **how)
    found = replace(found, remarks=[*known.remarks, *found.remarks, *_lacking(known, how.get("paired"), systems)])
    return found if beside is None else placed(found, beside, own)


def _systems(paths: Sequence[str], whole: ReferenceSet, known: ReferenceSet, columns: Columns) -> dict[str, list[str]]:
    """Path → outputs for the examples of `known`, which gets the remarks. Raises RequestError."""
    systems: dict[str, list[str]] = {}
    for path in paths:
        if path in systems:
            raise RequestError(f"{path}: is there twice; give each system once")
        systems[path], remarks = _outputs_of(path, whole, known, columns)
        known.remarks += remarks
    return systems


def _outputs_of(path: str, whole: ReferenceSet, known: ReferenceSet, columns: Columns) -> tuple[list[str], list[str]]:
    """The outputs of a system for the examples of `known`, and remarks on them. Raises RequestError.

    Where `known` has joined sources, a system has an output for each of them, or one for each row of the `whole` file.
    """
    try:
        texts, remarks = _outputs_for(path, whole, columns)
    except RequestError as problem:
        if known is whole:
            raise
        try:
            return _outputs_for(path, known, columns)
        except RequestError:
            raise problem from None
    if known is whole:
        return texts, remarks
    chosen = [texts[row] for row in known.rows]
    of_source = dict(zip(known.sources, chosen, strict=True))
    differing = sum(text != of_source[source] for source, text in zip(whole.sources, texts, strict=True))
    if differing:
        remarks.append(f"{path}: {differing:,} outputs differ from the first of their source, which counts")
    return chosen, remarks


def _outputs_for(path: str, known: ReferenceSet, columns: Columns) -> tuple[list[str], list[str]]:
    if not Path(path).exists():
        raise RequestError(f"{path}: no such file or folder")
    if not Path(path).is_dir():
        return read_outputs(path, known, columns.output)
    foreign = other_references(path, known) if has_outputs(path) else None
    if foreign is not None and foreign <= FOREIGN * len(known):
        texts, remarks = read_outputs(path, known, columns.output)
        if foreign:
            remarks.append(f"{path}: {foreign:,} of its own references are others than in {known.name}")
        return texts, remarks
    return _generated(path, known, columns)


def _generated(path: str, known: ReferenceSet, columns: Columns) -> tuple[list[str], list[str]]:
    """What a model writes for the sources beside the references. Raises RequestError."""
    from sourcewise.data.request import SourceRequest
    from sourcewise.generation.model import load

    if has_outputs(known.name):
        raise RequestError(f"{path}: outputs for other examples than {known.name} has; give the file of its sources")
    if not known.sources and columns.features is None and not known.ids:
        what = "no outputs for these references, and no sources to generate from"
        raise RequestError(f"{path}: {what}; give REFERENCES as a table with a column source, or as a manifest")
    model = load(path)
    asked = SourceRequest(model.data, columns.task, columns.features, columns.prefix, columns.source, columns.target)
    dataset = asked.examples(known.name)
    if len(dataset) != len(known):
        raise RequestError(f"{known.name}: {len(known):,} references, but {path} reads {len(dataset):,} examples of it")
    options = model.generation
    search = f"{'sampling' if options.sample else f'beams {options.beams}'}, max_new_tokens {options.max_new_tokens}"
    return model.generate(dataset), [f"{path}: outputs generated now ({search})"]


def _comet(known: ReferenceSet, systems: Mapping[str, Sequence[str]], model: str | None) -> Scorer:
    from sourcewise.metrics.comet import MODEL, comet_scorer

    if not known.sources:
        way = "give --sources FILE, or REFERENCES with a column source"
        raise RequestError(f"--metrics comet: reads sources, too; {way}")
    several = sum(len(each) > 1 for each in known.references)
    if several:
        known.remarks.append(f"comet: reads one reference; {several:,} examples have more, the first is taken")
    first = [each[0] for each in known.references]
    return comet_scorer(known.sources, first, list(systems.values()), model or MODEL)


def _buckets(known: ReferenceSet, train: str | Path | None) -> list[Bucket]:
    found = [*by_length(known.references), *by_group(known.groups)]
    if train is not None:
        training = training_targets(str(train))
        found += [*by_frequency(known.references, training), *by_training_text(known.references, training)]
    return found


def _lacking(known: ReferenceSet, paired: PairedTest | None, systems: Mapping[str, Sequence[str]]) -> list[str]:
    found = []
    if paired and len(systems) < 2:
        found.append(f"paired {paired}: needs two systems or more")
    if repeated := known.repeated_sources():
        found.append(
            f"{known.name}: {repeated:,} rows have the source of another, with another reference; "
            "join_sources counts them as references of one example"
        )
    return found
