"""A file, or sources, read as a recipe reads its own where nothing else is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.examples import Dataset
from sourcewise.data.open import choose_task, config_for, open_dataset, open_sources


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """What somebody names beside a file: all that is None is as the sets of `data`, a recipe's own, have it.

    `task` is one of a mixture, `features` the folder of a manifest, `source` and `target` are columns.
    """

    data: DataConfig
    task: str | None = None
    features: str | None = None
    prefix: str | None = None
    source: str | None = None
    target: str | None = None

    def like(self, path: str = "") -> DatasetConfig:
        """The own set that shows how the sources of `path` look. Raises RequestError as `choose_task`."""
        return choose_task(self.data, path, self.task, self.prefix) or DatasetConfig(pairs="-")

    def sources(self, given: str | Path | Sequence[str] | Sequence[np.ndarray], path: str = "") -> Dataset:
        """What to generate from, as `open_sources`; `path` is where texts come from. Raises RequestError."""
        like = self.like(str(given) if isinstance(given, (str, Path)) else path)
        return open_sources(
            given,
            self.features,
            prefix=like.prefix if self.prefix is None else self.prefix,
            lowercase=like.lowercase,
            source=self.source or like.source,
            quoting=like.quoting,
            chat=self.data.chat if like.conversations else None,
        )

    def examples(self, path: str) -> Dataset:
        """Pairs to measure by. Raises RequestError for what cannot be read."""
        named = {key: value for key, value in (("source", self.source), ("target", self.target)) if value}
        config = config_for(path, self.features, self.like(path).model_copy(update=named))
        if self.source and config.manifest and not self.features:  # a source column means pairs, whatever else is there
            other = {"pairs": config.manifest, "manifest": None, "prompt": None, "target": None}
            config = config.model_copy(update=other)
        config = config.model_copy(update=named)  # own columns are looked for, those asked for must be there
        return open_dataset(config, self.data.model_copy(update={"root": ""}), "test")
