"""Reports of a run that is being written."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

import sourcewise
from sourcewise.cli import main
from sourcewise.reporting.report import write_report
from sourcewise.training.run import Run
from tests.training.recipes import recipe

pytestmark = pytest.mark.pages


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return sourcewise.train(recipe(tmp_path_factory.mktemp("run"), train__steps=6, train__evaluate_every=3))


def test_a_log_that_is_cut_anywhere_is_read_as_far_as_it_goes(run: Run, tmp_path: Path) -> None:
    whole = run.log.read_text()
    cut = Run(tmp_path)
    ends = [i + 1 for i, letter in enumerate(whole) if letter in "}\n"]  # also behind what only looks like an end
    assert len(ends) > 12
    for end in [*ends, *range(1, len(whole), 211)]:
        cut.log.write_text(whole[:end])
        lines = cut.metrics()
        assert len(lines) in (whole[:end].count("\n"), whole[:end].count("\n") + 1)
        assert lines == run.metrics()[: len(lines)]


def test_a_report_of_every_moment_of_a_run(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    whole = run.log.read_bytes()
    for gone in (["metrics.json"], ["translations.tsv", "traces.json", "checkpoints", "state"]):
        for name in gone:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for share in (0.3, 0.95):
            (folder / "metrics.jsonl").write_bytes(whole[: int(len(whole) * share)])
            assert main(["report", str(folder)]) == 0, capsys.readouterr().err


def test_a_report_is_written_while_another_thread_trains(tmp_path: Path) -> None:
    made = recipe(tmp_path, name="live", train__steps=20, train__evaluate_every=10, train__log_every=1)
    folder, done, written = tmp_path / "runs" / "live", threading.Event(), 0
    failed: list[BaseException] = []

    def report() -> None:
        nonlocal written
        while not done.is_set():
            if (folder / "metrics.jsonl").is_file():
                try:
                    write_report(folder, training=True)
                    written += 1
                except BaseException as error:
                    failed.append(error)
                    return

    thread = threading.Thread(target=report)
    thread.start()
    try:
        sourcewise.train(made)
    finally:
        done.set()
        thread.join()
    assert not failed and written > 1
