"""Memory that comes and goes with requests, kept from spreading over the heaps of glibc's allocator."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

ARENA_MAX = -8  # of mallopt(3)
FEW = 2


def keep_few() -> None:
    """Let glibc allocate from two heaps at most, but where MALLOC_ARENA_MAX says otherwise; other allocators stay.

    Of itself it has up to eight a core. Each of the short-lived threads of a server takes whichever is free, and each
    heap keeps the pages of the largest request that it has seen.
    """
    if "MALLOC_ARENA_MAX" not in os.environ:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).mallopt(ARENA_MAX, FEW)
