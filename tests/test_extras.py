"""What is seldom needed is an extra: a first user needs none, and whoever lacks one is told which."""

from __future__ import annotations

import importlib.metadata as metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

from scripts import installed_sizes
from sourcewise.cli import main
from sourcewise.data.formats.audio import resampled
from sourcewise.runtime.info import EXTRAS
from tests.commands import TINY

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MOST_MB = 60  # of an installation, without torch and transformers
OF_USERS = set(PROJECT["optional-dependencies"]) - {"dev", "docs", "release"}
HIDDEN = (
    "pyarrow",
    "pandas",
    "datasets",
    "scipy",
    "matplotlib",
    "sklearn",
    "PIL",
    "soundfile",
    "h5py",
    "peft",
    "av",
    "rouge_score",
    "nltk",
)
HIDES = f"""
from importlib.machinery import PathFinder
kept = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in {HIDDEN!r} else kept(name, path, target)
PathFinder.find_spec = staticmethod(find_spec)
"""


def name_of(text: str) -> str:
    return re.sub(r"[-_.]+", "-", Requirement(text).name).lower()


def needed(packages: Iterable[str]) -> set[str]:
    """The packages, and all that they need without any extra of theirs."""
    found: set[str] = set()
    left = list(packages)
    while left:
        package = left.pop()
        if package not in found:
            found.add(package)
            wanted = [Requirement(text) for text in metadata.requires(package) or []]
            left += [name_of(str(each)) for each in wanted if not each.marker or each.marker.evaluate({"extra": ""})]
    return found


def megabytes(package: str) -> float:
    paths = [Path(str(file.locate())) for file in metadata.files(package) or []]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def test_an_installation_is_small() -> None:
    base = needed(name_of(text) for text in PROJECT["dependencies"]) - needed(["torch", "transformers"])
    sizes = {package: megabytes(package) for package in base}
    own = [path for part in ("sourcewise", "recipes") for path in (ROOT / part).rglob("*") if path.is_file()]
    own = [path for path in own if "__pycache__" not in path.parts]
    compiled = [path for path in own if path.suffix == ".py"]  # pip writes a file about as large beside each
    sizes["sourcewise"] = sum(path.stat().st_size for path in [*own, *compiled]) / 1e6
    assert all(sizes[package] > 0 for package in ("sacrebleu", "jiwer", "sourcewise")), sizes
    assert sum(sizes.values()) <= MOST_MB, sorted(sizes.items(), key=lambda item: -item[1])
    assert not base & {
        "pyarrow",
        "pandas",
        "datasets",
        "scipy",
        "matplotlib",
        "pillow",
        "scikit-learn",
        "nltk",
        "joblib",
    }


def test_every_extra_of_users_is_told_of_by_info() -> None:
    assert set(EXTRAS) == OF_USERS
    for extra, packages in EXTRAS.items():
        wanted = {name_of(text) for text in PROJECT["optional-dependencies"][extra]}
        assert set(packages) == wanted or wanted == {"sacrebleu"}, extra


def test_the_page_of_versions_has_the_size_of_every_extra() -> None:
    """As scripts/installed_sizes.py measured them; it writes into rows that are there."""
    page = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([\d,.]+) \|$", page, re.M))
    assert set(rows) == OF_USERS
    sizes = {extra: 1000.0 + place for place, extra in enumerate(sorted(OF_USERS))}
    sizes |= {"base": 2000.0, "sourcewise": 3000.0, "wheel": 4.5, **dict.fromkeys(installed_sizes.PARTS, 5000.0)}
    changed = installed_sizes.written(page, sizes)
    assert "| 1,000 |" in changed and "(the wheel has 4.5)" in changed and changed.count("| 5,000 |") == 3
    with pytest.raises(ValueError, match="no row for nothing"):
        installed_sizes.written(page, {"nothing": 1.0})


def test_every_extra_that_is_named_is_one() -> None:
    named = 0
    for file in [*(ROOT / "sourcewise").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        for found in re.findall(r"pip install '(?:sourcewise|\.)\[([a-z0-9,]+)\]'", file.read_text(encoding="utf-8")):
            assert set(found.split(",")) <= set(PROJECT["optional-dependencies"]), f"{file}: {found}"
            named += 1
    assert named > 20


def test_tests_have_every_package_of_the_extras() -> None:
    """`dev`, `demo` and `serve` are what `make` installs; some trackers are left to those who have them."""
    extras = PROJECT["optional-dependencies"]
    there = {name_of(text) for extra in ("dev", "demo", "serve") for text in extras[extra]}
    for extra in (
        "parquet",
        "hub",
        "pictures",
        "rouge",
        "audio",
        "video",
        "h5",
        "lora",
        "export",
        "lightning",
        "bench",
    ):
        assert {name_of(text) for text in extras[extra]} <= there, extra


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a package as if it were not installed."""

    def lack(package: str) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.delitem(sys.modules, "sourcewise.data.formats.arrow", raising=False)

    return lack


@pytest.mark.parametrize(
    "words",
    [
        "train --name x --data.train.pairs x.parquet " + TINY,
        "train --name x --data.train.pairs x.parquet --data.train.stream true " + TINY,
        "train --name x --data.train.manifest x.parquet " + TINY,
        "train --name x --data.train.manifest x.feather " + TINY,
        "evaluate {text} x.parquet",
        "diagnose {text} x.parquet",
        "generate {text} x.parquet",
        "generate {features} x.arrow",
        "split x.parquet --by source --valid 10%",
    ],
)
def test_parquet_says_what_it_takes(here: Path, refused: Callable, lacking: Callable, words: str) -> None:
    for ending in ("parquet", "feather", "arrow"):
        (here / f"x.{ending}").write_bytes(b"PAR1" + bytes(8) + b"PAR1")
    lacking("pyarrow")
    said = refused(words)
    assert re.search(r"x\.\w+: a Parquet or Arrow file takes pyarrow, which is not installed", said), said
    assert said.endswith("pip install 'sourcewise[parquet]'")


@pytest.mark.parametrize("words", ["train --name x --data.train.pairs hub:some/set " + TINY, "evaluate {text} hub:a/b"])
def test_sets_of_the_hub_say_what_they_take(refused: Callable, lacking: Callable, words: str) -> None:
    lacking("datasets")
    said = refused(words)
    assert said.endswith("a set of the hub takes datasets, which is not installed: pip install 'sourcewise[hub]'")


ROUGE = "rouge_l: ROUGE-L takes rouge_score, which is not installed: pip install 'sourcewise[rouge]'"


@pytest.mark.parametrize(
    "words",
    [
        "evaluate {text} good.tsv --metrics rouge_l",
        "score good.tsv good.tsv --metrics rouge_l",
        "train --name x --data.train.pairs good.tsv --data.valid.pairs good.tsv --evaluation.metrics [rouge_l] " + TINY,
        "train --name x --data.train.pairs good.tsv --data.valid.pairs good.tsv --train.best rouge_l " + TINY,
    ],
)
def test_rouge_says_what_it_takes_before_any_work(refused: Callable, lacking: Callable, words: str) -> None:
    lacking("rouge_score")
    assert refused(words) == ROUGE


def test_without_rouge_all_scores_are_the_others(
    here: Path, lacking: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "said.txt").write_text("ba\ndo\n")
    words = ["score", "said.txt", "said.txt", "--json"]
    assert main(words) == 0
    usual = json.loads(capsys.readouterr().out)
    lacking("rouge_score")
    assert main(words) == 0
    said = capsys.readouterr()
    assert f"{ROUGE}; it is left out" in said.err
    found = json.loads(said.out)
    assert "rouge_l" in str(usual) and "rouge_l" not in str(found) and "chrf" in str(found)


def test_other_rates_of_recordings_say_what_they_take(lacking: Callable) -> None:
    samples = np.zeros(1600, dtype=np.float32)
    lacking("scipy")
    assert resampled(samples, 16_000) is samples
    with pytest.raises(ValueError, match=r"8,000 samples a second.* scipy.*pip install 'sourcewise\[audio\]'"):
        resampled(samples, 8_000)


def run(folder: Path, *words: str) -> str:
    """A command by a Python that has none of the packages in HIDDEN."""
    path = os.pathsep.join([str(folder / "hides"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "sourcewise", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def write_data(folder: Path) -> None:
    """The same 60 pairs as TSV, CSV and JSONL, and as features."""
    (folder / "hides").mkdir()
    (folder / "hides" / "sitecustomize.py").write_text(HIDES)
    (folder / "features").mkdir()
    rng = np.random.default_rng(0)
    words = ["ba", "do", "ki", "lu", "me", "no"]
    said = [" ".join(rng.choice(words, 3)) for _ in range(60)]
    (folder / "x.tsv").write_text("source\ttarget\n" + "".join(f"{text}\t{text.upper()}\n" for text in said))
    (folder / "x.csv").write_text("source,target\n" + "".join(f"{text},{text.upper()}\n" for text in said))
    (folder / "x.jsonl").write_text("".join(f'{{"source": "{text}", "target": "{text.upper()}"}}\n' for text in said))
    (folder / "m.tsv").write_text("id\ttext\n" + "".join(f"c{i}\t{text}\n" for i, text in enumerate(said)))
    for i in range(60):
        np.save(folder / "features" / f"c{i}.npy", rng.standard_normal((6, 4)).astype(np.float32))


SHORT = [*TINY.split(), "--train.evaluate_every", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["tsv", "csv", "jsonl"])
def test_a_first_user_needs_no_extra_for_texts(tmp_path: Path, ending: str) -> None:
    write_data(tmp_path)
    data = f"x.{ending}"
    said = run(tmp_path, "train", "--name", "x", "--data.train.pairs", data, "--data.valid.pairs", data, *SHORT)
    assert "pip install 'sourcewise[pictures]'" in said
    assert {"training_curves.svg", "report.html"} <= {path.name for path in (tmp_path / "runs" / "x").iterdir()}
    run(tmp_path, "evaluate", "runs/x", data, "-o", "measured")
    assert "TF-IDF of" in (tmp_path / "measured" / "metrics.json").read_text()  # the baseline of the nearest source
    run(tmp_path, "generate", "runs/x", data, "-o", "out.txt")
    assert len((tmp_path / "out.txt").read_text().splitlines()) == 60
    run(tmp_path, "diagnose", data)
    run(tmp_path, "report", "runs/x")


@pytest.mark.slow
def test_a_first_user_needs_no_extra_for_features(tmp_path: Path) -> None:
    write_data(tmp_path)
    data = ["--data.train.manifest", "m.tsv", "--data.train.features", "features"]
    run(tmp_path, "train", "--name", "x", *data, *(word.replace(".train.", ".valid.") for word in data), *SHORT)
    run(tmp_path, "evaluate", "runs/x", "m.tsv", "--features", "features", "-o", "measured")
    run(tmp_path, "generate", "runs/x", "m.tsv", "--features", "features", "-o", "out.txt")
    assert len((tmp_path / "out.txt").read_text().splitlines()) == 60
    run(tmp_path, "trace", "runs/x", "features/c0.npy", "-o", "trace.html")
    run(tmp_path, "report", "runs/x")
