"""What the loss of a loop is the loss of, by its gradient at the model's outputs.

The gradient of a cross-entropy by logits is the probabilities less one at the label; that of NLLLoss by what it is
given is one number a token, at the label. So the gradient tells the labels, which of them count, and whether what the
loss was given are logits, log-probabilities or, by mistake, probabilities: whatever the code between does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

Form = Literal[
    "logits",
    "log-probabilities",
    "logarithm",
    "probabilities",
    "twice",
    "again",
    "softmax",
    "scores",
    "axis",
    "viewed",
    "squares",
    "binary",
]
LEAST = 3  # entries of a vocabulary
CLOSE = 1e-3  # of the largest, that two ways to one gradient differ by
ROUGH = 3e-2  # where outputs are bf16 or fp16
UNSURE = 1e-3  # of the largest gradient of a token: below it, where a label is all but certain, little but rounding
SUMS = 1e-2  # of probabilities, that they differ from 1 by
MOST_ROWS = 0.75  # of those up to the last label of an example, that show theirs where a softmax runs along them
ROWS = 4096  # tokens whose form is looked at
APART = 0.05  # relative; probabilities of labels that differ by less tell no two forms apart


@dataclass(frozen=True, slots=True)
class Said:
    """What outputs (…, vocabulary) are to the loss: labels (…), which count, and their nats, on the device.

    `form`: they are logits or log-probabilities, or probabilities of which the loss takes the `logarithm`; or, by
    mistake, NLLLoss is given `probabilities`, a `softmax` between them and NLLLoss makes such, NLLLoss is given raw
    `scores`, or cross-entropy is given probabilities, which it normalises `twice`, or `again` behind a softmax between;
    or a softmax runs along another `axis` than the vocabulary's; or outputs (batch, time, vocabulary) were `viewed`,
    not turned, as (batch, vocabulary, time). `squares` are those of outputs less one at the label, `binary` is a
    cross-entropy of each token by itself.
    """

    form: Form
    labels: Tensor
    counts: Tensor  # bool
    nats: Tensor  # of each label, 0 where it does not count
    spread: float  # standard deviation of the log-probabilities over the vocabulary, averaged
    vocabulary: int
    weighed: float = math.nan  # nats, each times what backward() weighs it with; not known for every form

    @property
    def tokens(self) -> int:
        """Labels that count."""
        return int(self.counts.sum())


@torch.no_grad()
def said_by(out: Tensor, gradient: Tensor) -> Said | None:
    """What a loss makes of outputs, by its gradient; None where it is no loss of one label a row."""
    found = _said(out, gradient) or _along_another(out, gradient)
    if found is None and out.ndim > 2:
        found = _said(out.movedim(1, -1), gradient.movedim(1, -1))
    return found or _viewed(out, gradient)


def _viewed(out: Tensor, gradient: Tensor) -> Said | None:
    """Outputs whose numbers were taken in another order: (a, b, vocabulary) viewed as (a, vocabulary, b)."""
    if out.ndim != 3 or 1 in out.shape[:2]:
        return None
    a, b, size = out.shape
    for turned, shape in ((False, (a, size, b)), (True, (b, size, a)), (False, (b, size, a))):
        seen = [(each.transpose(0, 1) if turned else each).reshape(shape).movedim(1, -1) for each in (out, gradient)]
        if (found := _said(*seen)) is not None:
            if shape[0] == b:  # labels lie as the outputs do
                labels, counts, nats = (each.transpose(0, 1) for each in (found.labels, found.counts, found.nats))
                found = replace(found, labels=labels, counts=counts, nats=nats)
            return replace(found, form="viewed", weighed=math.nan)
    return None


def _along_another(out: Tensor, gradient: Tensor) -> Said | None:
    """Outputs (rows, vocabulary) or (batch, time, vocabulary) whose softmax runs along the axis before the vocabulary.

    Along that axis the gradient sums to 0 wherever there is one, and no row has more than one negative number: its
    label's. Rows without one stand behind the others of their example, which tells time from a vocabulary in its place.
    """
    if out.ndim not in (2, 3) or out.shape[-1] < LEAST or out.shape[-2] < LEAST:
        return None
    table, slope = (each.detach().float() for each in (out, gradient))
    size = slope.abs()
    if not bool(torch.isfinite(slope).all()) or not bool((size > 0).any()):
        return None
    below = (slope < -UNSURE * size.max()).sum(-1)
    counts = below > 0
    even = slope.sum(-2).abs() <= SUMS * size.sum(-2)
    reached = counts.flip(-1).cumsum(-1).flip(-1) > 0 if out.ndim == 3 else torch.ones_like(counts)
    few = int(counts.sum()) < MOST_ROWS * int(reached.sum())  # where a label comes twice, its number may be above 0
    if not bool(even.all()) or bool((below > 1).any()) or few:
        return None
    labels, logs = slope.argmin(-1), torch.log_softmax(table, -1)
    nats = -logs.gather(-1, labels[..., None])[..., 0].masked_fill(~counts, 0)
    spread = float(logs[counts].clamp(min=-30).std(-1).mean())
    return Said("axis", labels, counts, nats, spread, out.shape[-1])


def _said(out: Tensor, gradient: Tensor) -> Said | None:
    if out.ndim < 2 or out.shape[-1] < LEAST:
        return None
    close = CLOSE if out.dtype in (torch.float32, torch.float64) else ROUGH
    table, slope = out.detach().flatten(0, -2).float(), gradient.flatten(0, -2).float()
    size = slope.abs().amax(-1)
    counts = size > 0
    if not bool(counts.any()) or not bool(torch.isfinite(slope).all()):
        return None
    labels = slope.argmin(-1)
    chosen = (size >= UNSURE * size.max()).nonzero()[:, 0]
    chosen = chosen[:: max(1, len(chosen) // ROWS)]
    form = _form(table[chosen], slope[chosen], labels[chosen], close)
    if form is None:
        return None
    logs = _logs(table, form)
    nats = -logs.gather(-1, labels[:, None])[:, 0].masked_fill(~counts, 0)
    kept = logs[chosen]
    spread = float(kept.clamp(min=-30).std(-1).mean())
    shape = out.shape[:-1]
    weighed = float((_weights(table, slope, labels, form) * nats).sum())
    return Said(form, labels.view(shape), counts.view(shape), nats.view(shape), spread, out.shape[-1], weighed)


def _weights(table: Tensor, slope: Tensor, labels: Tensor, form: Form) -> Tensor:
    """What each token's nats (rows,) are multiplied by in the loss that was differentiated; NaN where not known."""
    at = slope.gather(-1, labels[:, None])[:, 0]
    if form == "log-probabilities":
        return -at
    if form != "logits":
        return torch.full_like(at, math.nan)
    rest = torch.softmax(table, -1).scatter_add(-1, labels[:, None], torch.full_like(at, -1.0)[:, None])
    return (slope * rest).sum(-1) / rest.square().sum(-1).clamp(min=1e-20)


def _logs(table: Tensor, form: Form) -> Tensor:
    """Log-probabilities (rows, vocabulary)."""
    if form in ("logarithm", "probabilities", "twice"):
        return table.clamp(min=1e-12).log()
    return torch.log_softmax(table, -1)


def _form(table: Tensor, slope: Tensor, labels: Tensor, close: float) -> Form | None:
    """By the outputs (rows, vocabulary) of tokens that count, and the gradient there."""
    at = slope.gather(-1, labels[:, None])[:, 0]
    if bool((at >= 0).any()):
        return None
    positive = bool((table >= -close).all()) and bool(((table.sum(-1) - 1).abs() < max(close, SUMS)).all())
    if bool(((slope != 0).sum(-1) == 1).all()):  # each token's loss reads the output of its label alone
        if positive:
            return _of_probabilities(table.gather(-1, labels[:, None])[:, 0], at)
        normal = bool((torch.logsumexp(table, -1).abs() < max(close, SUMS)).all())
        return "log-probabilities" if normal else "scores"
    if bool((slope <= 0).all()) and bool((torch.logsumexp(table, -1).abs() < max(close, SUMS)).all()):
        return "log-probabilities"  # of a target that is spread, as smoothing by KLDivLoss makes it
    own = torch.softmax(table, -1)
    one = torch.zeros_like(own).scatter_(-1, labels[:, None], 1.0)
    rest = own - one
    factor = (slope * rest).sum(-1) / rest.square().sum(-1).clamp(min=1e-20)
    left = (slope - factor[:, None] * rest).abs().amax(-1) / slope.abs().amax(-1)
    if bool((left < close * 10).all()):
        if positive:
            return "twice"
        return "softmax" if _follows(factor, own.gather(-1, labels[:, None])[:, 0]) else "logits"
    for name, other in (("squares", table - one), ("binary", torch.sigmoid(table) - one)):
        if _proportional(slope, other, close):
            return name  # type: ignore[return-value]
    if _normalised_again(slope, own, one, close):
        return "again"
    return ("twice" if positive else "logits") if _smoothed(slope, own, close) else None


def _proportional(slope: Tensor, wanted: Tensor, close: float) -> bool:
    """Whether each row of a gradient is a positive multiple of another table's."""
    factor = (slope * wanted).sum(-1) / wanted.square().sum(-1).clamp(min=1e-20)
    left = (slope - factor[:, None] * wanted).abs().amax(-1) / slope.abs().amax(-1)
    return bool((left < close * 10).all()) and bool((factor > 0).all())


def _normalised_again(slope: Tensor, own: Tensor, one: Tensor, close: float) -> bool:
    """Whether a gradient by logits is that of a cross-entropy of their softmax."""
    rest = torch.softmax(own, -1) - one
    wanted = own * (rest - (own * rest).sum(-1, keepdim=True))
    factor = (slope * wanted).sum(-1) / wanted.square().sum(-1).clamp(min=1e-20)
    left = (slope - factor[:, None] * wanted).abs().amax(-1) / slope.abs().amax(-1)
    return bool((left < close * 10).all()) and bool((factor > 0).all())


def _of_probabilities(known: Tensor, at: Tensor) -> Form:
    """NLLLoss of probabilities has one slope for all; their logarithm one that falls with them."""
    return "logarithm" if _varies(known) and not _varies(at * known) else "probabilities"


def _follows(factor: Tensor, known: Tensor) -> bool:
    """Whether the weight of a token grows with its probability, as a softmax before NLLLoss makes it."""
    return _varies(known) and _varies(factor) and not _varies(factor / known.clamp(min=1e-12))


def _varies(values: Tensor) -> bool:
    mean = float(values.abs().mean())
    return len(values) > 1 and float(values.std()) > APART * mean


def _smoothed(slope: Tensor, own: Tensor, close: float) -> bool:
    """Whether a gradient is that of a smoothed cross-entropy: probabilities less an even share, and more at the label.

    So probabilities less the scaled gradient are the same for all but the label, whatever the scale.
    """
    others = torch.ones_like(slope, dtype=torch.bool).scatter_(-1, slope.argmin(-1)[:, None], False)
    x, y = own[others].view(len(own), -1), slope[others].view(len(own), -1)
    x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    factor = (x * y).sum(-1) / x.square().sum(-1).clamp(min=1e-20)
    left = (y - factor[:, None] * x).abs().amax(-1) / slope.abs().amax(-1)
    balanced = slope.sum(-1).abs() < 10 * close * slope.abs().sum(-1)
    return bool((left < close * 10).all()) and bool(balanced.all()) and bool((factor > 0).all())
