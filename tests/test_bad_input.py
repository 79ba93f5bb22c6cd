"""Whatever is wrong with a request: one line that names it, exit status 2, and nothing left behind."""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import sourcewise
from sourcewise.cli import main
from tests.training.recipes import recipe

TINY = (
    "--model.d_model 8 --model.d_ff 8 --model.heads 1 --model.encoder_layers 1 --model.decoder_layers 1 --train.steps 2"
)
DIMS = 4


@dataclass(frozen=True)
class Models:
    """One tiny run of each kind, trained once."""

    text: Path
    features: Path


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    text = sourcewise.train(recipe(folder, name="text", train__steps=2, train__evaluate_every=2))
    write_features(folder)
    manifest = {"manifest": str(folder / "m.tsv"), "features": str(folder / "features")}
    data = {"train": manifest, "valid": manifest, "vocabulary": 64}
    features = sourcewise.train(recipe(folder, name="features", data=data, train__steps=2, train__evaluate_every=2))
    return Models(text.folder, features.folder)


def write_features(folder: Path, name: str = "m.tsv", lengths: tuple[int, ...] = (6, 8, 5), dims: int = DIMS) -> None:
    (folder / "features").mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for i, frames in enumerate(lengths):
        np.save(folder / "features" / f"clip{i}.npy", rng.standard_normal((frames, dims)).astype("float32"))
    rows = [f"clip{i}\t{frames}\tword {i}\n" for i, frames in enumerate(lengths)]
    (folder / name).write_text("id\tn_frames\ttext\n" + "".join(rows))


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


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, with what the files hold."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


class Bomb:
    """Leaves a folder where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unpickled",)


# ── pairs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

TRAIN = "train --name new {tiny} --data.train.pairs bad.tsv"
VALID = "train --name new {tiny} --data.train.pairs good.tsv --data.valid.pairs bad.tsv"
TEST = "train --name new {tiny} --data.train.pairs good.tsv --data.test.pairs bad.tsv"
EVALUATE = "evaluate {text} bad.tsv -o out"
DIAGNOSE = "diagnose {text} bad.tsv"
GENERATE = "generate {text} bad.tsv -o out.txt"
TOKENIZER = "tokenizer good.tsv bad.tsv -o out.json"
WITH_TARGETS = (TRAIN, VALID, TEST, EVALUATE, DIAGNOSE)
ALL = (*WITH_TARGETS, GENERATE)
HEADER = b"source\ttarget\n"

PAIRS: dict[str, tuple[bytes | None, tuple[str, ...], str]] = {
    "missing file": (None, (*ALL, TOKENIZER), "bad.tsv: no such file"),
    "wrong source column": (
        b"sorce\ttarget\na\tb\n",
        ALL,
        "bad.tsv: no column 'source'; it has: sorce, target",
    ),
    "wrong target column": (
        b"source\ttargte\na\tb\n",
        WITH_TARGETS,
        "bad.tsv: no column 'target'; it has: targte, source",
    ),
    "too few fields": (HEADER + b"a\tb\nonly\n", ALL, "bad.tsv:3: only 1 fields; the header names 2: source, target"),
    "not UTF-8": (HEADER + b"a\tb\nK\xe4se\tx\n", (*ALL, TOKENIZER), "bad.tsv:3: not UTF-8 text at byte 2 of the line"),
    "empty file": (b"", ALL, "bad.tsv: "),
    "empty set": (HEADER, ALL, "bad.tsv: no "),
    "empty target": (HEADER + b"a\tb\nc\t\n", WITH_TARGETS, "bad.tsv:3: the target is empty"),
    "blank target": (HEADER + b"a\t  \n", WITH_TARGETS, "bad.tsv:2: the target is empty"),
}


@pytest.mark.parametrize("case", PAIRS)
def test_pairs(case: str, here: Path, refused: Callable[..., str]) -> None:
    content, commands, line = PAIRS[case]
    if content is not None:
        (here / "bad.tsv").write_bytes(content)
    for command in commands:
        assert refused(command).startswith(line), command


# ── features ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def spoilt(value: float) -> np.ndarray:
    matrix = np.ones((8, DIMS), np.float32)
    matrix[5, 2] = value
    return matrix


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


MATRICES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "no such file; `features` should name the folder that holds it"),
    "truncated": (cut, "is cut off: 88 of 128 bytes"),
    "no numbers at all": (lambda p: p.write_bytes(p.read_bytes()[:20]), "has a broken header"),
    "pickled objects": (lambda p: np.save(p, np.array([[Bomb()]], object), allow_pickle=True), "holds pickled objects"),
    "a pickle": (lambda p: p.write_bytes(pickle.dumps(Bomb())), "is a pickle, which is never loaded"),
    "wrong rank": (lambda p: np.save(p, np.ones(8, np.float32)), "has shape (8,); a feature matrix is (frames, dims)"),
    "another width": (lambda p: np.save(p, np.ones((8, 5), np.float32)), "is 5 wide; its neighbours are 4 wide"),
    "NaN": (lambda p: np.save(p, spoilt(np.nan)), "has NaN or infinity, first in frame 5"),
    "infinity": (lambda p: np.save(p, spoilt(-np.inf)), "has NaN or infinity, first in frame 5"),
    "zero frames": (lambda p: np.save(p, np.ones((0, DIMS), np.float32)), "has no frames"),
    "other frames than the manifest says": (
        lambda p: np.save(p, np.ones((7, DIMS), np.float32)),
        "has 7 frames; the manifest says 8",
    ),
}
FEATURE_COMMANDS = (
    "train --name new {tiny} --data.train.manifest m.tsv --data.train.features features",
    "train --name new {tiny} --data.train.manifest m.tsv --data.cache_gb 0",
    "evaluate {features} m.tsv --features features -o out",
    "diagnose {features} m.tsv",
    "generate {features} m.tsv --features features -o out.txt",
)


@pytest.mark.parametrize("case", MATRICES)
def test_matrices(case: str, here: Path, refused: Callable[..., str]) -> None:
    spoil, problem = MATRICES[case]
    spoil(here / "features" / "clip1.npy")
    for command in FEATURE_COMMANDS:
        assert refused(command).startswith(f"m.tsv:3: features/clip1.npy: {problem}"), command
    assert not Path("unpickled").exists()


@pytest.mark.parametrize(
    "case", [case for case in MATRICES if case not in ("another width", "other frames than the manifest says")]
)
def test_one_matrix_alone(case: str, here: Path, refused: Callable[..., str]) -> None:
    spoil, problem = MATRICES[case]
    spoil(here / "features" / "clip1.npy")
    assert problem in refused("generate {features} features/clip1.npy -o out.txt")
    assert not Path("unpickled").exists()


KINDS = {
    "text for a feature model": (
        ("generate {features} good.tsv -o o", "evaluate {features} good.tsv -o o", "diagnose {features} good.tsv"),
        "good.tsv: its sources are text; {features} reads features 4 wide",
    ),
    "features for a text model": (
        ("generate {text} m.tsv -o o", "evaluate {text} m.tsv --features features -o o", "diagnose {text} m.tsv"),
        "m.tsv: its sources are features 4 wide; {text} reads text",
    ),
    "features of another width": (
        ("generate {features} w/m.tsv -o o", "evaluate {features} w/m.tsv -o o", "diagnose {features} w/m.tsv"),
        "w/m.tsv: its sources are features 7 wide; {features} reads features 4 wide",
    ),
    "a feature model trained on text": (
        ("train --name new {tiny} --model.weights {features} --data.train.pairs good.tsv",),
        "{features}: its bridge reads",
    ),
    "features of another width to train on": (
        ("train --name new {tiny} --model.weights {features} --data.train.manifest w/m.tsv",),
        "{features}: its bridge reads",
    ),
    "a validation set of another kind": (
        ("train --name new {tiny} --data.train.manifest m.tsv --data.valid.pairs good.tsv",),
        "good.tsv: its sources are text, those of m.tsv features 4 wide",
    ),
    "a mixture of kinds": (
        ("train mixed.yaml",),
        "data.train: m.tsv is features 4 wide, good.tsv is text; sets of a mixture must be alike",
    ),
    "a folder of features beside lines": (
        ("generate {features} lines.txt --features features -o o",),
        "lines.txt: a folder of features goes with a manifest, which is a .tsv",
    ),
    "a folder of features that is not there": (
        (
            "generate {features} m.tsv --features nowhere -o o",
            "evaluate {features} m.tsv --features nowhere -o o",
            "train --name new {tiny} --data.train.manifest m.tsv --data.train.features nowhere",
        ),
        "nowhere: no such folder; it should hold the .npy files that m.tsv lists",
    ),
}


@pytest.mark.parametrize("case", KINDS)
def test_kinds(case: str, here: Path, models: Models, refused: Callable[..., str]) -> None:
    (here / "w").mkdir()
    write_features(here / "w", dims=7)
    (here / "lines.txt").write_text("a\n")
    (here / "mixed.yaml").write_text("data:\n  train:\n  - manifest: m.tsv\n  - pairs: good.tsv\n")
    commands, line = KINDS[case]
    for command in commands:
        assert refused(command).startswith(line.format(text=models.text, features=models.features)), command


# ── recipes and options ───────────────────────────────────────────────────────────────────────────────────────────────

RECIPES = {
    "an unknown key": ("train:\n  stepz: 5\n", "bad.yaml: train.stepz: unknown key; did you mean train.steps?"),
    "a key of another section": (
        "learning_rate: 1\n",
        "bad.yaml: learning_rate: unknown key; did you mean train.learn",
    ),
    "a wrong type": ("train:\n  steps: few\n", "bad.yaml: train.steps should be a valid integer, not 'few'"),
    "out of range": ("train:\n  epochs: 0\n", "bad.yaml: train.epochs should be greater than 0, not 0"),
    "no YAML": ("train: [\n", "bad.yaml:2: not a recipe's YAML"),
    "a key twice": ("seed: 1\nseed: 2\n", "bad.yaml:2: not a recipe's YAML: seed is given twice"),
    "nothing to train on": ("seed: 1\n", "data.train: missing"),
}
OPTIONS = {
    "--train.stepz 5": "--train.stepz: unknown key; did you mean --train.steps?",
    "--train.steps few": "--train.steps should be a valid integer, not 'few'",
    "--train.learning_rate -1": "--train.learning_rate should be greater than or equal to 0",
    "--train.learning_rate .nan": "--train.learning_rate should be a finite number",
    "--model.dropout 1": "--model.dropout should be less than 1",
    "--model.heads 3": "options: model: d_model 8 is not a multiple of heads 3",
    "--model.relative_buckets 1": "--model.relative_buckets should be greater than or equal to 4",
    "--model.relative_distance 1": "options: model: relative_distance 1 is not above half of relative_buckets",
    "--seed 99999999999999999999": "--seed should be less than 9223372036854775808",
    "--train.threads 100000": "--train.threads should be less than or equal to 1024",
    "--train.freeze encoder,bridg": "--train.freeze",
    "--train.freeze encoder,decoder,embedding": "train.freeze: nothing is left to train",
    "--name ../up": "--name should be folder of the run under output",
    "--train.device tpu": "--train.device should be auto, cpu, cuda, cuda:1 or mps, not 'tpu'",
    "--train.device cuda:99": "device cuda:99: not available here",
    "--data.tokenizer none.json": "none.json: no such tokenizer",
    "--model.weights ./nowhere": "nowhere: no such folder; give a run, a Hugging Face folder or a hub name",
    "--output good.tsv": "good.tsv/new: cannot be made",
    "--model.d_model 10000000": "out of memory",
}


@pytest.mark.parametrize("case", RECIPES)
def test_recipes(case: str, here: Path, refused: Callable[..., str]) -> None:
    content, line = RECIPES[case]
    (here / "bad.yaml").write_text(content)
    assert refused("train bad.yaml").startswith(line)


@pytest.mark.parametrize("words", OPTIONS)
def test_options(words: str, refused: Callable[..., str]) -> None:
    command = "train --name new {tiny} --data.train.pairs good.tsv " + words
    assert refused(command).startswith(OPTIONS[words])


USES = {
    "generate {text} good.tsv --beams 0 -o o": "generation: beams should be greater than 0, not 0",
    "generate {text} good.tsv --beams 1000000 -o o": "generation: beams should be less than or equal to 1000",
    "generate {text} good.tsv --sample --temperature 0 -o o": "generation: temperature should be greater than 0",
    "generate {text} good.tsv --sample --seed -1 -o o": "generation: seed should be greater than or equal to 0",
    "evaluate {text} good.tsv --max-new-tokens 0 -o o": "generation: max_new_tokens should be greater than 0",
    "evaluate {text} good.tsv --source en -o o": "good.tsv: no column 'en'; it has: ",
    "generate {text} features": "features: cannot be read (Is a directory)",
    "report features": "features: not a run: none of recipe.yaml, metrics.jsonl, metrics.json is here",
    "report nowhere": "nowhere: no such run folder",
    "diagnose features": "features: neither a run nor a Hugging Face folder",
    "explain SRC9": "SRC9: no such rule; did you mean SRC001?",
    "tokenizer good.tsv -o o.json --vocabulary 2": "--vocabulary should be greater than or equal to 16, not 2",
    "tokenizer good.tsv -o o.txt": "-o o.txt: name a file that ends in .json",
    "tokenizer /dev/null -o o.json": "tokenizer: no text to train on",
    "train {text}": "{text}: in use; go on with --resume, replace with --overwrite, or set --name",
    "train {text} --resume --train.steps 9": "--train.steps: the run has 2; a resumed run keeps its recipe",
    "train ./nowhere --resume": "./nowhere: no such recipe",
}


@pytest.mark.parametrize("words", USES)
def test_uses(words: str, models: Models, refused: Callable[..., str]) -> None:
    assert refused(words).startswith(USES[words].format(text=models.text))


@pytest.mark.parametrize(
    "words",
    [["generate", ""], ["evaluate", "m", ""], ["generate", "m", "x", "-o", ""], ["report", ""], ["diagnose", ""]],
    ids=" ".join,
)
def test_an_empty_argument_is_not_the_current_folder(
    words: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert re.fullmatch(r"sourcewise: error: argument .*: is empty; .*\n", capsys.readouterr().err)


# ── models ────────────────────────────────────────────────────────────────────────────────────────────────────────────

MODEL_COMMANDS = ("generate {} good.tsv -o o", "evaluate {} good.tsv -o o", "diagnose {} good.tsv")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("./nowhere", "nowhere: no such folder; give a run, a Hugging Face folder or a hub name"),
        ("a/b/c", "a/b/c: no such folder"),
        ("features", "features: neither a run nor a Hugging Face folder"),
        ("no-such-model", "no-such-model: no folder of this name here, and the hub "),
        ("nobody/no-such-model", "nobody/no-such-model: no folder of this name here, and the hub "),
        ("what?", "what?: no folder of this name here, nor is it a hub name"),
    ],
)
def test_an_unknown_model(name: str, line: str, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for command in (*MODEL_COMMANDS, "train --name new {{tiny}} --data.train.pairs good.tsv --model {}"):
        assert refused(command.format(name)).startswith(line.replace("here, nor", "here, and nor")), command


def test_an_unknown_data_set_of_the_hub(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sourcewise.data.hub._answers", lambda name: False)
    for command in ("train --name new {tiny} --data.train.pairs hub:no/such", "evaluate {text} hub:no/such -o o"):
        assert "hub:no/such: split 't" in refused(command)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def changed(**keys: object) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def dropped(key: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))


CHECKPOINTS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "truncated weights": ("model.safetensors", half, "truncated or not safetensors"),
    "empty weights": ("model.safetensors", lambda p: p.write_bytes(b""), "truncated or not safetensors"),
    "no weights": ("model.safetensors", Path.unlink, "no weights (model.safetensors or pytorch_model.bin)"),
    "weights of another shape": ("config.json", changed(d_ff=128), "has the shape"),
    "weights of another width": ("config.json", changed(d_model=10**9), "shared.weight has the shape ("),
    "a layer too many": ("config.json", changed(num_layers=2), "is missing"),
    "a configuration cut off": ("config.json", half, "not a JSON object"),
    "a configuration of another kind": ("config.json", lambda p: p.write_text("[1, 2]"), "not a JSON object"),
    "a configuration without a key": (
        "config.json",
        dropped("d_kv"),
        "the key 'd_kv' of a T5 configuration is missing",
    ),
    "a configuration of wrong types": ("config.json", changed(num_layers="two"), "describes no network"),
    "an unknown architecture": ("config.json", changed(model_type="nope"), "transformers cannot open it"),
    "no tokenizer": ("tokenizer.json", Path.unlink, "no tokenizer"),
    "a tokenizer cut off": ("tokenizer.json", half, "not a tokenizer.json"),
    "a bridge cut off": ("bridge.safetensors", half, "truncated or not safetensors"),
    "no bridge": ("bridge.safetensors", Path.unlink, "missing"),
    "a bridge of another shape": ("sourcewise.json", changed(dims=9), "does not fit the bridge of sourcewise.json"),
    "a bridge of no kind": ("sourcewise.json", changed(bridge={"kind": "glue"}), "describes no network"),
    "a bridge not described": (
        "sourcewise.json",
        dropped("bridge"),
        "describes no network that can be made (no 'bridge')",
    ),
    "an unknown route": ("sourcewise.json", changed(route="detour"), "describes no network"),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_damaged_checkpoint(case: str, here: Path, models: Models, refused: Callable[..., str]) -> None:
    file, spoil, problem = CHECKPOINTS[case]
    of_features = file in ("bridge.safetensors", "sourcewise.json")
    shutil.copytree((models.features if of_features else models.text) / "checkpoints" / "best", here / "model")
    spoil(here / "model" / file)
    data, training = ("m.tsv", "manifest m.tsv") if of_features else ("good.tsv", "pairs good.tsv")
    for command in (
        f"generate model {data} -o o",
        f"evaluate model {data} -o o",
        f"diagnose model {data}",
        f"train --name new {{tiny}} --data.train.{training} --model model",
    ):
        line = refused(command)
        assert line.startswith("model") and problem in line, command


def test_a_damaged_run(here: Path, models: Models, refused: Callable[..., str]) -> None:
    shutil.copytree(models.text, here / "run")
    half(here / "run" / "state" / "state.pt")
    assert refused("train run --resume", begun=True).startswith("run/state/state.pt: damaged")
    half(here / "run" / "metrics.json")
    for command in ("report run", "diagnose run"):
        assert re.match(r"run/metrics\.json:\d+: not JSON", refused(command))
    (here / "run" / "recipe.yaml").write_text("train: 5\n")
    for command in ("generate run good.tsv", "train run --resume"):
        assert refused(command).startswith("run/recipe.yaml: train should be a section")


# ── places to write ───────────────────────────────────────────────────────────────────────────────────────────────────

PLACES = {
    "generate {text} good.tsv -o features": "features: is a folder; name a file to write",
    "generate {text} good.tsv -o good.tsv/out": "good.tsv/out: cannot be written; ",
    "evaluate {text} good.tsv -o good.tsv": "good.tsv/metrics.json: cannot be written; ",
    "tokenizer good.tsv -o good.tsv/t.json": "good.tsv/t.json: cannot be written; ",
    "train --name new {tiny} --data.train.pairs good.tsv --output good.tsv": "good.tsv/new: cannot be made",
    "train --name good.tsv {tiny} --data.train.pairs good.tsv --output .": "good.tsv: a file is in the way",
    "train --name features {tiny} --data.train.pairs good.tsv --output .": "features: in use; ",
    "train --name features {tiny} --data.train.pairs good.tsv --output . --overwrite": "features: not a run, so ",
}


@pytest.mark.parametrize("words", PLACES)
def test_a_place_that_cannot_be_written(words: str, refused: Callable[..., str]) -> None:
    assert refused(words).startswith(PLACES[words])


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Within: no file grows beyond 40 bytes."""
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, kept[1]))
    yield
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
def test_a_full_disk(words: str, file: str, here: Path, refused: Callable[..., str], full_disk: None) -> None:
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


# ── through a process of its own ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "words",
    [
        "train --name new --data.train.pairs none.tsv",
        "generate {text} none.txt -o out.txt",
        "evaluate nobody/no-such-model good.tsv -o out",
    ],
)
def test_a_process_says_one_line(words: str, here: Path, models: Models) -> None:
    before = tree(here)
    done = subprocess.run(
        [sys.executable, "-m", "sourcewise", *words.format(text=models.text).split()],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("sourcewise: error: ")
    assert tree(here) == before
