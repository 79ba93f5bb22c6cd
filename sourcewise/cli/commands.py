"""The commands, in the order of the help: one short function each. Heavy modules are imported when a command runs."""

from sourcewise.cli import training, compare, generation, diagnosis, scoring, splitting, exporting, importing  # isort: skip

__all__ = ["compare", "diagnosis", "exporting", "generation", "importing", "scoring", "splitting", "training"]
