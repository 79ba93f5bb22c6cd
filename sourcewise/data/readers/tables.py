"""Rows with named columns, from .tsv, .csv, .jsonl and .parquet."""

from __future__ import annotations

import difflib
import functools
import json
import re
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from sourcewise.config.data import OF_COLUMN
from sourcewise.data.examples import Group, Note
from sourcewise.data.groups import read_groups
from sourcewise.data.readers.bad_rows import BadRows
from sourcewise.data.readers.cells import ABSENT, Written, as_texts
from sourcewise.data.readers.delimited import DELIMITED, Delimited, Quoting
from sourcewise.data.readers.escapes import are_ours, unescaped
from sourcewise.data.readers.lines import split_lines
from sourcewise.data.readers.pieces import Pieces
from sourcewise.data.readers.shards import TAR, Samples, is_shard, left_out, lines_of, pair_columns, samples_of
from sourcewise.data.sequences import BLOCK, Lazy, Same, blocks
from sourcewise.data.stored.columns import Column, Gathered, InMemory, OnDisk
from sourcewise.errors import RequestError
from sourcewise.runtime.extras import parquet
from sourcewise.runtime.plugins import plugins

MANY = 30  # columns that an error lists
ENDINGS = (*DELIMITED, ".jsonl", ".parquet", TAR)
OTHERS = (".json", ".npy", ".txt")  # endings that are read elsewhere
GROUP = "sourcewise.readers"  # group of entry points of plug-in readers

_TWO_FILES = "; two files of lines make one: paste SOURCES TARGETS > x.tsv, below a line that names the columns"
_HINTS = {
    ".json": "; a list of records is made such by pandas: to_json('x.jsonl', orient='records', lines=True)",
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers"), "; export the sheet as a .csv, in UTF-8"),
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip", ".7z"), "; it is compressed: unpack it first"),
    **dict.fromkeys(
        (".srt", ".vtt", ".eaf", ".tmx", ".xml", ".xlf", ".xliff", ".html"),
        "; write its texts as a table: a row for each pair",
    ),
}

Rows = Iterable[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Reader:
    """A plug-in's reader of files with an ending; `read(path)` yields rows that map names of columns to cells.

    It raises ValueError or OSError, with the place, for a file that it cannot read.
    """

    ending: str  # ".xliff"
    read: Callable[[Path], Rows]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\.[a-z0-9]+", self.ending):
            raise ValueError(f"the ending {self.ending!r} is none: a dot, then small letters or digits")


@dataclass(slots=True)
class Table:
    """Columns of equal length; `lines[i]` is the line of row i in the file, counted from 1.

    `bad` are the unusable rows found so far; `notes` are remarks on data that is not used as it stands. `gathered`
    makes further columns: lists, or files where the columns are files.
    """

    name: str  # the file or set, for messages
    columns: dict[str, Any]  # sequences of cells
    lines: Sequence[int]
    notes: list[Note] = field(default_factory=list)
    gathered: Gathered = field(default_factory=lambda: InMemory(ABSENT))
    bad: BadRows = field(init=False)

    def __post_init__(self) -> None:
        self.bad = BadRows(self.name)

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, row: int) -> str:
        """`file:line` of a row."""
        return f"{self.name}:{self.lines[row]}"

    def wheres(self, count: int) -> Sequence[str]:
        """`file:line` of the first `count` rows."""
        return Lazy(self.where, count)

    def note(self, line: int, what: str) -> None:
        """Add a note on data that is not used as it stands, once."""
        remark = Note(self.name, f"line {line}", what)
        if remark not in self.notes:
            self.notes.append(remark)

    def names(self) -> list[str]:
        """Names of the columns; a column of mappings is listed by its keys, such as `translation.en`."""
        found = []
        for name, values in self.columns.items():
            first = next((v for v in values if v is not None and v is not ABSENT), None)
            found += [f"{name}.{key}" for key in first] if isinstance(first, dict) else [name]
        return found

    def text(self, name: str, limit: int | None = None) -> Sequence[str]:
        """The first `limit` texts of a column; null and NaN are empty. `a.b` selects a key in a column of mappings.

        Rows with other cells than texts and numbers are bad. Raises RequestError if there is no such column.
        """
        cells = as_texts(first(self._values(name), limit), name, self.gathered)
        for row, what in cells.wrong.items():
            self.bad.add(row, RequestError(f"{self.where(row)}: {what}", what.partition(";")[0]))
        for row, what in cells.remarks:
            self.note(self.lines[row], what)
        return cells.texts

    def groups(self, count: int, used: Iterable[str]) -> Sequence[Group]:
        """The groups of the first `count` rows; the columns in `used` hold something else. Doubtful cells are noted."""
        found, remarks = read_groups(self.columns, count, set(used))
        for row, what in remarks:
            self.note(self.lines[row], what)
        return found

    def languages(self, named: tuple[str, str], count: int) -> Sequence[tuple[str, str]]:
        """The languages of sources and targets of the first `count` rows; `column:NAME` names a column."""
        if not any(name.startswith(OF_COLUMN) for name in named):
            return Same(named, count)
        sides: list[Sequence[str]] = []
        for name in named:
            of_column, column = name.startswith(OF_COLUMN), name.removeprefix(OF_COLUMN)
            sides.append(self.text(column, count) if of_column else Same(name, count))
            if of_column:
                self.bad.add_blank(sides[-1], self.wheres(count), f"{column} is empty", "it names the language")
        return list(zip(*sides, strict=True))

    def _values(self, name: str) -> Sequence[Any]:
        values = self.columns.get(name)
        if values is None and "." in name and name.split(".")[0] in self.columns:
            head, *keys = name.split(".")
            under = ([_descend(value, keys) for value in block] for _, block in blocks(self.columns[head]))
            values = self.gathered.column(under)
            if all(v is ABSENT for v in values):
                values = None
        if values is None and not self.columns and not self.lines:
            return []  # an empty .jsonl names no columns
        if values is None:
            raise no_column(self.name, name, self.names())
        return values


def first(values: Sequence[Any], count: int | None) -> Sequence[Any]:
    """The first values of a column, or all."""
    if count is None or count >= len(values):
        return values
    return values.head(count) if isinstance(values, Column) else values[:count]


def no_column(file: str, name: str, known: Sequence[str]) -> RequestError:
    """The error for a missing column."""
    alone = len(known) == 1 and any(mark in known[0] for mark in ",;|")
    hint = "; tabs stand between the columns of a .tsv: should its name end in .csv?" * alone
    if not hint and any(" " in each.strip() or each.isdecimal() for each in known):
        hint = "; are these names? The first line should name the columns"
    if not hint and (meant := difflib.get_close_matches(name, known, n=1)):
        hint = f"; is {meant[0]!r} meant?"
    return RequestError(f"{file}: no column {name!r}; it has: {listed(known)}{hint}")


def _descend(value: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        if not isinstance(value, dict):
            return value if value is None else ABSENT
        value = value.get(key, ABSENT)
    return value


def listed(columns: Iterable[str]) -> str:
    """Names of columns in one line; if there are very many, the first ones and the number."""
    known = list(columns)
    shown = [repr(each) if each != each.strip() or not each or "," in each else each for each in known[:MANY]]
    return ", ".join(shown) + (f", … ({len(known):,} columns)" if len(known) > MANY else "") if known else "none"


def read_table(path: str | Path, quoting: Quoting = "auto", into: Path | None = None) -> Table:
    """Read a .tsv, .csv, .jsonl, .parquet or .tar file, or a plug-in's kind, by its ending. Raises RequestError.

    The columns are lists, or files in the folder `into`, so that a table of any size can be read.
    """
    ending = Path(path).suffix.lower()
    gathered: Gathered = InMemory(ABSENT) if into is None else OnDisk(into, ABSENT, Written)
    if ending in DELIMITED:
        return read_tsv(path, quoting, gathered)
    if ending == ".jsonl":
        return _read_jsonl(path, gathered)
    if ending == ".parquet":
        return _read_parquet(path, gathered)
    if is_shard(Path(path)):
        return of_shards(str(path), samples_of(Path(path)), gathered)
    if ending in readers():
        return _read_by(readers()[ending], Path(path), gathered)
    hint = _HINTS.get(ending, _TWO_FILES)
    raise RequestError(f"{path}: pairs are read from {', '.join(endings())} or hub:NAME, by the file's ending{hint}")


def of_shards(name: str, samples: Samples, gathered: Gathered | None = None) -> Table:
    """The texts of samples of shards. Raises RequestError."""
    gathered = gathered or InMemory(ABSENT)
    for start in range(0, max(1, len(samples)), BLOCK):
        some = dict(islice(samples.items(), start, start + BLOCK))
        gathered.add(pair_columns(some), len(some))
    table = Table(name, gathered.columns(), lines_of(samples), gathered=gathered)
    if other := left_out(samples):
        table.note(1, other)
    return table


@functools.cache
def readers() -> dict[str, Reader]:
    """Ending → reader of a plug-in."""
    return {reader.ending: reader for reader in plugins(GROUP, _taken)}


def endings() -> tuple[str, ...]:
    """Endings of files that hold a table, those of plug-ins last."""
    return (*ENDINGS, *readers())


def _taken(found: object) -> Reader:
    """A plug-in's reader. Raises TypeError or ValueError if it is no reader, or if its ending is taken."""
    if not isinstance(found, Reader):
        raise TypeError(f"it is no sourcewise.data.readers.tables.Reader but {found!r}")
    if found.ending in (*ENDINGS, *OTHERS):
        raise ValueError(f"{found.ending} is read already")
    return found


def _read_by(reader: Reader, path: Path, gathered: Gathered) -> Table:
    """Read a file by a plug-in's reader; rows count from 1. Raises RequestError."""
    if not path.is_file():
        raise RequestError(f"{path}: no such file")
    try:
        rows = [dict(row) for row in reader.read(path)]
    except (ValueError, TypeError, OSError) as error:
        said = str(error).splitlines() or [type(error).__name__]
        raise RequestError(f"{path}: not read ({said[0]})") from None
    _gather(rows, gathered)
    return Table(str(path), gathered.columns(), range(1, len(rows) + 1), gathered=gathered)


def _gather(rows: Sequence[Mapping[str, Any]], gathered: Gathered) -> None:
    names = dict.fromkeys(name for row in rows for name in row)
    gathered.add({name: [row.get(name, ABSENT) for row in rows] for name in names}, len(rows))


def read_tsv(path: str | Path, quoting: Quoting = "auto", gathered: Gathered | None = None) -> Table:
    """Read a .tsv or .csv by `Delimited`; rows with too few or too many cells are bad.

    The escapes of translations.tsv, which `evaluate` writes, are undone. Raises RequestError.
    """
    found, gathered, numbers = Delimited(path, quoting), gathered or InMemory(ABSENT), array("q")
    gathered.add({name: [] for name in found.header}, 0)
    for rows, lines in found.windows():
        gathered.add(dict(zip(found.header, zip(*rows, strict=True), strict=True)) if rows else {}, len(rows))
        numbers.extend(lines)
    table = Table(str(path), gathered.columns(), numbers, gathered=gathered)
    for row, what in found.ragged.items():
        table.bad.add(row, RequestError(f"{table.where(row)}: {what}", "not as many fields as the header"))
    for line, what in found.remarks:
        table.note(line, what)
    if are_ours(found.header):
        _undo_escapes(table)
    return table


def _undo_escapes(table: Table) -> None:
    texts = unescaped(table.columns)
    changed = [i for name in texts for i, text in enumerate(texts[name]) if text != table.columns[name][i]]
    if changed:
        table.columns.update(texts)
        what = f"escapes as in translations.tsv (\\t, \\n, …) undone in {len(changed):,} cells"
        table.note(table.lines[min(changed)], what)


def _read_jsonl(path: str | Path, gathered: Gathered) -> Table:
    numbers, before = array("q"), 0
    for text in Pieces(path):
        lines = split_lines(text, str(path), before)
        filled = [(number, line) for number, line in enumerate(lines, before + 1) if line.strip()]
        for start in range(0, len(filled), BLOCK):
            some = filled[start : start + BLOCK]
            _gather([_parsed(line, f"{path}:{number}") for number, line in some], gathered)
            numbers.extend(number for number, _ in some)
        before += len(lines)
    return Table(str(path), gathered.columns(), numbers, gathered=gathered)


def _parsed(line: str, where: str) -> dict[str, Any]:
    try:
        row = _JSON.decode(line)
    except ValueError as error:
        raise RequestError(f"{where}: not JSON: {error}; each line is one object") from None
    if not isinstance(row, dict):
        raise RequestError(f'{where}: a JSON {type(row).__name__}; each line is one {{"column": "text"}}')
    if "\\ud" in line.lower():  # half of a surrogate pair cannot be encoded
        try:
            json.dumps(row, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise RequestError(f"{where}: half of a surrogate pair (\\ud…); write both halves") from None
    return row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice in one object")
    return found


_JSON = json.JSONDecoder(parse_float=Written, object_pairs_hook=_object)  # made once, since there are many lines


def _read_parquet(path: str | Path, gathered: Gathered) -> Table:
    count = 0
    if Path(path).is_dir():
        raise RequestError(f"{path}: a folder of parts, not a file; name a part, or write them as one file")
    if not Path(path).is_file():
        raise RequestError(f"{path}: no such file")
    pyarrow = parquet(path)
    try:
        names = pyarrow.parquet.read_schema(path).names
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise RequestError(f"{path}: two columns are called {twice!r}; name each once")
        gathered.add({name: [] for name in names}, 0)
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(BLOCK):
                gathered.add({name: values_of(batch.column(name)) for name in batch.schema.names}, batch.num_rows)
                count += batch.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise RequestError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
    return Table(str(path), gathered.columns(), range(1, count + 1), gathered=gathered)


def values_of(column: Any) -> list[Any]:
    """The Python values of an Arrow column: 0.1 of short floats, not 0.100000001, and the texts of bytes."""
    import pyarrow

    from sourcewise.data.formats.arrow import is_bytes, texts_of

    values = column.to_pylist()
    if is_bytes(column.type):
        return texts_of(values)
    if pyarrow.types.is_float32(column.type) or pyarrow.types.is_float16(column.type):
        short = column.type.to_pandas_dtype()
        return [value if value is None else Written(str(short(value))) for value in values]
    return list(values)
