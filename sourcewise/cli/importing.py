"""The command `import`."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from sourcewise.cli.parser import argument, command, path
from sourcewise.errors import RequestError

TOOLKITS = ("joeynmt",)


@command(
    "make a recipe of another toolkit's configuration",
    "joeynmt CONFIG -o RECIPE",
    ["sourcewise import joeynmt transformer_small.yaml -o mine.yaml"],
    argument("toolkit", choices=TOOLKITS, metavar="joeynmt", help="whose configuration it is"),
    argument("config", type=path, metavar="CONFIG", help="its YAML file"),
    argument("-o", "--output", required=True, type=path, metavar="RECIPE", help="the recipe to write (.yaml)"),
)
def import_(arguments: Namespace) -> int:
    """Write a recipe that trains what another toolkit's configuration trains.

    Each key that is not carried over, or not as it was, is told in a line.
    Parallel files of lines become a table beside the recipe, one for each set.
    More: docs/migration/joeynmt.md.
    """
    from sourcewise.importing import imported
    from sourcewise.importing.tables import write_table
    from sourcewise.runtime.files import write_atomically

    config, output = Path(arguments.config), Path(arguments.output)
    if output.suffix.lower() not in (".yaml", ".yml"):
        raise RequestError(f"--output {output}: a recipe is a .yaml file")
    if output.resolve() == config.resolve():
        raise RequestError(f"--output {output}: is the configuration itself; name another file")
    found = imported(config, output)
    rows = {
        table: write_table(Path(table), Path(source), Path(target)) for table, (source, target) in found.tables.items()
    }
    write_atomically(output, _yaml(found.tree, config))
    for line in found.told:
        print(f"not as it was\t{line}")
    for table, number in rows.items():
        print(f"table\t{table}\t{number:,} rows")
    print(f"recipe\t{output}\nnext\tsourcewise train {output}")
    return 0


def _yaml(tree: dict[str, object], config: Path) -> str:
    import yaml

    body = yaml.safe_dump(json.loads(json.dumps(tree)), sort_keys=False, allow_unicode=True)
    return f"# Made of {config.name} by `sourcewise import joeynmt`.\n{body}"
