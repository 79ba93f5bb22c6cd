"""glibc's heaps: few in a server, as many as threads want elsewhere, and what the user asks for wins."""

from __future__ import annotations

import platform
import re
import subprocess
import sys

import pytest

from tests.commands import ENVIRONMENT

CODE = """
import ctypes, sys, threading
from sourcewise.runtime.allocator import keep_few
if "few" in sys.argv:
    keep_few()
libc, together = ctypes.CDLL(None), threading.Barrier(6)
def allocate():
    together.wait()
    kept = [bytes(1000) for _ in range(100)]
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(6)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(None)
"""


def heaps(*words: str, **environment: str) -> int:
    """How many heaps a process has after six threads allocated at once."""
    command = [sys.executable, "-c", CODE, *words]
    done = subprocess.run(command, env=ENVIRONMENT | environment, capture_output=True, text=True, check=True)
    return len(re.findall("<heap nr=", done.stdout))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's allocator")
def test_a_server_has_few_heaps() -> None:
    assert heaps() > 3
    assert heaps("few") <= 2
    assert heaps("few", MALLOC_ARENA_MAX="3") == 3
