"""What a program that calls the library finds afterwards: its threads, random numbers and signal handlers as before."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sourcewise
from sourcewise.config import Recipe
from sourcewise.errors import RequestError
from sourcewise.training.run import Run
from tests.commands import ENVIRONMENT
from tests.training.recipes import recipe


def made(folder: Path, name: str) -> Recipe:
    options = {"train__steps": 4, "train__evaluate_every": 4, "train__threads": 1, "model__dropout": 0.1}
    return recipe(folder, name=name, **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return sourcewise.train(made(tmp_path_factory.mktemp("host"), "tiny"))


def own_handler(*_: object) -> None: ...


def standing() -> list[Any]:
    numbers = np.random.get_state(legacy=False)  # noqa: NPY002 - a host's own
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    state = torch.get_rng_state().tolist()
    return [torch.get_num_threads(), state, repr(numbers), random.getstate(), handlers]


@pytest.fixture
def host() -> Iterator[None]:
    """A host with threads, seeds and a handler of its own."""
    threads, handler = torch.get_num_threads(), signal.signal(signal.SIGTERM, own_handler)
    torch.set_num_threads(2)
    torch.manual_seed(11)
    random.seed(12)
    np.random.seed(13)  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        signal.signal(signal.SIGTERM, handler)


CALLS: dict[str, Callable[[Run, Path], object]] = {
    "train": lambda run, folder: sourcewise.train(made(folder, "other")),
    "resume": lambda run, folder: sourcewise.train(run.folder, resume=True),
    "preflight": lambda run, folder: sourcewise.preflight(made(folder, "other")),
    "load": lambda run, folder: sourcewise.load(run.folder),
    "evaluate": lambda run, folder: sourcewise.evaluate(run.folder, str(folder / "valid.tsv")),
    "diagnose": lambda run, folder: sourcewise.diagnose(run.folder),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_leaves_them_as_they_were(name: str, run: Run, tmp_path: Path, host: None) -> None:
    made(tmp_path, "other")  # writes valid.tsv
    before = standing()
    CALLS[name](run, tmp_path)
    assert standing() == before


def test_a_call_that_fails_leaves_them_as_they_were(run: Run, tmp_path: Path, host: None) -> None:
    before = standing()
    with pytest.raises(RequestError):
        sourcewise.train(made(tmp_path, "a").model_copy(update={"output": str(run.folder / "recipe.yaml")}))
    with pytest.raises(RequestError, match="nothing would learn"):
        sourcewise.train(recipe(tmp_path, name="b", train__unfreeze={"encoder": 1, "decoder": 1, "embedding": 1}))
    assert standing() == before


def test_a_handler_that_is_not_pythons_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from sourcewise.runtime.signals import interrupts

    kept = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    with interrupts():
        assert signal.signal(signal.SIGTERM, kept) == kept


def test_a_model_of_our_own_opens_without_transformers(run: Run) -> None:
    """To import it takes seconds, in each command."""
    code = "import sys, sourcewise as s; s.load(sys.argv[1]).generate(['a b']); print('transformers' in sys.modules)"
    called = [sys.executable, "-W", "ignore", "-c", code, str(run.folder)]
    done = subprocess.run(called, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert done.stdout == "False\n"
