"""Places that cannot be written, odd lines, moved runs, closed streams, Ctrl-C."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sourcewise
from sourcewise.cli import main
from tests.commands import ENVIRONMENT, TINY, Models, tree

# ── places to write ───────────────────────────────────────────────────────────────────────────────────────────────────

PLACES = {
    "generate {text} good.tsv -o features": "features: is a folder; name a file to write",
    "generate {text} good.tsv -o good.tsv/out": "good.tsv/out: cannot be written; ",
    "evaluate {text} good.tsv -o good.tsv": "good.tsv/metrics.json: cannot be written; ",
    "tokenizer good.tsv -o good.tsv/t.json": "good.tsv/t.json: cannot be written; ",
    "train --name new {tiny} --data.train.pairs good.tsv --output good.tsv": "good.tsv/new: cannot be made",
    "train --name good.tsv {tiny} --data.train.pairs good.tsv --output .": "good.tsv: a file is in the way",
    "train --name features {tiny} --data.train.pairs good.tsv --output .": "features: not empty, and not a run, ",
    "train --name features {tiny} --data.train.pairs good.tsv --output . --overwrite": "features: not empty, ",
}


@pytest.mark.parametrize("words", PLACES)
def test_a_place_that_cannot_be_written(words: str, refused: Callable[..., str]) -> None:
    assert refused(words).startswith(PLACES[words])


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Within: no file grows beyond 40 bytes. No fixture: pytest's own output would meet the limit."""
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, kept[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(
    ("words", "file"),
    [
        ("generate {text} good.tsv -o new/out.txt --json", "new/out.txt"),
        ("evaluate {text} good.tsv -o new/results", "new/results/metrics.json"),
        ("tokenizer good.tsv -o new/t.json", "new/t.json"),
    ],
)
def test_a_full_disk(words: str, file: str, here: Path, refused: Callable[..., str]) -> None:
    with full_disk():
        line = refused(words, begun=True)
    assert re.match(rf"(.*/)?{file}: cannot be written \(", line), line


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="needs /dev/full")
def test_devices_are_written_into_and_stay_what_they_are(
    here: Path, models: Models, refused: Callable[..., str]
) -> None:
    Path("full").symlink_to("/dev/full")  # never the device itself: a mistake here would replace it
    Path("null").symlink_to("/dev/null")
    os.mkfifo("pipe")
    assert refused("generate {text} good.tsv -o full") == "full: cannot be written (No space left on device)"
    assert main(["generate", str(models.text), "good.tsv", "-o", "null"]) == 0
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert main(["generate", str(models.text), "good.tsv", "-o", "pipe"]) == 0
    assert os.read(reader, 10_000).count(b"\n") == 3
    os.close(reader)
    assert Path("null").is_char_device() and Path("pipe").is_fifo() and Path("/dev/null").is_char_device()


def test_a_link_stays_a_link(here: Path, models: Models) -> None:
    (here / "real.txt").write_text("old")
    Path("link.txt").symlink_to("real.txt")
    assert main(["generate", str(models.text), "good.tsv", "-o", "link.txt"]) == 0
    assert Path("link.txt").is_symlink() and (here / "real.txt").read_text().count("\n") == 3


def test_what_cannot_be_trained_does_not_cost_the_run_it_would_replace(here: Path, refused: Callable[..., str]) -> None:
    assert main(f"train --name kept {TINY} --data.train.pairs good.tsv".split()) == 0
    assert refused("train --name kept {tiny} --data.train.pairs none.tsv --overwrite") == "none.tsv: no such file"
    assert refused("train --name kept {tiny} --data.train.pairs good.tsv --overwrite --model ./none")
    assert main(f"train --name kept {TINY} --seed 3 --data.train.pairs good.tsv --overwrite".split()) == 0
    assert sourcewise.load("runs/kept").generate(["ba"])


# ── what is odd, and right ────────────────────────────────────────────────────────────────────────────────────────────

ODD = {
    "blank lines": ("ba\n\n\nki\n", ["ba", "", "", "ki"]),
    "only a blank line": ("\n", [""]),
    "no end of the last line": ("ba\nki", ["ba", "ki"]),
    "Windows": ("\ufeffba\r\n\r\nki\r\n", ["ba", "", "ki"]),
    "separators of Unicode": ("ba\u2028do\x0b\x0c\x85\nki\u2029\n", ["ba\u2028do\x0b\x0c\x85", "ki\u2029"]),
    "a very long line": ("ba do " * 20_000 + "\nki\n", ["ba do " * 20_000, "ki"]),
    "what no tokenizer knows": ("😀\u202e\0\n\t\n", ["😀\u202e\0", "\t"]),
}


@pytest.mark.parametrize("case", ODD)
def test_one_output_a_line(
    case: str, here: Path, models: Models, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given, sources = ODD[case]
    (here / "in.txt").write_bytes(given.encode())
    assert main(["generate", str(models.text), "in.txt", "--json"]) == 0
    assert [json.loads(line)["source"] for line in capsys.readouterr().out.split("\n")[:-1]] == sources
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
    assert main(["generate", str(models.text)]) == 0
    assert capsys.readouterr().out.count("\n") == len(sources)


def test_nothing_on_standard_input(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    for words in ("generate {text} -o o", "tokenizer - -o o.json"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
        assert "no " in refused(words)


@pytest.mark.parametrize("rows", [["ba do\tone two"], [f"ba do\tone {n} two" for n in range(9)]], ids=["one", "equal"])
def test_source_bits_are_not_measured_where_no_two_sources_differ(
    rows: list[str], here: Path, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "same.tsv").write_text("source\ttarget\n" + "".join(f"{row}\n" for row in rows))
    assert main(["evaluate", str(models.text), "same.tsv", "--json", "-o", "out"]) == 0
    printed = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    written = json.loads((here / "out" / "metrics.json").read_text(), parse_constant=pytest.fail)
    for figures in (printed, written):
        assert (figures["source_bits"], figures["source_bits_ci95"]) == (None, [None, None])
        assert "source bits: not measured" in figures["verdict"]
    main(["diagnose", str(models.text), "same.tsv", "--json"])
    diagnosis = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert any("SRC001" in missing for missing in diagnosis["not_checked"])


def test_a_run_may_be_moved(here: Path, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(models.text, here / "home" / "moved")
    monkeypatch.setenv("HOME", str(here / "home"))
    for words in (
        "generate ~/moved good.tsv -o ~/out.txt",
        "evaluate ./home/moved/ good.tsv",
        "train home/moved --resume",
        "report ~/moved",
    ):
        assert main(words.split()) == 0, words
    assert (here / "home" / "out.txt").is_file() and not (here / "~").exists() and not (here / "runs").exists()


def test_a_run_without_a_checkpoint(here: Path, models: Models, refused: Callable[..., str]) -> None:
    (here / "half").mkdir()
    for name in ("recipe.yaml", "metrics.jsonl"):
        shutil.copy(models.text / name, here / "half")
    assert refused("generate half good.tsv") == "half: no checkpoint yet; go on with: sourcewise train half --resume"
    assert main(["report", "half"]) == 0


# ── through a process of its own ──────────────────────────────────────────────────────────────────────────────────────


WRONG = (
    "train --name new --data.train.pairs none.tsv",
    "generate {text} none.txt -o out.txt",
    "evaluate nobody/no-such-model good.tsv -o out",
)


def begun(words: str, models: Models, **pipes: int) -> subprocess.Popen[str]:
    """A command in a process of its own; several are begun before the first is waited for."""
    command = [sys.executable, "-m", "sourcewise", *words.format(text=models.text).split()]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **pipes}
    return subprocess.Popen(command, text=True, env=ENVIRONMENT, **streams)


def test_a_process_says_one_line(here: Path, models: Models) -> None:
    before = tree(here)
    for process in [begun(words, models) for words in WRONG]:
        out, said = process.communicate(timeout=60)
        assert (process.returncode, out, said.count("\n")) == (2, "", 1)
        assert said.startswith("sourcewise: error: ")
    assert tree(here) == before


WITHOUT_STREAMS = {
    "generate {text} good.tsv >&-": 0,
    "evaluate {text} good.tsv 2>&- >out.txt": 0,
    "generate {text} <&-": 2,
    "generate {text} none.txt 2>/dev/full": 2,
    "echo é | PYTHONIOENCODING=ascii sourcewise generate {text} --json": 2,
    "generate {text} good.tsv | true": 0,
}


def test_closed_and_narrow_streams(here: Path, models: Models) -> None:
    running = []
    for words in WITHOUT_STREAMS:
        line = words if "sourcewise" in words else f"sourcewise {words}"
        line = line.replace("sourcewise", f"{sys.executable} -m sourcewise").format(text=models.text)
        running.append(subprocess.Popen(["bash", "-c", line], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT))
    for (words, status), process in zip(WITHOUT_STREAMS.items(), running, strict=True):
        said = process.communicate(timeout=60)[1]
        assert process.returncode == status, (words, said)
        assert "Traceback" not in said and "bug" not in said and said.count("\n") <= 1, (words, said)


def test_ctrl_c_is_one_line(here: Path, models: Models) -> None:
    before = tree(here)
    both = [begun(words, models, stdin=subprocess.PIPE) for words in ("generate {text} -", "tokenizer - -o o.json")]
    for process in both:
        until_it_waits(process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (130, "sourcewise: interrupted\n")
    assert tree(here) == before


def until_it_waits(process: subprocess.Popen[str]) -> None:
    """Until it reads its standard input: it has begun, and for half a second its processor time stands still."""
    begun, spent = time.monotonic(), ""
    stat = Path(f"/proc/{process.pid}/stat")
    while time.monotonic() < begun + 60:
        before, spent = spent, " ".join(stat.read_text().split()[13:15]) if stat.exists() else "unknown"
        if before == spent and time.monotonic() > begun + 1:
            return
        time.sleep(0.5)
