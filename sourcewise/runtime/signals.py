"""Handlers of Ctrl-C and SIGTERM that let work be saved; a SIGINT that was ignored at start stays ignored."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def interrupts() -> Iterator[list[bool]]:
    """Within: a list, empty until the first Ctrl-C or SIGTERM; a second one raises KeyboardInterrupt.

    A process that was started with SIGINT ignored (`nohup`, `command &` in a script) goes on ignoring it: a Ctrl-C in
    the foreground is not meant for it, SIGTERM is. Nothing is installed outside the main thread, nor over a handler
    that is not Python's. Afterwards handlers are as before.
    """
    seen: list[bool] = []

    def handle(number: int, frame: Any) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(True)

    kept = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) in (signal.SIG_IGN, None):  # None: of a library, and could not be put back
            continue
        with contextlib.suppress(ValueError):  # not in the main thread: nobody can interrupt
            kept[number] = signal.signal(number, handle)
    try:
        yield seen
    finally:
        for number, previous in kept.items():
            signal.signal(number, previous)


@contextlib.contextmanager
def ctrl_c_ignored() -> Iterator[None]:
    """Within: Ctrl-C is ignored, also by processes that are started."""
    try:
        kept = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not in the main thread: nobody can interrupt
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, kept)
