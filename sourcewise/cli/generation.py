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
from sourcewise.cli.options import FEATURES, LIMITS, MODEL, READ, SAMPLING, SEARCH, TASK, given
from sourcewise.cli.parser import argument, command, filled, path

_LINE_END = re.compile(r"\r\n|\r|\n")  # what readers of lines treat as a line end

if TYPE_CHECKING:
    from sourcewise.data.examples import Example


@command(
    "write a model's output for every source",
    "MODEL [FILE|-] [-o FILE] [options]",
    [
        "echo 'en_US: March 3, 1987' | sourcewise generate runs/dates",
        "sourcewise generate runs/mine manifest.tsv --features features/test -o out.txt",
    ],
    MODEL,
    argument(
        "sources", nargs="?", default="-", type=path, metavar="FILE", help="a text per line, a manifest, conversations"
    ),
    argument("-o", "--output", type=path, metavar="FILE", help="write there instead of to standard output"),
    FEATURES,
    TASK,
    argument("--prefix", metavar="TEXT", help="put before every source (default: as in training)"),
    *LIMITS,
    *SEARCH,
    *SAMPLING,
    argument(
        "--precision",
        metavar="P",
        default="fp32",
        help="fp32, bf16 or int8: near ties may differ",
    ),
    argument("--json", action="store_true", help="write {id, source, output} per line"),
)
def generate(arguments: Namespace) -> int:
    """Write one output per line, in the order of the sources; line ends inside one
    become spaces (--json keeps them). Defaults are those of the recipe or the folder.
    """
    from sourcewise.cli.sources import open_lines, windows
    from sourcewise.data.request import SourceRequest
    from sourcewise.reporting.terminal import print_notes, progress_of
    from sourcewise.runtime.files import check_writable, writing

    if arguments.output:
        check_writable(Path(arguments.output))
    settings = given(arguments, "beams", "max_new_tokens", "sample", "temperature", "top_k", "top_p", "seed")
    broken = full = count = 0
    with open_lines(arguments.sources) as stream:
        limits = given(arguments, *READ)
        model = sourcewise.load(arguments.model, precision=arguments.precision, **limits)
        request = SourceRequest(model.data, arguments.task, arguments.features, arguments.prefix)
        with writing(Path(arguments.output)) if arguments.output else nullcontext(sys.stdout.write) as write:
            for before, sources in windows(arguments.sources, request, stream):
                print_notes(sources.notes)
                progress = progress_of("generating", len(sources), before)
                outputs, cut = model.search(sources, progress=progress, first=before, **settings)
                full, count = full + cut, count + len(outputs)
                write("".join(f"{line}\n" for line in _lines(sources, outputs, arguments.json)))
                broken += sum("\n" in output or "\r" in output for output in outputs)
    if full:
        most = f"max_new_tokens {model.options(**settings).max_new_tokens:,}"
        print(f"sourcewise: {full:,} of {count:,} outputs end at {most}, not by themselves", file=sys.stderr)
    if broken and not arguments.json:
        print(f"{broken:,} outputs have line ends, written as spaces (--json keeps them)", file=sys.stderr)
    return 0


def _lines(sources: Iterable[Example], outputs: list[str], as_json: bool) -> Iterator[str]:
    """One line per output."""
    for source, output in zip(sources, outputs, strict=True):
        row = {"id": source.id, "source": source.source, "output": output}
        yield json.dumps(row, ensure_ascii=False) if as_json else _LINE_END.sub(" ", output)


@command(
    "serve a model over HTTP: generate, stream, trace",
    "MODEL [--host ADDRESS] [--port N] [options]",
    ["sourcewise serve runs/dates", "sourcewise serve runs/mine --host 0.0.0.0 --port 9000 --precision int8"],
    MODEL,
    argument("--host", type=filled, default="127.0.0.1", help="where to listen (default: 127.0.0.1, this machine)"),
    argument("--port", type=int, default=8000, metavar="N", help="default: 8000; 0: any that is free"),
    argument("--token", type=filled, metavar="T", help="ask for it (or set SOURCEWISE_TOKEN, which ps does not show)"),
    *LIMITS,
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
