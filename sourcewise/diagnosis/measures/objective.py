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
    "away",
]
LEAST = 3  # entries of a vocabulary
CLOSE = 1e-3  # of the largest, that two ways to one gradient differ by
ROUGH = 3e-2  # where outputs are bf16 or fp16
UNSURE = 1e-3  # of the largest gradient of a token: below it, where a label is all but certain, little but rounding
SUMS = 1e-2  # of probabilities, that they differ from 1 by
MOST_ROWS = 0.75  # of those up to the last label of an example, that show theirs where a softmax runs along them
ROWS = 4096  # tokens whose form is looked at
EVEN = 0.05  # relative: shares of a smoothed label that differ by less are one
BARS = 1e-12, 1e-3  # of the largest gradient of a token, below which rounding hides a temperature; of its logarithm
APART = 0.05  # relative; probabilities of labels that differ by less tell no two forms apart


@dataclass(frozen=True, slots=True)
class Said:
    """What outputs (…, vocabulary) are to the loss: labels (…), which count, and their nats, on the device.

    `form`: they are logits or log-probabilities, or probabilities of which the loss takes the `logarithm`; or, by
    mistake, NLLLoss is given `probabilities`, a `softmax` between them and NLLLoss makes such, NLLLoss is given raw
    `scores`, or cross-entropy is given probabilities, which it normalises `twice`, or `again` behind a softmax between;
    or a softmax runs along another `axis` than the vocabulary's; or outputs (batch, time, vocabulary) were `viewed`,
    not turned, as (batch, vocabulary, time). `squares` are those of outputs less one at the label, `binary` is a
    cross-entropy of each token by itself. `away`: the gradient is that of such a loss turned round, which makes labels
    less likely. `smoothing` is the share of a label that is spread evenly over the vocabulary; `temperature` what the
    outputs are divided by before their softmax.
    """

    form: Form
    labels: Tensor
    counts: Tensor  # bool
    nats: Tensor  # of each label, 0 where it does not count
    spread: float  # standard deviation of the log-probabilities over the vocabulary, averaged
    vocabulary: int
    weighed: float = math.nan  # nats, each times what backward() weighs it with; not known for every form
    smoothing: float = 0.0
    temperature: float = 1.0

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
    if found is not None and found.smoothing < -EVEN:  # no share: all outputs are nearly alike, and all losses of them
        found = _tempered(out, gradient) or found
    return found or _viewed(out, gradient) or _tempered(out, gradient) or _away(out, gradient)


def _away(out: Tensor, gradient: Tensor) -> Said | None:
    """Outputs that a loss makes less likely where they are right: each row has the gradient of the other sign."""
    found = _said(out, -gradient)
    known = found is not None and found.form in ("logits", "log-probabilities")
    return replace(found, form="away", weighed=math.nan) if found is not None and known else None


def _tempered(out: Tensor, gradient: Tensor) -> Said | None:
    """Outputs that are divided by a number before their softmax.

    But for the label a cross-entropy's gradient is a multiple of the probabilities: its logarithm rises with the output
    by one over that number.
    """
    if out.ndim < 2 or out.shape[-1] < LEAST + 1 or out.dtype not in (torch.float32, torch.float64):
        return None
    table, slope = out.detach().flatten(0, -2).double(), gradient.flatten(0, -2).double()
    size = slope.abs().amax(-1)
    chosen = (size > UNSURE * size.max()).nonzero()[:, 0][:ROWS]
    if not len(chosen) or not bool(torch.isfinite(slope).all()):
        return None
    table, slope, least = table[chosen], slope[chosen], BARS[0] * size[chosen, None]
    shown = slope > least
    if int((shown.sum(-1) - 1).clamp(min=0).sum()) < LEAST**2 or bool(((slope < -least).sum(-1) != 1).any()):
        return None  # fewer differences than tell
    weight = shown / shown.sum(-1, keepdim=True).clamp(min=1)
    logs = slope.clamp(min=1e-300).log()
    x, y = ((each - (each * weight).sum(-1, keepdim=True)) * shown for each in (table, logs))
    squares = x.square().sum()
    inverse = float((x * y).sum() / squares) if float(squares) > 0 else 0.0
    left = float((y - inverse * x).abs().max())
    if inverse <= 0 or left > BARS[1] * (1 + float(y.abs().max())):
        return None
    found = _said(out * inverse, gradient / inverse)
    return None if found is None or found.form != "logits" else replace(found, temperature=1 / inverse)


def _smoothing(table: Tensor, slope: Tensor, form: Form) -> float:
    """The share of the labels that is spread evenly over the vocabulary; 0.0 where that is not how they are."""
    labels = slope.argmin(-1, keepdim=True)
    others = torch.ones_like(slope, dtype=torch.bool).scatter_(-1, labels, False)
    if form == "log-probabilities":
        shares = (slope / slope.sum(-1, keepdim=True))[others].view(len(slope), -1)
    elif form == "logits":
        x, y = (each[others].view(len(slope), -1) for each in (torch.softmax(table, -1), slope))
        a, b = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
        factor = (a * b).sum(-1, keepdim=True) / a.square().sum(-1, keepdim=True).clamp(min=1e-20)
        shares = x - y / factor.clamp(min=1e-20)
    else:
        return 0.0
    told = shares.median(-1).values
    uneven = (shares - told[:, None]).abs().mean(-1) > EVEN * told.abs().clamp(min=UNSURE)
    return 0.0 if bool(uneven.any()) else float(told.median()) * slope.shape[-1]


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
    smoothing = _smoothing(table[chosen], slope[chosen], form)
    labels, counts, nats = labels.view(shape), counts.view(shape), nats.view(shape)
    return Said(form, labels, counts, nats, spread, out.shape[-1], weighed, smoothing)


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
    if bool((slope <= 0).all()):  # of a target that is spread, as smoothing by KLDivLoss makes it
        if bool((torch.logsumexp(table, -1).abs() < max(close, SUMS)).all()):
            return "log-probabilities"
        if _is_linear(slope):
            return "probabilities" if positive else "scores"
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


def _is_linear(slope: Tensor) -> bool:
    """Whether a loss is a sum of outputs, each token's with the shares of a smoothed label: much at one, which differs
    from token to token, and at the others one share or nothing. A cross-entropy's gradient never is; that of a mean
    over time, which a layer behind weighs, has the same shares in the same places.
    """
    shares = (slope / slope.sum(-1, keepdim=True)).sort(-1).values  # (rows, vocabulary)
    same = (shares - shares.median(0).values).abs() < EVEN * shares.abs().amax()
    others = shares[:, :-1]
    even = (others - others.median(-1, keepdim=True).values).abs() <= EVEN * others.amax(-1, keepdim=True)
    one = bool((even | (others <= EVEN * others.amax(-1, keepdim=True))).all())
    return bool(same.all()) and one and len(slope.argmin(-1).unique()) > 1


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
    return bool((left < close).all()) and bool((factor > 0).all())


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
