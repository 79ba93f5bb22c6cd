"""Opens files and sources in the format of a recipe's own data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.examples import Dataset
from sourcewise.data.open import choose_task, config_for, has_columns, is_named, open_dataset, open_sources
from sourcewise.data.spelling import Spelling
from sourcewise.errors import RequestError


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
        if isinstance(given, (str, Path)) and is_named(given):
            return self.examples(str(given))
        if self.source and (not isinstance(given, (str, Path)) or not has_columns(given)):
            name = given if isinstance(given, (str, Path)) else path or "a text"
            raise RequestError(f"--source {self.source}: names a column, and {name} has none")
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

    def config(self, path: str) -> DatasetConfig:
        """How a file of pairs is read. Raises RequestError for one that has no columns, where some are named."""
        asked = {"source": self.source, "target": self.target, "join_sources": self.join_sources}
        named = {key: value for key, value in asked.items() if value}
        for column in ("source", "target"):
            if column in named and not is_named(path) and Path(path).is_file() and not has_columns(path):
                raise RequestError(f"--{column} {named[column]}: names a column, and {path} has none")
        if self.prefix is not None:
            named["prefix"] = self.prefix
        config = config_for(path, self.features, self.like(path).model_copy(update=named))
        if self.source and config.manifest and not self.features:  # a source column means pairs
            other = {"pairs": config.manifest, "manifest": None, "prompt": None, "target": None}
            config = config.model_copy(update=other)
        return config.model_copy(update=named)  # columns that the user names must exist

    def examples(self, path: str) -> Dataset:
        """Pairs for an evaluation. Raises RequestError if the file cannot be read."""
        return open_dataset(self.config(path), self.data.model_copy(update={"root": ""}), "test")
