"""Options that several commands take."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from sourcewise.cli.parser import argument, filled, path
from sourcewise.errors import RequestError

if TYPE_CHECKING:
    from sourcewise.metrics.counting import Counting

MODEL = argument("model", type=path, metavar="MODEL", help="a run folder, a Hugging Face folder or a hub name")
TASK = argument("--task", type=filled, metavar="NAME", help="which task of a mixture the sources are of")
FEATURES = argument("--features", type=path, metavar="DIR", help="folder of the .npy files that a manifest lists")
JSON = argument("--json", action="store_true", help="print JSON, for programs")
LIMITS = (
    argument("--max-source", type=int, metavar="N", help="most tokens read of a source (default: as trained)"),
    argument("--max-frames", type=int, metavar="N", help="most frames read of a feature source"),
)
SET = (  # how a data set is read
    FEATURES,
    TASK,
    argument("--source", type=filled, metavar="COLUMN", help="name of the source column (default: source)"),
    argument("--target", type=filled, metavar="COLUMN", help="name of the target column (default: target)"),
    *LIMITS,
    argument("--max-target", type=int, metavar="N", help="most tokens of a reference that are measured"),
)
CUTS = ("max_source", "max_target", "max_frames")
READING = ("features", "task", "source", "target")  # their parameter names in `evaluate` and `diagnose`
SEARCH = (
    argument("--beams", type=int, metavar="N", help="hypotheses kept per source; 1 is greedy"),
    argument("--max-new-tokens", type=int, metavar="N", help="longest output, in tokens"),
)
SAMPLING = (
    argument("--sample", action="store_true", default=None, help="sample the output instead of searching, with"),
    argument("--temperature", type=float, metavar="T", help="  logits divided by T"),
    argument("--top-k", type=int, metavar="K", help="  only the K likeliest tokens"),
    argument("--top-p", type=float, metavar="P", help="  only the likeliest tokens of mass P"),
    argument("--seed", type=int, metavar="N", help="  the same seed gives the same outputs"),
)
COUNTING = (  # the options of the section `evaluation` of a recipe
    argument("--bleu-tokenize", metavar="NAME", help="sacreBLEU's: 13a, intl, zh, ja-mecab, ko-mecab, char, none, …"),
    argument("--bleu-smooth", metavar="NAME", help="sacreBLEU's: exp, floor, add-k or none (default: exp)"),
    argument("--bleu-smooth-value", type=float, metavar="X", help="of floor (0.1) and add-k (1)"),
    argument("--lowercase", action="store_true", default=None, help="case does not matter"),
    argument("--chrf-whitespace", action="store_true", default=None, help="chrF: spaces are characters, too"),
    argument("--ter-case-sensitive", action="store_true", default=None, help="TER: case matters"),
    argument("--ter-normalized", action="store_true", default=None, help="TER: punctuation is split off first"),
    argument("--ter-asian", action="store_true", default=None, help="TER: with it, Han and kana are split, too"),
    argument("--ter-no-punctuation", action="store_true", default=None, help="TER: without punctuation"),
    argument("--wer-words", metavar="HOW", help="WER: spaces, or characters in scripts without spaces"),
    argument("--rouge-stem", action="store_true", default=None, help="ROUGE-L: English words are stemmed"),
)
COUNTED = tuple(each.flags[0].removeprefix("--").replace("-", "_") for each in COUNTING)  # their parameter names


def counting(arguments: Namespace) -> Counting:
    """How scores are counted. Raises RequestError for a value that is not known."""
    from pydantic import ValidationError

    from sourcewise.config import EvaluationConfig
    from sourcewise.config import messages as schema

    try:
        return EvaluationConfig.model_validate(given(arguments, *COUNTED)).counting
    except ValidationError as error:
        problem = schema.explain(error, EvaluationConfig, "", COUNTED)
        option, space, rest = problem.removeprefix(": recipe: ").partition(" ")
        raise RequestError((option.replace("_", "-") if option.startswith("--") else option) + space + rest) from None


def measured(arguments: Namespace) -> dict[str, Any]:
    """The option --metrics of `evaluate` as the key `metrics` of the section `evaluation`. Raises RequestError."""
    if arguments.metrics is None:
        return {}
    from sourcewise.metrics.counting import ON_REQUEST
    from sourcewise.scoring.table import chosen

    return {"metrics": [key for key in chosen(arguments.metrics) if key in ON_REQUEST]}


def given(arguments: Namespace, *names: str) -> dict[str, Any]:
    """The options of these names that were given, with their values."""
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}
