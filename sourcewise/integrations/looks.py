"""What a doctor looks at in somebody else's training: the wiring before it, and the network at each evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from sourcewise.config import GenerationConfig
from sourcewise.data.batches import IGNORED
from sourcewise.diagnosis.answer import Piece
from sourcewise.diagnosis.looked import Looked
from sourcewise.diagnosis.measures.outputs import Outputs
from sourcewise.diagnosis.measures.pairing import not_told
from sourcewise.diagnosis.pairs import FEWEST, Pairs
from sourcewise.diagnosis.rules import look
from sourcewise.diagnosis.rules.wiring.wir001_not_finite import NotFiniteValues
from sourcewise.diagnosis.rules.wiring.wir008_padding_counts import PaddingCounts
from sourcewise.diagnosis.rules.wiring.wir009_end_not_learned import EndNotLearned
from sourcewise.diagnosis.whole import of_evaluation
from sourcewise.diagnosis.wiring import one_batch
from sourcewise.errors import NotFinite, RequestError
from sourcewise.evaluation import source_bits as sets
from sourcewise.evaluation.evaluate import evaluate_encoded
from sourcewise.evaluation.one_batch import source_bits
from sourcewise.evaluation.results import Evaluation, Row, without_nan
from sourcewise.evaluation.source_bits import SourceBits
from sourcewise.integrations.collated import (
    LABELS,
    READ,
    Collated,
    CollatedNetwork,
    Collation,
    Speaker,
    parts,
    with_prompts,
)
from sourcewise.integrations.cut import check_cut
from sourcewise.integrations.fed import check_fed
from sourcewise.integrations.finite import broken_weights
from sourcewise.integrations.passing import joined, size_of, some_of
from sourcewise.integrations.rates import unknown
from sourcewise.integrations.wiring import Training, check_start, look_at
from sourcewise.model.finite import damage
from sourcewise.training.statistics import target_entropy

LONGEST = 256  # tokens of an output
SIZE = 16  # examples of a batch, where its sources are exchanged
OF_TARGETS = "DAT004 DAT005 DAT017"  # rules over pairs of ids
OF_SOURCES = "DAT002 DAT003 DAT009 DAT010"
NOT_READ = "all rules but source use (SRC001) and the course"
PROMPTED = f"{READ} hold tokens that the labels hide (a prompt), which generation would not be given"


def look_at_wiring(
    model: Any, batches: Sequence[Collation], processing: Any, training: Training, *, taken: str = "", own: str = ""
) -> Piece:
    """The wiring rules on the first batches of a training, as the model is to be given them.

    `taken` says what takes the labels out of a batch before the model is called, `own` which loss is not the model's.
    """
    if broken := broken_weights(model):
        return Piece([NotFiniteValues.finding(f"not finite are the weights {broken}")])
    if broken := broken_sources(batches):
        return Piece([NotFiniteValues.finding(f"not finite are sources of the first batches, {broken}")])
    speaker = _speaker(model, processing)
    batch = joined(batches, speaker.pad_id)
    _, real, counts = parts(batch, speaker.pad_id)
    if not counts.any():
        return Piece([EndNotLearned.finding(f"no label of {len(counts)} rows counts: all are {IGNORED}")])
    batch = some_of(batch, (real.any(1) & counts.any(1)).nonzero()[:, 0].numpy())
    batch = with_prompts(batch, speaker.pad_id) or batch
    encoded = Collated([batch], speaker)
    network = CollatedNetwork(model, encoded.dataset.dims)
    found = check_fed(network, batch, batch.keys() - {LABELS}, taken) if taken else []
    laid_out = encoded.batch(range(len(encoded)))
    wiring = look_at(network, laid_out, batch, training, speaker.begins)
    found += [*wiring.findings, *check_start(model, speaker)]
    missing = [*wiring.not_checked, *filter(None, [unknown(training.optimizer, training.scheduler, training.steps)])]
    if not own:
        return Piece(found, missing)
    found = [finding for finding in found if finding.code != PaddingCounts.code]
    unasked = f"whether padding counts as target ({PaddingCounts.code}): the loss is the training's own, {own}"
    return Piece(found, [*missing, unasked])


def look_at_data(model: Any, batches: Sequence[Collation], processing: Any) -> tuple[Piece, float | None]:
    """The rules over pairs, and nats a target token for whoever knows the tokens' frequencies alone, where known."""
    encoded = Collated(batches, _speaker(model, processing), "training data", counted=True)
    missing = ["lost characters, cut targets and leakage (DAT006 to DAT008): the trainer's data is ids already"]
    if len(encoded) < FEWEST:
        return Piece((), [f"the training data: {len(encoded)} examples, at least {FEWEST} are needed"]), None
    cut = check_cut(encoded, processing)
    told = all(finding.level != "error" for finding in cut)  # what is left of cut sources tells little of the whole
    if not told:
        missing.append("what sources tell (DAT002, DAT003, DAT009, DAT010): most of them are cut")
    found = look(Pairs(encoded), f"{OF_TARGETS} {OF_SOURCES}" if told else OF_TARGETS).findings
    if told:
        missing += not_told(encoded)
    return Piece([*cut, *found], missing), target_entropy(encoded)


def look_at_network(
    model: Any, batches: Sequence[Collation], processing: Any, outputs: bool
) -> tuple[dict[str, Piece], dict[str, Any]]:
    """How a network reads the examples of some batches and, with `outputs`, what it says; findings and figures.

    Where only the model itself can read them, its source use alone. Where sources or logits are not finite that is all
    there is, without figures. Raises RequestError where they have no labels.
    """
    labelled = [batch for batch in batches if isinstance(batch.get(LABELS), Tensor)]
    if not labelled:
        keys = ", ".join(map(str, batches[0])) if batches else "none was seen"
        raise RequestError(f"its batches have no {LABELS} ({keys})")
    if broken := broken_sources(labelled):
        return {"network": Piece([NotFiniteValues.finding(f"not finite are sources of the evaluation, {broken}")])}, {}
    speaker = _speaker(model, processing)
    try:
        return _of_network(model, labelled, speaker, outputs)
    except NotFinite as problem:
        return {"network": Piece([NotFiniteValues.finding(f"at an evaluation {problem}")])}, {}


def broken_sources(batches: Sequence[Collation]) -> str:
    """The first tensor of some batches with a NaN or an infinity, in words; "" where there is none."""
    named = [(n, v) for batch in batches for n, v in batch.items() if isinstance(v, Tensor) and "mask" not in str(n)]
    return damage((str(name), value) for name, value in named if name != LABELS) or ""


def _of_network(
    model: Any, labelled: Sequence[Collation], speaker: Speaker, outputs: bool
) -> tuple[dict[str, Piece], dict[str, Any]]:
    try:
        if any(with_prompts(batch, speaker.pad_id) for batch in labelled):
            raise RequestError(PROMPTED)
        return _rich(model, labelled, speaker, outputs)
    except NotFinite:
        raise
    except Exception as problem:  # a model of another kind: what its own call tells is still to be had
        piece, figures = _source_use(_bits(model, labelled, speaker), _references(labelled, speaker))
        return {"network": Piece((), [f"{NOT_READ}: {said(problem)}"]), "outputs": piece}, figures


def said(problem: BaseException) -> str:
    """What went wrong, in a line; for what nobody foresaw with its kind."""
    text = " ".join(str(problem).split())[:300]
    return text if isinstance(problem, RequestError) else f"{type(problem).__name__}: {text}".rstrip(": ")


def _rich(
    model: Any, batches: Sequence[Collation], speaker: Speaker, outputs: bool
) -> tuple[dict[str, Piece], dict[str, Any]]:
    encoded = Collated(batches, speaker)
    network = CollatedNetwork(model, encoded.dataset.dims)
    looked = Looked(network, speaker, encoded, one_batch(encoded))  # type: ignore[arg-type]
    pieces = {"network": look(looked)}
    if not outputs:
        references = [example.target for example in encoded.dataset]
        pieces["outputs"], figures = _source_use(sets.source_bits(network, encoded), references)
        return pieces, figures
    longest = min(LONGEST, max(16, 2 * int(encoded.target_lengths.max())), network.positions or LONGEST)
    options = GenerationConfig(beams=1, max_new_tokens=longest)
    evaluation = evaluate_encoded(network, speaker, encoded, options)  # type: ignore[arg-type]
    pieces["outputs"] = of_evaluation(evaluation)
    return pieces, dict(without_nan(evaluation.metrics))


def _speaker(model: Any, processing: Any) -> Speaker:
    return Speaker(processing, CollatedNetwork(model))


def _bits(model: Any, batches: Sequence[Collation], speaker: Speaker) -> SourceBits:
    """The source bits of batches whose sources only the model itself can read. Raises RequestError where none has any.

    Small batches are put together: a source is exchanged for another of its batch.
    """
    found, problem, waiting = [], RequestError("a batch of 1 holds no other source"), []  # type: ignore[var-annotated]
    for i, batch in enumerate(batches):
        waiting.append(batch)
        if sum(map(size_of, waiting)) < SIZE and i + 1 < len(batches):
            continue
        try:
            found.append(source_bits(model, joined(waiting, speaker.pad_id)))
        except RequestError as cannot:
            problem = cannot
        waiting = []
    if not found:
        raise problem
    nats, shuffled, tokens = (
        np.concatenate([getattr(part, name) for part in found]) for name in ("nats", "shuffled", "tokens")
    )
    return SourceBits(nats, shuffled, tokens)


def _references(batches: Sequence[Mapping[str, Any]], speaker: Speaker) -> list[str]:
    return [speaker.decode(row[row != IGNORED].tolist()) for batch in batches for row in batch[LABELS]]


def _source_use(bits: SourceBits, references: Sequence[str]) -> tuple[Piece, dict[str, Any]]:
    """SRC001 alone, without outputs."""
    figures: dict[str, Any] = {
        "loss": bits.loss,
        "loss_shuffled": bits.loss_shuffled,
        "source_bits": bits.bits,
        "source_bits_ci95": list(bits.ci95()),
        "target_tokens": int(bits.tokens.sum()),
        "examples": len(bits.tokens),
    }
    figures = dict(without_nan(figures))
    rows = [Row(id=str(i), source="", reference=text, output="") for i, text in enumerate(references)]
    found = look(Outputs(Evaluation(figures, rows)), "SRC001").findings
    return Piece(found, ["outputs (OUT001 to OUT009): none were generated"]), figures
