"""Is the network wired so that it can learn? Measured on one batch before the first step, or of a finished model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.rules import first_step
from sourcewise.diagnosis.rules.wiring_texts import (
    ENCODER_PATH,
    FUTURE_SEEN,
    NO_END,
    NOISE,
    NOT_FINITE,
    NOT_SHIFTED_ONCE,
    PADDING_COUNTED,
    PADDING_READ,
    RULES,
    SCALE,
    SOURCE_UNREACHED,
    WRONG_START,
)
from sourcewise.diagnosis.wiring import (
    STEADY,
    Labels,
    Loss,
    Paths,
    between_passes,
    measure_labels,
    measure_loss,
    measure_paths,
)
from sourcewise.model.transformer import Transformer

if TYPE_CHECKING:
    from sourcewise.data.batches import Batch
    from sourcewise.data.encoding import Encoded
    from sourcewise.data.tokenizer import Tokenizer
    from sourcewise.model.protocol import Network
    from sourcewise.training.opening import Prepared

__all__ = ["RULES", "check_network", "check_start", "not_compared", "one_batch", "wiring_findings"]

EXAMPLES = 12  # of the batch
STILL = 1e-6  # logits that move no further do not move
LEAKS = 1e-4  # logits that may not move and do
ROUNDED = 4.0  # the same, in epsilons of what the network rounds to: padding moves them by up to 0.9
NOISY = 0.1  # of what another source does
LEAST_SPREAD, MOST_SPREAD = 0.02, 4.0  # of the logits; the second times √d_model


def wiring_findings(prepared: Prepared) -> list[Finding]:
    """WIR001 to WIR014 and WIR021 of a training that is about to begin."""
    recipe, network = prepared.recipe, prepared.network
    batch = one_batch(prepared.train)
    bypass = recipe.model.route == "bypass"
    found = check_network(network, batch, begins=prepared.tokenizer.begins, as_asked=bypass)
    known = {finding.code for finding in found}
    if NOISE.code not in known:
        loss = measure_loss(network, batch, _training_loss(prepared))
        found += [finding for finding in _loss(loss) if finding.code not in known]
    found += check_start(network, prepared.tokenizer)
    return [*found, *first_step.check(prepared, batch, {f.code for f in found})]


def check_network(
    network: Network,
    batch: Batch,
    *,
    begins: int | None = None,
    as_asked: bool = False,
    summed: Callable[[Batch], Any] | None = None,
) -> list[Finding]:
    """The rules that need no more than a network of the protocol and a batch; `as_asked`: its bypass is wanted.

    `begins` is the id that the tokenizer itself puts before every target, if it does. `summed` gives the nats of a
    batch as training sums them, where that is not the network's own `loss`.
    """
    paths, labels = measure_paths(network, batch), measure_labels(network, batch)
    if not paths.finite:
        return [NOT_FINITE.finding(f"the logits of {len(batch)} examples are not all finite numbers")]
    scale, standing = _scale(paths, _width(network)), _labels(labels, own_start=begins == network.start_id)
    if noise := _noise(between_passes(network, batch), paths.source):
        return [*noise, *scale, *standing]
    loss = _loss(measure_loss(network, batch, summed))
    found = [*scale, *_paths(paths, as_asked), *standing]
    known = {finding.code for finding in found}
    return found + [finding for finding in loss if finding.code not in known]


def not_compared(findings: Sequence[Finding]) -> list[str]:
    """What `check_network` cannot say of a network of which these findings are, in words."""
    if all(finding.code != NOISE.code for finding in findings):
        return []
    return [
        "whether the source, the encoder, padding and later tokens reach the logits, and whether the loss is that of "
        "the labels (WIR004 to WIR007, WIR010, WIR011): two passes over one batch differ by themselves (WIR021)"
    ]


def _noise(moved: float, source: float | None) -> list[Finding]:
    """WIR021; `source` is how far another source moves the logits, noise and all."""
    if moved <= STEADY:
        return []
    evidence = f"two passes over one batch, in eval mode, give logits that are {moved:.2g} of the largest apart"
    if source is not None:
        evidence += f"; another source moves them by {source:.2g}"
    return [NOISE.finding(evidence, "error" if moved >= NOISY * min(1.0, source or 1.0) else "warning")]


def one_batch(encoded: Encoded) -> Batch:
    """A dozen examples of a set's shorter half, with targets of all lengths there, laid out as in training."""
    sizes = encoded.source_lengths + encoded.target_lengths
    shorter = np.flatnonzero(sizes <= np.median(sizes))
    shorter = shorter[np.argsort(encoded.target_lengths[shorter], kind="stable")]
    places = np.linspace(0, len(shorter) - 1, min(EXAMPLES, len(shorter))).astype(int)
    return encoded.batch(shorter[places], coarse=True)


def _training_loss(prepared: Prepared) -> Any:
    """A batch's cross-entropy as the training sums it, without what is drawn or weighed."""
    from sourcewise.training.objective import Objective

    plain = {"label_smoothing": 0.0, "ctc_weight": 0.0, "focal": 0.0, "word_dropout": 0.0}
    options = prepared.recipe.train.model_copy(update=plain)
    objective = Objective(prepared.network, options, prepared.tokenizer.unk_id)
    return lambda batch: objective(batch)[1]


def _width(network: Any) -> int | None:
    """d_model, where the network or its configuration tells."""
    if hasattr(network, "body"):
        return int(network.body.config.d_model)
    config = getattr(getattr(network, "model", None), "config", None)
    return next((int(w) for w in (getattr(config, n, None) for n in ("d_model", "hidden_size")) if w), None)


def _scale(paths: Paths, width: int | None) -> list[Finding]:
    spread = paths.spread
    evidence = f"the logits' standard deviation over the vocabulary is {spread:.3g}"
    if spread == 0:
        return [SCALE.finding("the logits of every token are the same, at every position")]
    if width is not None and spread > MOST_SPREAD * math.sqrt(width):
        return [SCALE.finding(f"{evidence}, above {MOST_SPREAD * math.sqrt(width):.3g} for a width of {width}")]
    if spread < LEAST_SPREAD:
        return [SCALE.finding(f"{evidence}; fresh networks of any family have 0.1 and more", "warning")]
    return []


def _paths(paths: Paths, as_asked: bool) -> list[Finding]:
    found, source = [], paths.source
    leaks = max(LEAKS, ROUNDED * paths.rounding.epsilon) if paths.rounding.coarse else LEAKS
    reached = source is not None and source > STILL
    if reached and paths.encoder is not None and paths.encoder <= STILL:
        evidence = f"noise in all its weights moves the logits by {paths.encoder:.1g}, another source by {source:.2g}"
        if as_asked:
            cure = "Nothing, if that is what you want; to train the encoder:\n  --model.route encoder"
            found.append(ENCODER_PATH.finding(f"{evidence}, as model.route bypass asks", "note", cure))
        else:
            found.append(ENCODER_PATH.finding(evidence))
    if paths.padding is not None and paths.padding > max(leaks, 0.01 * (paths.unpadded or 0)):
        evidence = f"garbage in the sources' padding moves the logits by {paths.padding:.2g} of the largest"
        if paths.unpadded is not None:
            evidence += f"; other content in their real positions, by {paths.unpadded:.2g}"
            if 10 * paths.unpadded < paths.padding:
                evidence += ", far less: the mask looks inverted"
        found.append(PADDING_READ.finding(evidence))
    if paths.future is not None and paths.future > leaks:
        evidence = f"other tokens in the second half of the targets move the logits before them by {paths.future:.2g}"
        found.append(FUTURE_SEEN.finding(f"{evidence} of the largest, those behind by {paths.past:.2g}"))
    if source is not None and not reached:
        evidence = f"other sources of the same length move the logits by {source:.1g} of the largest"
        if paths.encoder is not None:
            evidence += f", noise in the encoder's weights by {paths.encoder:.1g}"
        found.append(SOURCE_UNREACHED.finding(evidence))
    return found


def _labels(labels: Labels, *, own_start: bool) -> list[Finding]:
    found, rows = [], labels.rows
    if 2 * labels.padded >= rows:
        evidence = f"{labels.padded} of {rows} rows have labels that count behind their end of text"
        found.append(PADDING_COUNTED.finding(evidence))
    if 10 * labels.ended < 9 * rows:
        level = None if 2 * labels.ended <= rows else "warning"
        found.append(NO_END.finding(f"{labels.ended} of {rows} rows of labels hold the end of text", level))  # type: ignore[arg-type]
    if labels.begun == rows:
        evidence = f"all {rows} rows of labels begin with the start token"
        whole = own_start and labels.ended == rows  # as BERT2BERT and TrOCR are trained: one more token to say
        if whole:
            evidence += ", which the tokenizer puts before every text; the outputs are right, a token longer"
        found.append(NOT_SHIFTED_ONCE.finding(evidence, "note" if whole else None))
    if labels.holes:
        evidence = f"{labels.holes} of {rows} rows have a position that does not count (-100) before one that does"
        found.append(PADDING_COUNTED.finding(evidence, "warning"))
    return found


def _loss(loss: Loss) -> list[Finding]:
    if loss.like is None:
        return []
    evidence = f"training sums {loss.summed:.2f} nats, the targets have {loss.expected:.2f}"
    if not loss.like:
        return [NOT_SHIFTED_ONCE.finding(f"{evidence}; no usual fault explains it")]
    evidence += f"; it is what {loss.like} would give"
    if "padding" in loss.like:
        return [PADDING_COUNTED.finding(evidence)]
    if "end of text" in loss.like:
        return [NO_END.finding(evidence)]
    return [(WRONG_START if "start token" in loss.like else NOT_SHIFTED_ONCE).finding(evidence)]


def check_start(network: Any, tokenizer: Tokenizer) -> list[Finding]:
    """WIR010 of a network and its tokenizer, as far as these alone tell."""
    start, body = network.start_id, getattr(network, "body", None)
    if not 0 <= start < network.vocabulary:
        return [WRONG_START.finding(f"the start token has the id {start}, the vocabulary {network.vocabulary} entries")]
    configured = start if body is None else body.config.start_id
    if start != configured:
        return [WRONG_START.finding(f"training starts with the id {start}, the configuration says {configured}")]
    if start >= tokenizer.size or start in tokenizer.added:
        return []  # what was added, such as a language, may well begin a target
    text = tokenizer.decode([start]).strip()
    if text:
        return [WRONG_START.finding(f"the start token (id {start}) is a piece of text, {text!r}", "warning")]
    if type(body) is Transformer and start != network.pad_id and start in (network.eos_id, tokenizer.unk_id):
        name = "end of text" if start == network.eos_id else "unknown token"
        evidence = f"the start token (id {start}) is the {name}; a T5 begins with its padding (id {network.pad_id})"
        return [WRONG_START.finding(evidence, "warning")]
    return []
