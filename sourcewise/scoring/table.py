"""Scores of several systems on one set: with intervals, paired tests between every two, and parts of the set."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from sourcewise.errors import RequestError, tell
from sourcewise.metrics.buckets import Bucket
from sourcewise.metrics.conventions import remarks
from sourcewise.metrics.counting import (
    SCORES,
    Counting,
    References,
    Scorer,
    as_references,
    check_installed,
    not_installed,
    scorers,
)
from sourcewise.metrics.outputs import form_of, plugin_metrics
from sourcewise.metrics.significance import PairedTest, paired_test, score_interval

SHOWN = ("bleu_1", "bleu_2", "bleu_3", "bleu", "chrf", "chrf_pp", "ter", "wer", "cer", "rouge_l", "exact_match_pct")
OF_OUTPUTS = ("length_ratio", "unique_pct", "empty_pct", "repetition_pct")  # beside the scores
_ALIASES = {"chrf++": "chrf_pp", "chrf2++": "chrf_pp", "chrf2": "chrf", "exact": "exact_match_pct", "rouge": "rouge_l"}
_ALIASES |= {f"bleu{n}": f"bleu_{n}" for n in range(1, 5)} | {"rougel": "rouge_l"}


@dataclass(frozen=True, slots=True)
class System:
    """One system: its outputs, scores and what else is measured of its outputs."""

    name: str
    outputs: Sequence[str]
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]  # 95 %, over examples
    figures: dict[str, float | None]  # of outputs, and those of plug-ins
    level: str = ""  # of the verdict, beside baselines
    place: str = ""  # why that level


@dataclass(frozen=True, slots=True)
class Pair:
    """Two systems: differences of their scores (the second minus the first), and p-values of no difference."""

    first: str
    second: str
    differences: dict[str, float]
    p: dict[str, float]  # sacreBLEU's; of a difference of 0 it says nothing


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the set, and every system's scores there."""

    by: str
    name: str
    examples: int
    scores: dict[str, dict[str, float]]  # system → key → score


@dataclass(slots=True)
class Scores:
    """The table of `sourcewise score`."""

    references: str  # name of the set
    examples: int
    several: int  # most references of an example
    keys: list[str]
    signatures: dict[str, str]
    systems: list[System]
    test: PairedTest | None = None
    test_with: str = ""  # its number of resamples or trials, and its seed
    test_signatures: dict[str, str] = field(default_factory=dict)
    pairs: list[Pair] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def chosen(metrics: Sequence[str] | str) -> list[str]:
    """Keys of scores, from names as people write them, in the order of a table; `all` are all but comet.

    Of `all`, those whose package is not installed are left out, which is told. Raises RequestError for an unknown name,
    and where a score that is named takes a package that is not installed.
    """
    names = metrics.split(",") if isinstance(metrics, str) else list(metrics)
    found: list[str] = []
    for name in (each.strip() for each in names):
        if name == "all":
            lacking = not_installed(SHOWN)
            if lacking:
                tell(lacking)
            found += [key for key in SHOWN if key != "rouge_l" or not lacking]
            continue
        plain = name.lower().replace("-", "_")
        key = _ALIASES.get(plain.replace("_", ""), _ALIASES.get(plain, plain))
        if key not in (*SCORES, "comet"):
            raise RequestError(f"--metrics {name}: not one of all, {', '.join((*SHOWN, 'comet'))}")
        check_installed([key])
        found.append(key)
    ordered = [*SHOWN, "bleu_4", "comet"]
    return sorted(dict.fromkeys(found), key=ordered.index)


def score_texts(
    references: Sequence[str] | References,
    systems: Mapping[str, Sequence[str]],
    *,
    metrics: Sequence[str] | str = "all",
    counting: Counting = Counting(),
    paired: PairedTest | None = None,
    samples: int = 0,
    buckets: Sequence[Bucket] = (),
    extra: Mapping[str, Scorer] | None = None,
    name: str = "references",
) -> Scores:
    """Score outputs, one text per example and system, against one or several references per example.

    `paired` tests every two systems, with `samples` resamples or trials (0: sacreBLEU's numbers). `buckets` are parts
    of the set that are scored on their own. `extra` are scorers of keys beyond SCORES. Raises RequestError for lists of
    unequal length and for what `scorers` and `paired_test` refuse.
    """
    several = as_references(references)
    _check(several, systems, name)
    keys = chosen(metrics)
    counted = scorers([key for key in keys if key in SCORES], several, counting) | dict(extra or {})
    measured = {key: counted[key] for key in keys}
    found = Scores(
        name,
        len(several),
        max(map(len, several)),
        keys,
        {key: each.signature for key, each in measured.items()},
        [_system(title, list(outputs), several, measured) for title, outputs in systems.items()],
    )
    found.remarks = remarks(several, list(systems.values()), counting, keys)
    found.parts = [_part(bucket, found.systems, measured) for bucket in buckets]
    if paired and len(systems) > 1:
        _test(found, measured, paired, samples)
    return found


def _check(references: References, systems: Mapping[str, Sequence[str]], name: str) -> None:
    if not references or not systems:
        raise RequestError(f"{name}: {len(references)} references, {len(systems)} systems; give at least one of each")
    for title, outputs in systems.items():
        if len(outputs) != len(references):
            texts = "1 text" if len(outputs) == 1 else f"{len(outputs):,} texts"
            raise RequestError(f"{title}: {texts}, but {name} has {len(references):,} examples")


def _system(name: str, outputs: list[str], references: References, measured: Mapping[str, Scorer]) -> System:
    first = [each[0] for each in references]
    form = form_of(first, outputs)
    figures = {key: form[key] for key in OF_OUTPUTS} | plugin_metrics(outputs, first)
    scores = {key: each.score(outputs) for key, each in measured.items()}
    intervals = {key: score_interval(each, outputs) for key, each in measured.items()}
    return System(name, outputs, scores, intervals, figures)


def _part(bucket: Bucket, systems: Sequence[System], measured: Mapping[str, Scorer]) -> Part:
    rows = list(bucket.rows)
    scores = {
        system.name: {
            key: float(each.of_sums(each.statistics(system.outputs)[rows].sum(0))) for key, each in measured.items()
        }
        for system in systems
    }
    return Part(bucket.by, bucket.name, len(rows), scores)


def _test(found: Scores, measured: Mapping[str, Scorer], test: PairedTest, samples: int) -> None:
    """Put the paired tests of every two systems into the table."""
    found.test = test
    unit = {"bootstrap": "resamples", "randomisation": "trials"}[test]
    p: dict[tuple[str, str], dict[str, float]] = {}
    for i, first in enumerate(found.systems[:-1]):
        others = found.systems[i + 1 :]
        for key, each in measured.items():
            tests = paired_test(each, first.outputs, [other.outputs for other in others], test, samples)
            found.test_signatures[key] = tests[0].signature
            number, seed = re.findall(r"\|(?:bs|ar|seed):(\w+)", tests[0].signature)
            found.test_with = f"{int(number):,} {unit}, seed {seed}"
            for other, result in zip(others, tests, strict=True):
                p.setdefault((first.name, other.name), {})[key] = result.p
    for first, second in combinations(found.systems, 2):
        differences = {key: second.scores[key] - first.scores[key] for key in found.keys}
        found.pairs.append(Pair(first.name, second.name, differences, p[first.name, second.name]))
