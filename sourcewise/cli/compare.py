"""The command `compare`."""

from __future__ import annotations

from argparse import Namespace

from sourcewise.cli.options import JSON, RAY
from sourcewise.cli.parser import argument, command, filled, path
from sourcewise.errors import RequestError


@command(
    "train the variants of a recipe and compare them",
    "RECIPE [--jobs N] [--section.key VALUE]…",
    [
        "sourcewise compare my.yaml --jobs 2",
        "sourcewise compare compare_bridges_fsdd --data.root data --dry-run",
        "sourcewise compare my.yaml --only perceiver-0",
    ],
    argument("recipe", type=path, metavar="RECIPE", help="a YAML file with a compare section, or a shipped one's name"),
    argument("--jobs", type=int, default=1, metavar="N", help="trainings at a time, sharing the cores (default: 1)"),
    argument("--dry-run", action="store_true", help="only list the trainings and the state of each"),
    argument("--only", type=filled, metavar="NAME", help="train this one alone, such as perceiver-0; no table"),
    argument("--overwrite", action="store_true", help="replace runs that another recipe made"),
    JSON,
    RAY,
    overrides=True,
)
def compare(arguments: Namespace) -> int:
    """Train every variant with every seed and print the table: figures with intervals
    over seeds, and which differences are beyond chance. After an interruption the
    same command continues; finished trainings are reused. More: docs/compare.md.

    Exit status 1 when a training failed.
    """
    from sourcewise import api
    from sourcewise.reporting.comparison import as_json, print_listing, print_table

    if arguments.jobs < 1:
        raise RequestError(f"--jobs should be 1 or more, not {arguments.jobs}")
    if arguments.dry_run:
        print_listing(*api.listing(arguments.recipe, arguments.overrides, overwrite=arguments.overwrite))
        return 0
    if arguments.only:
        run = api.compare_one(arguments.recipe, arguments.only, arguments.overrides, overwrite=arguments.overwrite)
        print(f"{run.folder}: finished")
        return 0
    how = {"jobs": arguments.jobs, "overwrite": arguments.overwrite, "ray": arguments.ray}
    table = api.compare(arguments.recipe, arguments.overrides, **how)
    print(as_json(table)) if arguments.json else print_table(table)
    return 1 if table.failed else 0
