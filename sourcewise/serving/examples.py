"""Sources to try a model with: the first of the run's own test set, or of its validation or training set."""

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
    """Examples of one model's own sets; none where it has no run, or where the data has moved."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @cached_property
    def _places(self) -> list[tuple[Dataset, int]]:
        """A set and a position in it, of each example. The files are read when they are first asked for."""
        found: list[tuple[Dataset, int]] = []
        chosen = None
        for use, config in own_sets(self.model):
            # A text is shown without its prefix, which the server puts before whatever it is sent; histories of
            # conversations are left out, since what is sent to a model of these is what a human says first.
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

    def told(self) -> list[dict[str, Any]]:
        """Of each its id, task, source (of features: the prompt and how many frames) and reference."""
        return [
            {
                "id": dataset[i].id,
                "task": dataset.task.name,
                "source": dataset[i].source,
                "frames": dataset[i].frames,
                "reference": dataset[i].target,
            }
            for dataset, i in self._places
        ]

    def npy(self, number: int) -> bytes | None:
        """The features of one as a .npy; None where there are none of this number."""
        if not 0 <= number < len(self._places):
            return None
        dataset, i = self._places[number]
        if not dataset.dims:
            return None
        file = io.BytesIO()
        np.save(file, dataset.features(i))
        return file.getvalue()
