"""Traces of a few examples of an evaluation: each output by token, with source bits and attention.

They are stored in traces.json beside translations.tsv, so that the report needs only the run folder. Their cost is
bounded: at most one example in `EVERY`, the first `TOKENS` tokens of a text, averages of many attention weights.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from sourcewise.data.encoding import ExampleSet
from sourcewise.errors import RequestError
from sourcewise.generation.generate import reader, search
from sourcewise.generation.model import Model
from sourcewise.generation.others import find_others
from sourcewise.generation.sampling import Hypothesis
from sourcewise.generation.tracing import token_bits, trace_output
from sourcewise.runtime.files import write_atomically

TRACES_FILE = "traces.json"
VERSION = 1
MOST, LEAST, EVERY = 8, 2, 20  # number of examples, and at most one in EVERY, since each costs a dozen passes
TOKENS = 64  # most tokens of an output, and of a reference
WEIGHTS = 30_000  # most attention weights of a trace; more are averaged over heads, then over layers
CHARACTERS = 1_000_000  # most of the file


@dataclass(frozen=True, slots=True)
class Shown:
    """One example: id, tokens of the reference with source bits (None: unknown), and the output's trace.

    `cut` is true if either text is truncated; docs/trace.md describes `trace`.
    """

    id: str
    reference: list[tuple[str, float | None]]
    trace: dict[str, Any]
    cut: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The example as in traces.json."""
        return {"id": self.id, "reference": self.reference, "cut": self.cut, "trace": self.trace}


def write_shown(model: Model, encoded: ExampleSet, folder: Path) -> None:
    """Write traces.json: some examples of an evaluated set, evenly spread over it, as its options generate them.

    The outputs are those of translations.tsv, also with sampling, since samples belong to indices of the set.
    """
    texts, size = [], 0
    for shown in _shown(model, encoded):
        text = json.dumps(shown.to_dict(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size += len(text)
        if size > CHARACTERS:
            break
        texts.append(text)
    write_atomically(folder / TRACES_FILE, f'{{"version":{VERSION},"examples":[{",".join(texts)}]}}\n')


def read_shown(folder: Path) -> list[Shown]:
    """Read traces.json; empty if it is missing. Raises RequestError for a broken file."""
    path = folder / TRACES_FILE
    if not path.is_file():
        return []
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree["version"] != VERSION:
            return []  # of another version: the report works without it
        return [Shown(**each) for each in tree["examples"]]
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"{path}: not what a training writes ({error}); delete it, the report can do without"
        ) from None


@torch.inference_mode()
def _shown(model: Model, encoded: ExampleSet) -> list[Shown]:
    rows = chosen(len(encoded))
    memory = model.network.encode(encoded.source(rows))
    found = search(model.network, [(rows, memory)], model.generation, reader(encoded))
    return [_one(model, *_part(encoded, row), found[row][0]) for row in rows]


def chosen(examples: int) -> list[int]:
    """Indices of the examples that are shown: the first, and others spread evenly."""
    count = min(examples, MOST, max(LEAST, examples // EVERY))
    return [i * examples // count for i in range(count)]


def _part(encoded: ExampleSet, row: int) -> tuple[ExampleSet, int]:
    """The set of a mixture that holds a row, and the row's index in it."""
    ends = accumulate(len(part) for part in encoded.parts)
    part, end = next((part, end) for part, end in zip(encoded.parts, ends, strict=True) if row < end)
    return part, row - (end - len(part))


def _one(model: Model, encoded: ExampleSet, index: int, found: Hypothesis) -> Shown:
    short = Hypothesis(found.ids[:TOKENS], found.score, found.end if len(found.ids) < TOKENS else None)
    others = find_others(model, encoded, index, against=encoded)
    traced = trace_output(model, encoded, index, short, others, model.generation)
    ids = [int(i) for i in encoded.targets[index][:TOKENS]]
    bits = token_bits(model.network, encoded, index, ids, others)
    known = [round(b, 3) if math.isfinite(b) else None for b in bits]
    return Shown(
        id=traced.id,
        reference=list(zip(model.tokenizer.pieces(ids), known, strict=True)),
        trace=traced.to_dict(WEIGHTS),
        cut=len(found.ids) >= TOKENS or len(encoded.targets[index]) > TOKENS,
    )
