"""Is the training set worth training on? Its texts, pair by pair, before the first step (row E3)."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from sourcewise.data.encoding import Encoded, Ids
from sourcewise.data.plain_text import Denoised
from sourcewise.diagnosis.finding import Finding, Level
from sourcewise.diagnosis.rules.characters import check_characters
from sourcewise.diagnosis.rules.data_texts import (
    AMBIGUOUS,
    COPIES,
    CUT,
    DUPLICATES,
    FEW,
    LEAK,
    SAME_SOURCE,
    SAME_TARGET,
    SAME_TOKEN,
    WITH_SOURCE,
)

if TYPE_CHECKING:
    from sourcewise.config import DataConfig
    from sourcewise.training.opening import Prepared

SAMPLE = 1000  # examples that are looked at closely
FEWEST = 20  # a set of fewer is an experiment: shares mean nothing
MANY, AGAIN = 100, 20  # examples below which a set is learnt by heart, and how often each is seen by then
VARIED = 10  # different targets from which a set is no list of labels
PROMPT, BEYOND = 3, 2  # tokens of a source from which on a copy is no chance, and what follows it at least


def check(prepared: Prepared) -> list[Finding]:
    """DAT002, DAT004 to DAT010 but for features, DAT015 to DAT017; plain text makes its pairs itself."""
    found: list[Finding] = []
    data = prepared.recipe.data
    for part in prepared.train.parts:
        if isinstance(part, Denoised) or len(part) < FEWEST:
            continue
        found += [*check_pairs(part), *check_characters(part, data), *check_cut(part, data)]
    found += [*_few(prepared), *_cut_outputs(prepared), *_copies(prepared)]
    if prepared.valid is not None:
        found += [*_valid_characters(prepared), *_leak(prepared.train, prepared.valid)]
    return found


def _valid_characters(prepared: Prepared) -> list[Finding]:
    """DAT006 of the validation set, where it is not the training set itself."""
    assert prepared.valid is not None
    trained = {part.dataset.name for part in prepared.train.parts}
    parts = [p for p in prepared.valid.parts if not isinstance(p, Denoised) and p.dataset.name not in trained]
    return [f for part in parts for f in check_characters(part, prepared.recipe.data, learned=False)]


def check_pairs(part: Encoded, *, sources: bool = True) -> list[Finding]:
    """DAT002, DAT004, DAT005, DAT009, DAT010 and DAT017: what needs no more than a set as ids.

    Without `sources` what these say is left out (DAT002, DAT009, DAT010).
    """
    found = [*_targets(part), *_tokens(part), *_with_source(part)]
    if sources and not part.dataset.dims:
        found += [*_sources(part), *_ambiguous(part)]
    return found


def sample(count: int, size: int = SAMPLE) -> np.ndarray:
    """At most `size` positions, spread evenly through `count`."""
    return np.linspace(0, count - 1, min(count, size)).astype(int)


def named(part: Encoded, evidence: str) -> str:
    """Evidence that says of which set it is."""
    return f"{part.dataset.name}: {evidence}"


def quoted(text: str, longest: int = 60) -> str:
    """A text of the user's, on one line, in quotes."""
    flat = " ".join(text.split())
    return '"' + (flat if len(flat) <= longest else flat[: longest - 1] + "…") + '"'


def _targets(part: Encoded) -> list[Finding]:
    counts = Counter(example.target for example in part.dataset)
    (text, most), size = counts.most_common(1)[0], len(part)
    share, varied = most / size, len(counts) >= VARIED
    level: Level | None = None
    if share >= 0.9 or (varied and share >= 0.5):
        level = "error"
    elif share >= 0.8 or (varied and share >= 0.3):
        level = "warning"
    if level is None:
        return []
    evidence = f"{100 * share:.0f} % of {size} targets are {quoted(text)}; different targets: {len(counts)}"
    return [SAME_TARGET.finding(named(part, evidence), level)]


def _tokens(part: Encoded) -> list[Finding]:
    ids = np.concatenate([np.asarray(part.targets[int(i)]) for i in sample(len(part), 20 * SAMPLE)])
    counts = np.bincount(ids[ids != part.tokenizer.eos_id])
    if (counts > 0).sum() < 5:
        return []
    token, share = int(counts.argmax()), counts.max() / counts.sum()
    level = _level(share, warning=0.5, error=0.8)
    if level is None:
        return []
    name = quoted(part.tokenizer.pieces([token])[0].strip() or "a space")
    return [SAME_TOKEN.finding(named(part, f"{name} is {100 * share:.0f} % of {counts.sum()} target tokens"), level)]


def check_cut(part: Encoded, data: DataConfig) -> list[Finding]:
    """DAT007, of what is read."""
    task, dataset = part.dataset.task, part.dataset
    max_target = task.max_target or data.max_target
    max_source = task.max_source or data.max_source
    found = _cut_side(part, "targets", part.targets, part.target_lengths, max_target, "max_target")
    if dataset.dims:
        frames = np.array([example.frames for example in dataset])
        found += _cut_finding(part, "sources", frames, data.max_frames, "max_frames", "frames")
    elif part.sources is not None and not any(example.turns for example in dataset):
        found += _cut_side(part, "sources", part.sources, part.source_lengths, max_source, "max_source")
    return found


def _cut_side(part: Encoded, side: str, ids: Ids, lengths: np.ndarray, limit: int, option: str) -> list[Finding]:
    """Only texts that fill the limit may have been cut: these are measured whole, up to a sample of them."""
    full = np.flatnonzero(lengths == limit)
    if len(full) < 0.05 * len(part):
        return []
    chosen = full[sample(len(full))]
    texts = [part.dataset[int(i)] for i in chosen]
    said = side == "targets"
    rows = part.tokenizer.encode_batch([e.target if said else e.source for e in texts], target=said)
    whole = lengths.astype(np.float64)
    whole[full] = np.resize([len(row) for row in rows], len(full)) if len(chosen) < len(full) else [*map(len, rows)]
    return _cut_finding(part, side, whole, limit, option, "tokens")


def _cut_finding(part: Encoded, side: str, whole: np.ndarray, limit: int, option: str, units: str) -> list[Finding]:
    """`whole` (examples,) lengths before cutting."""
    over = whole > limit
    share, gone = over.mean(), float((whole[over] - limit).sum() / whole.sum())
    if share < 0.05:
        return []
    level: Level = "error" if gone >= 0.5 else "warning"
    longest = part.dataset[int(whole.argmax())].where
    evidence = (
        f"{100 * share:.0f} % of the {side} are longer than {option} {limit}, such as {longest} "
        f"({whole.max():.0f} {units}); {100 * gone:.0f} % of all {units} are cut off"
    )
    cure = f"{CUT.cure}\n  --data.{option} {int(whole.max())}"
    return [CUT.finding(named(part, evidence), level, cure)]


def _cut_outputs(prepared: Prepared) -> list[Finding]:
    """DAT007 of what is generated: targets that are longer than an output may be."""
    examples, limit = prepared.valid or prepared.train, prepared.recipe.generation.max_new_tokens
    if len(examples) < FEWEST or any(isinstance(part, Denoised) for part in examples.parts):
        return []
    lengths = examples.target_lengths.astype(np.float64)
    over = lengths > limit
    gone = float((lengths[over] - limit).sum() / lengths.sum())
    if over.mean() < 0.05:
        return []
    evidence = f"{100 * over.mean():.0f} % of {len(lengths)} targets are longer than generation.max_new_tokens {limit}"
    evidence += f"; outputs would lack {100 * gone:.0f} % of their tokens"
    cure = f"{CUT.cure}\n  --generation.max_new_tokens {int(lengths.max())}"
    return [CUT.finding(named(examples, evidence), "error" if gone >= 0.5 else "warning", cure)]


def _few(prepared: Prepared) -> list[Finding]:
    """DAT015, of a training from random weights that comes to each example again and again."""
    train, options = prepared.train, prepared.recipe.train
    if len(train) >= MANY or prepared.recipe.model.weights or any(isinstance(part, Denoised) for part in train.parts):
        return []
    tokens = int(train.source_lengths.sum() + train.target_lengths.sum())
    batches = math.ceil(max(tokens / options.batch_tokens, len(train) / (options.batch_size or len(train))))
    epochs = options.steps * options.accumulate / batches if options.steps else options.epochs
    if epochs < AGAIN:
        return []
    evidence = f"{len(train)} examples, each of which the training sees {epochs:.0f} times"
    limits = [config.limit for config in prepared.recipe.data.sets("train") if config.limit]
    if limits:
        evidence += f"; data.train.limit is {', '.join(map(str, limits))}"
    return [FEW.finding(named(train, evidence))]


def _copies(prepared: Prepared) -> list[Finding]:
    """DAT016: untranslated pairs, beyond those of the validation set."""
    if prepared.train.dataset.dims or any(isinstance(part, Denoised) for part in prepared.train.parts):
        return []
    share, of_valid = _copied(prepared.train), _copied(prepared.valid) if prepared.valid else None
    usual = of_valid or 0.0
    if len(prepared.train) < FEWEST or share < 0.1 or usual > 0.2 * share:
        return []
    evidence = f"{100 * share:.0f} % of the targets are the text of their source"
    evidence += f"; of those of the validation set {100 * usual:.0f} %" if of_valid is not None else ""
    grave = share >= 0.5 and of_valid is not None
    return [COPIES.finding(named(prepared.train, evidence), "error" if grave else "warning")]


def _copied(examples: Encoded) -> float:
    """The share of pairs whose target ends their source, and is half of it or more: a prefix may stand before it."""
    chosen = [examples.dataset[int(i)] for i in sample(len(examples))]
    pairs = [(" ".join(e.source.casefold().split()), " ".join(e.target.casefold().split())) for e in chosen]
    return sum(source.endswith(target) and 2 * len(target) >= len(source) for source, target in pairs) / len(pairs)


def _with_source(part: Encoded) -> list[Finding]:
    if part.sources is None:
        return []
    asked = 0
    begun: list[int] = []
    for i in map(int, sample(len(part))):
        source, target = np.asarray(part.sources[i]), np.asarray(part.targets[i])
        source = source[source != part.tokenizer.eos_id]
        if len(source) >= PROMPT:
            asked += 1
            if len(target) > len(source) + BEYOND and np.array_equal(target[: len(source)], source):
                begun.append(i)
    if asked < FEWEST or len(begun) < 0.9 * asked:
        return []
    evidence = f"{100 * len(begun) / asked:.0f} % of {asked} targets begin with all of their source and go on, such as "
    return [WITH_SOURCE.finding(named(part, f"{evidence}{quoted(part.dataset[begun[0]].target)}"))]


def _sources(part: Encoded) -> list[Finding]:
    groups = Counter(example.source for example in part.dataset)
    text, count = groups.most_common(1)[0]
    share = count / len(part)
    level = _level(share, warning=0.05, error=0.5)
    targets = {example.target for example in part.dataset if example.source == text}
    if level is None or len(targets) < VARIED:
        return []
    what = quoted(text) if text.strip() else "empty"
    evidence = f"{100 * share:.0f} % of {len(part)} sources are {what}, with {len(targets)} different targets"
    return [SAME_SOURCE.finding(named(part, evidence), level)]


def _ambiguous(part: Encoded) -> list[Finding]:
    """DAT009 and DAT010: what comes more than once."""
    groups: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for example in part.dataset:
        groups[example.source][example.target] += 1
    size, found = len(part), []
    several = {source: targets for source, targets in groups.items() if len(targets) > 1}
    examples = sum(sum(targets.values()) for targets in several.values())
    if examples >= 0.01 * size:
        floor = sum(_nats(targets.values()) for targets in several.values()) / int(part.target_lengths.sum())
        worst = max(several, key=lambda source: len(several[source]))
        evidence = (
            f"{100 * examples / size:.1f} % of {size} examples share their source with another target; {quoted(worst)} "
            f"has {len(several[worst])}; no model gets below {floor:.2g} nats a target token on this set"
        )
        found.append(AMBIGUOUS.finding(named(part, evidence), "warning" if floor >= 0.5 else "note"))
    copies = size - sum(len(targets) for targets in groups.values())
    if copies >= 0.05 * size:
        source, targets = max(groups.items(), key=lambda item: max(item[1].values()))
        evidence = f"{100 * copies / size:.0f} % of {size} pairs are copies; that of {quoted(source)} "
        evidence += f"comes {max(targets.values())} times"
        found.append(DUPLICATES.finding(named(part, evidence), "warning" if copies >= 0.3 * size else "note"))
    return found


def _nats(counts: Iterable[int]) -> float:
    """Entropy of what is counted, times how often it is: nats."""
    numbers = list(counts)
    return -sum(n * math.log(n / sum(numbers)) for n in numbers)


def _leak(train: Encoded, valid: Encoded) -> list[Finding]:
    if train.dataset.dims or any(isinstance(part, Denoised) for part in (*train.parts, *valid.parts)):
        return []
    pairs = {(example.source, example.target) for example in train.dataset}
    sources = {source for source, _ in pairs}
    both = [example for example in valid.dataset if (example.source, example.target) in pairs]
    if len(both) < 0.05 * len(valid):
        return []
    known = sum(example.source in sources for example in valid.dataset)
    evidence = (
        f"{100 * len(both) / len(valid):.0f} % of {len(valid)} validation pairs are in the training set, such as "
        f"{both[0].where}; the sources of {100 * known / len(valid):.0f} % are"
    )
    return [LEAK.finding(named(valid, evidence))]


def _level(value: float, *, warning: float, error: float) -> Level | None:
    """How grave a share is that is worse the larger it is."""
    return "error" if value >= error else "warning" if value >= warning else None
