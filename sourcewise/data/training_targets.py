"""The target texts that a model was trained on, read without its sources and features."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.examples import Rows
from sourcewise.data.open import open_dataset
from sourcewise.data.readers.manifests import target_texts
from sourcewise.data.readers.pairs import HUB
from sourcewise.data.readers.several import read_targets
from sourcewise.data.readers.tables import read_table
from sourcewise.data.stored.store import Store
from sourcewise.errors import RequestError


def training_targets(data: DataConfig) -> Sequence[str] | None:
    """The targets of the training sets, in order; None where a set is not known, not there, or not a file.

    Nothing is fetched, streams are not read to their end, and sets of plain text have no targets of their own. Those
    of a set that is kept on disk are read from there.
    """
    configs = data.sets("train")
    if not configs or any(each.text or each.stream or (each.pairs or "").startswith(HUB) for each in configs):
        return None
    try:
        found = [_targets(each, data) for each in configs]
    except RequestError:
        return None
    return found[0] if len(found) == 1 else list(chain.from_iterable(found))


def _targets(config: DatasetConfig, data: DataConfig) -> Sequence[str]:
    path = data.path(config.manifest or config.pairs or "")
    large = bool(config.pairs) and Store.of(data.store, data.memory_mb).takes(path)
    if config.manifest:
        found = target_texts(path, config.target, config.quoting, config.file)[: config.limit]
    elif config.pairs and not config.where and not large:
        found = list(read_targets(read_table(path, config.quoting), config.target or "target", config.limit)[0])
    else:
        examples = open_dataset(config, data).examples
        return examples.targets if isinstance(examples, Rows) else [example.target for example in examples]
    return [text.lower() for text in found] if config.lowercase else found
