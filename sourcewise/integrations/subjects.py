"""Somebody else's training as what the rules are given: its model, its optimizer, batches as its collator made them.

What is found in them is the rules' business; here is only what they need to be told of a training that is not ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.data.batches import IGNORED, Batch
from sourcewise.diagnosis.measures.first_step import Optimizer, Stepped
from sourcewise.diagnosis.measures.forms import Form
from sourcewise.diagnosis.measures.laid import on_side, side_of
from sourcewise.diagnosis.measures.tied import apart_in_memory
from sourcewise.diagnosis.measures.within import counted
from sourcewise.diagnosis.pairs import Ids, Pairs
from sourcewise.diagnosis.plan import Plan
from sourcewise.diagnosis.wiring import Hidden, Start, Summed, Wiring, Within
from sourcewise.errors import RequestError
from sourcewise.integrations.collated import (
    LABELS,
    MASK,
    NOBODY,
    READ,
    TEXT,
    VECTORS,
    Collated,
    CollatedNetwork,
    Collation,
    Speaker,
    parts,
    with_prompts,
)
from sourcewise.integrations.fed import why_unfed
from sourcewise.integrations.finite import broken_weights, half_of
from sourcewise.integrations.passing import joined, some_of
from sourcewise.integrations.rates import groups, peaks, reached, settings, unknown
from sourcewise.model.families.huggingface import is_computed, parts_of
from sourcewise.model.finite import damage

READ_MASK = "decoder_attention_mask"


@dataclass(frozen=True, slots=True)
class Training:
    """What is known of a training: its optimizer, how many steps, at which norm it clips (0: never).

    `own` says what makes its loss where that is not its model, `taken` what takes the labels out of a batch before the
    model is called.
    """

    optimizer: Any
    steps: int
    clip: float
    fresh: bool  # from random weights
    smoothing: float = 0.0  # of labels
    scheduler: Any = None  # of the learning rate
    own: str = ""
    taken: str = ""
    compiled: bool = False
    fp16: bool = False  # autocast


def plan_of(model: Any, training: Training) -> Plan:
    """How it is to go, as far as its arguments and its optimizer tell."""
    of_optimizer, steps = groups(training.optimizer), training.steps
    known = list(zip(of_optimizer, peaks(training.optimizer, training.scheduler, steps), strict=True))
    pairs = [(rate or 0.0, float(g.get("weight_decay") or 0)) for g, rate in known if g.get("decoupled_weight_decay")]
    rate, weight_decay = max(pairs, key=lambda pair: pair[0] * pair[1], default=(0.0, 0.0))
    learns = any(p.requires_grad for p in model.parameters())
    still = learns and bool(known) and all(peak == 0 for _, peak in known)
    dropout = max((float(m.p) for m in model.modules() if isinstance(m, torch.nn.Dropout)), default=0.0)
    first = max((float(g["betas"][0]) for g in of_optimizer if "betas" in g), default=0.0)
    return Plan(
        steps=steps,
        fresh=training.fresh,
        rate=rate,
        weight_decay=weight_decay,
        reached=reached(training.optimizer, training.scheduler, steps),
        no_rate=unknown(training.optimizer, training.scheduler, steps),
        standing="the learning rate of every parameter group is 0: no weight will ever change" if still else "",
        clip=training.clip,
        taken=[
            ("dropout", "dropout", dropout),
            ("smoothing", "label_smoothing_factor", training.smoothing),
            *settings(training.optimizer),
        ],
        first_moment=("adam_beta1", first),
        half=half_of(model, training.fp16),
        other_loss=f"the loss is the training's own, {training.own}" if training.own else "",
    )


def wiring_of(model: Any, batches: Sequence[Collation], processing: Any, training: Training) -> Wiring:
    """The first batches of a training, as the model is to be given them. Raises RequestError."""
    if broken := broken_weights(model):
        return Wiring(broken=f"not finite are the weights {broken}", plan=plan_of(model, training))
    if broken := broken_sources(batches):
        return Wiring(broken=f"not finite are sources of the first batches, {broken}")
    speaker = speaker_of(model, processing)
    batch = joined(batches, speaker.pad_id)
    _, real, counts = parts(batch, speaker.pad_id)
    if not counts.any():
        return Wiring(unlabelled=len(counts))
    batch = some_of(batch, (real.any(1) & counts.any(1)).nonzero()[:, 0].numpy())
    batch = on_the_right(with_prompts(batch, speaker.pad_id) or batch, speaker.pad_id)
    encoded = Collated([batch], speaker)
    network, hidden = CollatedNetwork(model, encoded.dataset.dims), hidden_of(batch, speaker)
    as_collated, plan = SummedByModel(network, batch), plan_of(model, training)
    summed: tuple[Summed | None, ...] = (None,) if hidden else (as_collated,)
    return Wiring(
        network,
        encoded.batch(range(len(encoded))),
        plan,
        optimizer=partial(optimizer_of, as_collated, training),
        summed=summed,
        start=start_of(model, speaker),
        begins=speaker.begins,
        width=next((int(w) for n in ("d_model", "hidden_size") if (w := getattr(model.config, n, None))), None),
        hidden=hidden,
        tied=apart_in_memory(model),
        unfed=why_unfed(network, batch, batch.keys() - {LABELS}, training.taken) if training.taken else "",
    )


def on_the_right(batch: Collation, pad_id: int) -> Collation:
    """The same batch with sources padded on the right, as `Collated` lays them out."""
    real = parts(batch, pad_id)[1]
    if side_of(real) != "left":
        return batch
    moved = {n: on_side(batch[n], real, "right") for n in (TEXT, VECTORS, MASK) if isinstance(batch.get(n), Tensor)}
    return {**batch, **moved}


def told_to_keep(processing: Any) -> int | None:
    """How many tokens a tokenizer was last told to keep of a text; it forgets that at its next call."""
    backend = getattr(getattr(processing, "tokenizer", processing), "backend_tokenizer", None)
    told = getattr(backend, "truncation", None)
    return int(told["max_length"]) if told else None


def pairs_of(
    model: Any, batches: Sequence[Collation], processing: Any, forms: Sequence[Form] = (), told: int | None = None
) -> Pairs:
    """The examples of the batches that have passed, and the forms of their matrices; `told` is how many tokens of a
    text the tokenizer kept. Raises RequestError.
    """
    encoded = Collated(batches, speaker_of(model, processing), "training data", counted=True)
    ends = encoded.sources is not None and ends_texts(processing)
    tokenizer = encoded.tokenizer  # padding that no mask hides is no text cut off
    stops = (tokenizer.eos_id, tokenizer.pad_id)
    known = getattr(processing, "tokenizer", processing)  # of a processor
    unknown = getattr(known, "unk_token_id", None)
    ids = Ids(
        stops if ends else (),
        getattr(processing, "model_max_length", None),
        told,
        None if unknown in stops else unknown,
        whole_words=_is_of_words(known),
    )
    return Pairs(encoded, ids=ids, passed=forms)


def within_of(batches: Sequence[Collation], speaker: Speaker) -> Within | None:
    """Padding between words of sources, and labels between others that do not count, of batches that have passed.

    None where padding is the end of text, which texts may be joined by.
    """
    if speaker.pad_id == speaker.eos_id:
        return None
    sources, targets, masked = [], [], True
    for batch in batches:
        table, labels, mask = (batch.get(name) for name in (TEXT, LABELS, MASK))
        if isinstance(table, Tensor) and table.ndim == 2:
            sources.append(table)
            masked &= not isinstance(mask, Tensor) or not bool(mask.bool()[table == speaker.pad_id].any())
        if isinstance(labels, Tensor) and labels.ndim == 2:
            targets.append(labels)
    rows, inside = counted(sources, speaker.pad_id)
    return Within(rows, inside, counted(targets, IGNORED)[1] if inside else 0, speaker.pad_id, masked)


def _is_of_words(tokenizer: Any) -> bool:
    """Whether a tokenizer's vocabulary has whole words, and none of their pieces."""
    return type(getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)).__name__ == "WordLevel"


def speaker_of(model: Any, processing: Any) -> Speaker:
    """What its ids say; of a module of somebody's own by its configuration, or the tokenizer."""
    if hasattr(model, "get_output_embeddings"):
        return Speaker(processing, CollatedNetwork(model))
    known, config = getattr(processing, "tokenizer", processing), getattr(model, "config", None)
    pad, end = (
        next((i for i in (getattr(each, name, None) for each in (config, known)) if isinstance(i, int)), NOBODY)
        for name in ("pad_token_id", "eos_token_id")
    )
    return Speaker(processing, SimpleNamespace(pad_id=pad, eos_id=end))  # type: ignore[arg-type]


def broken_sources(batches: Sequence[Collation]) -> str:
    """The first tensor of some batches with a NaN or an infinity, in words; "" where there is none."""
    named = [(n, v) for batch in batches for n, v in batch.items() if isinstance(v, Tensor) and "mask" not in str(n)]
    return damage((str(name), value) for name, value in named if name != LABELS) or ""


def ends_texts(processing: Any) -> bool:
    """Whether this tokenizer puts an end of text behind what it makes of a text."""
    end = getattr(processing, "eos_token_id", None)
    if end is None or not callable(processing):
        return False
    ids = processing("a")["input_ids"]
    return bool(ids) and ids[-1] == end


def start_of(model: Any, speaker: Speaker) -> Start:
    """What training and generation begin with, by the configuration of each."""
    trained = getattr(model.config, "decoder_start_token_id", None)
    if trained is None:
        return Start()
    said = getattr(getattr(model, "generation_config", None), "decoder_start_token_id", None)
    return Start(speaker.text(int(trained)), said, "generation_config.json")


def hidden_of(collation: Collation, speaker: Speaker) -> Hidden | None:
    """What the attention mask hides, where it is not that of the padding."""
    tokens, mask = collation.get(TEXT), collation.get(MASK)
    if tokens is None:
        if mask is not None or VECTORS not in collation:
            return None  # whatever it hides: vectors do not tell
        zeros = (collation[VECTORS] == 0).all(-1)
        padded = zeros.flip(1).cumprod(1).flip(1).bool()  # zeros to the end are no frames
    else:
        padded = tokens == speaker.pad_id
        if speaker.pad_id == speaker.eos_id:  # the first of them ends the text
            padded = padded & (padded.cumsum(1) > 1)
    mask = torch.ones_like(padded) if mask is None else mask
    shown, hidden = int((padded & mask.bool()).sum()), int((~padded & ~mask.bool()).sum())
    if not shown and not hidden:
        return None
    return Hidden(int((~padded).sum()), hidden, int(padded.sum()), shown, MASK in collation)


def optimizer_of(summed: SummedByModel, training: Training) -> Optimizer:
    """What a training steps, where an Adam does. Raises RequestError where no parameter learns."""
    model = summed.network.model
    if not any(p.requires_grad for p in model.parameters()):
        raise RequestError("no parameter of the model requires a gradient")
    own = getattr(training.optimizer, "optimizer", training.optimizer)  # accelerate wraps it
    found = peaks(training.optimizer, training.scheduler, training.steps)
    known = {
        id(p): (rate if isinstance(own, torch.optim.Adam) else 0.0, group)
        for group, rate in zip(groups(training.optimizer), found, strict=True)
        for p in group["params"]
    }
    weights = []
    for info in parts_of(model):
        rate, group = known.get(id(info.parameter), (None, {}))
        if id(info.parameter) in known or not known:
            rate = rate or 0.0
        decay = float(group.get("weight_decay") or 0.0) if group.get("decoupled_weight_decay") else 0.0
        epsilon = group["eps"] if isinstance(group.get("eps"), float) else 1e-8  # Adafactor has two
        if not is_computed(model, info.name):
            weights.append(Stepped(info, rate=rate, decay=decay, epsilon=epsilon))
    return Optimizer(weights, summed.objective, training.clip)


class SummedByModel:
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

    def objective(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What is minimised, and nats: the same."""
        out, labels = self.run(batch)
        nats = _nats(out.logits.float().flatten(0, 1), labels.flatten())
        return nats, nats

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
