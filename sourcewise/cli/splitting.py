"""The command `split`."""

from __future__ import annotations

import json
import sys
from argparse import Namespace

from sourcewise.cli.options import JSON
from sourcewise.cli.parser import argument, command, filled, path
from sourcewise.errors import RequestError


@command(
    "split a table into train, valid and test, groups whole",
    "FILE --valid SIZE [--test SIZE] [--by COLUMN] [options]",
    [
        "sourcewise split signs.tsv --by signer --valid 10% --test 10%",
        "sourcewise split pairs.tsv --alike source --valid 500 -o data",
        "sourcewise split clips.tsv --by id --match '(.*)-\\d+' --valid 10%",
    ],
    argument("file", type=path, metavar="FILE", help="a .tsv, .csv, .jsonl or .parquet file with a row per example"),
    argument("--by", action="append", default=[], type=filled, metavar="COLUMN", help="rows that share it stay "
        "together, such as signer (row: each by itself); may be repeated"),
    argument("--match", type=filled, metavar="REGEX", help="of each cell of --by, only what this finds (first group)"),
    argument("--alike", action="append", default=[], type=filled, metavar="COLUMN", help="rows with nearly the same "
        "text there stay together, too; may be repeated"),
    argument("--valid", type=filled, metavar="SIZE", help="rows of the validation set, such as 10%% or 500"),
    argument("--test", type=filled, metavar="SIZE", help="rows of the test set"),
    argument("-o", "--output", type=path, metavar="DIR", help="write DIR/train.tsv, … (default: FILE.train.tsv, …)"),
    argument("--seed", type=int, default=0, metavar="N", help="the same seed gives the same sets (default: 0)"),
    argument("--force", action="store_true", help="replace files that are there"),
    argument("--quoting", choices=("auto", "csv", "text"), default="auto", help="quotes in a .tsv (default: auto)"),
    JSON,
)  # fmt: skip
def split(arguments: Namespace) -> int:
    """Write a training, a validation and a test set; what belongs together is in one of
    them. Rows keep their order, all their columns and every byte.
    """
    from sourcewise.data.splitting import Size, split_file

    sizes = {use: Size.parse(asked, f"--{use}") for use in ("valid", "test") if (asked := getattr(arguments, use))}
    if not sizes:
        raise RequestError(f"{arguments.file}: how many rows? --valid 10%, --test 10%, or both")
    found = split_file(
        arguments.file,
        sizes,
        by=arguments.by,
        match=arguments.match,
        alike=arguments.alike,
        folder=arguments.output,
        seed=arguments.seed,
        force=arguments.force,
        quoting=arguments.quoting,
    )
    for remark in found.remarks:
        print(f"sourcewise: {arguments.file}: {remark}", file=sys.stderr)
    if arguments.json:
        parts = {each.use: {"path": str(each.path), "rows": each.rows, "groups": each.groups} for each in found.parts}
        print(json.dumps({"rows": found.rows, "groups": found.groups, **parts}, indent=2, ensure_ascii=False))
        return 0
    grouped = bool(arguments.alike or set(arguments.by) - {"row"})
    for each in found.parts:
        share = f"{each.rows:,} of {found.rows:,} rows ({100 * each.rows / found.rows:.1f} %)"
        of_groups = f"\t{each.groups:,} of {found.groups:,} groups" if grouped else ""
        print(f"{each.use}\t{share}{of_groups}\t{each.path}")
    return 0
