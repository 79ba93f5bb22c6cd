"""Options that several commands take."""

from __future__ import annotations

from argparse import SUPPRESS, Namespace
from typing import TYPE_CHECKING, Any

from sourcewise.cli.parser import Argument, argument, filled, path
from sourcewise.errors import RequestError

if TYPE_CHECKING:
    from sourcewise.metrics.counting import Counting

MODEL = argument("model", type=path, metavar="MODEL", help="a run folder, a Hugging Face folder or a hub name")
TASK = argument("--task", type=filled, metavar="NAME", help="which task of a mixture the sources are of")
FEATURES = argument("--features", type=path, metavar="DIR", help="folder of the .npy files that a manifest lists")
JSON = argument("--json", action="store_true", help="print JSON, for programs")
RAY = argument("--ray", type=filled, metavar="ADDRESS", help="work on a Ray cluster: auto, HOST:PORT; docs/scale.md")
RAY_UNSEEN = argument("--ray", type=filled, metavar="ADDRESS", help=SUPPRESS)  # docs/scale.md
LIMITS = (
    argument("--max-source", type=int, metavar="N", help="most tokens read of a source (default: as trained)"),
    argument("--max-frames", type=int, metavar="N", help="most frames read of a feature source"),
    argument("--source-language", type=filled, metavar="CODE", help=SUPPRESS),  # docs/models.md
    argument("--target-language", type=filled, metavar="CODE", help=SUPPRESS),
)
# Of commands whose help has no room for them: docs/generation.md. A column of targets is read by `evaluate` alone.
COLUMN = argument("--source", dest="column", type=filled, metavar="COLUMN", help=SUPPRESS)
UNREAD = argument("--target", type=filled, metavar="COLUMN", help=SUPPRESS)
SET = (  # how a data set is read
    FEATURES,
    TASK,
    argument("--source", type=filled, metavar="COLUMN", help="name of the source column (default: source)"),
    argument("--target", type=filled, metavar="COLUMN", help="name of the target column (default: target)"),
    argument("--prefix", metavar="TEXT", help="put before every source (default: as in training)"),
    *LIMITS,
    argument("--max-target", type=int, metavar="N", help="most tokens of a reference that are measured"),
)
READ = ("max_source", "max_frames", "source_language", "target_language")  # of LIMITS
CUTS = (*READ, "max_target")
READING = ("features", "task", "source", "target", "prefix")  # their parameter names in `evaluate` and `diagnose`
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
COUNTED = (  # keys of the section `evaluation` of a recipe; docs/score.md lists them
    *("bleu_tokenize", "bleu_smooth", "bleu_smooth_value", "lowercase", "chrf_whitespace", "ter_case_sensitive"),
    *("ter_normalized", "ter_asian", "ter_no_punctuation", "wer_words", "rouge_stem"),
)
_SWITCHES = {key for key in COUNTED if key.startswith("ter_")} | {"lowercase", "chrf_whitespace", "rouge_stem"}


def _counted(key: str) -> tuple[Argument, Argument]:
    """The option of a key, `--bleu-tokenize zh` or `--lowercase`, and its long form: `--evaluation.lowercase true`."""
    how: dict[str, Any] = {"action": "store_true", "default": None} if key in _SWITCHES else {"metavar": "X"}
    long = argument(f"--evaluation.{key}", dest=key, metavar="X", help=SUPPRESS)
    return argument(f"--{key.replace('_', '-')}", help=SUPPRESS, **how), long


COUNTING = tuple(each for key in COUNTED for each in _counted(key))  # too many for the help of a command


SHOWN = ("beams", "max_new_tokens", "sample", "temperature", "top_k", "top_p", "seed")  # of SEARCH and SAMPLING
RARE = (  # the other keys of the section `generation` of a recipe; docs/generation.md lists them
    *("min_new_tokens", "length_penalty", "early_stopping", "suppress", "force", "target_prefix", "stop", "mbr"),
    *("mbr_candidates", "no_repeat_ngram", "encoder_no_repeat_ngram", "repetition_penalty"),
    *("encoder_repetition_penalty", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "batch_tokens"),
)
_SEVERAL = ("suppress", "force", "stop")  # of which there may be several


def _asked(key: str) -> tuple[Argument, ...]:
    """The option of a key, `--length-penalty 2`, and its long form: `--generation.length_penalty 2`."""
    how: dict[str, Any] = {"action": "append"} if key in _SEVERAL else {}
    if key == "target_prefix":
        how = {"type": _unescaped}
    elif key == "stop":
        how |= {"type": _unescaped}
    names = () if key in SHOWN else (f"--{key.replace('_', '-')}",)
    return (argument(*names, f"--generation.{key}", dest=key, metavar="X", help=SUPPRESS, **how),)


def _unescaped(text: str) -> str:
    """A text in which \\n and \\t stand for a line end and a tab, which a shell makes hard to type."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


# SAMPLING for commands whose help does not show it.
SAMPLING_UNSEEN = tuple(argument(*each.flags, **{**each.settings, "help": SUPPRESS}) for each in SAMPLING)
GENERATION = tuple(each for key in (*SHOWN, *RARE) for each in _asked(key))
ENSEMBLE = argument("--ensemble", action="append", type=path, metavar="MODEL", help=SUPPRESS)  # docs/generation.md


def asked_generation(arguments: Namespace) -> dict[str, Any]:
    """The options of generation that were given."""
    return given(arguments, *SHOWN, *RARE)


def models(arguments: Namespace) -> str | list[str]:
    """The model of a command, or the models of its ensemble."""
    return [arguments.model, *arguments.ensemble] if arguments.ensemble else arguments.model


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

    keys = chosen(arguments.metrics)
    if "comet" in keys:
        raise RequestError(
            "--metrics comet: of `score` alone; give it what evaluate -o DIR writes: sourcewise score DIR DIR"
        )
    return {"metrics": [key for key in keys if key in ON_REQUEST]}


def given(arguments: Namespace, *names: str) -> dict[str, Any]:
    """The options of these names that were given, with their values."""
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}
