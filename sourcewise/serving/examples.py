"""Example sources for a model: the first of the run's test set, or of its validation or training set."""

from __future__ import annotations

import contextlib
import io
from functools import cached_property
from typing import Any

import numpy as np

from sourcewise.data.examples import Dataset
from sourcewise.data.open import open_dataset
from sourcewise.errors import RequestError
from sourcewise.generation.model import Model
from sourcewise.generation.others import own_sets

MOST = 24  # of each set


class Examples:
    """Examples of one model's own sets; empty if it has no run, or if the data has been moved."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @cached_property
    def _places(self) -> list[tuple[Dataset, int]]:
        """(set, index) of each example; the files are read on first use."""
        found: list[tuple[Dataset, int]] = []
        chosen = None
        for use, config in own_sets(self.model):
            # Texts are shown without the prefix, which the server adds to every source. Histories of conversations are
            # left out, since a client sends only the first turn of a human.
            if config.conversations or chosen not in (None, use):
                continue
            changes: dict[str, Any] = {"limit": min(config.limit or MOST, MOST)}
            changes |= {} if self.model.network.dims else {"prefix": ""}
            with contextlib.suppress(RequestError):
                dataset = open_dataset(config.model_copy(update=changes), self.model.data, use)
                if dataset.dims == self.model.network.dims:
                    found += [(dataset, i) for i in range(len(dataset))]
                    chosen = use
        return found

    def listed(self) -> list[dict[str, Any]]:
        """The id, task, source (for features: prompt and number of frames) and reference of each example."""
        found = [(dataset.task.name, dataset[i]) for dataset, i in self._places]
        return [
            {"id": each.id, "task": task, "source": each.source, "frames": each.frames, "reference": each.target}
            for task, each in found
        ]

    def npy(self, number: int) -> bytes | None:
        """The features of an example as a .npy; None if there is no such example or it has no features."""
        if not 0 <= number < len(self._places):
            return None
        dataset, i = self._places[number]
        if not dataset.dims:
            return None
        file = io.BytesIO()
        np.save(file, dataset.features(i))
        return file.getvalue()
