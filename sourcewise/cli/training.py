"""Commands that train: a run (`demo`, `train`), a tokenizer."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sourcewise
from sourcewise.cli.options import RAY
from sourcewise.cli.parser import argument, command, filled, path, without
from sourcewise.errors import RequestError

if TYPE_CHECKING:
    from sourcewise.training.run import Run

DEMOS = {
    "digits": "features to text: rows of scanned handwritten digits, read out; 1 to 2 minutes on two cores",
    "dates": "text to text: dates as they are written in 20 locales, to ISO 8601; 2 to 3 minutes",
}


@command(
    "train on embedded data, evaluate, write the report",
    "[digits|dates] [-o DIR]",
    ["sourcewise demo digits", "sourcewise demo dates -o /data/runs"],
    argument("set", nargs="?", metavar="digits|dates", help="the embedded data set; without it they are listed"),
    argument("-o", "--output", type=path, metavar="DIR", help="folder that holds the run (default: runs)"),
    overrides=True,
)
def demo(arguments: Namespace) -> int:
    """Train a small model from scratch in minutes, with everything that a run writes.

    digits  features to text: rows of scanned handwritten digits, read out
    dates   text to text: dates as they are written in 20 locales, to ISO 8601

    Takes the options of `train` too, such as --train.steps 100.
    """
    from sourcewise.config.files import load_recipe
    from sourcewise.reporting.terminal import print_run
    from sourcewise.runtime.ranks import told_here

    if arguments.set is None:
        if arguments.output or arguments.overrides:
            raise RequestError(f"which demo? {' or '.join(DEMOS)}")
        print("\n".join(f"sourcewise demo {name:8}{about}" for name, about in DEMOS.items()))
        return 0
    if arguments.set not in DEMOS:
        raise RequestError(f"{arguments.set}: no such demo; there are {' and '.join(DEMOS)}")
    place = {"output": arguments.output} if arguments.output else {}
    recipe = load_recipe(arguments.set, {**place, **arguments.overrides})
    if "name" not in arguments.overrides:
        recipe = recipe.model_copy(update={"name": _free_name(Path(recipe.output), recipe.name)})
    run = sourcewise.train(recipe)
    if told_here():
        print_run(run.folder, run.evaluation)
    return 0


@command(
    "train a model from a recipe, or from options alone",
    "[RECIPE] [--section.key VALUE]… [--resume | --overwrite]",
    [
        "sourcewise train digits --train.steps 500",
        "sourcewise train my.yaml --name second --seed 1",
        "sourcewise train --model google/flan-t5-small --data.train.pairs train.tsv",
        "sourcewise train --data.train.manifest train.tsv --data.train.features features",
        "sourcewise train runs/digits --resume",
        "sourcewise train my.yaml --ray auto --workers 2..8",
    ],
    argument(
        "recipe", nargs="?", type=path, metavar="RECIPE", help="a YAML file, a shipped recipe's name, or a run folder"
    ),
    argument("--resume", action="store_true", help="go on with an interrupted run, exactly"),
    argument("--overwrite", action="store_true", help="replace the run of that name"),
    argument("--ranks", type=int, default=1, metavar="N", help="train by N processes of this machine (default: 1)"),
    RAY,
    argument("--workers", type=filled, metavar="N", help="processes on the cluster: 4, or 2..8, as there is room"),
    argument("--options", action="store_true", help="list every --section.key with its default"),
    overrides=True,
)
def train(arguments: Namespace) -> int:
    """Train a model into a run folder: checkpoints, curves, sample outputs, report.

    Any key of a recipe can be set as an option: --train.epochs 30 --model.heads 8.
    --model NAME starts from pretrained weights; without it, training is from scratch.
    """
    from sourcewise.config.files import options, shipped_recipes
    from sourcewise.reporting.terminal import print_options, print_run
    from sourcewise.runtime.launch import launch
    from sourcewise.runtime.ranks import told_here

    if arguments.options:
        print_options(options())
        return 0
    if arguments.recipe is None and not arguments.overrides:
        shipped = ", ".join(shipped_recipes())
        raise RequestError(f"nothing to train on: name a RECIPE ({shipped}, a file), or set --data.train.pairs FILE")
    if arguments.ranks < 1:
        raise RequestError(f"--ranks should be 1 or more, not {arguments.ranks}")
    if arguments.ranks > 1:
        return launch(["train", *without(arguments.words, "--ranks")], arguments.ranks)
    overrides = {key.replace("-", "_"): value for key, value in arguments.overrides.items()}
    how = {"resume": arguments.resume, "overwrite": arguments.overwrite}
    if arguments.ray or arguments.workers:
        run = _on_cluster(arguments, overrides, how)
    else:
        run = sourcewise.train(arguments.recipe, overrides, **how)
    if told_here():
        print_run(run.folder, run.evaluation)
    return 0


def _on_cluster(arguments: Namespace, overrides: dict[str, Any], how: dict[str, bool]) -> Run:
    """Train on a Ray cluster. Raises RequestError."""
    from sourcewise import api

    if not arguments.ray or not arguments.workers:
        raise RequestError("--ray ADDRESS and --workers N go together: sourcewise train … --ray auto --workers 2..8")
    found = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", arguments.workers)
    least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= least <= most:
        raise RequestError(f"--workers {arguments.workers}: is a number, such as 4, or two, such as 2..8")
    return api.train_on_cluster(arguments.recipe, overrides, ray=arguments.ray, workers=(least, most), **how)


@command(
    "train a tokenizer on text files",
    "TEXT… -o FILE [--vocabulary N] [--unit words]",
    ["sourcewise tokenizer train.en train.de -o tokenizer.json --vocabulary 8000"],
    argument("texts", nargs="+", type=path, metavar="TEXT", help="UTF-8 files, one text per line; -: standard input"),
    argument("-o", "--output", required=True, type=path, metavar="FILE", help="the tokenizer.json to write"),
    argument("--vocabulary", type=int, default=8000, metavar="N", help="how many entries (default: 8000)"),
    argument("--unit", choices=("subwords", "words", "characters"), default="subwords", help="default: subwords"),
)
def tokenizer(arguments: Namespace) -> int:
    """Train a tokenizer of subwords, words or characters.

    `train` does this by itself when no tokenizer is given.
    """
    from sourcewise.cli.sources import open_lines
    from sourcewise.data.readers.lines import decode_lines, read_bytes
    from sourcewise.data.tokenizers.tokenizer import Tokenizer
    from sourcewise.runtime.files import check_writable

    if Path(arguments.output).suffix != ".json":
        raise RequestError(f"-o {arguments.output}: name a file that ends in .json")
    if arguments.vocabulary < 16:
        raise RequestError(f"--vocabulary should be greater than or equal to 16, not {arguments.vocabulary}")
    texts: list[str] = []
    for name in arguments.texts:
        with open_lines(name) as stream:
            texts += decode_lines(stream.read() if stream else read_bytes(name), name)
    check_writable(Path(arguments.output))
    Tokenizer.train(texts, arguments.vocabulary, arguments.unit).save(Path(arguments.output))
    print(arguments.output)
    return 0


def _free_name(output: Path, name: str) -> str:
    """The name, or name-2, name-3, … where that run exists already."""
    names = (name if n == 1 else f"{name}-{n}" for n in range(1, 10_000))
    return next(n for n in names if not (output / n).exists())
