"""Commands that use a model: on files, and over HTTP."""

from __future__ import annotations

import json
import re
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import sourcewise
from sourcewise.cli.options import (
    COLUMN,
    ENSEMBLE,
    FEATURES,
    GENERATION,
    LIMITS,
    MODEL,
    READ,
    SAMPLING_UNSEEN,
    SEARCH,
    TASK,
    UNREAD,
    asked_generation,
    given,
    models,
)
from sourcewise.cli.parser import argument, command, filled, path

_LINE_END = re.compile(r"\r\n|\r|\n")  # what readers of lines treat as a line end

if TYPE_CHECKING:
    from sourcewise.data.examples import Example
    from sourcewise.generation.outputs import Generated, Output


@command(
    "write a model's output for every source",
    "MODEL [FILE|-] [-o FILE] [options]",
    [
        "echo 'en_US: March 3, 1987' | sourcewise generate runs/dates",
        "sourcewise generate runs/mine manifest.tsv --features features/test -o out.txt",
        "sourcewise generate runs/mine sources.txt --n-best 8 --scores --json",
    ],
    MODEL,
    argument(
        "sources", nargs="?", default="-", type=path, metavar="FILE", help="a text per line, a manifest, conversations"
    ),
    argument("-o", "--output", type=path, metavar="FILE", help="write there instead of to standard output"),
    FEATURES,
    TASK,
    COLUMN,
    UNREAD,
    argument("--prefix", metavar="TEXT", help="put before every source (default: as in training)"),
    *LIMITS,
    *SEARCH,
    argument("--n-best", type=int, default=1, metavar="N", help="write the N best outputs of every source"),
    argument("--scores", action="store_true", help="with probabilities, source bits, alignments"),
    argument("--sample", action="store_true", default=None, help="draw; with --temperature, --top-k, --top-p, --seed"),
    *SAMPLING_UNSEEN[1:],
    *GENERATION,
    ENSEMBLE,
    argument(
        "--precision",
        metavar="P",
        default="fp32",
        help="fp32, bf16 or int8: near ties may differ",
    ),
    argument("--json", action="store_true", help="write {id, source, output, …} per line"),
)
def generate(arguments: Namespace) -> int:
    """Write one output per line, in the order of the sources; line ends inside one
    become spaces (--json keeps them). Defaults are those of the recipe or the folder.
    More options (--source, --length-penalty, --stop, …): docs/generation.md.
    """
    from sourcewise.cli.sources import open_lines, windows
    from sourcewise.data.request import SourceRequest
    from sourcewise.reporting.terminal import print_notes, progress_of
    from sourcewise.runtime.files import check_writable, writing

    if arguments.output:
        check_writable(Path(arguments.output))
    settings, wanted = asked_generation(arguments), {"n_best": arguments.n_best, "scores": arguments.scores}
    broken = full = count = 0
    with open_lines(arguments.sources) as stream:
        limits = given(arguments, *READ)
        model = sourcewise.load(models(arguments), precision=arguments.precision, **limits)
        request = SourceRequest(model.data, arguments.task, arguments.features, arguments.prefix, arguments.column)
        with writing(Path(arguments.output)) if arguments.output else nullcontext(sys.stdout.write) as write:
            for before, sources in windows(arguments.sources, request, stream):
                print_notes(sources.notes)
                progress = progress_of("generating", len(sources), before)
                found = model.generate(sources, progress=progress, first=before, **wanted, **settings)
                full += sum(not each.finished for several in found.of for each in several.best_first)
                count += sum(len(several.best_first) for several in found.of)
                write("".join(f"{line}\n" for line in _lines(sources, found, before, arguments)))
                broken += sum("\n" in output or "\r" in output for output in found)
    if full:
        most = f"max_new_tokens {model.options(**settings).max_new_tokens:,}"
        print(f"sourcewise: {full:,} of {count:,} outputs end at {most}, not by themselves", file=sys.stderr)
    if broken and not arguments.json:
        print(f"{broken:,} outputs have line ends, written as spaces (--json keeps them)", file=sys.stderr)
    return 0


def _lines(sources: Iterable[Example], found: Generated, before: int, arguments: Namespace) -> Iterator[str]:
    """The lines of some sources, of which `before` are written: texts, n-best lists, or JSON."""
    several = arguments.n_best > 1 or arguments.scores
    for number, (source, of) in enumerate(zip(sources, found.of, strict=True), before + 1):
        if arguments.json:
            row = {"id": source.id, "source": source.source, "output": of.best.text}
            yield json.dumps(row | (of.to_dict() if several else {}), ensure_ascii=False)
        elif several:
            yield from (_row(number, output, arguments.scores) for output in of.best_first)
        else:
            yield _LINE_END.sub(" ", of.best.text)


def _row(number: int, output: Output, scores: bool) -> str:
    """One of the n-best outputs: number of the source, text and scores between tabs."""
    cells = [f"{output.score:.4f}", *((f"{output.log_probability:.4f}", f"{output.source_bits:.4f}") if scores else ())]
    return "\t".join((str(number), _LINE_END.sub(" ", output.text).replace("\t", " "), *cells))


@command(
    "serve a model over HTTP: generate, stream, trace",
    "MODEL [--host ADDRESS] [--port N] [options]",
    ["sourcewise serve runs/dates", "sourcewise serve runs/mine --host 0.0.0.0 --port 9000 --precision int8"],
    MODEL,
    argument("--host", type=filled, default="127.0.0.1", help="where to listen (default: 127.0.0.1, this machine)"),
    argument("--port", type=int, default=8000, metavar="N", help="default: 8000; 0: any that is free"),
    argument("--token", type=filled, metavar="T", help="ask for it (or set SOURCEWISE_TOKEN, which ps does not show)"),
    *LIMITS,
    *SEARCH,
    *SAMPLING_UNSEEN,
    *GENERATION,
    ENSEMBLE,
    argument("--queue", type=int, default=128, metavar="N", help="requests that may wait (default: 128)"),
    argument("--precision", metavar="P", default="fp32", help="fp32, bf16 or int8, as of generate"),
)
def serve(arguments: Namespace) -> int:
    """Answer HTTP requests; those that arrive together share a batch. Routes and
    limits: /docs, and docs/serving.md. Needs pip install 'sourcewise[serve]'.
    """
    from sourcewise.serving import serve

    serve(arguments)
    return 0
