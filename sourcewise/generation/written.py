"""Outputs as lines of a file: what is asked for all sources, and the lines of a window of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sourcewise.data.examples import Dataset, Example
from sourcewise.data.request import SourceRequest
from sourcewise.generation.generate import Progress
from sourcewise.generation.model import Model
from sourcewise.generation.outputs import Generated, Output
from sourcewise.model.weights.adapters import digest

_LINE_END = re.compile(r"\r\n|\r|\n")  # what readers of lines treat as a line end


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for every source: how it is read, searched and written; values alone, for other processes."""

    task: str | None = None
    features: str | None = None
    prefix: str | None = None
    column: str | None = None  # of the sources
    n_best: int = 1
    scores: bool = False
    json: bool = False
    options: dict[str, Any] = field(default_factory=dict)  # of GenerationConfig
    version: str = ""  # of sourcewise, since another one may search otherwise

    @property
    def ending(self) -> str:
        """That of a file of such lines."""
        if self.json:
            return ".jsonl"
        return ".tsv" if self.n_best > 1 or self.scores else ".txt"


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of outputs, of those that ended at max_new_tokens, and of those whose line ends became spaces."""

    outputs: int = 0
    full: int = 0
    broken: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.outputs + other.outputs, self.full + other.full, self.broken + other.broken)


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes lines for sources as it is asked for, by a model."""

    model: Model
    asked: Asked

    @property
    def request(self) -> SourceRequest:
        """How sources are read."""
        asked = self.asked
        return SourceRequest(self.model.data, asked.task, asked.features, asked.prefix, asked.column)

    def lines(self, sources: Dataset, before: int, progress: Progress | None = None) -> tuple[str, Counts]:
        """The lines of some sources, of which `before` come earlier, and counts of them."""
        asked = self.asked
        found = self.model.generate(
            sources, progress=progress, first=before, n_best=asked.n_best, scores=asked.scores, **asked.options
        )
        full = sum(not each.finished for several in found.of for each in several.best_first)
        count = sum(len(several.best_first) for several in found.of)
        broken = 0 if asked.json else sum("\n" in output or "\r" in output for output in found)
        text = "".join(f"{line}\n" for line in _lines(sources, found, before, asked))
        return text, Counts(count, full, broken)

    def identity(self) -> str:
        """A digest of the model and of all that is asked: two writers with the same one write the same lines."""
        model = self.model
        parameters = {f"{i} {info.name}": info.parameter for i, info in enumerate(model.network.parts())}
        search, data = model.options(**self.asked.options).model_dump(), model.data.model_dump()
        precision = "int8" if model.engine is not None else ""
        asked = asdict(replace(self.asked, options={}))
        told = [digest(parameters), model.tokenizer.digest(), precision, search, data, asked]
        return hashlib.sha256(json.dumps(told, default=str, sort_keys=True).encode()).hexdigest()


def _lines(sources: Iterable[Example], found: Generated, before: int, asked: Asked) -> Iterator[str]:
    """The lines of some sources, of which `before` are written: texts, n-best lists, or JSON."""
    several = asked.n_best > 1 or asked.scores
    for number, (source, of) in enumerate(zip(sources, found.of, strict=True), before + 1):
        if asked.json:
            row = {"id": source.id, "source": source.source, "output": of.best.text}
            yield json.dumps(row | (of.to_dict() if several else {}), ensure_ascii=False)
        elif several:
            yield from (_row(number, output, asked.scores) for output in of.best_first)
        else:
            yield _LINE_END.sub(" ", of.best.text)


def _row(number: int, output: Output, scores: bool) -> str:
    """One of the n-best outputs: number of the source, text and scores between tabs."""
    cells = [f"{output.score:.4f}", *((f"{output.log_probability:.4f}", f"{output.source_bits:.4f}") if scores else ())]
    return "\t".join((str(number), _LINE_END.sub(" ", output.text).replace("\t", " "), *cells))
