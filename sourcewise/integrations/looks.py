"""What a doctor looks at in somebody else's training: the wiring before it, and the network at each evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sourcewise.config import GenerationConfig
from sourcewise.data.batches import IGNORED
from sourcewise.diagnosis.diagnose import Piece, of_evaluation
from sourcewise.diagnosis.looked import Looked
from sourcewise.diagnosis.rules import NETWORK_CHECKS, data, reading, source_use
from sourcewise.diagnosis.rules.wiring import EXAMPLES, not_compared, one_batch
from sourcewise.diagnosis.rules.wiring_texts import NO_END
from sourcewise.errors import RequestError
from sourcewise.evaluation import source_bits as sets
from sourcewise.evaluation.evaluate import evaluate_encoded
from sourcewise.evaluation.one_batch import source_bits
from sourcewise.evaluation.results import Evaluation, Row, without_nan
from sourcewise.evaluation.source_bits import SourceBits
from sourcewise.integrations.collated import LABELS, Collated, CollatedNetwork, Collation, Speaker, collate_some
from sourcewise.integrations.cut import check_cut
from sourcewise.integrations.wiring import Training, check_start, check_wiring
from sourcewise.training.vitals import target_entropy

LONGEST = 256  # tokens of an output
NOT_READ = "all rules but source use (SRC001) and the course: its sources are no token ids and no inputs_embeds"


def look_at_wiring(model: Any, loader: Any, processing: Any, training: Training) -> Piece:
    """The wiring rules on a batch of a training's DataLoader, as its collator makes it."""
    (collation, *_) = collate_some(loader, EXAMPLES, EXAMPLES)
    if not (collation[LABELS] != IGNORED).any():
        return Piece([NO_END.finding(f"no label of {len(collation[LABELS])} rows counts: all are {IGNORED}")])
    speaker = _speaker(model, processing)
    try:
        encoded = Collated([collation], speaker)
    except RequestError as problem:
        return Piece((), [f"the wiring: {problem}"])
    if len(encoded) < len(collation[LABELS]):
        return Piece((), ["the wiring: a batch of the training data has empty sources or labels"])
    network = CollatedNetwork(model, encoded.dataset.dims)
    batch = encoded.batch(range(len(encoded)))
    found = [*check_wiring(network, batch, collation, training), *check_start(model, speaker)]
    return Piece(found, not_compared(found))


def look_at_data(model: Any, loader: Any, processing: Any) -> tuple[Piece, float | None]:
    """The rules over pairs, and nats a target token for whoever knows the tokens' frequencies alone, where known."""
    batches = collate_some(loader, data.SAMPLE, data.SAMPLE, by_length=False)
    try:
        encoded = Collated(batches, _speaker(model, processing), "training data")
    except RequestError as problem:
        return Piece((), [f"the training data: {problem}"]), None
    missing = ["lost characters, cut targets and leakage (DAT006 to DAT008): the trainer's data is ids already"]
    if encoded.dataset.dims:
        missing.append("whether sources and targets belong together (DAT003): sources are vectors")
    if len(encoded) < data.FEWEST:
        return Piece((), [f"the training data: {len(encoded)} examples, at least {data.FEWEST} are needed"]), None
    cut = check_cut(encoded, processing)
    told = all(finding.level != "error" for finding in cut)  # what is left of cut sources tells little of the whole
    if not told:
        missing.append("what sources tell (DAT002, DAT003, DAT009, DAT010): most of them are cut")
    return Piece([*cut, *data.check_pairs(encoded, sources=told)], missing), target_entropy(encoded)


def look_at_network(
    model: Any, batches: Sequence[Collation], processing: Any, outputs: bool
) -> tuple[dict[str, Piece], dict[str, Any]]:
    """How a network reads the examples of some batches and, with `outputs`, what it says; findings and figures."""
    speaker = _speaker(model, processing)
    try:
        encoded = Collated(batches, speaker)
    except RequestError:
        piece, figures = _source_use(_bits(model, batches), _references(batches, speaker))
        return {"network": Piece((), [NOT_READ]), "outputs": piece}, figures
    network = CollatedNetwork(model, encoded.dataset.dims)
    looked = Looked(network, speaker, encoded, one_batch(encoded))  # type: ignore[arg-type]
    found = [finding for check in NETWORK_CHECKS for finding in check(looked)]
    pieces = {"network": Piece(found, reading.not_checked(looked))}
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


def _bits(model: Any, batches: Sequence[Collation]) -> SourceBits:
    """The source bits of batches whose sources only the model itself can read."""
    parts = [source_bits(model, batch) for batch in batches if len(batch[LABELS]) > 1]
    return SourceBits(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("nats", "shuffled", "tokens")))


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
    return Piece(
        source_use.check(Evaluation(figures, rows)), ["outputs (OUT001 to OUT008): none were generated"]
    ), figures
