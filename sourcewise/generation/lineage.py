"""The tree of a beam search: every hypothesis that was kept or finished, with its parent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from sourcewise.generation.beam import NEVER
from sourcewise.generation.sampling import Hypothesis


@dataclass(slots=True)
class Beam:
    """One hypothesis at one step: its new token and its parent, a hypothesis of the step before."""

    id: int
    score: float  # Σ ln p, the token included
    parent: int  # index among the beams of the step before; −1 at the first step
    ended: bool  # finished at this step, by the end of text or the maximum length
    rank: int | None = None  # of a finished one among the results, 0 the best; None: dropped, or continued
    lived: bool = False  # this one or a descendant is among the results


class Lineage:
    """Observer of the beam search of one source (`observe` of `beam_search`); `steps` holds its beams, best first."""

    def __init__(self) -> None:
        self.steps: list[list[Beam]] = []
        self._places: list[int] = []  # index of each running hypothesis among the last step's beams

    def __call__(self, total: Tensor, parent: Tensor, token: Tensor, finished: Tensor, chosen: Tensor) -> None:
        """Record one step; the tensors are those of `Observer`, for one source."""
        scores, parents, tokens, ended = (t[0].tolist() for t in (total, parent, token, finished))
        step: list[Beam] = []
        place: dict[int, int] = {}
        kept = chosen[0].tolist()
        for i, score in enumerate(scores):
            if i in kept or (ended[i] and score > NEVER / 2):
                place[i] = len(step)
                above = self._places[parents[i]] if self._places else -1
                step.append(Beam(tokens[i], score, above, ended[i]))
        self._places = [place.get(i, -1) for i in kept]
        self.steps.append(step)

    def rank(self, results: Sequence[Hypothesis]) -> None:
        """Mark the finished beams that are the results (best first), and their ancestors."""
        places = {tuple(result.said): i for i, result in enumerate(results)}
        for step, beams in enumerate(self.steps):
            for place, beam in enumerate(beams):
                if beam.ended:
                    beam.rank = places.get(tuple(self.path(step, place)))
                if beam.rank is not None:
                    for each in self._upward(step, place):
                        each.lived = True

    def path(self, step: int, place: int) -> list[int]:
        """All tokens of a beam, from the first on."""
        return [beam.id for beam in self._upward(step, place)][::-1]

    def paths(self) -> list[list[list[int]]]:
        """The path of every beam of every step."""
        return [[self.path(step, place) for place in range(len(beams))] for step, beams in enumerate(self.steps)]

    def _upward(self, step: int, place: int) -> Iterator[Beam]:
        """A beam and its ancestors."""
        while place >= 0:
            beam = self.steps[step][place]
            yield beam
            step, place = step - 1, beam.parent
