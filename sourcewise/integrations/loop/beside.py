"""Whether a held-out set of a loop is like what it trains on, as far as features go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sourcewise.data.profiles.profile import profile_of
from sourcewise.diagnosis.answer import Piece
from sourcewise.diagnosis.beside import Beside
from sourcewise.diagnosis.rules import look
from sourcewise.errors import RequestError
from sourcewise.integrations.collated import VECTORS, Collated, Speaker
from sourcewise.integrations.loop.batches import Named
from sourcewise.integrations.loop.data import flat, speaker_of
from sourcewise.integrations.loop.understood import Understood


def beside_training(
    understood: Understood, passed: Sequence[Named], read: Sequence[tuple[Any, Named]], name: str
) -> Piece | None:
    """DAT024 of a set beside the batches that passed in training; None where sources are no features.

    Of ids nothing is said: which words are new tells the look at the outputs.
    """
    trained = _vectors(understood, passed)
    own = _vectors(understood, [flat(named) for _, named in read])
    if not trained or not own:
        return None
    speaker = speaker_of([*trained, *own], understood.pad)
    sets = [_set(each, speaker, of) for each, of in ((trained, "training data"), (own, name or "the evaluation set"))]
    if sets[0].dims != sets[1].dims:
        return None
    return look(Beside(profile_of(sets[0]), sets[1]), codes="DAT024")


def _vectors(understood: Understood, batches: Sequence[Named]) -> list[dict[str, Tensor]]:
    found = []
    for named in batches:
        try:
            each = understood.collation(named)
        except (IndexError, KeyError, RuntimeError, RequestError):  # a batch of another shape
            continue
        if VECTORS in each:
            found.append(each)
    return found


def _set(collations: Sequence[dict[str, Tensor]], speaker: Speaker, name: str) -> Any:
    return Collated(collations, speaker, name, counted=True).dataset
