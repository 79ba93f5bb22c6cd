"""Trained networks that several questions of one process use: modules of cases are read anew for each question."""

from __future__ import annotations

from typing import Any

MADE: dict[Any, Any] = {}
