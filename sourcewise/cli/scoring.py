"""The command `score`."""

from __future__ import annotations

from argparse import SUPPRESS, Namespace
from pathlib import Path

from sourcewise.cli.options import COUNTING, FEATURES, JSON, counting
from sourcewise.cli.parser import argument, command, filled, path


@command(
    "score outputs that exist: files, runs, models; each against each",
    "REFERENCES OUTPUTS… [options]",
    [
        "sourcewise score test.de a.de b.de --paired bootstrap",
        "sourcewise score test.tsv runs/a runs/b --train train.tsv --html scores.html",
    ],
    argument("references", type=path, metavar="REFERENCES", help="a text per line; a table, or a run folder"),
    argument("outputs", type=path, nargs="*", metavar="OUTPUTS", help="a text per line, a table, a run, a model"),
    argument(
        "-r", dest="more", action="append", default=[], type=path, metavar="FILE", help="more references; repeatable"
    ),
    argument("--metrics", type=filled, default="all", metavar="NAMES", help="such as bleu,chrf++,ter (default: all)"),
    argument(
        "--paired",
        choices=("bootstrap", "randomisation"),
        metavar="TEST",
        help="bootstrap or randomisation, between every two systems",
    ),
    argument("--samples", type=int, default=0, metavar="N", help="resamples (1000) or trials (10000) of the test"),
    argument("--train", type=path, metavar="FILE", help="training set: baselines, scores by its texts and words"),
    argument("--train-features", type=path, metavar="DIR", help="its features, where it is a manifest"),
    argument("--sources", type=path, metavar="FILE", help="sources, for comet"),
    argument("--comet-model", type=filled, help=SUPPRESS),  # docs/score.md
    argument("--source", type=filled, metavar="COLUMN", help=SUPPRESS),  # docs/score.md, as of --task
    argument("--target", type=filled, metavar="COLUMN", help="column of references (default: target, reference, …)"),
    argument("--output", type=filled, metavar="COLUMN", help="column of outputs (default: output, hypothesis, …)"),
    argument("--group", action="append", default=[], type=filled, metavar="COLUMN", help="score each of its values"),
    argument("--join-sources", action="store_true", help="rows of one source are references of one example"),
    FEATURES,
    argument("--task", type=filled, metavar="NAME", help=SUPPRESS),
    argument("--prefix", metavar="TEXT", help=SUPPRESS),
    *COUNTING,
    JSON,
    argument("--markdown", type=path, metavar="FILE", help="write the tables there as Markdown"),
    argument("--html", type=path, metavar="FILE", help="write them there as a page"),
)
def score(arguments: Namespace) -> int:
    """Measure outputs with sacreBLEU, jiwer and rouge-score, with signatures. Options of
    these, such as --bleu-tokenize zh, and all else: docs/score.md.
    """
    from sourcewise.errors import RequestError
    from sourcewise.reporting.scores import as_html, as_json, as_markdown, print_scores
    from sourcewise.runtime.files import check_writable, write_atomically
    from sourcewise.scoring.score import Columns
    from sourcewise.scoring.score import score as scored

    if arguments.samples < 0 or (arguments.samples and not arguments.paired):
        problem = "goes with --paired" if arguments.samples > 0 else "should be 1 or more"
        raise RequestError(f"--samples {arguments.samples}: {problem}")
    if not arguments.outputs and not arguments.train:
        raise RequestError("score: no OUTPUTS; without any, --train FILE gives the baselines alone")
    asked = ((arguments.markdown, as_markdown), (arguments.html, as_html))
    files = [(Path(file), write) for file, write in asked if file]
    for file, _ in files:
        check_writable(file)
    words = ("target", "output", "join_sources", "features", "source", "task", "prefix")
    columns = Columns(groups=arguments.group, **{name: getattr(arguments, name) for name in words})
    found = scored(
        arguments.references,
        arguments.outputs,
        more_references=arguments.more,
        columns=columns,
        sources=arguments.sources,
        train=arguments.train,
        train_features=arguments.train_features,
        metrics=arguments.metrics,
        comet_model=arguments.comet_model,
        counting=counting(arguments),
        paired=arguments.paired,
        samples=arguments.samples,
    )
    for file, write in files:
        write_atomically(file, write(found))
    print(as_json(found)) if arguments.json else print_scores(found)
    return 0
