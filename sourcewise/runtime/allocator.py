"""Limits the number of heaps of glibc's allocator, so that a server's memory does not grow with its threads."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

ARENA_MAX = -8  # of mallopt(3)
FEW = 2


def keep_few() -> None:
    """Let glibc allocate from at most two heaps, unless MALLOC_ARENA_MAX is set; other allocators are unchanged.

    By default glibc has up to eight heaps per core. Each short-lived thread of a server takes any free heap, and each
    heap keeps the pages of the largest request that it has seen.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(ARENA_MAX, FEW)
