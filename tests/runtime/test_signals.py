"""Ctrl-C: heard where it can be meant, left alone where whoever started us ignores it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sourcewise.runtime.signals import ctrl_c_ignored, interrupts
from tests.commands import ENVIRONMENT, TINY


@pytest.fixture
def ignored() -> object:
    kept = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, kept)


def test_the_first_interrupt_is_noted_and_the_second_stops() -> None:
    with pytest.raises(KeyboardInterrupt), interrupts() as seen:
        os.kill(os.getpid(), signal.SIGINT)
        assert seen == [True]
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_ctrl_c_stays_ignored_and_sigterm_is_heard(ignored: object) -> None:
    with interrupts() as seen:
        os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN and not seen
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [True]
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_what_was_installed_before_comes_back() -> None:
    def own(*_: object) -> None: ...

    kept = signal.signal(signal.SIGINT, own)
    try:
        with ctrl_c_ignored():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is own
        with interrupts():
            pass
        assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, kept)


def test_another_thread_installs_nothing() -> None:
    seen: list[object] = []

    def work() -> None:
        with interrupts() as heard, ctrl_c_ignored():
            seen.append((list(heard), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [([], signal.default_int_handler)]


def in_background(words: str, here: Path) -> subprocess.Popen[str]:
    """A command as `command &` in a script starts it."""
    line = [sys.executable, "-m", "sourcewise", *words.split()]
    with ctrl_c_ignored():
        return subprocess.Popen(
            line, cwd=here, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )


def test_a_training_in_the_background_is_not_ended_by_a_ctrl_c(here: Path) -> None:
    words = f"train --name t --data.train.pairs good.tsv {TINY} --train.steps 100000 --train.evaluate_every 100000"
    process = in_background(words, here)
    log = here / "runs" / "t" / "metrics.jsonl"
    until(lambda: log.is_file() and '"train"' in log.read_text())
    process.send_signal(signal.SIGINT)
    lines = len(log.read_text().splitlines())
    until(lambda: len(log.read_text().splitlines()) > lines + 2)
    process.send_signal(signal.SIGTERM)
    assert "--resume" in process.communicate(timeout=60)[1] and process.returncode == 130


def until(done: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not done():
        assert time.monotonic() < ends
        time.sleep(0.05)
