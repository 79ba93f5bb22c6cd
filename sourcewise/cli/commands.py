"""The commands, in the order of the help: one short function each. Heavy modules are imported when a command runs."""

# isort: off
from sourcewise.cli import training, compare, generation, diagnosis, scoring, splitting, features, exporting, importing
# isort: on

__all__ = [
    "compare",
    "diagnosis",
    "exporting",
    "features",
    "generation",
    "importing",
    "scoring",
    "splitting",
    "training",
]
