"""Commands that use a model: on files, and over HTTP."""

from __future__ import annotations

import sys
from argparse import SUPPRESS, Namespace
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
    RAY_UNSEEN,
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
from sourcewise.errors import RequestError

if TYPE_CHECKING:
    from sourcewise.generation.model import Model
    from sourcewise.generation.written import Asked, Counts, Writer


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
        default="auto",
        help="fp32, bf16, int8 (default: fp32; on a GPU bf16)",
    ),
    argument("--json", action="store_true", help="write {id, source, output, …} per line"),
    argument("--shard", type=filled, metavar="I/N", help=SUPPRESS),  # docs/scale.md
    RAY_UNSEEN,
)
def generate(arguments: Namespace) -> int:
    """Write one output per line, in the order of the sources; line ends inside one
    become spaces (--json keeps them). Defaults are those of the recipe or the folder.
    More (--source, --stop, …): docs/generation.md; --shard, --ray: docs/scale.md.
    """
    from sourcewise.runtime.ranks import several

    asked = _asked(arguments)
    if arguments.ray:
        return _write_by_cluster(arguments, asked)
    if arguments.shard or several():
        return _write_share(arguments, asked)
    return _write_all(arguments, asked)


def _asked(arguments: Namespace) -> Asked:
    """What is asked for every source."""
    from sourcewise.generation.written import Asked

    return Asked(
        arguments.task,
        arguments.features,
        arguments.prefix,
        arguments.column,
        arguments.n_best,
        arguments.scores,
        arguments.json,
        asked_generation(arguments),
        sourcewise.__version__,
    )


def _write_all(arguments: Namespace, asked: Asked) -> int:
    """Write all outputs, one after another."""
    from sourcewise.cli.sources import open_lines
    from sourcewise.data.windows import windows
    from sourcewise.generation.written import Counts, Writer
    from sourcewise.reporting.terminal import print_notes, progress_of
    from sourcewise.runtime.files import check_writable, writing

    if arguments.output:
        check_writable(Path(arguments.output))
    counts = Counts()
    with open_lines(arguments.sources) as stream:
        writer = Writer(_model(arguments), asked)
        with writing(Path(arguments.output)) if arguments.output else nullcontext(sys.stdout.write) as write:
            for window in windows(arguments.sources, writer.request, stream):
                sources = window.read()
                print_notes(sources.notes)
                progress = progress_of("generating", len(sources), window.before)
                text, found = writer.lines(sources, window.before, progress)
                write(text)
                counts += found
    _tell_counts(counts, writer)
    return 0


def _write_share(arguments: Namespace, asked: Asked) -> int:
    """Write the share of --shard I/N, or of this process among several of torchrun's."""
    from sourcewise.generation.sharing import planned, write_share
    from sourcewise.generation.written import Writer
    from sourcewise.reporting.terminal import print_notes, progress_of
    from sourcewise.runtime.device import device_beside
    from sourcewise.runtime.ranks import Ranks, joined, several
    from sourcewise.runtime.shares import Share

    if arguments.shard and several():
        raise RequestError(f"--shard {arguments.shard}: the processes of torchrun have a share each; leave it out")
    with joined() if several() else nullcontext(Ranks()) as ranks:
        with ranks.agreed():
            share = Share.parse(arguments.shard) if arguments.shard else Share(ranks.rank, ranks.world)
            beside = ranks.local_world
            writer = Writer(_model(arguments, str(device_beside("auto", beside)) if beside > 1 else "auto"), asked)
            pieces = planned(arguments.sources, writer, arguments.output)
        tell = print_notes if ranks.leads else lambda notes: None
        done = write_share(
            arguments.sources, writer, pieces, share, tell, lambda size, before: progress_of("generating", size, before)
        )
        print(f"sourcewise: share {share.index}/{share.of} of {arguments.output}: {done.told}", file=sys.stderr)
        _tell_counts(done.counts, writer)
    return 0


def _write_by_cluster(arguments: Namespace, asked: Asked) -> int:
    """Write all by the machines of a Ray cluster."""
    from sourcewise.data import windows
    from sourcewise.generation.sharing import Elsewhere, planned, write_by_pool
    from sourcewise.generation.written import Writer
    from sourcewise.reporting.terminal import progress_of
    from sourcewise.runtime.cluster import connected

    if arguments.shard:
        raise RequestError(f"--shard {arguments.shard}: a cluster takes all shares; leave --shard or --ray out")
    with connected(arguments.ray) as machines:
        writer = Writer(_model(arguments), asked)
        pieces = planned(arguments.sources, writer, arguments.output)
        how = (arguments.precision, given(arguments, *READ), asked, pieces, windows.WINDOW)
        elsewhere = Elsewhere(arguments.sources, models(arguments), *how)
        done = write_by_pool(machines, elsewhere, lambda size, before: progress_of("windows", size, before))
    print(f"sourcewise: {arguments.output}: {done.told}", file=sys.stderr)
    _tell_counts(done.counts, writer)
    return 0


def _model(arguments: Namespace, device: str = "auto") -> Model:
    """The model of a command. Raises RequestError."""
    limits = given(arguments, *READ)
    return sourcewise.load(models(arguments), device=device, precision=arguments.precision, **limits)


def _tell_counts(counts: Counts, writer: Writer) -> None:
    """Tell how many outputs were ended, and how many were changed."""
    if counts.full:
        most = f"max_new_tokens {writer.model.options(**writer.asked.options).max_new_tokens:,}"
        print(
            f"sourcewise: {counts.full:,} of {counts.outputs:,} outputs end at {most}, not by themselves",
            file=sys.stderr,
        )
    if counts.broken:
        print(f"{counts.broken:,} outputs have line ends, written as spaces (--json keeps them)", file=sys.stderr)


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
    argument("--precision", metavar="P", default="auto", help="fp32, bf16 or int8, as of generate"),
)
def serve(arguments: Namespace) -> int:
    """Answer HTTP requests; those that arrive together share a batch. Routes and
    limits: /docs, and docs/serving.md. Needs pip install 'sourcewise[serve]'.
    """
    from sourcewise.serving import serve

    serve(arguments)
    return 0
