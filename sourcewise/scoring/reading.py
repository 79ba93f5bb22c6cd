"""Reads references and outputs that exist: text files, tables, run folders; models write theirs first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sourcewise.config import DataConfig
from sourcewise.data.groups import group_columns
from sourcewise.data.open import is_manifest, is_named
from sourcewise.data.readers.conversations import are_conversations
from sourcewise.data.readers.delimited import DELIMITED, read_header
from sourcewise.data.readers.lines import read_lines
from sourcewise.data.readers.manifest_rows import are_rows, read_rows
from sourcewise.data.readers.manifests import ids_of
from sourcewise.data.readers.several import read_targets
from sourcewise.data.readers.tables import Table, endings, listed, no_column, read_table
from sourcewise.data.request import SourceRequest
from sourcewise.errors import RequestError
from sourcewise.evaluation.results import TRANSLATIONS_FILE, Row, read_translations
from sourcewise.metrics.counting import References
from sourcewise.metrics.texts import plain

TARGETS = ("target", "reference", "text", "translation", "tgt_text")  # columns of references, by preference
OUTPUTS = ("output", "hypothesis", "prediction")


@dataclass(frozen=True, slots=True)
class Columns:
    """How the files are read."""

    target: str | None = None  # column of references
    output: str | None = None  # column of outputs
    groups: Sequence[str] = ()  # columns whose values are scored on their own, besides the usual ones
    join_sources: bool = False  # rows of one source are one example with several references
    features: str | None = None  # folder of a manifest
    source: str | None = None  # column of sources
    task: str | None = None  # of a model's mixture, for outputs that it writes now
    prefix: str | None = None  # before every source, for the same


@dataclass(slots=True)
class ReferenceSet:
    """The references of a set, and what else its file says of the examples."""

    name: str  # as the user named it
    references: References
    ids: list[str] = field(default_factory=list)  # empty: the file has none
    sources: list[str] = field(default_factory=list)  # texts; empty: the file has none
    groups: dict[str, list[str]] = field(default_factory=dict)  # column → value of every example
    remarks: list[str] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)  # of a set with joined sources: the first row of each example

    def __len__(self) -> int:
        return len(self.references)

    def repeated_sources(self) -> int:
        """How many rows have the source of an earlier one, and another reference."""
        first: dict[str, tuple[str, ...]] = {}
        texts = zip(self.sources, map(tuple, self.references), strict=False)
        return sum(first.setdefault(source, reference) != reference for source, reference in texts)


def read_references(path: str, more: Sequence[str] = (), *, columns: Columns = Columns()) -> ReferenceSet:
    """The references in a text file, a table or a run folder, with those of further files of the same examples.

    A table may have several per example: a list in a cell, or columns such as target2. Raises RequestError for files
    that cannot be read, that do not match, or that hold no example.
    """
    found = _references_of(path, columns)
    if not len(found):
        raise RequestError(f"{path}: no references; a set needs at least one")
    several = list(found.references)
    for other in more:
        texts = _references_of(other, Columns(columns.target)).references
        _check_count(other, len(texts), found)
        several = [(*mine, *theirs) for mine, theirs in zip(several, texts, strict=True)]
    found.references = several
    if blank := sum(not any(text.strip() for text in each) for each in several):
        found.remarks.append(f"{path}: empty references: {blank:,}")
    return found


def joined(known: ReferenceSet) -> ReferenceSet:
    """The set with one example per source, which has the references of all its rows. Raises RequestError."""
    if not known.sources:
        raise RequestError(f"{known.name}: no sources to join; give a table with a column source")
    together: dict[str, list[int]] = {}
    for row, source in enumerate(known.sources):
        together.setdefault(source, []).append(row)
    rows = [places[0] for places in together.values()]
    texts = [(text for row in places for text in known.references[row]) for places in together.values()]
    return ReferenceSet(
        known.name,
        [tuple(dict.fromkeys(each)) for each in texts],
        [known.ids[row] for row in rows] if known.ids else [],
        list(together),
        {column: [values[row] for row in rows] for column, values in known.groups.items()},
        list(known.remarks),
        rows,
    )


def read_outputs(path: str, known: ReferenceSet, column: str | None = None) -> tuple[list[str], list[str]]:
    """The outputs in a text file, a table or a run folder, in the order of the references, and remarks on them.

    Rows with ids are put in the order of the references' ids. Raises RequestError if the numbers or ids differ.
    """
    if Path(path).is_dir():
        rows = _rows_of_folder(path)
        return _in_order(path, [row.output for row in rows], [row.id for row in rows], known)
    if is_table(path):
        table = read_table(path)
        name = _column(table, column, OUTPUTS, "--output")
        texts = _texts(table, name)
        return _in_order(path, texts, list(table.text("id")) if "id" in table.columns else [], known)
    texts = _lines(path)
    _check_count(path, len(texts), known, bool(texts) and not texts[-1])
    return texts, []


def other_references(path: str, known: ReferenceSet) -> int | None:
    """How many references in a run folder's translations.tsv are not among these; None if their numbers differ."""
    rows = _rows_of_folder(path)
    if len(rows) != len(known):
        return None
    theirs = [plain(row.reference.lower()) for row in rows]
    ours = [{plain(text.lower()) for text in each} for each in known.references]
    return sum(text not in each for text, each in zip(theirs, ours, strict=True))


def has_outputs(path: str) -> bool:
    """Whether a path is a folder with a translations.tsv, as a run has and `evaluate -o` writes."""
    return Path(path, TRANSLATIONS_FILE).is_file()


def training_targets(path: str, target: str | None = None) -> list[str]:
    """The target texts of a training set: a table, or a text file. Raises RequestError."""
    return [text for each in _references_of(path, Columns(target)).references for text in each]


def read_sources(path: str, known: ReferenceSet) -> list[str]:
    """The sources of the same examples: a text file, or a table with a column `source`. Raises RequestError."""
    if not is_table(path):
        texts = _lines(path)
    else:
        table = read_table(path)
        texts = _texts(table, _column(table, None, ("source",), "--sources"))
    _check_count(path, len(texts), known)
    return texts


def _references_of(path: str, columns: Columns) -> ReferenceSet:
    rows_of_features = are_rows(Path(path))
    if Path(path).is_dir() and not rows_of_features:
        rows = _rows_of_folder(path)
        return ReferenceSet(path, [row.references for row in rows], [row.id for row in rows])
    if is_named(path) or are_conversations(path):
        return _of_dataset(path, columns)
    if not rows_of_features and not is_table(path):
        return ReferenceSet(path, [(line,) for line in _lines(path)])
    usual: tuple[str, ...] = TARGETS
    ids: list[str] = []
    if rows_of_features or (Path(path).suffix.lower() in DELIMITED and is_manifest(read_header(path))):
        manifest = read_rows(Path(path))
        table, usual, ids = manifest.table, (*manifest.layout.targets, *TARGETS), ids_of(manifest)
    else:
        table = read_table(path)
    missing = next((name for name in columns.groups if name not in table.columns), None)
    if missing is not None:
        raise no_column(path, missing, table.names())
    name = _column(table, columns.target, dict.fromkeys(usual), "--target")
    first, others = read_targets(table, name)
    _no_bad_rows(table)
    found = ReferenceSet(path, [(text, *more) for text, more in zip(first, others, strict=True)])
    found.ids = ids or (list(table.text("id")) if "id" in table.columns else [])
    source = columns.source or "source"
    asked = columns.source is not None  # then Table tells if there is none
    found.sources = list(table.text(source)) if asked or (source in table.columns and name != source) else []
    named = dict.fromkeys([*columns.groups, *group_columns(table.names(), (name, "id", source)).values()])
    found.groups = {each: list(table.text(each)) for each in named}
    found.remarks = [f"{path}: {note.where}: {note.what}" for note in table.notes]
    _no_bad_rows(table)
    return found


def _of_dataset(path: str, columns: Columns) -> ReferenceSet:
    """The references of a set that is read as a whole: conversations, one of the hub, an embedded one."""
    found = SourceRequest(DataConfig(), source=columns.source, target=columns.target).examples(path)
    sources = [] if found.dims else [example.source for example in found]
    return ReferenceSet(path, [example.references for example in found], [example.id for example in found], sources)


def _rows_of_folder(path: str) -> list[Row]:
    if not has_outputs(path):
        where = "a trained run has one, and `evaluate -o` writes one"
        raise RequestError(f"{path}: no {TRANSLATIONS_FILE} in this folder; {where}")
    return read_translations(Path(path, TRANSLATIONS_FILE))


def holds_rows(path: str) -> bool:
    """Whether a path has rows with more than a target: a table, a manifest of any kind, conversations, a named set."""
    return are_rows(Path(path)) or is_named(path) or are_conversations(path) or is_table(path)


def is_table(path: str) -> bool:
    """Whether a path is a table by its ending. Raises RequestError for a .json."""
    ending = Path(path).suffix.lower()
    if ending == ".json":
        raise RequestError(f"{path}: a .json is not read here; one object per line makes a .jsonl")
    return ending in endings()


def _lines(path: str) -> list[str]:
    """The lines without spaces at their ends, as sacreBLEU takes them."""
    return [line.rstrip() for line in read_lines(path, nul=True)]


def _texts(table: Table, name: str) -> list[str]:
    texts = list(table.text(name))
    _no_bad_rows(table)
    return texts


def _no_bad_rows(table: Table) -> None:
    bad = table.bad.found
    if bad:
        count = f" ({len(bad):,} of {len(table):,} rows are bad)" if len(bad) > 1 else ""
        raise RequestError(f"{bad[min(bad)]}{count}")


def _column(table: Table, asked: str | None, usual: Iterable[str], option: str) -> str:
    if asked is not None:
        return asked  # Table tells if there is none
    found = next((name for name in usual if name in table.columns), None)
    if found is None:
        has = listed(table.names())
        raise RequestError(f"{table.name}: no column {', '.join(usual)}; it has: {has}; name it with {option}")
    return found


def _check_count(path: str, count: int, known: ReferenceSet, blank_end: bool = False) -> None:
    if count != len(known):
        hint = "; its last line is empty" if blank_end and count == len(known) + 1 else ""
        texts = "1 text" if count == 1 else f"{count:,} texts"
        raise RequestError(f"{path}: {texts}, but {known.name} has {len(known):,} examples{hint}")


def _in_order(path: str, texts: list[str], ids: list[str], known: ReferenceSet) -> tuple[list[str], list[str]]:
    """The texts in the order of the references, by ids where both have them, and remarks. Raises RequestError."""
    if not ids or not known.ids or ids == known.ids:
        _check_count(path, len(texts), known)
        return texts, []
    if not set(ids) & set(known.ids):
        _check_count(path, len(texts), known)
        return texts, [f"{path}: its ids are of another kind than those of {known.name}; matched by order"]
    for name, each in ((known.name, known.ids), (path, ids)):
        twice, count = Counter(each).most_common(1)[0]
        if count > 1:
            what = f"{count:,} rows have the id {twice}, so ids cannot match it"
            raise RequestError(f"{name}: {what}; give each example one id, or the same order")
    given = set(ids)
    missing = [each for each in known.ids if each not in given]
    if missing:
        what = f"{len(missing):,} of {len(known):,} ids of {known.name} have no output, the first is {missing[0]}"
        raise RequestError(f"{path}: {what}")
    place = {each: i for i, each in enumerate(ids)}
    remarks = []
    if extra := len(ids) - len(known):
        remarks.append(f"{path}: {extra:,} outputs of other ids than those of {known.name} are left out")
    order = [place[each] for each in known.ids]
    if order != sorted(order):
        remarks.append(f"{path}: in another order than {known.name}; matched by id")
    return [texts[i] for i in order], remarks
