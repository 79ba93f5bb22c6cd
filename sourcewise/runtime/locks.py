"""A lock on an open file, so that one process at a time uses it; released however the process ends."""

from __future__ import annotations

import errno
from typing import IO, Any

from sourcewise.errors import tell

HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)


def hold(file: IO[Any]) -> bool:
    """Lock an open file for this process without waiting; false where another process holds it.

    True, with a `Notice`, where the file system has no locks (some network mounts).
    """
    try:
        _lock(file)
    except OSError as error:
        if error.errno in HELD:
            return False
        tell(f"{file.name}: cannot be locked ({error.strerror}); see yourself that no other process trains there")
    return True


def _lock(file: IO[Any]) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
