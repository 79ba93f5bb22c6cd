"""Recipes made of the configurations of other toolkits; what cannot be carried over is told, key by key."""

from sourcewise.importing.joeynmt import imported
from sourcewise.importing.keys import Imported

__all__ = ["Imported", "imported"]
