"""Somebody else's network at an evaluation: how it reads, and what it says, on batches as its collator made them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from sourcewise.config import EvaluationConfig, GenerationConfig
from sourcewise.data.batches import IGNORED
from sourcewise.data.encoding import ExampleSet
from sourcewise.diagnosis.answer import Piece
from sourcewise.diagnosis.asked import OF_SOURCE, PENALTY, TWICE, Asking, suppressed_by
from sourcewise.diagnosis.measures.laid import Side
from sourcewise.diagnosis.measures.turned import measure_likelihood
from sourcewise.diagnosis.outputs import Outputs
from sourcewise.diagnosis.rules import absent, look
from sourcewise.diagnosis.trained import Trained
from sourcewise.diagnosis.whole import of_evaluation
from sourcewise.diagnosis.wiring import Wiring, one_batch
from sourcewise.errors import NotFinite, RequestError
from sourcewise.evaluation import source_bits as sets
from sourcewise.evaluation.evaluate import evaluate_encoded
from sourcewise.evaluation.one_batch import source_bits
from sourcewise.evaluation.results import Evaluation, Row, without_nan
from sourcewise.evaluation.source_bits import SourceBits
from sourcewise.evaluation.tasks import set_figures
from sourcewise.evaluation.verdict import verdict_of
from sourcewise.integrations.collated import LABELS, READ, Collated, CollatedNetwork, Collation, Speaker, with_prompts
from sourcewise.integrations.laid import look_at_layout
from sourcewise.integrations.passing import joined, size_of
from sourcewise.integrations.subjects import broken_sources, speaker_of
from sourcewise.integrations.telling import said as in_words

LONGEST = 256  # tokens of an output
SIZE = 16  # examples of a batch, where its sources are exchanged
PROMPTED = f"{READ} hold tokens that the labels hide (a prompt), which generation would not be given"


def look_at_network(
    model: Any, batches: Sequence[Collation], processing: Any, outputs: bool, trained: bool, side: Side = ""
) -> tuple[dict[str, Piece], dict[str, Any]]:
    """How a network reads the examples of some batches and, with `outputs`, what it says; findings and figures.

    `trained` says whether its weights were trained before, `side` where sources are padded in training.

    Where only the model itself can read them, its source use alone. Where sources or logits are not finite that is all
    there is, without figures. Raises RequestError where they have no labels.
    """
    labelled = [batch for batch in batches if isinstance(batch.get(LABELS), Tensor)]
    if not labelled:
        keys = ", ".join(map(str, batches[0])) if batches else "none was seen"
        raise RequestError(f"its batches have no {LABELS} ({keys})")
    if broken := broken_sources(labelled):
        return {"network": look(Wiring(broken=f"not finite are sources of the evaluation, {broken}"))}, {}
    try:
        speaker = speaker_of(model, processing)
        pieces, figures = _of_network(model, labelled, speaker, outputs, trained)
        return pieces | {"layout": _layout(model, labelled, speaker, side)}, figures
    except NotFinite as problem:
        return {"network": look(Wiring(broken=f"at an evaluation {problem}"))}, {}


def look_at_lengths(batches: Sequence[Collation], speaker: Speaker, longest: int, told: str) -> Piece:
    """Whether outputs of so many tokens at most can be as long as the labels of some batches."""
    try:
        return look(Asking(Collated(batches, speaker, counted=True), 0, longest, told=told))
    except RequestError as problem:
        return Piece((), [absent(Asking, in_words(problem))])


def look_at_led(batches: Sequence[Collation], speaker: Speaker, names: Sequence[str]) -> Piece:
    """That figures of texts are computed of the likeliest tokens behind the true ones."""
    labelled = [batch for batch in batches if isinstance(batch.get(LABELS), Tensor)]
    led = f"{', '.join(names)} of the evaluation are of the likeliest tokens behind the true ones: "
    led += "predict_with_generate is not set"
    try:
        return look(Asking(Collated(labelled[:1], speaker, counted=True), led=led))
    except RequestError as problem:
        return Piece((), [absent(Asking, in_words(problem))])


def look_at_suppressed(batches: Sequence[Collation], model: Any, processing: Any) -> Piece:
    """Whether the settings of a model's generation let tokens of the labels not be said."""
    try:
        network = CollatedNetwork(model)
        settings = getattr(model, "generation_config", None)
        barred = {name: float(getattr(settings, name, None) or 0) for name in (TWICE, OF_SOURCE, PENALTY)}
        encoded = Collated(batches, speaker_of(model, processing), counted=True)
        drawn = "do_sample of the generation_config is True" if _draws(settings) else ""
        asking = Asking(encoded, suppressed=suppressed_by(network), barred=barred, drawn=drawn)
        return look(asking) if asking.suppressed or any(barred.values()) or drawn else Piece((), [])
    except RequestError as problem:
        return Piece((), [absent(Asking, in_words(problem))])


def _draws(settings: Any) -> bool:
    """Whether a generation_config draws tokens, of more than one."""
    return bool(getattr(settings, "do_sample", False)) and getattr(settings, "top_k", None) != 1


def _layout(model: Any, batches: Sequence[Collation], speaker: Speaker, side: Side) -> Piece:
    """How the batches are laid out; a line why, where that cannot be looked at."""
    try:
        return look_at_layout(model, batches, speaker, side)
    except Exception as problem:  # a model or a batch of another kind
        return Piece((), [f"padding and masks of the evaluation: {in_words(problem)}"])


def _of_network(
    model: Any, labelled: Sequence[Collation], speaker: Speaker, outputs: bool, trained: bool
) -> tuple[dict[str, Piece], dict[str, Any]]:
    try:
        if any(with_prompts(batch, speaker.pad_id) for batch in labelled):
            raise RequestError(PROMPTED)
        return _rich(model, labelled, speaker, outputs, trained)
    except NotFinite:
        raise
    except Exception as problem:  # a model of another kind: what its own call tells is still to be had
        rows = (row for batch in labelled for row in batch[LABELS])
        references = [speaker.decode(row[row != IGNORED].tolist()) for row in rows]
        piece, figures = source_use(_bits(model, labelled, speaker), references)
        return {"network": Piece((), [absent(Trained, in_words(problem))]), "outputs": piece}, figures


def _rich(
    model: Any, batches: Sequence[Collation], speaker: Speaker, outputs: bool, trained: bool
) -> tuple[dict[str, Piece], dict[str, Any]]:
    encoded = Collated(batches, speaker)
    network = CollatedNetwork(model, encoded.dataset.dims)
    likelihood = measure_likelihood(network, encoded, trained)
    pieces = {"network": look(Trained(network, encoded, one_batch(encoded)), likelihood)}
    if not outputs:
        references = [example.target for example in encoded.dataset]
        pieces["outputs"], figures = source_use(sets.source_bits(network, encoded), references)
        return pieces, figures
    longest = min(LONGEST, max(16, 2 * int(encoded.target_lengths.max())), network.positions or LONGEST)
    options = GenerationConfig(beams=1, max_new_tokens=longest)
    evaluation = evaluate_encoded(network, speaker, encoded, options)  # type: ignore[arg-type]
    pieces["outputs"] = of_evaluation(evaluation)
    return pieces, dict(without_nan(evaluation.metrics))


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


def judged_outputs(
    encoded: ExampleSet, rows: list[Row], bits: SourceBits, measuring: EvaluationConfig
) -> tuple[dict[str, Piece], dict[str, Any]]:
    """What outputs show that somebody else's own generation gave, and their figures."""
    metrics = set_figures(encoded, rows, bits, measuring)
    evaluation = Evaluation(metrics, rows)
    metrics["verdict"] = said.text if (said := verdict_of(evaluation)) else ""
    return {"outputs": of_evaluation(evaluation)}, dict(without_nan(metrics))


def source_use(bits: SourceBits, references: Sequence[str]) -> tuple[Piece, dict[str, Any]]:
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
    return look(Outputs(Evaluation(figures, rows), generated=False)), figures
