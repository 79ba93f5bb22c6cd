"""Fixtures of tests that give whole command lines."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

import sourcewise
from sourcewise.cli import main
from tests.commands import TINY, Models, NoPages, tree, write_features
from tests.training.recipes import recipe

hypothesis.settings.register_profile(  # a machine with other work is no failure
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy")

LONGER = frozenset((Path(__file__).parent / "longer.txt").read_text(encoding="utf-8").splitlines())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes more than a second; see scripts/longer_tests.py."""
    for item in items:
        if item.nodeid in LONGER:
            item.add_marker(pytest.mark.longer)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> Iterator[None]:
    """Under a runner that ignores SIGINT (`nohup`, `command &`) the children would inherit that, and hear no Ctrl-C."""
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, kept)


@pytest.fixture(autouse=True)
def no_pages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No report is drawn but in tests that are marked `pages`: it takes longer than a small training."""
    if request.node.get_closest_marker("pages") is None:
        monkeypatch.setattr("sourcewise.api.LiveReport", NoPages)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    text = sourcewise.train(recipe(folder, name="text", train__steps=2, train__evaluate_every=2))
    write_features(folder)
    manifest = {"manifest": str(folder / "m.tsv"), "features": str(folder / "features")}
    data = {"train": manifest, "valid": manifest, "vocabulary": 64}
    features = sourcewise.train(recipe(folder, name="features", data=data, train__steps=2, train__evaluate_every=2))
    return Models(text.folder, features.folder)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, with good data beside the bad."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOURCEWISE_TRACEBACK", raising=False)
    (tmp_path / "good.tsv").write_text("source\ttarget\nba do\tone two\nki\tthree\nlu me no\tfour\n")
    write_features(tmp_path)
    return tmp_path


@pytest.fixture
def refused(here: Path, models: Models, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Runs a command line that must be refused; gives what it said after `sourcewise: error: `."""

    def run(words: str, *, begun: bool = False) -> str:
        before = tree(here)
        capsys.readouterr()
        status = main(words.format(text=models.text, features=models.features, tiny=TINY).split())
        said = capsys.readouterr()
        assert status == 2, said.err
        assert said.out == "" and "Traceback" not in said.err
        *progress, line = said.err.splitlines()
        assert begun or not progress, said.err
        assert line.startswith("sourcewise: error: ") and said.err.endswith("\n")
        assert tree(here) == before, "something half-written stays"
        return line.removeprefix("sourcewise: error: ")

    yield run
    capsys.readouterr()
