"""Ctrl-C and SIGTERM at the worst moments: while something is written, and twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import sourcewise
from sourcewise.config import Recipe
from sourcewise.model.weights import checkpoint
from sourcewise.training import loop, state
from sourcewise.training.loop import Interrupted
from sourcewise.training.run import Run
from tests.training.recipes import recipe

MOMENTS: dict[str, tuple[Any, str]] = {
    "weights written": (checkpoint, "save_file"),
    "folder swapped": (checkpoint.Path, "rename"),
    "state written": (state.os, "fsync"),
    "evaluated": (loop, "evaluate_encoded"),
}


def made(folder: Path, name: str) -> Recipe:
    return recipe(folder, name=name, train__steps=12, train__evaluate_every=4, train__save_every=2, model__dropout=0.1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return sourcewise.train(made(tmp_path_factory.mktemp("whole"), "whole"))


@pytest.fixture
def handlers() -> Iterator[None]:
    """Those of the process are the same afterwards."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


def interrupting(function: Callable[..., Any], number: int, times: int) -> Callable[..., Any]:
    """The second call of a function gets so many signals, right after it is done."""
    calls = [0]

    def called(*given: Any, **named: Any) -> Any:
        found = function(*given, **named)
        calls[0] += 1
        for _ in range(times if calls[0] == 2 else 0):
            os.kill(os.getpid(), number)
        return found

    return called


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_goes_on_exactly_whenever_it_was_interrupted(
    moment: str, times: int, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handlers: None
) -> None:
    place, name = MOMENTS[moment]
    number = signal.SIGTERM if moment == "evaluated" else signal.SIGINT
    with monkeypatch.context() as patch:
        patch.setattr(place, name, interrupting(getattr(place, name), number, times))
        with pytest.raises(Interrupted, match="saved at step" if times == 1 else "stopped at once, what was saved"):
            sourcewise.train(made(tmp_path, "parts"))
    folder = tmp_path / "runs" / "parts"
    assert not list(folder.rglob("*.part"))
    parts = sourcewise.train(folder, resume=True)
    for kept in ("last", "best"):
        one, other = (load_file(run.folder / "checkpoints" / kept / "model.safetensors") for run in (whole, parts))
        assert all(one[key].equal(other[key]) for key in one)
    assert not [path for path in folder.rglob(".*") if path.name != ".lock"]


def test_a_saved_state_is_that_of_the_step_that_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(state.os, "fsync", interrupting(state.os.fsync, signal.SIGINT, 1))
        with pytest.raises(Interrupted, match=r"saved at step 4; go on with: sourcewise train .*parts --resume"):
            sourcewise.train(made(tmp_path, "parts"))
    kept = state.load_state(tmp_path / "runs" / "parts" / "state" / "state.pt")
    assert kept is not None and kept["step"] == 4
