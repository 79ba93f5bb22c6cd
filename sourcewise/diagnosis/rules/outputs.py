"""Have the outputs collapsed? (row E2)

Every threshold compares the outputs with their own references, so that sets with few distinct targets,
short targets or repeating targets are judged by what is normal for them.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from sourcewise.diagnosis.finding import Finding, Level
from sourcewise.diagnosis.rules.output_texts import (
    COPIES_SOURCE,
    EMPTY,
    ENDLESS,
    FEW_DISTINCT,
    GENERIC,
    LENGTH,
    REPETITION,
    RULES,
    SAME_OUTPUT,
)
from sourcewise.evaluation.metrics import output_metrics, plain, words
from sourcewise.evaluation.results import Evaluation, Row

__all__ = ["MIN_EXAMPLES", "RULES", "check"]

MIN_EXAMPLES = 8  # below, one example moves every share by more than a threshold
PHRASE_WORDS = 3
Z95 = 1.645  # standard deviations above which a normal variable lies one time in twenty
RAMBLING = 1.1  # times the references' characters; outputs that reach the limit with fewer are cut, not endless

_FIGURES = ("repetition_pct", "unfinished_pct", "length_ratio", "length_sd_ratio")


def check(evaluation: Evaluation) -> list[Finding]:
    """OUT001 to OUT008 over the rows; nothing for fewer than `MIN_EXAMPLES` rows."""
    rows = evaluation.rows
    if len(rows) < MIN_EXAMPLES:
        return []
    references, outputs = [plain(r) for r in evaluation.references], [plain(o) for o in evaluation.outputs]
    # Rows read from a folder do not know whether they finished: the figures in metrics.json do.
    metrics = evaluation.metrics
    if any(metrics.get(key) is None for key in _FIGURES):
        known = {key: value for key, value in metrics.items() if value is not None}
        metrics = output_metrics(references, outputs, [r.finished for r in rows]) | known
    sources = [plain(r.source) for r in rows]
    cut = _reached(rows, metrics["unfinished_pct"])
    ratio = _longer(references, outputs, cut or range(len(rows)))
    wanted = _as_said(sources, references, outputs)
    if ratio < RAMBLING:
        for i in cut:  # so that what the limit explains is not said of the model
            wanted[i] = wanted[i][: len(outputs[i])].rstrip()
    found = [
        *_empty(references, outputs),
        *_same_output(wanted, outputs),
        *_few_distinct(sources, wanted, outputs),
        *_generic(wanted, outputs),
        *_copies_source(sources, references, outputs),
        *_repetition(metrics["repetition_pct"], len(rows)),
        *_endless(metrics["unfinished_pct"], len(rows), ratio),
        *_length(references, outputs, metrics["length_ratio"], metrics["length_sd_ratio"]),
    ]
    return _without_implied(found)


def _as_said(sources: Sequence[str], references: Sequence[str], outputs: Sequence[str]) -> list[str]:
    """Of several references of a source the one that was said, where one was: a model may have its favourite."""
    right: defaultdict[str, set[str]] = defaultdict(set)
    for source, reference in zip(sources, references, strict=True):
        right[source].add(reference)
    rows = zip(sources, references, outputs, strict=True)
    return [output if source and output in right[source] else reference for source, reference, output in rows]


def _reached(rows: Sequence[Row], unfinished_pct: float) -> list[int]:
    """The rows that reached the length limit. Those read from a folder do not tell: then all, where most did."""
    known = [i for i, row in enumerate(rows) if not row.finished]
    return known or (list(range(len(rows))) if unfinished_pct >= 50 else [])


def _longer(references: Sequence[str], outputs: Sequence[str], rows: Sequence[int]) -> float:
    """Characters of these rows' outputs over their references'; a loop need not have spaces."""
    return sum(len(outputs[i]) for i in rows) / max(1, sum(len(references[i]) for i in rows))


def _without_implied(found: list[Finding]) -> list[Finding]:
    """One output for everything is also few outputs, of one phrase and one length: said once."""
    errors = {finding.code for finding in found if finding.level == "error"}
    implied: set[str] = set()
    if EMPTY.code in errors:
        implied |= {SAME_OUTPUT.code, FEW_DISTINCT.code, LENGTH.code}
    if SAME_OUTPUT.code in errors:
        implied |= {FEW_DISTINCT.code, GENERIC.code}
    return [finding for finding in found if finding.code not in implied]


def _empty(references: Sequence[str], outputs: Sequence[str]) -> list[Finding]:
    excess = _share(not o for o in outputs) - _share(not r for r in references)
    level = _level(excess, warning=2, error=20)
    if level is None:
        return []
    return [EMPTY.finding(f"{_share(not o for o in outputs):.1f} % of {len(outputs)} outputs are empty", level)]


def _same_output(references: Sequence[str], outputs: Sequence[str]) -> list[Finding]:
    text, count = Counter(outputs).most_common(1)[0]
    top, top_reference = 100 * count / len(outputs), _top_share(references)
    excess = top - top_reference
    level: Level | None = None
    if top >= 50 and excess >= 30:
        level = "error"
    elif excess >= 5 and excess >= 0.8 * (100 - top_reference):
        level = "warning"
    if level is None:
        return []
    evidence = (
        f"{top:.0f} % of {len(outputs)} outputs are {_quoted(text)}; the commonest reference has {top_reference:.1f} %"
    )
    return [SAME_OUTPUT.finding(evidence, level)]


def _few_distinct(sources: Sequence[str], references: Sequence[str], outputs: Sequence[str]) -> list[Finding]:
    """Of a source that comes with several references one is enough: a model says the same to it each time."""
    given = len(outputs)
    if any(sources):
        places = {source: i for i, source in reversed(list(enumerate(sources)))}
        firsts = [i for i, source in enumerate(sources) if not source or places[source] == i]
        references, outputs = [references[i] for i in firsts], [outputs[i] for i in firsts]
    if len(outputs) < MIN_EXAMPLES:
        return []
    distinct, distinct_references = len(set(outputs)), len(set(references))
    effective, effective_references = _effective_number(outputs), _effective_number(references)
    share = 100 * max(distinct / distinct_references, effective / effective_references)
    level = _level(-share, warning=-70, error=-50, strictly=True)
    if level is None:
        return []
    evidence = (
        f"{distinct} distinct outputs where the references have {distinct_references} "
        f"(effective number {effective:.1f} against {effective_references:.1f}), {share:.0f} % of their variety"
    )
    if len(outputs) < given:
        evidence += f"; of the {len(outputs)} different sources of {given} examples"
    return [FEW_DISTINCT.finding(evidence, level)]


def _generic(references: Sequence[str], outputs: Sequence[str]) -> list[Finding]:
    in_outputs, in_references = _phrases(outputs), _phrases(references)
    if not in_outputs:
        return []
    phrase, excess = max(
        ((p, (count - in_references[p]) * 100 / len(outputs)) for p, count in in_outputs.items()),
        key=lambda item: item[1],
    )
    level = _level(excess, warning=25, error=50)
    if level is None:
        return []
    evidence = (
        f"{_quoted(' '.join(phrase))} stands in {100 * in_outputs[phrase] / len(outputs):.0f} % of the outputs and in "
        f"{100 * in_references[phrase] / len(references):.0f} % of the references"
    )
    return [GENERIC.finding(evidence, level)]


def _copies_source(sources: Sequence[str], references: Sequence[str], outputs: Sequence[str]) -> list[Finding]:
    if not any(sources):
        return []
    copied = _share(_copied(o, s) for o, s in zip(outputs, sources, strict=True))
    normal = _share(_copied(r, s) for r, s in zip(references, sources, strict=True))
    level = _level(copied - normal, warning=10, error=50)
    if level is None:
        return []
    return [
        COPIES_SOURCE.finding(
            f"{copied:.0f} % of the outputs are copied out of their source; {normal:.0f} % of the references are", level
        )
    ]


def _repetition(repetition_pct: float, examples: int) -> list[Finding]:
    level = _certain(repetition_pct, examples, warning=10, error=30)
    if level is None:
        return []
    evidence = f"{repetition_pct:.1f} % of {examples} outputs repeat themselves where their reference does not"
    return [REPETITION.finding(evidence, level)]


def _endless(unfinished_pct: float, examples: int, ratio: float) -> list[Finding]:
    level = _certain(unfinished_pct, examples, warning=10, error=30)
    if level is None:
        return []
    evidence = f"{unfinished_pct:.1f} % of {examples} outputs reached the length limit"
    evidence += f"; outputs have {ratio:.2f} times the references' characters"
    if ratio < RAMBLING:  # the limit is too low for these targets
        cure = "The limit is lower than these targets need: raise it.\n  --generation.max_new_tokens 256"
        return [ENDLESS.finding(evidence, "warning" if level == "error" else level, cure)]
    return [ENDLESS.finding(evidence, level)]


def _length(references: Sequence[str], outputs: Sequence[str], ratio: float, length_sd_ratio: float) -> list[Finding]:
    if not any(words(r) for r in references):
        return []
    level = _level(-ratio, warning=-0.7, error=-0.4, strictly=True) or _level(
        ratio, warning=1.5, error=2.5, strictly=True
    )
    sizes = f"outputs have {ratio:.2f} times the words of the references"
    if level is not None:
        return [LENGTH.finding(sizes, level)]
    deviation = float(np.std([len(words(r)) for r in references]))
    if deviation >= 1 and length_sd_ratio < 0.25:
        spread = (
            f"vary {length_sd_ratio:.2f} times as much in length (the references' deviation is {deviation:.1f} words)"
        )
        return [LENGTH.finding(f"{sizes}, but {spread}", "warning")]
    return []


def _level(value: float, *, warning: float, error: float, strictly: bool = False) -> Level | None:
    """How grave a value is that is worse the larger it is; a threshold itself counts unless `strictly`."""
    if value > error or (value == error and not strictly):
        return "error"
    return "warning" if value > warning or (value == warning and not strictly) else None


def _certain(percent: float, examples: int, *, warning: float, error: float) -> Level | None:
    """How grave a share of the examples is for sure; a note from half of what makes a warning."""
    return _level(_at_least(percent, examples), warning=warning, error=error) or (
        "note" if percent >= warning / 2 else None
    )


def _at_least(percent: float, examples: int) -> float:
    """The lower end of a one-sided 95 % interval of a share, in percent (Wilson 1927)."""
    share, spread = percent / 100, Z95**2 / examples
    half = math.sqrt(spread * share * (1 - share) + spread**2 / 4)
    return 100 * (share + spread / 2 - half) / (1 + spread)


def _share(flags: Iterable[bool]) -> float:
    """Percent of the flags that are true."""
    values = list(flags)
    return 100 * sum(values) / len(values)


def _top_share(texts: Sequence[str]) -> float:
    return 100 * Counter(texts).most_common(1)[0][1] / len(texts)


def _effective_number(texts: Sequence[str]) -> float:
    """How many equally common texts would be as varied: exp of the entropy (Hill number of order 1)."""
    shares = [count / len(texts) for count in Counter(texts).values()]
    return math.exp(-sum(s * math.log(s) for s in shares))


def _phrases(texts: Sequence[str]) -> Counter[tuple[str, ...]]:
    """In how many texts each phrase of `PHRASE_WORDS` words stands."""
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        items = words(text)
        counts.update({tuple(items[i : i + PHRASE_WORDS]) for i in range(len(items) - PHRASE_WORDS + 1)})
    return counts


def _copied(text: str, source: str) -> bool:
    """Whether a text is one stretch of its source's words, at least half of them (a task prefix may be left out)."""
    given, read = words(text.casefold()), words(source.casefold())
    if not given or 2 * len(given) < len(read):
        return False
    return any(read[i : i + len(given)] == given for i in range(len(read) - len(given) + 1))


def _quoted(text: str, longest: int = 60) -> str:
    return '"' + (text if len(text) <= longest else text[: longest - 1] + "…") + '"'
