"""From what a recipe (or a command line) names to a Dataset, with prefixes, case, limits and mixtures applied."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np

from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.dates import read_dates
from sourcewise.data.digits import read_digits
from sourcewise.data.examples import Dataset, Example
from sourcewise.data.manifests import layout_of, read_manifest
from sourcewise.data.pairs import HUB, read_pairs
from sourcewise.data.tables import decode_lines, nearest_first, read_bytes, read_columns
from sourcewise.errors import RequestError

_TABLES = (".tsv", ".jsonl", ".parquet")


def open_dataset(config: DatasetConfig, data: DataConfig | None = None, split_default: str = "train") -> Dataset:
    """Read one set. `data` gives the root folder and the size of the cache.

    `split_default` (train, valid or test) is the split of a hub or embedded set whose config names none.
    Raises RequestError for anything wrong with the files, for an empty set, and for an empty target.
    """
    data = data or DataConfig()
    dataset = _read(config, data, config.split or split_default)
    if not len(dataset):
        raise RequestError(f"{dataset.name}: no examples; a set needs at least one")
    for example in dataset:
        if not example.target.strip():
            raise RequestError(f"{example.where}: the target is empty; every example needs a text to produce")
    return _dressed(dataset, config.prefix, config.lowercase)


def open_training(data: DataConfig) -> Dataset:
    """The training set: one set, or a mixture whose weights give each set its share whatever its size.

    Raises RequestError like `open_dataset`, and when text and features, or features of different widths, meet.
    """
    if not data.train:
        raise RequestError("data.train: missing; name a training set, such as --data.train.pairs train.tsv")
    configs = data.train if isinstance(data.train, list) else [data.train]
    sets = [open_dataset(config, data, "train") for config in configs]
    return sets[0] if len(sets) == 1 else mix(sets, [config.weight for config in configs])


def mix(sets: Sequence[Dataset], shares: Sequence[float]) -> Dataset:
    """One set of all examples, weighted so that each set's total is proportional to its share.

    Raises RequestError when text and features, or features of different widths, meet.
    """
    first = sets[0]
    for other in sets[1:]:
        if other.dims != first.dims:
            kinds = [f"features {s.dims} wide" if s.dims else "text" for s in (first, other)]
            raise RequestError(
                f"data.train: {first.name} is {kinds[0]}, {other.name} is {kinds[1]}; sets of a mixture must be alike"
            )
    starts = [0, *accumulate(len(s) for s in sets)]
    weights = [share / len(s) for s, share in zip(sets, shares, strict=True) for _ in range(len(s))]

    def read(index: int) -> np.ndarray:
        which = bisect_right(starts, index) - 1
        return sets[which].features(index - starts[which])

    return Dataset(
        [example for s in sets for example in s],
        name=" + ".join(s.name for s in sets),
        dims=first.dims,
        read=read if first.dims else None,
        weights=weights,
    )


def config_for(path: str, features: str | None = None, like: DatasetConfig | None = None) -> DatasetConfig:
    """The config of a set named by a bare path: a manifest or pairs (by its header), hub:NAME, digits or dates.

    `like` (say, the recipe's own set) lends prefix, case and, where the file has them, column names.
    Raises RequestError when the file is missing, or of no kind that is read.
    """
    lent = {name: getattr(like, name) for name in ("prefix", "lowercase")} if like else {}
    if path in ("digits", "dates") and not Path(path).exists():
        return DatasetConfig.model_validate({"builtin": path, **lent})
    if path.startswith(HUB):
        names = ("source", "target", "split", "subset")
        return DatasetConfig.model_validate({"pairs": path, **{n: getattr(like, n) for n in names if like}, **lent})
    columns: list[str] = []
    if Path(path).suffix.lower() == ".tsv":
        columns = read_columns(path)
        for name in ("source", "target", "prompt"):
            if like and getattr(like, name) in columns:
                lent[name] = getattr(like, name)
        if features or is_manifest(columns, lent.get("source") or "source"):
            return DatasetConfig.model_validate({"manifest": path, "features": features, **lent})
    elif features:
        raise RequestError(f"{path}: a folder of features goes with a manifest, which is a .tsv")
    elif like and like.pairs:
        lent |= {"source": like.source, "target": like.target}
    return DatasetConfig.model_validate({"pairs": path, **lent})


def is_manifest(columns: Sequence[str], source: str = "source") -> bool:
    """Whether a table with these columns lists feature files rather than texts."""
    return source not in columns and layout_of(columns) is not None


def open_sources(
    given: str | Path | Sequence[str] | Sequence[np.ndarray],
    features: str | Path | None = None,
    *,
    prefix: str = "",
    lowercase: bool = False,
    source: str | None = None,
    prompt: str | None = None,
    cache_gb: float = 4.0,
) -> Dataset:
    """What to generate from, in order; targets may be empty.

    `given` is a path (a .tsv manifest, a .tsv/.jsonl/.parquet table with a source column, one .npy, or any other
    file: a text line a source), or a list of texts, or a list of (frames, dims) matrices.
    Raises RequestError that names file and line.
    """
    if features and (not isinstance(given, (str, Path)) or Path(given).suffix.lower() != ".tsv"):
        name = given if isinstance(given, (str, Path)) else "sources"
        raise RequestError(f"{name}: a folder of features goes with a manifest, which is a .tsv")
    if isinstance(given, (str, Path)):
        dataset = _sources_of_file(Path(given), features, source, prompt, cache_gb)
    elif len(given) and not isinstance(given[0], str):
        dataset = _matrices([np.asarray(matrix, dtype=np.float32) for matrix in given])
    else:
        dataset = _texts([str(text) for text in given], "sources")
    if not len(dataset):
        raise RequestError(f"{dataset.name}: no sources; give at least one line")
    return _dressed(dataset, prefix, lowercase)


def _read(config: DatasetConfig, data: DataConfig, split: str) -> Dataset:
    if config.builtin:
        return {"digits": read_digits, "dates": read_dates}[config.builtin](split, config.limit)
    if config.manifest:
        return read_manifest(
            _under(data.root, config.manifest),
            _under(data.root, config.features) if config.features else None,
            target=config.target,
            prompt=config.prompt,
            limit=config.limit,
            cache_gb=data.cache_gb,
        )
    assert config.pairs
    if config.prompt:
        raise RequestError(f"{config.pairs}: prompt goes with a manifest; for pairs use prefix")
    from_hub = config.pairs.startswith(HUB)
    return read_pairs(
        config.pairs if from_hub else _under(data.root, config.pairs),
        source=config.source or "source",
        target=config.target or "target",
        split="validation" if split == "valid" and not config.split else split,
        subset=config.subset,
        limit=config.limit,
    )


def _under(root: str, path: str) -> Path:
    return Path(root).expanduser() / Path(path).expanduser()


def _dressed(dataset: Dataset, prefix: str, lowercase: bool) -> Dataset:
    """Lower-case the texts, then put the prefix before the source or prompt."""
    if not prefix and not lowercase:
        return dataset
    if lowercase:
        examples = [replace(e, source=prefix + e.source.lower(), target=e.target.lower()) for e in dataset]
    else:
        examples = [replace(e, source=prefix + e.source) for e in dataset]
    return replace(dataset, examples=examples)


def _sources_of_file(
    path: Path, features: str | Path | None, source: str | None, prompt: str | None, cache_gb: float
) -> Dataset:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        from sourcewise.data.matrices import Clip, MatrixStore

        store = MatrixStore([Clip(path, "source")], cache_gb * 1e9)
        return Dataset([Example(path.stem, "", frames=store.frames[0], where=str(path))], str(path), store.dims, store)
    if suffix not in _TABLES:
        lines = decode_lines(read_bytes(path), str(path))
        return _texts(lines, str(path))
    if suffix == ".tsv":
        columns = read_columns(path)
        if features or is_manifest(columns, source or "source"):
            return read_manifest(path, features, prompt=prompt, need_target=False, cache_gb=cache_gb)
        if (source or "source") not in columns:
            raise RequestError(
                f"{path}: no column {source or 'source'!r}; it has: {nearest_first(source or 'source', columns)} "
                "(a file of plain lines should not end in .tsv)"
            )
    return read_pairs(path, source=source or "source", target=None)


def _matrices(given: list[np.ndarray]) -> Dataset:
    for i, matrix in enumerate(given, 1):
        if matrix.ndim != 2 or not len(matrix) or matrix.shape[1] != given[0].shape[-1]:
            raise RequestError(f"source {i}: has shape {matrix.shape}; each is (frames, dims), with the same dims")
        if not np.isfinite(matrix).all():
            raise RequestError(f"source {i}: has NaN or infinity")
    examples = [Example(str(i), "", frames=len(m), where=f"source {i}") for i, m in enumerate(given, 1)]
    return Dataset(examples, "sources", given[0].shape[1], lambda i: given[i].copy())


def _texts(lines: Sequence[str], name: str) -> Dataset:
    return Dataset([Example(str(i), "", line, where=f"{name}:{i}") for i, line in enumerate(lines, 1)], name)
