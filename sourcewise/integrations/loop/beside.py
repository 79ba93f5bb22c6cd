"""Whether a held-out set of a loop is like what it trains on, as far as features and ids go, and none of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sourcewise.data.profiles.profile import Profile, profile_of
from sourcewise.diagnosis.against import Against, Held, held_of, joined
from sourcewise.diagnosis.answer import Piece
from sourcewise.diagnosis.beside import Beside
from sourcewise.diagnosis.rules import look
from sourcewise.errors import RequestError
from sourcewise.integrations.collated import LABELS, MASK, TEXT, VECTORS, Collated, Speaker
from sourcewise.integrations.loop.batches import Named
from sourcewise.integrations.loop.data import flat, speaker_of
from sourcewise.integrations.loop.understood import Understood


class BesideTraining:
    """Holds sets beside the batches that passed in training, of which a profile is taken when there are more."""

    def __init__(self) -> None:
        self._held: tuple[int, Held] | None = None  # batches, and their examples
        self._known: tuple[int, Profile, Speaker, int] | None = None  # batches, their profile, ids as words, dims

    def look(
        self, understood: Understood, passed: Sequence[Named], read: Sequence[tuple[Any, Named]], name: str
    ) -> Piece | None:
        """DAT024 of a set; None where sources are no features.

        Of ids nothing is said: which words are new tells the look at the outputs.
        """
        own = _vectors(understood, [flat(named) for _, named in read])
        if not own:
            return None
        if self._known is None or self._known[0] != len(passed):
            trained = _vectors(understood, passed)
            if not trained:
                return None
            speaker = speaker_of(trained, understood.pad)
            dataset = _set(trained, speaker, "training data")
            self._known = len(passed), profile_of(dataset), speaker, dataset.dims
        _, profile, speaker, dims = self._known
        dataset = _set(own, speaker, name or "the evaluation set")
        return look(Beside(profile, dataset), codes="DAT024") if dataset.dims == dims else None

    def ids(
        self, understood: Understood, passed: Sequence[Named], read: Sequence[tuple[Any, Named]], name: str
    ) -> Piece:
        """Whether examples of a set were trained on, and whether its ids are like those of training."""
        if self._held is None or self._held[0] != len(passed):
            self._held = len(passed), _examples(understood, passed)
        own = _examples(understood, [flat(named) for _, named in read])
        return look(Against(self._held[1], own, name))


def _examples(understood: Understood, batches: Sequence[Named]) -> Held:
    found = []
    for named in batches:
        try:
            each = understood.collation(named)
        except (IndexError, KeyError, RuntimeError, RequestError):  # a batch of another shape
            continue
        found.append(held_of(each[TEXT] if TEXT in each else each[VECTORS], each[MASK], each[LABELS]))
    return joined(found)


def _vectors(understood: Understood, batches: Sequence[Named]) -> list[dict[str, Tensor]]:
    found = []
    for named in batches:
        try:
            each = understood.collation(named)
        except (IndexError, KeyError, RuntimeError, RequestError):  # a batch of another shape
            continue
        if VECTORS not in each:
            return []
        found.append(each)
    return found


def _set(collations: Sequence[dict[str, Tensor]], speaker: Speaker, name: str) -> Any:
    return Collated(collations, speaker, name, counted=True).dataset
