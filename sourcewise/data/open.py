"""Opens the sets that a recipe or a command line names, with prefixes, case and limits applied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np

from sourcewise.config import ChatConfig, DataConfig, DatasetConfig
from sourcewise.config.data import OF_COLUMN, Sounds
from sourcewise.data.examples import Dataset, Example, Kept, Rows, Task, unnamed
from sourcewise.data.formats.registry import ending_of
from sourcewise.data.groups import GROUP, with_group
from sourcewise.data.hub_streams import HubStream
from sourcewise.data.readers.conversations import are_conversations, opening, read_conversations
from sourcewise.data.readers.dates import read_dates
from sourcewise.data.readers.delimited import DELIMITED, Quoting, read_header
from sourcewise.data.readers.digits import read_digits
from sourcewise.data.readers.doubtful import notes_on
from sourcewise.data.readers.images import as_frames, image_of
from sourcewise.data.readers.layouts import layout_of
from sourcewise.data.readers.lines import read_lines
from sourcewise.data.readers.manifest_rows import are_rows, is_ssvp
from sourcewise.data.readers.manifests import read_manifest
from sourcewise.data.readers.matrices import read_matrices
from sourcewise.data.readers.numbers import not_finite, not_numbers
from sourcewise.data.readers.pairs import HUB, read_pairs
from sourcewise.data.readers.places import streams_of
from sourcewise.data.readers.plain_text import read_documents
from sourcewise.data.readers.several import join_sources
from sourcewise.data.readers.tables import endings, no_column
from sourcewise.data.sequences import Same
from sourcewise.data.spelling import NOTHING, Spelling
from sourcewise.data.stored.pairs import stored_pairs
from sourcewise.data.stored.store import Store
from sourcewise.data.streams import Stream
from sourcewise.errors import RequestError, tell

Use = Literal["train", "valid", "test"]
USES: tuple[Use, ...] = ("test", "valid", "train")  # the first ones are the best model of a user's own sources
EMBEDDED = ("digits", "dates")
LENT = (  # options of a recipe's set that also hold for another file
    *("prefix", "lowercase", "source_form", "source_letters", "name", "source_language", "target_language", "metric"),
    *("max_source", "max_target", "quoting", "join_sources"),
)


def open_dataset(config: DatasetConfig, data: DataConfig | None = None, split_default: str = "train") -> Dataset:
    """Read one set. `data` has the root folder and the size of the cache.

    `split_default` (train, valid or test) is the split of a hub or embedded set whose config names none.
    Raises RequestError for faulty files, an empty set, and bad rows (such as blank ones); with `data.skip_bad` bad rows
    are skipped and noted.
    """
    data = data or DataConfig()
    if config.stream:
        stream = _stream(config, data, config.split or split_default)
        how = f"streamed {data.stream_examples:,} at a time; checks look at the first"
        tell(f"{stream.name}: {stream.rows:,} pairs, {how}")
        return replace(_prepared(stream.window(0), config, data), windows=partial(_window, stream, config, data))
    return _prepared(_read(config, data, config.split or split_default), config, data)


def _stream(config: DatasetConfig, data: DataConfig, split: str) -> Stream | HubStream:
    named, options = config.pairs or "", _pair_options(config, data)
    if named.startswith(HUB):
        of_hub = "validation" if split == "valid" else split
        return HubStream(named[len(HUB) :], of_hub, config.subset, data.stream_examples, config.limit, **options)
    return Stream(data.path(named), data.stream_examples, config.limit, **options)


def _window(stream: Stream | HubStream, config: DatasetConfig, data: DataConfig, number: int) -> Dataset:
    return _prepared(stream.window(number), config, data)


def _prepared(dataset: Dataset, config: DatasetConfig, data: DataConfig) -> Dataset:
    """A set as its options say. Raises RequestError if it is empty."""
    if not len(dataset):
        raise RequestError(f"{dataset.name}: no examples; a set needs at least one")
    if config.join_sources:
        dataset = join_sources(dataset)
    dataset.task = Task(config.task, config.metric, config.max_source, config.max_target)
    if dataset.plain:
        return dataset
    if data.group:
        dataset = with_group(dataset, data.group)
    return _dressed(dataset, Spelling.of(config), data.languages(config))


def open_sets(data: DataConfig, use: Use) -> list[Dataset]:
    """Open the sets of the training, validation or test; empty if none is named.

    Raises RequestError as `open_dataset`, for a missing training set, for a mix of text and features, or of features
    of different widths, and if `data.group` finds nothing in any id of the training sets.
    """
    configs = data.sets(use)
    if not configs and use == "train":
        raise RequestError("data.train: missing; name a training set, such as --data.train.pairs train.tsv")
    sets = [open_dataset(config, data, use) for config in configs]
    for other in sets[1:]:
        if other.dims != sets[0].dims:
            kinds = [f"features {s.dims} wide" if s.dims else "text" for s in (sets[0], other)]
            problem = f"{sets[0].name} is {kinds[0]}, {other.name} is {kinds[1]}"
            raise RequestError(f"data.{use}: {problem}; sets of a mixture must be alike")
    if use == "train" and data.group and not any(GROUP in example.group for each in sets for example in each):
        problem = f"{data.group!r} finds nothing in the ids of {sets[0].name}, such as {sets[0][0].id!r}"
        raise RequestError(f"data.group: {problem}")
    return sets


def choose_task(
    data: DataConfig, path: str = "", task: str | None = None, prefix: str | None = None
) -> DatasetConfig | None:
    """The set of a recipe with the format of the sources in `path`: prefix, case, columns, limits.

    Without mixtures it is the test set, else valid, else train. In a mixture it is the set called `task`, or the one
    with the same file name, or any if all have the same format apart from a given prefix. Raises RequestError, with
    the sets' names, if the choice is ambiguous.
    """
    named = [config for use in USES for config in data.sets(use)]
    if task is not None:
        chosen = next((config for config in named if config.task == task), None)
        if chosen is None:
            known = ", ".join(dict.fromkeys(config.task for config in named)) or "none"
            raise RequestError(f"--task {task}: the model has no such task; it knows {known}")
        return chosen
    if not any(isinstance(getattr(data, use), list) for use in USES):
        return named[0] if named else None
    named = [config for config in named if not config.text] or named
    same_file = [c for c in named if path and PurePath(path).name == PurePath(_file(c)).name]
    found = reversed(same_file or named)
    looks = {(Spelling.of(c, prefix), bool(c.conversations)): c for c in found}
    if len(looks) > 1:
        names = ", ".join(dict.fromkeys(c.task for c in reversed(looks.values())))
        raise RequestError(f"{path or 'sources'}: of which task? the model knows {names}; name it with --task")
    return next(iter(looks.values()))


def config_for(path: str, features: str | None = None, like: DatasetConfig | None = None) -> DatasetConfig:
    """The config of a set given by a path alone: a manifest or pairs (by the header), hub:NAME, digits or dates.

    A .json, or a .jsonl of such lines, holds conversations. `like` (such as the recipe's own set) is the default of
    prefix, case, limits, metric and, if the file has them, column names.
    Raises RequestError for a missing file, or one of an unknown kind.
    """
    lent = {name: getattr(like, name) for name in LENT} if like else {}
    path = str(Path(path).expanduser()) if path.startswith("~") else path
    if is_named(path) and not path.startswith(HUB):
        return DatasetConfig.model_validate({"builtin": path, **lent})
    if path.startswith(HUB):
        names = ("source", "target", "split", "subset")
        return DatasetConfig.model_validate({"pairs": path, **{n: getattr(like, n) for n in names if like}, **lent})
    streams_of(features)  # so that wrong words are told before anything is opened
    if not features and are_conversations(path):
        return DatasetConfig.model_validate({"conversations": path, **lent})
    named = like.file if like else None
    if are_rows(Path(path)):
        return DatasetConfig.model_validate({"manifest": path, "features": features, "file": named, **lent})
    columns: list[str] = []
    if Path(path).suffix.lower() in DELIMITED:
        columns = read_header(path)
        for name in ("source", "target", "prompt"):
            if like and getattr(like, name) in columns:
                lent[name] = getattr(like, name)
        if features or is_manifest(columns, lent.get("source") or "source", named):
            file = named if named in columns else None
            return DatasetConfig.model_validate({"manifest": path, "features": features, "file": file, **lent})
        if like and set(like.where) <= set(columns):
            lent["where"] = like.where
    elif features:
        raise RequestError(f"{path}: a folder of features goes with a manifest, which is a .tsv or .csv")
    elif like and like.text and Path(path).suffix.lower() == ".txt":
        return like.model_copy(update={"text": path, "source": None, "target": None, "limit": None})
    elif like and like.pairs:
        lent |= {"source": like.source, "target": like.target}
    return DatasetConfig.model_validate({"pairs": path, **lent})


def is_named(path: str | Path) -> bool:
    """Whether a set is meant by its name, not by a file: hub:NAME, or an embedded one."""
    return str(path).startswith(HUB) or (str(path) in EMBEDDED and not Path(path).exists())


def holds_lines(path: str | Path) -> bool:
    """Whether a file is read as plain lines: it is no table, no conversations, no matrices and no manifest."""
    if is_named(path):
        return False
    name = Path(path).name
    known = Path(path).suffix.lower() in (".json", *endings()) or ending_of(name)
    return not known and not are_rows(Path(path))


def has_columns(path: str | Path) -> bool:
    """Whether a file has columns that can be named: a table, or rows with their features."""
    return are_rows(Path(path)) or (Path(path).suffix.lower() in endings() and not are_conversations(str(path)))


def is_manifest(columns: Sequence[str], source: str = "source", file: str | None = None) -> bool:
    """Whether a table with these columns lists feature files (perhaps in the column `file`) rather than texts."""
    return file in columns or (source not in columns and (layout_of(columns) is not None or is_ssvp(columns)))


def open_sources(
    given: str | Path | Sequence[str] | Sequence[np.ndarray],
    features: str | Path | None = None,
    *,
    spelling: Spelling = NOTHING,
    source: str | None = None,
    prompt: str | None = None,
    cache_gb: float = 4.0,
    chat: ChatConfig | None = None,
    quoting: Quoting = "auto",
    languages: tuple[str, str] = ("", ""),
    file: str | None = None,
    sounds: Sounds | None = None,
) -> Dataset:
    """Sources for generation, in order; targets may be empty. `languages` are those of sources and outputs.

    `given` is a path (a manifest, a .tsv/.csv/.jsonl/.parquet table with a source column, a .json of conversations, a
    file of matrices such as an .npy or .h5, or another file with one text per line), a list of texts, or a list of
    (frames, dims) matrices. `file` names a manifest's column of files, `sounds` what recordings become. With `chat` a
    text is the first turn of a human.
    Raises RequestError that names file and line.
    """
    alone = not isinstance(given, (str, Path)) or not (Path(given).suffix.lower() in DELIMITED or are_rows(Path(given)))
    if features and alone:
        name = given if isinstance(given, (str, Path)) else "sources"
        raise RequestError(f"{name}: a folder of features goes with a manifest, which is a .tsv or .csv")
    if isinstance(given, (str, Path)):
        path = Path(given).expanduser()
        how: dict[str, Any] = {"prompt": prompt, "need_target": False, "cache_gb": cache_gb, "quoting": quoting}
        how |= {"languages": languages, "sounds": sounds}
        read = partial(read_manifest, path, features, file=file, **how)
        dataset = _sources_of_file(path, read, source, chat, quoting, languages, features, file, sounds)
    elif len(given) and not isinstance(given[0], str):
        dataset = _matrices([_array(matrix, i) for i, matrix in enumerate(given, 1)])
    else:
        dataset = _texts([str(text) for text in given], "sources", chat)
    if not len(dataset):
        raise RequestError(f"{dataset.name}: no sources; give at least one line")
    return _dressed(dataset, spelling, languages)


def _read(config: DatasetConfig, data: DataConfig, split: str) -> Dataset:
    languages = data.languages(config)
    if config.builtin:
        return {"digits": read_digits, "dates": read_dates}[config.builtin](split, config.limit)
    if config.manifest:
        return read_manifest(
            data.path(config.manifest),
            data.features_of(config),
            file=config.file,
            target=config.target,
            prompt=config.prompt,
            limit=config.limit,
            cache_gb=data.cache_gb,
            quoting=config.quoting,
            skip_bad=data.skip_bad,
            languages=languages,
            sounds=data.sounds,
        )
    if config.conversations:
        return read_conversations(data.path(config.conversations), data.chat, limit=config.limit)
    if config.text:
        return read_documents(data.path(config.text), config)
    assert config.pairs
    if config.prompt:
        raise RequestError(f"{config.pairs}: prompt goes with a manifest; for pairs use prefix")
    options = _pair_options(config, data) | {"limit": config.limit, "quoting": config.quoting}
    if config.pairs.startswith(HUB):
        of_hub = "validation" if split == "valid" and not config.split else split
        return read_pairs(config.pairs, **options, split=of_hub, subset=config.subset)
    path, store = data.path(config.pairs), Store.of(data.store, data.memory_mb)
    return stored_pairs(path, store, **options) if store.takes(path) else read_pairs(path, **options)


def _pair_options(config: DatasetConfig, data: DataConfig) -> dict[str, Any]:
    """How the rows of a table become pairs."""
    return {
        "source": config.source or "source",
        "target": config.target or "target",
        "need_source": not config.prefix.strip(),
        "skip_bad": data.skip_bad,
        "languages": data.languages(config),
    } | ({"where": config.where} if config.where else {})


def _dressed(dataset: Dataset, spelling: Spelling, languages: tuple[str, str] = ("", "")) -> Dataset:
    """The set with its sources and targets spelled so, and with its languages.

    Raises RequestError if a column should name these, and none was read.
    """
    if isinstance(dataset.examples, Rows) and dataset.kept:
        return _dressed_rows(dataset, dataset.examples, dataset.kept, spelling, languages)
    if any(languages) and not any(map(any, dataset.languages())):
        by_column = next((name for name in languages if name.startswith(OF_COLUMN)), None)
        if by_column:
            raise unnamed(dataset.name, by_column)
        dataset = replace(dataset, examples=[replace(each, languages=languages) for each in dataset])
    if spelling == NOTHING:
        return dataset
    return replace(dataset, examples=[spelling.example(each) for each in dataset])


def _dressed_rows(dataset: Dataset, rows: Rows, kept: Kept, spelling: Spelling, languages: tuple[str, str]) -> Dataset:
    """The same for a set that is kept on disk; languages by column were read with it."""
    if any(languages) and not any(map(any, dataset.languages())):
        rows = replace(rows, languages=Same(languages, len(rows)))
    if spelling != NOTHING:
        rows = rows.changed(spelling.source, spelling.target if spelling.lowercase else None)
    return replace(dataset, examples=rows, kept=kept.changed(spelling, languages))


def _file(config: DatasetConfig) -> str:
    """Name of the file, hub set or embedded set of a config."""
    return config.pairs or config.conversations or config.text or config.manifest or config.builtin or ""


def _sources_of_file(
    path: Path,
    read: Callable[[], Dataset],
    source: str | None,
    chat: ChatConfig | None,
    quoting: Quoting,
    languages: tuple[str, str],
    features: str | Path | None,
    file: str | None,
    sounds: Sounds | None,
) -> Dataset:
    """Sources in a file; `read` reads it as a manifest."""
    suffix = path.suffix.lower()
    if are_conversations(path):
        return read_conversations(path, chat or ChatConfig(), need_target=False)
    if are_rows(path):
        return read()
    if ending_of(path.name) and suffix not in endings():
        return read_matrices(path, sounds)
    if suffix not in endings():
        return _texts(read_lines(path, nul=True), str(path), chat)
    if suffix in DELIMITED:
        columns = read_header(path)
        if features or is_manifest(columns, source or "source", file):
            return read()
        if (source or "source") not in columns:
            problem = no_column(str(path), source or "source", columns)
            raise RequestError(f"{problem} (a file of plain lines should not end in {suffix})")
    return read_pairs(path, source=source or "source", target=None, quoting=quoting, languages=languages)


def _array(matrix: Any, number: int) -> np.ndarray:
    try:
        return np.asarray(matrix)
    except (ValueError, TypeError) as error:
        problem = "its rows are of several lengths" if "inhomogeneous" in str(error) else str(error).splitlines()[0]
        raise RequestError(f"source {number}: is no matrix: {problem}") from None


def _matrices(given: list[np.ndarray]) -> Dataset:
    for i, matrix in enumerate(given, 1):
        if problem := not_numbers(matrix.dtype):
            raise RequestError(f"source {i}: {problem}")
    images = {image_of(each.shape) for each in given}
    if images != {None}:
        if len(images) > 1:
            sizes = ", ".join(sorted(" × ".join(map(str, each.shape[1:])) for each in given))
            raise RequestError(f"sources: have images of several sizes, {sizes}; all must be alike")
        given = [as_frames(each) for each in given]
    for i, matrix in enumerate(given, 1):
        if matrix.ndim != 2 or not len(matrix) or matrix.shape[1] != given[0].shape[-1]:
            raise RequestError(f"source {i}: has shape {matrix.shape}; each is (frames, dims), with the same dims")
        if problem := not_finite(matrix):
            raise RequestError(f"source {i}: {problem}")
    examples = [Example(str(i), "", frames=len(m), where=f"source {i}") for i, m in enumerate(given, 1)]
    return Dataset(examples, "sources", given[0].shape[1], lambda i: given[i].astype(np.float32), image=images.pop())


def _texts(lines: Sequence[str], name: str, chat: ChatConfig | None) -> Dataset:
    turns = [opening(line, chat) if chat else () for line in lines]
    sources = ["".join(said) if said else line for said, line in zip(turns, lines, strict=True)]
    both = enumerate(zip(sources, turns, strict=True), 1)
    notes = notes_on(lines, name)
    examples = [Example(str(i), "", text, where=f"{name}:{i}", turns=said) for i, (text, said) in both]
    return Dataset(examples, name, notes=notes)
