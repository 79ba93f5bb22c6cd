"""Splits a table into training, validation and test set, groups whole, every row byte for byte as it was."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from sourcewise.data.groups import group_columns, names_none
from sourcewise.data.near_copies import Joined, clusters
from sourcewise.data.readers.delimited import DELIMITED, Quoting
from sourcewise.data.readers.lines import decode_text, read_bytes, with_newlines
from sourcewise.data.readers.quoting import with_row_ends
from sourcewise.data.readers.tables import Table, endings, no_column, read_table
from sourcewise.errors import RequestError
from sourcewise.runtime.extras import parquet
from sourcewise.runtime.files import check_writable, write_atomically

USES = ("train", "valid", "test")
ROW = "row"  # the word for: each row by itself
_MARKS = {  # byte order mark → encoding of what follows; longer ones first
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


@dataclass(frozen=True, slots=True)
class Size:
    """How many rows a set is to have: a number of them, or a share of all."""

    written: str
    rows: int = 0
    share: Fraction = Fraction(0)

    @classmethod
    def parse(cls, written: str, option: str) -> Size:
        """`10%` or `500`. Raises RequestError."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", written.strip(), re.ASCII)
        number = Fraction(found[1]) if found else Fraction(0)
        if found and found[2] and 0 < number < 100:
            return cls(written, share=number / 100)
        if found and not found[2] and number > 0 and number.denominator == 1 and "." not in found[1]:
            return cls(written, rows=int(number))
        raise RequestError(f"{option} {written}: a share such as 10%, or a number of rows such as 500")

    def of(self, count: int) -> int:
        """Rows of so many; at least one."""
        return max(1, round(self.share * count)) if self.share else self.rows


@dataclass(slots=True)
class Part:
    """One of the files written: rows, and groups where there are any."""

    use: str
    path: Path
    rows: int
    groups: int


@dataclass(slots=True)
class Split:
    """What was written: the parts, of how many rows and groups in all, and remarks."""

    parts: list[Part]
    rows: int
    groups: int
    remarks: list[str] = field(default_factory=list)


def split_file(
    path: str | Path,
    sizes: dict[str, Size],
    *,
    by: Sequence[str] = (),
    match: str | None = None,
    alike: Sequence[str] = (),
    folder: str | Path | None = None,
    seed: int = 0,
    force: bool = False,
    quoting: Quoting = "auto",
) -> Split:
    """Split a .tsv, .csv, .jsonl or .parquet by `sizes` (valid, test); the other rows are the training set.

    Rows with the same value of a column in `by` (a name, or a kind such as speaker; of each value what the regular
    expression `match` finds) stay together, and so do rows whose texts in a column of `alike` are near copies. The
    order of rows is kept. The files are FILE.train.tsv, … beside it, or `folder`/train.tsv, …; one that exists is
    replaced with `force` only. Raises RequestError.
    """
    path = Path(path)
    _check_kind(path)
    table = read_table(path, quoting)
    table.bad.settle(table.wheres(len(table)))
    if not len(table):
        raise RequestError(f"{path}: no rows to split")
    names = [_column(table, name) for name in by if name != ROW or ROW in table.columns]
    _check_asked(table, by, alike, match, names)
    paths = _paths(path, folder, [use for use in USES if use == "train" or use in sizes], force)
    found = Split([], len(table), 0)
    together, unknown = _together(table, names, match, [_column(table, name) for name in alike], found)
    chosen = _chosen(path, together, unknown, sizes, seed, found)
    _write(path, table, [(paths[use], rows) for use, rows in chosen.items()])
    found.groups = len(set(together))
    for use, rows in chosen.items():
        found.parts.append(Part(use, paths[use], len(rows), len({together[row] for row in rows})))
    return found


def _check_kind(path: Path) -> None:
    ending = path.suffix.lower()
    if ending in (*DELIMITED, ".jsonl", ".parquet"):
        return
    if ending in endings():
        raise RequestError(f"{path}: is read by a plug-in and cannot be written; make it a .tsv or .jsonl first")
    hint = "; make each conversation a line of a .jsonl" if ending == ".json" else ""
    raise RequestError(f"{path}: .tsv, .csv, .jsonl and .parquet files can be split{hint}")


def _check_asked(
    table: Table, by: Sequence[str], alike: Sequence[str], match: str | None, names: Sequence[str]
) -> None:
    there = group_columns(list(table.columns))
    if not by and there:
        named = ", ".join(there.values())
        first = next(iter(there.values()))
        raise RequestError(
            f"{table.name}: has groups ({named}); name what stays whole, --by {first}, or split them, --by {ROW}"
        )
    if match is not None:
        if len(names) != 1:
            raise RequestError(f"--match {match}: goes with one column; name it with --by, such as --by id")
        try:
            re.compile(match)
        except re.error as error:
            raise RequestError(f"--match {match}: is no regular expression: {error}") from None


def _column(table: Table, name: str) -> str:
    """The column of this name, or of this kind. Raises RequestError."""
    if name in table.columns or ("." in name and name in table.names()):
        return name
    kinds = group_columns(list(table.columns))
    if name in kinds:
        return kinds[name]
    raise no_column(table.name, name, table.names())


def _paths(path: Path, folder: str | Path | None, uses: Sequence[str], force: bool) -> dict[str, Path]:
    """Use → file. Raises RequestError for one that exists, unless `force`, and for the file that is split."""
    if folder is None:
        paths = {use: path.with_name(f"{path.stem}.{use}{path.suffix}") for use in uses}
    else:
        paths = {use: Path(folder).expanduser() / f"{use}{path.suffix}" for use in uses}
    for place in paths.values():
        if place.exists() and place.resolve() == path.resolve():
            raise RequestError(f"{place}: is the file that is split; write elsewhere with -o DIR")
    there = [str(place) for place in paths.values() if place.exists() and not place.is_dir()]
    if there and not force:
        raise RequestError(f"{', '.join(there)}: there already; --force replaces {'it' if len(there) == 1 else 'them'}")
    for place in paths.values():
        check_writable(place)
    return paths


def _together(
    table: Table, names: Sequence[str], match: str | None, alike: Sequence[str], found: Split
) -> tuple[list[int], set[int]]:
    """(the group of each row, as a number; the groups with a row whose group is not known)."""
    joined = Joined(len(table))
    unknown: list[int] = []
    for name in names:
        first: dict[str, int] = {}
        blank = []
        for row, value in enumerate(_values(table, name, match)):
            if names_none(value):
                blank.append(row)
            else:
                joined.join(row, first.setdefault(value, row))
        if blank:
            lines = ", ".join(str(table.lines[row]) for row in blank[:3]) + ", …" * (len(blank) > 3)
            found.remarks.append(f"{len(blank):,} rows name no {name} (line {lines}): they are in train")
        unknown += blank
    for name in alike:
        for row, other in enumerate(clusters(table.text(name))):
            joined.join(row, other)
    table.bad.settle(table.wheres(len(table)))
    return [joined.root(row) for row in range(len(table))], {joined.root(row) for row in unknown}


def _values(table: Table, name: str, match: str | None) -> list[str]:
    values = [text.strip() for text in table.text(name)]
    if match is None:
        return values
    compiled, found = re.compile(match), []
    for row, value in enumerate(values):
        hit = compiled.search(value)
        part = (hit[1] if compiled.groups else hit[0]) if hit else None
        if not part:
            raise RequestError(f"{table.where(row)}: --match {match} finds nothing in {name} {value!r}")
        found.append(part)
    return found


def _chosen(
    path: Path, together: Sequence[int], unknown: set[int], sizes: dict[str, Size], seed: int, found: Split
) -> dict[str, list[int]]:
    """Use → its rows in order. Groups are drawn at random; each that brings a set nearer to its size is taken."""
    members: dict[int, list[int]] = {}
    for row, group in enumerate(together):
        members.setdefault(group, []).append(row)
    free = [group for group in members if group not in unknown]
    if len(free) + bool(unknown) < len(sizes) + 1:
        problem = f"{len(members):,} groups" if len(members) > 1 else "one group"
        raise RequestError(f"{path}: {problem}, too few for {len(sizes) + 1} sets; groups are not divided")
    wanted = {use: sizes[use].of(len(together)) for use in USES if use in sizes}
    if sum(wanted.values()) >= len(together):
        raise RequestError(f"{path}: {len(together):,} rows; {' and '.join(wanted)} leave none to train on")
    order = [free[i] for i in np.random.default_rng(seed).permutation(len(free))]
    chosen: dict[str, list[int]] = {}
    waiting = list(wanted)
    for use, want in wanted.items():
        waiting.remove(use)
        most = len(order) - len(waiting) - (not unknown)  # the sets to come, and train, need a group each
        taken: list[int] = []
        size = 0
        for group in order:
            if len(taken) < most and abs(size + len(members[group]) - want) < abs(size - want):
                taken.append(group)
                size += len(members[group])
        if not taken:
            taken = [min(order, key=lambda group: len(members[group]))]
        order = [group for group in order if group not in set(taken)]
        chosen[use] = sorted(row for group in taken for row in members[group])
        if abs(len(chosen[use]) - want) > max(1, want / 4):
            what = f"{use} has {len(chosen[use]):,} rows where {want:,} were asked for"
            found.remarks.append(f"{what}: groups are not divided")
    held = {row for rows in chosen.values() for row in rows}
    return {"train": [row for row in range(len(together)) if row not in held], **chosen}


def _write(path: Path, table: Table, parts: Sequence[tuple[Path, list[int]]]) -> None:
    if path.suffix.lower() == ".parquet":
        _write_parquet(path, parts)
        return
    head, rows = _pieces(path, table)
    for place, chosen in parts:
        write_atomically(place, b"".join([head, *(rows[row] for row in chosen)]))


def _pieces(path: Path, table: Table) -> tuple[bytes, list[bytes]]:
    """(what stands before the first row; each row with its line end), as in the file."""
    data = read_bytes(path)
    decode_text(data, str(path))  # its errors name the line
    mark = next((mark for mark in _MARKS if data.startswith(mark)), b"")
    encoding = _MARKS.get(mark, "utf-8")
    text = data[len(mark) :].decode(encoding)
    ends = _line_ends(text, csv=path.suffix.lower() in DELIMITED)
    starts = [0, *ends]
    begins = [starts[line - 1] for line in table.lines]
    pieces = [text[a:b].encode(encoding) for a, b in zip(begins, [*begins[1:], len(text)], strict=True)]
    return mark + text[: begins[0]].encode(encoding), pieces


def _line_ends(text: str, *, csv: bool) -> list[int]:
    """Where the lines of a text end as its reader counts them: behind \\n, and what else it takes for one."""
    flat = with_newlines(text)
    flat = with_row_ends(flat) if csv else flat
    if len(flat) == len(text):
        return [found.end() for found in re.finditer("\n", flat)]
    pair = text.count("\n\r") == text.count("\n") == text.count("\r")
    return [found.end() for found in re.finditer("\n\r" if pair else "\r\r\n", text)]


def _write_parquet(path: Path, parts: Sequence[tuple[Path, list[int]]]) -> None:
    """Columns, types and what is said of them stay; how they are packed may change."""
    import io

    pyarrow = parquet(path)
    table = pyarrow.parquet.read_table(path)
    for place, chosen in parts:
        packed = io.BytesIO()
        pyarrow.parquet.write_table(table.take(chosen), packed)
        write_atomically(place, packed.getvalue())
