"""Scores what is in files and folders; models write their outputs first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sourcewise.errors import RequestError
from sourcewise.metrics.buckets import Bucket, by_frequency, by_group, by_length, by_training_text
from sourcewise.metrics.counting import Counting, Scorer
from sourcewise.metrics.significance import PairedTest
from sourcewise.scoring.reading import (
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
    outputs: Sequence[str | Path],
    *,
    more_references: Sequence[str | Path] = (),
    metrics: Sequence[str] | str = "all",
    counting: Counting = Counting(),
    paired: PairedTest | None = None,
    samples: int = 0,
    train: str | Path | None = None,
    sources: str | Path | None = None,
    target: str | None = None,
    output: str | None = None,
    groups: Sequence[str] = (),
    join_sources: bool = False,
    features: str | None = None,
    comet_model: str | None = None,
) -> Scores:
    """Score outputs that exist against references that exist, one text per example.

    `references` is a text file, a table or a run folder; `outputs` are text files, tables, run folders (their
    translations.tsv), or folders of models, which write outputs for the sources beside the references. `train` is the
    training set whose target texts make buckets; `sources` are for COMET; `target`, `output` and `groups` name columns.
    With `join_sources` rows of one source are one example with several references. `features` is the folder of a
    manifest. Raises RequestError for what cannot be read or does not match.
    """
    keys = chosen(metrics)
    known = read_references(str(references), [str(each) for each in more_references], target=target, groups=groups)
    if sources is not None:
        known.sources = read_sources(str(sources), known)
    whole = known
    if join_sources:
        known = joined(whole)
    systems: dict[str, list[str]] = {}
    for path in map(str, outputs):
        if path in systems:
            raise RequestError(f"{path}: is there twice; give each system once")
        texts, remarks = _outputs_of(path, whole, known, output, target, features)
        systems[path] = texts
        known.remarks += remarks
    extra = {} if "comet" not in keys else {"comet": _comet(known, systems, comet_model)}
    found = score_texts(
        known.references,
        systems,
        metrics=keys,
        counting=counting,
        paired=paired,
        samples=samples,
        buckets=_buckets(known, train),
        extra=extra,
        name=known.name,
    )
    return replace(found, remarks=[*known.remarks, *found.remarks, *_lacking(known, paired, systems)])


def _outputs_of(
    path: str, whole: ReferenceSet, known: ReferenceSet, column: str | None, target: str | None, features: str | None
) -> tuple[list[str], list[str]]:
    """The outputs of a system for the examples of `known`, and remarks on them. Raises RequestError.

    Where `known` has joined sources, a system has an output for each of them, or one for each row of the `whole` file.
    """
    try:
        texts, remarks = _outputs_for(path, whole, column, target, features)
    except RequestError as problem:
        if known is whole:
            raise
        try:
            return _outputs_for(path, known, column, target, features)
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


def _outputs_for(
    path: str, known: ReferenceSet, column: str | None, target: str | None, features: str | None
) -> tuple[list[str], list[str]]:
    if not Path(path).exists():
        raise RequestError(f"{path}: no such file or folder")
    if not Path(path).is_dir():
        return read_outputs(path, known, column)
    foreign = other_references(path, known) if has_outputs(path) else None
    if foreign is not None and foreign <= FOREIGN * len(known):
        texts, remarks = read_outputs(path, known, column)
        if foreign:
            remarks.append(f"{path}: {foreign:,} of its own references are others than in {known.name}")
        return texts, remarks
    return _generated(path, known, target, features)


def _generated(path: str, known: ReferenceSet, target: str | None, features: str | None) -> tuple[list[str], list[str]]:
    """What a model writes for the sources beside the references. Raises RequestError."""
    from sourcewise.data.request import SourceRequest
    from sourcewise.generation.model import load

    if Path(known.name).is_dir():
        raise RequestError(f"{path}: outputs for other examples than {known.name} has; give the file of its sources")
    if not known.sources and features is None and not known.ids:
        what = "no outputs for these references, and no sources to generate from"
        raise RequestError(f"{path}: {what}; give REFERENCES as a table with a column source, or as a manifest")
    model = load(path)
    dataset = SourceRequest(model.data, features=features, target=target).examples(known.name)
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
