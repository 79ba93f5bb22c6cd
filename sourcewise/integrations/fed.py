"""What the decoder of somebody else's training is fed, where its labels do not reach the model."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.data.batches import IGNORED
from sourcewise.diagnosis.measures.objective import Said, said_by
from sourcewise.integrations.collated import LABELS, READ, TEXT, Collation
from sourcewise.integrations.untouched import untouched
from sourcewise.model.families.huggingface import HuggingFaceNetwork
from sourcewise.model.protocol import shift_right

MOST_SHIFTED = 2  # places that labels are looked for beside their own
ALL_BUT, HALF = 0.98, 0.8  # of the places: that agree with a shift · most of these that may agree without one
FEEDS = (READ, "decoder_inputs_embeds", "decoder_inputs", "encoder_outputs")  # what a decoder may be fed by


def why_unfed(network: HuggingFaceNetwork, batch: Collation, given: Collection[str], why: str) -> str:
    """Why the decoder does not read the targets: no labels are given, and nothing else that it could read; else "".

    `given` are the names that it is called with, `why` says what takes the labels out. Some models then shift their
    source (BART and its kin), which trains them to say the target after the source's tokens; others refuse.
    """
    if LABELS in given or any(name in given for name in FEEDS):
        return ""
    model = network.model
    inputs = {
        name: value.to(network.device) if isinstance(value, Tensor) else value
        for name, value in batch.items()
        if name in given
    }
    evidence = f"{why}, and the batch has no {READ}"
    labels = batch[LABELS].to(network.device)
    with untouched(model), torch.no_grad():
        try:
            logits = model(**inputs, return_dict=True).logits.float()
        except Exception as refusal:
            said = " ".join(str(refusal).split())[:160]
            return f"{evidence}; {type(model).__name__} refuses it: {said}"
        right = model(**inputs, **{READ: shift_right(labels, network.start_id, network.pad_id)}, return_dict=True)
        evidence += f": the decoder is fed {_read(network, inputs, logits)}, not the targets"
        if logits.shape[1] < labels.shape[1]:
            evidence += f"; it gives {logits.shape[1]} positions for {labels.shape[1]} labels"
        else:
            nats = _nats(logits[:, : labels.shape[1]], labels), _nats(right.logits.float(), labels)
            evidence += f"; a target token has {nats[0]:.3f} nats so, {nats[1]:.3f} behind the tokens before it"
    return evidence


def _read(network: HuggingFaceNetwork, inputs: Collation, logits: Tensor) -> str:
    """What explains these logits: the source shifted by one, or something else."""
    source = inputs.get(TEXT)
    if isinstance(source, Tensor) and logits.shape[1] == source.shape[1]:
        for start in sorted({network.start_id, network.pad_id, network.eos_id}):
            read = shift_right(source, start, network.pad_id)
            again = network.model(**inputs, **{READ: read}, return_dict=True).logits.float()
            if torch.allclose(again, logits, rtol=1e-3, atol=1e-3):
                return f"its own shifted source ({TEXT})"
    return "something else"


def _nats(logits: Tensor, labels: Tensor) -> float:
    return float(F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED))


def held_against(logits: Tensor, gradient: Tensor, labels: Tensor) -> str:
    """Against which labels a loss of the training's own holds the outputs, if these are not those of their places.

    logits (batch, time, vocabulary), the gradient of the loss there, and the labels (batch, time) of the batch. ""
    where they are, or where the loss is none of one label a place.
    """
    said = said_by(logits, gradient)
    if said is None or said.labels.shape != labels.shape:
        return ""
    labels = labels.to(said.labels.device)
    agreed = {shift: _agreed(said, labels, shift) for shift in range(-MOST_SHIFTED, MOST_SHIFTED + 1)}
    shift = max(agreed, key=lambda each: (agreed[each], each == 0))
    if shift == 0 or agreed[shift] < ALL_BUT or agreed[0] > HALF * agreed[shift]:
        return ""
    places = f"{abs(shift)} place{'s' if abs(shift) > 1 else ''} {'later' if shift > 0 else 'earlier'}"
    told = (
        f"the loss holds each output against the label {places} ({100 * agreed[shift]:.0f} % of them; against its own"
    )
    return f"{told} {100 * agreed[0]:.0f} %), though the decoder's input is shifted already"


def _agreed(said: Said, labels: Tensor, shift: int) -> float:
    """The share of the places that count whose label is the one so many places later."""
    other = labels.roll(-shift, dims=1)
    inside = torch.arange(labels.shape[1], device=labels.device) + shift
    counts = said.counts & ((inside >= 0) & (inside < labels.shape[1]))[None]
    return float((other == said.labels)[counts].float().mean()) if bool(counts.any()) else 0.0


def taken_out(trainer: Any, smoothing: float) -> str:
    """What takes the labels out of a batch before the model is called, in words; empty where nothing is known to."""
    own = own_loss(trainer)
    by = own or (f"label_smoothing_factor {smoothing:g}" if smoothing else "")
    if not by or own == "compute_loss":  # what that does shows when it calls the model
        return ""
    return f"{by} takes the labels out of the batch before the model is called"


def own_loss(trainer: Any) -> str:
    """Where a Trainer's loss is not its model's: compute_loss, compute_loss_func; empty where it is, or unknown."""
    from transformers import Trainer

    if trainer is None:
        return ""
    if getattr(type(trainer), "compute_loss", None) is not Trainer.compute_loss or "compute_loss" in vars(trainer):
        return "compute_loss"
    return "compute_loss_func" if getattr(trainer, "compute_loss_func", None) is not None else ""


def other_loss(trainer: Any, smoothing: float) -> str:
    """Why the loss that a Trainer logs is no cross-entropy, in words; empty where it is."""
    if own := own_loss(trainer):
        return f"the loss is the training's own, {own}"
    return f"label_smoothing_factor is {smoothing:g}" if smoothing else ""
