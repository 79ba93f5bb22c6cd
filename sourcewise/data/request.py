"""Opens files and sources in the format of a recipe's own data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.examples import Dataset
from sourcewise.data.open import choose_task, config_for, open_dataset, open_sources
from sourcewise.data.spelling import Spelling


@dataclass(frozen=True, slots=True)
class SourceRequest:
    """Options of a user for reading a file; defaults (None) are those of a recipe's own sets in `data`.

    `task` is one of a mixture, `features` the folder of a manifest, `source` and `target` are columns.
    With `join_sources` rows of one source text are one example with several references.
    """

    data: DataConfig
    task: str | None = None
    features: str | None = None
    prefix: str | None = None
    source: str | None = None
    target: str | None = None
    join_sources: bool | None = None

    def like(self, path: str = "") -> DatasetConfig:
        """The recipe's set with the format of the sources in `path`. Raises RequestError as `choose_task`."""
        return choose_task(self.data, path, self.task, self.prefix) or DatasetConfig(pairs="-")

    def sources(self, given: str | Path | Sequence[str] | Sequence[np.ndarray], path: str = "") -> Dataset:
        """Sources for generation, as by `open_sources`; `path` is the file of given texts. Raises RequestError."""
        like = self.like(str(given) if isinstance(given, (str, Path)) else path)
        return open_sources(
            given,
            self.features,
            spelling=Spelling.of(like, self.prefix),
            source=self.source or like.source,
            quoting=like.quoting,
            chat=self.data.chat if like.conversations else None,
            languages=self.data.languages(like),
            file=like.file,
            sounds=self.data.sounds,
        )

    def examples(self, path: str) -> Dataset:
        """Pairs for an evaluation. Raises RequestError if the file cannot be read."""
        asked = {"source": self.source, "target": self.target, "join_sources": self.join_sources}
        named = {key: value for key, value in asked.items() if value}
        config = config_for(path, self.features, self.like(path).model_copy(update=named))
        if self.source and config.manifest and not self.features:  # a source column means pairs
            other = {"pairs": config.manifest, "manifest": None, "prompt": None, "target": None}
            config = config.model_copy(update=other)
        config = config.model_copy(update=named)  # columns that the user names must exist
        return open_dataset(config, self.data.model_copy(update={"root": ""}), "test")
