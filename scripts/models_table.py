"""Write the table of model types into docs/models.md, from what transformers lists and what sourcewise says of it.

python scripts/models_table.py            # with the figures of tests/model/families/learned.json
python scripts/models_table.py --learn    # each type learns the small task of the tests anew, for those figures
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers

from sourcewise.model.families.differences import TOKENS, of_type, why_refused
from sourcewise.model.families.registry import of_model_type

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.model.families.learning import learned, record, recorded
from tests.model.families.zoo import KINDS

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
HEAD = (
    "| model type | class of transformers | reads | in sourcewise | exact | source bits |\n|---|---|---|---|---|---|\n"
)


def table() -> str:
    """The table: types that are run first, then those that are refused, each in the order of the alphabet."""
    run, refused = set[tuple[str, str]](), set[tuple[str, str]]()
    for config, kind in _listed():
        why = why_refused(config())
        name = f"`{config.model_type}`"
        if why:
            refused.add((name, f"| {name} | {kind.__name__} | | refused: {why.partition(': ')[2]} | | |\n"))
        else:
            sounds = config.model_type + (" (speech)" if kind.__name__.endswith("ForSpeechToText") else "")
            learned = _learned(sounds if sounds in recorded() else config.model_type)
            run.add((name, f"| {name} | {kind.__name__} | {_reads(kind)} | {_how(config)} | {learned} |\n"))
    return HEAD + "".join(row for _, row in (*sorted(run), *sorted(refused)))


def _listed() -> Iterator[tuple[Any, Any]]:
    """Configuration and class of all that transformers lists as text- or speech-to-text."""
    texts, sounds = transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING, transformers.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING
    for classes in (texts, sounds):
        for config, kinds in classes.items():
            yield from ((config, kind) for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))


def _reads(kind: Any) -> str:
    """What a class reads, in words."""
    named = {TOKENS: "text", "input_features": "spectrograms", "input_values": "samples"}
    return named.get(kind.main_input_name, "what its encoder reads")


def _how(config: Any) -> str:
    """How a type is computed, in words."""
    if of_model_type(config.model_type) is not None:
        return "our own network"
    untrained = of_type(config).untrained
    return f"its own class{f'; not trained: {untrained}' if untrained else ''}"


def _learned(name: str) -> str:
    """What a tiny model of a type has learned in 150 steps, and its source bits, in two cells."""
    figures = recorded()[name]
    return f"{figures.exact} % | {figures.source_bits:.1f}"


def write() -> None:
    """Replace the table of the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, after = text.partition(HEAD)
    lines = after.splitlines(keepends=True)
    end = next((i for i, line in enumerate(lines) if not line.startswith("|")), len(lines))
    PAGE.write_text(before + table() + "".join(lines[end:]), encoding="utf-8")


def learn() -> None:
    """Train and measure a tiny model of each type that is run."""
    found = {}
    for name in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = learned(name, Path(folder)).figures
    record(found)


if __name__ == "__main__":
    if "--learn" in sys.argv:
        learn()
    write()
