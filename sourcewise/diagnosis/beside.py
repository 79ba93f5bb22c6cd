"""What the rules over any set are given: the set, and the profile of the data that the model was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sourcewise.data.examples import Dataset
from sourcewise.data.profiles.profile import Profile, profile_of
from sourcewise.diagnosis.rule import CannotTell

FEWEST = 10  # examples: of fewer, shares mean nothing


@dataclass(frozen=True)
class Beside:
    """A set beside the profile of a training set."""

    trained: Profile
    dataset: Dataset

    about = "a set beside the profile of the training data"

    @cached_property
    def own(self) -> Profile:
        """The profile of the set. Raises CannotTell for a handful of examples, RequestError for a missing matrix."""
        if len(self.dataset) < FEWEST:
            raise CannotTell("whether it is like the training data", f"{self.dataset.name} has {len(self.dataset)}")
        return profile_of(self.dataset)
