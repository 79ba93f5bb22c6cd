"""Results of an evaluation, figures and rows, with writing and reading."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sourcewise.data.examples import Note
from sourcewise.data.readers.escapes import COLUMNS, are_ours, columns_of, escape, unescape
from sourcewise.data.readers.quoting import are_csv
from sourcewise.errors import RequestError
from sourcewise.figures import Place, shown, written
from sourcewise.runtime.files import new_folder, write_atomically
from sourcewise.runtime.notebook import table

METRICS_FILE = "metrics.json"
TRANSLATIONS_FILE = "translations.tsv"
_QUOTE = "\\u0022"


@dataclass(slots=True)
class Row:
    """The result of one example. `nats` and `nats_shuffled` are sums over its `tokens` target tokens.

    A row read from a folder has only id, reference and output: `source` is empty, `tokens` is 0, the nats are NaN.
    """

    id: str
    source: str
    reference: str
    output: str
    finished: bool = True  # ended by an end token, before the maximum length
    nats: float = math.nan  # with its own source
    nats_shuffled: float = math.nan  # with another example's source
    tokens: int = 0
    others: tuple[str, ...] = ()  # further references
    group: Mapping[str, str] = field(default_factory=dict)  # kind (signer, …) → which one

    @property
    def references(self) -> tuple[str, ...]:
        """The reference and the others."""
        return (self.reference, *self.others)


@dataclass(slots=True, repr=False)
class Evaluation:
    """The figures of `metrics.json`, and the rows they are computed from."""

    metrics: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)  # on data that is not used as it stands
    settings: str = ""  # generation settings of the model's folder in one line; may be empty

    @property
    def references(self) -> list[str]:
        """Every row's reference, in order; of several the first."""
        return [row.reference for row in self.rows]

    @property
    def outputs(self) -> list[str]:
        """Every row's output, in order."""
        return [row.output for row in self.rows]

    def __repr__(self) -> str:
        """Its size and a few figures, on one line."""
        said = ", ".join(f"{label} {text}" for label, text in self._figures("brief table"))
        return f"<Evaluation of {len(self.rows):,} examples: {said}>"

    def _repr_html_(self) -> str:
        """Its figures, its verdict and a few outputs, for notebooks."""
        figures = table(f"{len(self.rows):,} examples", ("figure", "value"), self._figures("table"))
        some = self.rows[:: max(1, len(self.rows) // 5)][:5]
        outputs = [[row.source, row.reference, row.output] for row in some]
        verdict = str(self.metrics.get("verdict") or "")
        return figures + table("outputs", ("source", "reference", "output"), outputs, verdict)

    def _figures(self, place: Place) -> list[tuple[str, str]]:
        """(label, value) of the figures that are known and shown at a place."""
        known = [(each, self.metrics.get(each.key)) for each in shown(place)]
        return [
            (each.label.partition(",")[0], written(each.format, value)) for each, value in known if value is not None
        ]

    def write(self, folder: Path | str) -> None:
        """Write metrics.json and translations.tsv (id, reference, output), each atomically.

        Where examples have further references, these are columns reference2, reference3, ….
        Tabs, line ends and backslashes inside a text are written \\t, \\n and \\\\; `read_translations` and the readers
        of pairs undo that. A quote that begins a cell is written \\u0022 if the quotes together look like CSV's. Raises
        RequestError if the folder cannot be written; a folder made for the files is then removed.
        """
        folder = Path(folder)
        figures = json.dumps(without_nan(self.metrics), indent=2, ensure_ascii=False)
        try:
            with new_folder(folder):
                write_atomically(folder / METRICS_FILE, figures + "\n")
                self.write_translations(folder)
        except OSError as error:
            raise RequestError(f"{folder}: cannot be written ({error.strerror})") from None

    def write_translations(self, folder: Path) -> None:
        """Write translations.tsv alone, as `write` does."""
        columns = columns_of(max((len(row.others) for row in self.rows), default=0))
        texts = [(row.id, row.reference, row.output, *row.others) for row in self.rows]
        cells = [[escape(text) for text in each] + [""] * (len(columns) - len(each)) for each in texts]
        text = _table(columns, cells)
        if '"' in text and not _quotes_stay(text, len(columns)):  # a reader would remove them
            quoted = [[_QUOTE + cell[1:] if cell.startswith('"') else cell for cell in row] for row in cells]
            text = _table(columns, quoted)
        write_atomically(folder / TRANSLATIONS_FILE, text)

    @classmethod
    def from_folder(cls, folder: Path | str) -> Evaluation:
        """Read what `write` wrote. Raises RequestError that names the file and line."""
        folder = Path(folder)
        path = folder / METRICS_FILE
        try:
            metrics = json.loads(_read(path))
        except json.JSONDecodeError as error:
            raise RequestError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
        if not isinstance(metrics, dict):
            raise RequestError(f"{path}: an evaluation is a JSON object of figures")
        return cls(metrics, read_translations(folder / TRANSLATIONS_FILE))


def read_translations(path: Path) -> list[Row]:
    """The rows of a translations.tsv. Raises RequestError that names the file and line."""
    header, *lines = _read(path).removesuffix("\n").split("\n")
    columns = tuple(header.split("\t"))
    if not are_ours(columns):
        raise RequestError(f"{path}:1: the columns are {', '.join(COLUMNS)}, not {header[:80]!r}")
    rows = []
    for number, line in enumerate(lines, start=2):
        cells = line.split("\t")
        if len(cells) != len(columns):
            raise RequestError(f"{path}:{number}: {len(cells)} fields where there are {len(columns)} columns")
        name, reference, output, *others = (unescape(cell) for cell in cells)
        rows.append(Row(name, "", reference, output, others=tuple(text for text in others if text.strip())))
    return rows


def _table(columns: tuple[str, ...], rows: list[list[str]]) -> str:
    return "".join("\t".join(row) + "\n" for row in (list(columns), *rows))


def _quotes_stay(text: str, columns: int) -> bool:
    """Whether a reader of tables keeps the quotes of these rows without a warning."""
    try:
        rows = [text[text.index("\n") + 1 :]]
        return are_csv(lambda: rows, TRANSLATIONS_FILE, "\t", columns, 1) == (False, None)
    except RequestError:
        return False


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")  # not read_text: it would turn a \r inside a cell into a line end
    except FileNotFoundError:
        raise RequestError(f"{path}: no such file; `sourcewise evaluate` writes it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: cannot be read as UTF-8 text ({error})") from None


def without_nan(value: Any) -> Any:
    """The value with None for NaN and infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
