"""A package of somebody else's, installed by pip: its rule, bridge, metric and reader are there in every command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.commands import ENVIRONMENT, TINY
from tests.forking import Forking

HERE = Path(__file__).parent / "elsewhere"
LOUD = "".join(f"{'ab'[i % 2] * (i % 5 + 1)} {i} ||| {'XY'[i % 2] * (i % 5 + 1)} {'Q' * (i % 7)}Z\n" for i in range(60))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip put the package."""
    folder = tmp_path_factory.mktemp("site")
    words = [
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(folder),
        str(HERE),
    ]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True, text=True)
    return folder


@pytest.fixture
def forked(site: Path, tmp_path: Path) -> Iterator[Forking]:
    """Commands where the package is installed."""
    with Forking(tmp_path, beside(site)) as forked:
        yield forked


def beside(site: Path) -> dict[str, str]:
    return ENVIRONMENT | {"PYTHONPATH": os.pathsep.join((str(site), ENVIRONMENT["PYTHONPATH"]))}


def run(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sourcewise", *words]
    return subprocess.run(command, cwd=folder, env=beside(site), capture_output=True, text=True)


def test_rule_metric_and_reader_in_every_command(forked: Forking, tmp_path: Path) -> None:
    (tmp_path / "loud.bars").write_text(LOUD)
    words = "--data.train.pairs loud.bars --data.valid.pairs loud.bars --data.vocabulary 60 --data.unit characters"
    options = ["--output", "runs", *words.split(), *TINY.split(), "--train.best", "first_letter_pct"]
    trained = forked.run(["train", "--name", "loud", *options, "--train.preflight", "true"])
    assert trained.returncode == 0, trained.stderr
    assert "ELS001" in trained.stdout + trained.stderr
    page = (tmp_path / "runs" / "loud" / "report.html").read_text()
    assert "ELS001" in page and "targets all in capitals" in page and "First letter right" in page

    evaluated = forked.run(["evaluate", "runs/loud", "loud.bars", "--require", "first_letter_pct>=0"])
    assert evaluated.returncode == 0 and "first letter right" in evaluated.stdout, evaluated.stderr

    found = json.loads(forked.run(["diagnose", "runs/loud", "--json"]).stdout)
    assert any(each["code"] == "ELS001" and "100 % of 60" in each["evidence"] for each in found["findings"])
    told = forked.run(["explain", "ELS001"]).stdout
    assert "Warning from 50 %" in told and "sourcewise-elsewhere" in told

    (tmp_path / "wrong.bars").write_text("a ||| b\nc | d\n")
    refused = forked.run(["evaluate", "runs/loud", "wrong.bars"])
    assert refused.returncode == 2
    assert "wrong.bars: not read (line 2: no ' ||| ' between source and target)" in refused.stderr
    (tmp_path / "empty.bars").write_text("a ||| b\nc ||| \n")
    assert "empty.bars:2: the target is empty" in forked.run(["evaluate", "runs/loud", "empty.bars"]).stderr


def test_a_bridge_is_trained_and_read_again(forked: Forking, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        np.save(tmp_path / "clips" / f"c{i}.npy", rng.standard_normal((9, 4)).astype("float32"))
    (tmp_path / "m.tsv").write_text("id\ttext\n" + "".join(f"c{i}\tword {i}\n" for i in range(12)))
    data = "--data.train.manifest m.tsv --data.train.features clips --data.vocabulary 40 --data.unit characters"
    options = ["--output", "runs", "--name", "clips", *data.split(), *TINY.split(), "--model.bridge.kind", "average"]
    trained = forked.run(["train", *options])
    assert trained.returncode == 0, trained.stderr
    words = ["generate", "runs/clips", "m.tsv", "--features", "clips"]
    spoken = forked.run(words)
    assert spoken.returncode == 0 and len(spoken.stdout.splitlines()) == 12, spoken.stderr

    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    missing = run(nowhere, tmp_path, *words)
    assert missing.returncode == 2
    assert "sourcewise.json: a bridge of kind 'average', not projection, attention, " in missing.stderr


def test_a_format_of_features_is_read_everywhere(forked: Forking, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for i in range(12):
        (tmp_path / "clips" / f"c{i}.raw").write_bytes(np.full((9, 4), i, "<f4").tobytes())
    (tmp_path / "m.tsv").write_text("id\ttext\n" + "".join(f"c{i}\tword {i}\n" for i in range(12)))
    data = "--data.train.manifest m.tsv --data.train.features clips --data.vocabulary 40 --data.unit characters"
    trained = forked.run(["train", "--output", "runs", "--name", "raw", *data.split(), *TINY.split()])
    assert trained.returncode == 0, trained.stderr
    spoken = forked.run(["generate", "runs/raw", "m.tsv", "--features", "clips"])
    assert spoken.returncode == 0 and len(spoken.stdout.splitlines()) == 12, spoken.stderr
    assert forked.run(["generate", "runs/raw", "clips/c3.raw"]).returncode == 0
    (tmp_path / "clips/c3.raw").write_bytes(bytes(17))
    refused = forked.run(["generate", "runs/raw", "m.tsv", "--features", "clips"])
    assert refused.returncode == 2
    assert "m.tsv:5: clips/c3.raw: is cut off: 17 bytes are no frames of 4 numbers" in refused.stderr


def test_what_is_installed_is_told(site: Path, tmp_path: Path) -> None:
    found = json.loads(run(site, tmp_path, "info", "--json").stdout)["plug-ins"]
    assert found == {
        "sourcewise.bridges": "average of sourcewise-elsewhere 0.3",
        "sourcewise.features": "raw of sourcewise-elsewhere 0.3",
        "sourcewise.metrics": "first_letter_pct of sourcewise-elsewhere 0.3",
        "sourcewise.readers": "bars of sourcewise-elsewhere 0.3",
        "sourcewise.rules": "shouting of sourcewise-elsewhere 0.3",
    }


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("shouting", "explain ELS001"),
        ("average", "train digits --model.bridge.kind average"),
        ("first_letter", "train dates --train.best first_letter_pct"),
        ("bars", "generate m x.bars"),
        ("raw", "train --data.train.manifest m.tsv --data.train.features x.raw"),
    ],
)
def test_a_broken_plug_in_is_a_warning_that_names_it(site: Path, tmp_path: Path, module: str, words: str) -> None:
    broken = tmp_path / "site"
    subprocess.run(["cp", "-r", str(site), str(broken)], check=True)
    (broken / "elsewhere" / f"{module}.py").write_text("import a_package_that_is_not_there\n")
    (tmp_path / "x.bars").write_text("a ||| b\n")
    (tmp_path / "m.tsv").write_text("id\ttext\na\tb\n")
    (tmp_path / "x.raw").write_bytes(bytes(16))
    done = run(broken, tmp_path, *words.split())
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "of sourcewise-elsewhere" in done.stderr and "left out: ModuleNotFoundError" in done.stderr
