"""Figures and findings of trainings, written to trackers and read back from their own files, offline."""

from __future__ import annotations

import importlib
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sourcewise
from sourcewise.diagnosis.finding import Finding
from sourcewise.errors import RequestError
from sourcewise.tracking import Place, Trackers, check_installed, numbers_of
from sourcewise.tracking.kinds import tracker_of
from tests.commands import TINY
from tests.integrations.loops import Apart, batches, words

FINDING = Finding("WIR003", "weights that are not trained", "error", "encoder is not in the optimizer", "Train it.")
LINES: list[dict[str, Any]] = [
    {"kind": "train", "step": 10, "loss": 2.5, "gradient_norms": {"encoder": 0.5}, "best": True},
    {"kind": "evaluation", "step": 10, "loss": 2.0, "bleu": 12.5, "verdict": "good", "source_bits_ci95": [0.1, 0.2]},
]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A run of two lines and a finding, by the tracker of this name."""
    name = request.param
    pytest.importorskip(name, reason=f"{name} is not installed: pip install 'sourcewise[trackers]'")
    for each in ("WANDB_MODE", "MLFLOW_TRACKING_URI", "TRACKIO_SPACE_ID"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    if name == "trackio":
        utils = importlib.import_module("trackio.utils")
        monkeypatch.setattr(utils, "TRACKIO_DIR", tmp_path / "trackio")
        monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    run = tmp_path / "run"
    run.mkdir()
    trackers = Trackers()
    trackers.open([name], Place(run, {"train.steps": 10}))
    assert [each.name for each in trackers.trackers] == [name]
    for line in LINES:
        trackers.log(numbers_of(line), line["step"])
    trackers.alert(FINDING, 10)
    trackers.close()
    return tmp_path


def test_figures_of_a_line() -> None:
    assert numbers_of(LINES[0]) == {"train/loss": 2.5, "train/gradient_norms/encoder": 0.5}
    assert numbers_of(LINES[1]) == {"valid/loss": 2.0, "valid/bleu": 12.5}


@pytest.mark.parametrize("written", ["tensorboard"], indirect=True)
def test_tensorboard(written: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(written / "run" / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("valid/bleu")] == [(10, 12.5)]
    (text,) = events.Tensors("sourcewise/WIR003/text_summary")
    assert b"encoder is not in the optimizer" in text.tensor_proto.string_val[0]


def records(log: bytes) -> Iterator[bytes]:
    """What a file of W&B's holds: LevelDB's log format behind seven bytes (crc, length, whole or first to last)."""
    at, found = 7, b""
    while at + 7 <= len(log):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        size, kind = struct.unpack_from("<HB", log, at + 4)
        found += log[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            yield found
            found = b""


def whole(file: Path) -> list[Any]:
    """All records of a run, once W&B's own process has written the last."""
    from wandb.proto import wandb_internal_pb2

    found: list[Any] = []
    for _ in range(100):
        found = [wandb_internal_pb2.Record.FromString(data) for data in records(file.read_bytes())]
        if found and found[-1].HasField("exit"):
            break
        time.sleep(0.1)
    return found


@pytest.mark.parametrize("written", ["wandb"], indirect=True)
def test_wandb_offline(written: Path) -> None:
    (file,) = (written / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    figures: dict[str, Any] = {}
    alerts = []
    for record in whole(file):
        figures |= {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
        if record.HasField("alert"):
            alerts.append((record.alert.title, record.alert.level, record.alert.text))
    assert figures["train/loss"] == 2.5 and figures["valid/bleu"] == 12.5 and figures["_step"] == 10
    ((title, level, text),) = alerts
    assert title.startswith("WIR003") and level == "ERROR" and "not in the optimizer" in text


@pytest.mark.parametrize("written", ["mlflow"], indirect=True)
def test_mlflow(written: Path) -> None:
    from mlflow import MlflowClient

    files = written / "run" / "mlruns"
    client = MlflowClient(files.as_uri() if files.exists() else f"sqlite:///{written / 'run' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("sourcewise").experiment_id])
    assert run.data.metrics["valid/bleu"] == 12.5 and run.data.params["train.steps"] == "10"
    assert run.info.status == "FINISHED" and "not in the optimizer" in run.data.tags["sourcewise.WIR003"]


@pytest.mark.slow
@pytest.mark.parametrize("written", ["trackio"], indirect=True)
def test_trackio(written: Path) -> None:
    from trackio.sqlite_storage import SQLiteStorage

    (name,) = SQLiteStorage.get_runs("sourcewise")
    (first, second) = SQLiteStorage.get_logs("sourcewise", name)
    assert first["train/loss"] == 2.5 and second["valid/bleu"] == 12.5 and second["step"] == 10
    (alert,) = SQLiteStorage.get_alerts("sourcewise")
    assert alert["title"].startswith("WIR003") and alert["level"] == "error"


def test_a_training_of_ours(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / "pairs.tsv").write_text("source\ttarget\n" + "".join(f"a {i}\tb {i}\n" for i in range(8)))
    words = dict(zip(TINY.split()[::2], TINY.split()[1::2], strict=True))
    options: dict[str, Any] = {name.removeprefix("--"): value for name, value in words.items()}
    pairs = str(tmp_path / "pairs.tsv")
    options |= {
        "data.train.pairs": pairs,
        "data.valid.pairs": pairs,
        "train.track": "tensorboard",
        "train.log_every": 1,
    }
    run = sourcewise.train(None, options | {"output": str(tmp_path / "run")})
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    trained = [
        (line["step"], pytest.approx(line["loss"], rel=1e-6)) for line in run.metrics() if line["kind"] == "train"
    ]
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == trained
    assert "valid/bleu" in events.Tags()["scalars"]


class Broken:
    name = "broken"
    calls = 0

    def log(self, numbers: Any, step: int) -> None:
        self.calls += 1
        raise ConnectionError("no server\nthere")

    def alert(self, *given: Any) -> None:
        raise AssertionError("is left out")

    close = alert


def test_a_tracker_that_fails_is_left_out_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    broken = Broken()
    trackers = Trackers([broken])
    for step in range(3):
        trackers.log({"loss": 1.0}, step)
    trackers.alert(FINDING, 3)
    trackers.close()
    assert broken.calls == 1
    assert capsys.readouterr().err == "sourcewise: broken: not tracked: ConnectionError: no server there\n"


def test_what_is_no_finite_number_is_not_drawn() -> None:
    seen: list[Any] = []
    kept = type("Kept", (), {"name": "kept", "log": lambda self, numbers, step: seen.append((numbers, step))})()
    trackers = Trackers([kept])
    trackers.log({"loss": float("nan"), "bleu": 3.0}, 1)
    trackers.log({"loss": float("inf")}, 2)
    assert seen == [({"bleu": 3.0}, 1)]


def test_what_is_not_installed_and_what_is_none_is_told() -> None:
    with pytest.raises(RequestError, match=r"not_there is not installed: pip install 'sourcewise\[trackers\]'"):
        check_installed(["not_there"])
    with pytest.raises(RequestError, match="42 is no tracker"):
        tracker_of(42)


class Writer:
    """In the place of a SummaryWriter."""

    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []
        self.texts: list[tuple[str, str, int]] = []

    def add_scalar(self, key: str, value: float, step: int) -> None:
        self.scalars.append((key, value, step))

    def add_text(self, key: str, text: str, step: int) -> None:
        self.texts.append((key, text, step))

    def flush(self) -> None: ...


def test_a_doctor_of_a_plain_loop_tells_them() -> None:
    training, writer = Apart("unoptimised"), Writer()
    doctor = sourcewise.doctor(training.modules, training.optimizers, track=writer)
    training.run(12, doctor.step)
    doctor.evaluate(list(batches(words(64, 1), begin=False)))
    assert next((key, step) for key, _, step in writer.texts) == ("sourcewise/WIR003", 1)
    assert ("sourcewise_source_bits", 12) in [(key, step) for key, _, step in writer.scalars]
    pytest.importorskip("mlflow")
    with pytest.raises(RequestError, match="no run of mlflow is open"):
        sourcewise.doctor(training.modules, training.optimizers, track="mlflow")
