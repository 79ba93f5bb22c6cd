"""Options that several commands take."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from sourcewise.cli.parser import argument, filled, path

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


def given(arguments: Namespace, *names: str) -> dict[str, Any]:
    """The options of these names that were given, with their values."""
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}
