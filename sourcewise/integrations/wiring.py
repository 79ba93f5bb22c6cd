"""The wiring of somebody else's training: its model, its optimizer, and a batch as its collator made it.

The checks are those of `sourcewise diagnose`; here is only what they need to be told of a training that is not ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.data.batches import IGNORED, Batch
from sourcewise.diagnosis.answer import Piece
from sourcewise.diagnosis.borrowing import borrowed
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.measures.first_step import FirstStep, Weight
from sourcewise.diagnosis.rules import look
from sourcewise.diagnosis.rules.wiring.wir005_padding_is_read import PaddingIsRead
from sourcewise.diagnosis.rules.wiring.wir010_start_token import StartToken
from sourcewise.diagnosis.wiring import Plan, Settings, Wiring
from sourcewise.errors import RequestError
from sourcewise.integrations.collated import LABELS, MASK, TEXT, VECTORS, CollatedNetwork, Collation, Speaker
from sourcewise.integrations.rates import groups, peaks

READ, READ_MASK = "decoder_input_ids", "decoder_attention_mask"


@dataclass(frozen=True, slots=True)
class Training:
    """What is known of a training: its optimizer, how many steps, at which norm it clips (0: never)."""

    optimizer: Any
    steps: int
    clip: float
    fresh: bool  # from random weights
    smoothing: float = 0.0  # of labels
    scheduler: Any = None  # of the learning rate

    @property
    def rates(self) -> dict[int, float | None]:
        """The peak rate of each parameter that the optimizer has, by identity; None where it does not show before."""
        found = peaks(self.optimizer, self.scheduler, self.steps)
        return {id(p): rate for group, rate in zip(groups(self.optimizer), found, strict=True) for p in group["params"]}


def look_at(
    network: CollatedNetwork, batch: Batch, collation: Collation, training: Training, begins: int | None = None
) -> Piece:
    """What the rules over wiring find in a training on its batch; `batch` holds the examples of `collation`, in order.

    `begins` is the id that the tokenizer itself puts before every target, if it does.
    """
    masked = _mask(collation, network)
    summed = (None,) if masked else (Summed(network, collation),)

    def first() -> FirstStep:
        if not any(p.requires_grad for p in network.model.parameters()):
            raise RequestError("no parameter of the model requires a gradient")
        return measure_first_step(network, batch, collation, training)

    wiring = look(Wiring(network, batch, None, begins, summed=summed, plan=_plan(network, training), first=first))
    return Piece([*masked, *wiring.findings, *look(_settings(network.model, training)).findings], wiring.not_checked)


def _plan(network: CollatedNetwork, training: Training) -> Plan:
    rates, learns = training.rates, any(p.requires_grad for p in network.model.parameters())
    standing = "the learning rate of every parameter group is 0: no weight will ever change"
    still = bool(learns and rates) and all(rate == 0 for rate in rates.values())
    rate, weight_decay = _strongest_decay(training)
    return Plan(training.steps, training.fresh, rate, weight_decay, standing=standing if still else "")


def _settings(model: Any, training: Training) -> Settings:
    """The Trainer's arguments, and the model's dropout."""
    dropout = max((float(m.p) for m in model.modules() if isinstance(m, torch.nn.Dropout)), default=0.0)
    options = [("dropout", "dropout", dropout), ("smoothing", "label_smoothing_factor", training.smoothing)]
    first = max((float(g["betas"][0]) for g in groups(training.optimizer) if "betas" in g), default=0.0)
    return Settings(options, ("adam_beta1", first), training.steps)


class Summed:
    """The nats of a batch's targets as the training's own model sums them, given all that its collator gives."""

    def __init__(self, network: CollatedNetwork, collation: Collation) -> None:
        self.network, self.collation = network, collation

    def __call__(self, batch: Batch) -> float:
        """By the model's logits; with padding counted, where that is what its loss is the mean of."""
        out, labels = self.run(batch)
        logits, loss = out.logits.float().flatten(0, 1), getattr(out, "loss", None)
        everywhere = labels.masked_fill(labels == IGNORED, self.network.pad_id)
        nats, all_nats = (_nats(logits, of.flatten()) for of in (labels, everywhere))
        if loss is None:
            return float(nats)
        own, of_all = float(nats) / max(1, int((labels != IGNORED).sum())), float(all_nats) / labels.numel()
        # Fresh logits may be so even that padding costs what targets do: then its loss is nearer to theirs.
        counts_all = math.isclose(float(loss), of_all, rel_tol=1e-4) and abs(loss - of_all) < abs(loss - own)
        return float(all_nats if counts_all else nats)

    def run(self, batch: Batch) -> tuple[Any, Tensor]:
        """What the model gives for these labels, which may be padded further than its collator padded them."""
        device, labels = self.network.device, batch.labels.to(self.network.device)
        inputs = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in self.collation.items()}
        for name, filled in ((READ, self.network.pad_id), (READ_MASK, 0)):
            if name in inputs:
                inputs[name] = F.pad(inputs[name], (0, labels.shape[1] - inputs[name].shape[1]), value=filled)
        return self.network.model(**{**inputs, LABELS: labels}, return_dict=True), labels


def _nats(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")


def measure_first_step(network: CollatedNetwork, batch: Batch, collation: Collation, training: Training) -> FirstStep:
    """Gradients of a batch, and the updates of an Adam: as large as its rate, whatever the gradient (Kingma & Ba)."""
    rates = training.rates
    with borrowed(network), torch.enable_grad():
        named = list(network.model.named_parameters())
        learning = [(name, p) for name, p in named if p.requires_grad]
        out, labels = Summed(network, collation).run(batch)
        loss = _nats(out.logits.float().flatten(0, 1), labels.flatten()) / batch.target_tokens
        gradients = torch.autograd.grad(loss, [p for _, p in learning], allow_unused=True)
        found = {name: gradient for (name, _), gradient in zip(learning, gradients, strict=True)}
        norm = float(torch.nn.utils.get_total_norm([g for g in gradients if g is not None]))
        clipped = min(1.0, training.clip / norm) if training.clip and norm > 0 and math.isfinite(norm) else 1.0
        known = {id(info.parameter): info for info in network.parts()}
        weights = tuple(
            Weight(
                name,
                p.numel(),
                _rms(p),
                learns=True,
                frozen=not p.requires_grad,
                gradient=None if (g := found.get(name)) is None else _rms(g) * clipped,
                optimised=not rates or id(p) in rates,
                update=(rates.get(id(p)) or 0.0) if _is_adam(training.optimizer) else 0.0,
                part=known[id(p)].part,
                layer=known[id(p)].layer,
            )
            for name, p in named
            if not _is_table(network.model, name)
        )
        return FirstStep(weights, float(loss.detach()), norm)


def _rms(tensor: Tensor) -> float:
    return float(tensor.detach().float().square().mean().sqrt())


def _strongest_decay(training: Training) -> tuple[float, float]:
    """Peak rate and weight decay of the group of an AdamW where their product is largest; zeros for others."""
    found = zip(groups(training.optimizer), peaks(training.optimizer, training.scheduler, training.steps), strict=True)
    pairs = [(rate or 0.0, float(g.get("weight_decay") or 0)) for g, rate in found if g.get("decoupled_weight_decay")]
    return max(pairs, key=lambda pair: pair[0] * pair[1], default=(0.0, 0.0))


def _is_adam(optimizer: Any) -> bool:
    own = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
    return isinstance(own, torch.optim.Adam)


def _is_table(model: Any, name: str) -> bool:
    """Whether a parameter is a table of sinusoids, which is not meant to learn."""
    return "Sinusoidal" in type(model.get_submodule(name.rpartition(".")[0])).__name__


def _mask(collation: Collation, network: CollatedNetwork) -> list[Finding]:
    """WIR005 where the attention mask is not that of the padding."""
    tokens, mask = collation.get(TEXT), collation.get(MASK)
    if tokens is None:
        if mask is not None:
            return []  # whatever it hides: vectors do not tell
        zeros = (collation[VECTORS] == 0).all(-1)
        padded = zeros.flip(1).cumprod(1).flip(1).bool()  # zeros to the end are no frames
    else:
        padded = tokens == network.pad_id
        if network.pad_id == network.eos_id:  # the first of them ends the text
            padded = padded & (padded.cumsum(1) > 1)
    mask = torch.ones_like(padded) if mask is None else mask
    shown, hidden = int((padded & mask.bool()).sum()), int((~padded & ~mask.bool()).sum())
    if not shown and not hidden:
        return []
    evidence = f"of {int((~padded).sum())} source positions of a batch the attention mask hides {hidden}"
    evidence += f", and of {int(padded.sum())} of padding it shows {shown}"
    if MASK not in collation:
        evidence += "; the batch has no attention_mask"
    elif 2 * hidden > int((~padded).sum()):
        evidence += ": it looks inverted"
    return [PaddingIsRead.finding(evidence)]


def check_start(model: Any, speaker: Speaker) -> list[Finding]:
    """WIR010 where training and generation do not begin with the same token, or with a piece of text."""
    trained = getattr(model.config, "decoder_start_token_id", None)
    said = getattr(getattr(model, "generation_config", None), "decoder_start_token_id", None)
    if trained is not None and said is not None and trained != said:
        return [StartToken.finding(f"config.json says {trained}, generation_config.json {said}")]
    text = "" if trained is None else speaker.text(int(trained))
    if text:
        return [StartToken.finding(f"the start token (id {trained}) is a piece of text, {text!r}", "warning")]
    return []
