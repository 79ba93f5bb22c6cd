"""The command `export`."""

from __future__ import annotations

from argparse import Namespace

from sourcewise.cli.options import MODEL
from sourcewise.cli.parser import argument, command, path


@command(
    "write a model as a Hugging Face folder, adapters merged",
    "MODEL -o FOLDER",
    ["sourcewise export runs/lora -o merged"],
    MODEL,
    argument("-o", "--output", required=True, type=path, metavar="FOLDER", help="a folder that is new or empty"),
)
def export(arguments: Namespace) -> int:
    """Write a run's best checkpoint, or any model, as one Hugging Face folder.

    Adapters are merged into their base. A bridge is kept in files of its own.
    """
    from sourcewise.generation.model import load

    print(load(arguments.model, "cpu").save(arguments.output))
    return 0
