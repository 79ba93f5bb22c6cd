"""`generate` by several processes: the bytes of one, in whatever order they come, and after any of them was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sourcewise.cli import main
from sourcewise.data import windows
from sourcewise.generation.written import Writer
from tests.commands import Models
from tests.training.recipes import WORDS
from tests.training.worlds import environment, torchrun

SEARCHES = ["--beams 1", "--beams 4", "--sample --seed 3", "--json --scores", "--n-best 2"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "WINDOW", 8)


def texts(folder: Path, count: int = 60) -> Path:
    rng = np.random.default_rng(5)
    lines = [" ".join(rng.choice(WORDS, rng.integers(0, 6))) for _ in range(count)]
    path = folder / "in.txt"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def command(models: Models, path: Path | str, output: Path | str, options: str = "") -> list[str]:
    words = ["generate", str(models.text), str(path), "--max-new-tokens", "6", *options.split()]
    return [*words, "-o", str(output)]


@pytest.mark.parametrize("options", SEARCHES)
def test_shards_are_joined_to_what_one_process_writes(
    small: None, models: Models, tmp_path: Path, options: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, whole, joined = texts(tmp_path), tmp_path / "whole", tmp_path / "joined"
    assert main(command(models, path, whole, options)) == 0
    capsys.readouterr()
    for shard in ("2/3", "0/3", "1/3"):
        assert not joined.exists()
        assert main([*command(models, path, joined, options), "--shard", shard]) == 0
        said = capsys.readouterr().err
        assert f"share {shard} of {joined}" in said
        assert ("are missing" in said) == (shard != "1/3")
    assert joined.read_bytes() == whole.read_bytes()
    assert main([*command(models, path, joined, options), "--shard", "0/3"]) == 0
    assert "8 windows are there, 0 of them written here" in capsys.readouterr().err


def test_a_folder_keeps_the_pieces(small: None, models: Models, tmp_path: Path) -> None:
    path, whole = texts(tmp_path), tmp_path / "whole"
    assert main(command(models, path, whole)) == 0
    for shard in ("0/2", "1/2"):
        assert main([*command(models, path, f"{tmp_path}/out/"), "--shard", shard]) == 0
    found = sorted((tmp_path / "out").iterdir())
    assert len(found) == 8 and all(each.suffix == ".txt" for each in found)
    assert b"".join(each.read_bytes() for each in found) == whole.read_bytes()
    other = [*command(models, path, f"{tmp_path}/out/", "--beams 3"), "--shard", "0/2"]
    assert main(other) == 2


def test_files_of_a_pattern_count_on(small: None, models: Models, tmp_path: Path) -> None:
    path = texts(tmp_path, 20)
    lines = path.read_text().splitlines(keepends=True)
    (tmp_path / "a.part").write_text("".join(lines[:13]))
    (tmp_path / "b.part").write_text("".join(lines[13:]))
    for options in ("--sample", "--n-best 2"):
        assert main(command(models, path, tmp_path / "whole", options)) == 0
        assert main(command(models, f"{tmp_path}/*.part", tmp_path / "both", options)) == 0
        assert (tmp_path / "both").read_bytes() == (tmp_path / "whole").read_bytes()


def test_what_was_written_before_an_end_is_not_written_again(
    small: None, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, joined = texts(tmp_path), tmp_path / "joined"
    assert main(command(models, path, tmp_path / "whole")) == 0
    lines, began = Writer.lines, list[int]()

    def ending(self: Writer, sources: Any, before: int, progress: Any = None) -> Any:
        if len(began) == 3:
            began.clear()
            raise KeyboardInterrupt
        found = lines(self, sources, before, progress)
        began.append(before)
        done.append(before)
        return found

    done: list[int] = []
    monkeypatch.setattr(Writer, "lines", ending)
    words = [*command(models, path, joined), "--shard", "0/1"]
    assert [main(words), main(words), main(words)] == [130, 130, 0]
    assert sorted(done) == [8 * i for i in range(8)]
    assert joined.read_bytes() == (tmp_path / "whole").read_bytes()


def test_what_cannot_be_shared_is_refused_in_a_line(
    models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = texts(tmp_path, 4)
    for words, said in (
        ([*command(models, path, "o"), "--shard", "3/3"], "--shard 3/3: is I/N, such as 0/3"),
        ([*command(models, "-", tmp_path / "o"), "--shard", "0/3"], "-: every process reads the sources; name a FILE"),
        (["generate", str(models.text), str(path), "--shard", "0/3"], "-o is missing: several processes write"),
    ):
        assert main(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
    assert not list(tmp_path.glob("o*"))


# ── processes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def started(words: list[str], world: int = 0, restarts: int = 0, **variables: str) -> subprocess.Popen[str]:
    agent = f"-m torch.distributed.run --standalone --nproc-per-node {world} --max-restarts {restarts} -m".split()
    called = [sys.executable, *(agent if world else ["-m"]), "tests.generation.in_small_windows", *words]
    return subprocess.Popen(called, env={**environment(), **variables}, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_the_processes_of_torchrun_have_a_share_each(models: Models, tmp_path: Path) -> None:
    path, whole, joined = texts(tmp_path), tmp_path / "whole", tmp_path / "joined"
    assert main(command(models, path, whole, "--sample --seed 3")) == 0
    with started(command(models, path, joined, "--sample --seed 3"), 3) as process:
        said = process.communicate()[1]
    assert process.returncode == 0, said
    assert joined.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_an_error_of_all_is_told_once(models: Models, tmp_path: Path) -> None:
    with started(command(models, tmp_path / "none.txt", tmp_path / "o"), 2) as process:
        said = process.communicate()[1]
    told = [line for line in said.splitlines() if line.startswith("sourcewise: error")]
    assert process.returncode == 1 and len(told) == 1 and told[0].endswith("none.txt: no such file")


@pytest.mark.slow
@pytest.mark.parametrize("world", [0, 2])
def test_whoever_is_killed_goes_on(world: int, models: Models, tmp_path: Path) -> None:
    """kill -9 of one process, which torchrun starts anew, then of all; the same command goes on."""
    path, whole, joined = texts(tmp_path, 160), tmp_path / "whole", tmp_path / "joined"
    assert main(command(models, path, whole)) == 0
    words = command(models, path, joined) + ([] if world else ["--shard", "0/1"])
    parts = tmp_path / "joined.parts"
    process = started(words, world, restarts=3, PAUSE="0.3")
    wait_for(parts, 3)
    if world:
        os.kill(children(process.pid)[0], signal.SIGKILL)
        wait_for(parts, 8)
    for each in [*children(process.pid), process.pid]:
        os.kill(each, signal.SIGKILL)
    process.communicate()
    kept = {each.name: each.stat().st_mtime_ns for each in parts.iterdir() if not each.name.startswith(".")}
    assert 3 <= len(kept) < 20 and not joined.exists()
    process = started(words, world, PAUSE="0.3")
    wait_for(parts, len(kept) + 1)
    assert {name: (parts / name).stat().st_mtime_ns for name in kept} == kept
    assert process.communicate()[1] is not None and process.returncode == 0
    assert joined.read_bytes() == whole.read_bytes()


def wait_for(parts: Path, count: int) -> None:
    """Until so many pieces are there."""
    began = time.monotonic()
    while len([each for each in parts.glob("*.txt") if not each.name.startswith(".")]) < count:
        assert time.monotonic() - began < 120
        time.sleep(0.02)


def children(process: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rpartition(")")[2].split()[1]) == process:
                found.append(int(path.parent.name))
        except OSError:
            continue
    return sorted(found)


@pytest.mark.slow
@pytest.mark.parametrize("options", SEARCHES[:3])
def test_fifty_thousand_lines(models: Models, tmp_path: Path, options: str) -> None:
    path = texts(tmp_path, 50_000)
    for name in ("whole", "ranks", "shards"):
        shards = [["--shard", f"{i}/3"] for i in range(3)] if name == "shards" else [[]]
        for shard in shards:
            words = [*command(models, path, tmp_path / name, options), *shard]
            if name == "ranks":
                done = torchrun(3, "sourcewise", *words)
                assert done.returncode == 0, done.stderr[-2000:]
            else:
                assert main(words) == 0
    whole = (tmp_path / "whole").read_bytes()
    assert whole.count(b"\n") == 50_000
    assert (tmp_path / "ranks").read_bytes() == (tmp_path / "shards").read_bytes() == whole
