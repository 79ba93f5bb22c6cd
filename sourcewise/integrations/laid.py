"""How the batches of an evaluation are laid out: what their mask hides, and on which side they are padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.data.batches import IGNORED
from sourcewise.diagnosis.answer import Piece
from sourcewise.diagnosis.measures.laid import Laid, Side, on_side, one_side, side_of
from sourcewise.diagnosis.rules import look
from sourcewise.diagnosis.wiring import Hidden, Wiring
from sourcewise.integrations.collated import LABELS, MASK, READ, TEXT, VECTORS, Collation, Speaker, parts
from sourcewise.integrations.subjects import hidden_of

CODES = "WIR005 WIR033"
MOST = 4  # batches


def side_in(batches: Sequence[Collation], pad_id: int) -> Side:
    """On which side the sources of some batches are padded."""
    return one_side(side_of(parts(batch, pad_id)[1]) for batch in batches)


def look_at_layout(model: Any, batches: Sequence[Collation], speaker: Speaker, trained: Side) -> Piece:
    """What the rules say of the masks and the padding of an evaluation; `trained` is the side in training."""
    some = [batch for batch in batches[:MOST] if TEXT in batch or VECTORS in batch]
    hidden = _together([found for batch in some if (found := hidden_of(batch, speaker))])
    side, laid = side_in(some, speaker.pad_id), None
    if side and trained and side != trained:
        batch = next(batch for batch in some if side_of(parts(batch, speaker.pad_id)[1]))
        laid = Laid("the evaluation", side, trained, nats_of(model, batch, speaker.pad_id, trained))
    return look(Wiring(hidden=hidden, laid=laid, where=" of the evaluation"), codes=CODES)


def _together(found: Sequence[Hidden]) -> Hidden | None:
    """What masks hide in several batches, in all."""
    if not found:
        return None
    real, hidden, padding, shown = (sum(getattr(each, name) for each in found) for name in Hidden._fields[:4])
    return Hidden(real, hidden, padding, shown, all(each.masked for each in found))


@torch.no_grad()
def nats_of(model: Any, batch: Collation, pad_id: int, side: Side) -> tuple[float, float, float]:
    """Of a target token, on average: its nats as the rows lie, as they would with padding on that side, and how far
    these are apart."""
    _, real, counts = parts(batch, pad_id)
    given = {name: value for name, value in batch.items() if name in (TEXT, VECTORS, MASK, LABELS)}
    given.setdefault(MASK, real.long())
    moved = {name: on_side(value, real, side) for name, value in given.items() if name != LABELS}
    labels = given[LABELS]  # on the left, too, where a tokenizer pads there; behind their end they lie as in training
    moved[LABELS] = on_side(labels, counts, side) if side_of(counts) == "left" and side == "right" else labels
    usual, other = (_nats(model, each) for each in ({**given, **_read(batch)}, moved))
    return float(usual.mean()), float(other.mean()), float((usual - other).abs().mean())


def _read(batch: Collation) -> dict[str, Any]:
    return {name: batch[name] for name in (READ, "decoder_attention_mask") if name in batch}


def _nats(model: Any, given: dict[str, Any]) -> Tensor:
    """Of each label that counts, row by row."""
    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in given.items()}
    logits = model(**inputs, return_dict=True).logits.float()
    labels = inputs[LABELS]
    nats = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
    return nats[labels.flatten() != IGNORED].cpu()
