"""Write the pages of all options and all commands, from the code that reads them.

python scripts/reference_pages.py
"""

from __future__ import annotations

import argparse
import textwrap
from itertools import groupby
from pathlib import Path

from sourcewise.cli import commands  # noqa: F401  (registers all commands)
from sourcewise.cli.parser import COMMANDS, Argument, Command
from sourcewise.config import CompareConfig, Recipe
from sourcewise.config.messages import rows, section_at

LINE = 120
DOCS = Path(__file__).parents[1] / "docs"
MADE = "<!-- Made by `python scripts/reference_pages.py`; what is written here is lost. -->"
OPTIONS = """\
# Options

Every key of a recipe. On a command line it is `--section.key value`; in a recipe the sections are nested:

```yaml
train:
  steps: 600
```

A key of a set (`data.train`, `data.valid`, `data.test`) is the same in each set of a list of sets. Lists are
written `a,b` or `'[a, b]'` on a command line. `sourcewise train --options` prints this list.
"""
COMPARE = "A comparison is a recipe with this section; [its page](compare.md) shows one."
COMMANDS_HEAD = """\
# Commands

`sourcewise COMMAND --help` prints the same. Exit status: 0 done; 1 the work ran and the answer is bad; 2 the request
was wrong, which one line tells; 70 a fault of sourcewise itself; 130 interrupted.
"""


def options() -> str:
    """The page of all options, a table for each section."""
    parts = [f"{MADE}\n", OPTIONS]
    listed = [*rows(Recipe), *rows(CompareConfig, "compare.")]
    for section, found in groupby(sorted(listed, key=_order), key=lambda row: row[0].rpartition(".")[0]):
        parts.append(f"## {f'`{section}`' if section else 'The run'}\n")
        if section == "compare":
            parts.append(f"{COMPARE}\n")
        elif said := _description(section):
            parts.append(f"{said[0].upper()}{said[1:]}.\n")
        lines = ["| key | type | default | |", "|---|---|---|---|"]
        for key, kind, default, said in found:
            shown = f"`{_cell(default)}`" if default else ""
            lines.append(f"| `{key.rpartition('.')[2]}` | {_cell(kind)} | {shown} | {_prose(said)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _order(row: tuple[str, str, str, str]) -> tuple[int, list[str]]:
    """Sections stay together: keys of the recipe itself first, then sections in the order of the recipe."""
    section = row[0].rpartition(".")[0].split(".")
    top = [*Recipe.model_fields, "compare"]
    return (top.index(section[0]) + 1 if section != [""] else 0), section


def _description(section: str) -> str:
    """What the recipe says of a section."""
    *path, name = section.split(".")
    parent = section_at(Recipe, path)
    field = parent.model_fields.get(name) if parent else None
    return (field.description or "").rstrip(".") if field else ""


def commands_page() -> str:
    """The page of all commands."""
    return "\n".join([f"{MADE}\n", COMMANDS_HEAD, *(_command(name, each) for name, each in COMMANDS.items())])


def _command(name: str, command: Command) -> str:
    said = (command.run.__doc__ or "").replace("\n    ", "\n").strip()
    usage = f"```text\nsourcewise {name} {command.usage}\n```\n"
    parts = [f"## {name}\n", *(f"{_paragraph(part)}\n" for part in said.split("\n\n")), usage]
    listed = [row for each in command.arguments if (row := _argument(each))]
    if listed:
        parts.append("\n".join(["| argument | |", "|---|---|", *listed]) + "\n")
    if command.overrides:
        parts.append("Also takes `--section.key value` of [any option](options.md).\n")
    parts.append("```sh\n" + "\n".join(command.examples) + "\n```\n")
    return "\n".join(parts)


def _argument(argument: Argument) -> str:
    """A line of a command's table."""
    settings = argument.settings
    if settings.get("help") == argparse.SUPPRESS:
        return ""
    value = settings.get("metavar") or ("" if "action" in settings else argument.flags[0].lstrip("-").upper())
    names = [f"{flag} {value}".strip() if flag.startswith("-") else str(value) for flag in argument.flags]
    default = settings.get("default")
    said = (settings.get("help") or "").replace("%(default)s", str(default)).replace("%%", "%")
    return f"| {', '.join(f'`{_cell(name)}`' for name in names)} | {_prose(said)} |"


def _cell(text: str) -> str:
    """Text in the cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _prose(text: str) -> str:
    """A help text as Markdown in one line."""
    return _cell(text).replace("<", "&lt;").replace("*", "\\*")


def _paragraph(text: str) -> str:
    """A paragraph of a command's description as Markdown; what is set out in columns stays so."""
    if "  " in text.strip():
        return f"```text\n{textwrap.dedent(text)}\n```"
    return textwrap.fill(_prose(text), LINE, break_long_words=False, break_on_hyphens=False)


PAGES = {"options.md": options, "commands.md": commands_page}

if __name__ == "__main__":
    for name, made in PAGES.items():
        (DOCS / name).write_text(made(), encoding="utf-8")
