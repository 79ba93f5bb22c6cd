"""The target texts that a model was trained on, read without its sources and features."""

from __future__ import annotations

from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.open import open_dataset
from sourcewise.data.readers.manifests import target_texts
from sourcewise.data.readers.pairs import HUB
from sourcewise.data.readers.several import read_targets
from sourcewise.data.readers.tables import read_table
from sourcewise.errors import RequestError


def training_targets(data: DataConfig) -> list[str] | None:
    """The targets of the training sets, in order; None where a set is not known, not there, or not a file.

    Nothing is fetched, and sets of plain text have no targets of their own.
    """
    configs = data.sets("train")
    if not configs or any(each.text or (each.pairs or "").startswith(HUB) for each in configs):
        return None
    try:
        return [text for each in configs for text in _targets(each, data)]
    except RequestError:
        return None


def _targets(config: DatasetConfig, data: DataConfig) -> list[str]:
    path = data.path(config.manifest or config.pairs or "")
    if config.manifest:
        found = target_texts(path, config.target, config.quoting, config.file)[: config.limit]
    elif config.pairs and not config.where:
        found = list(read_targets(read_table(path, config.quoting), config.target or "target", config.limit)[0])
    else:
        return [example.target for example in open_dataset(config, data)]
    return [text.lower() for text in found] if config.lowercase else found
