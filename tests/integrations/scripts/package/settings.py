"""Beside the script, found by a relative import."""

SIZE = 12
