"""What the decoder of somebody else's training is fed, where its labels do not reach the model."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.data.batches import IGNORED
from sourcewise.integrations.collated import LABELS, READ, TEXT, Collation
from sourcewise.integrations.untouched import untouched
from sourcewise.model.families.huggingface import HuggingFaceNetwork
from sourcewise.model.protocol import shift_right

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
