"""Templates of pages: compiled once in a process, and strict, so that a name that is missing is an error."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment, Template


def template(name: str, package: str = "sourcewise.reporting") -> Template:
    """A template of a package's folder `templates`, which may include those of the reports."""
    return _environment(package).get_template(name)


@cache
def _environment(package: str) -> Environment:
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    loader = ChoiceLoader([PackageLoader(each) for each in dict.fromkeys((package, "sourcewise.reporting"))])
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
