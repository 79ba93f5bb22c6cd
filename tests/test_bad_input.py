"""Whatever is wrong with data or options: one line that names it, exit status 2, and nothing left behind."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sourcewise.cli import main
from tests.commands import DIMS, Bomb, Models, write_features

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
        "bad.tsv: no column 'target'; it has: source, targte; is 'targte' meant?",
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
    "wrong rank": (
        lambda p: np.save(p, np.ones((2, 8, 4), np.float32)),
        "has shape (2, 8, 4); a feature matrix is (frames, dims)",
    ),
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
    if case == "pickled objects":  # alone it may be an annotation of plain records, but this one calls something
        problem = "is a pickle that names posix.mkdir; only arrays, tensors, texts, numbers, lists and dicts are read"
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
    "--name ../up": "--name should be folder of the run under output",
    "--train.device tpu": "--train.device should be auto, cpu, cuda, cuda:1 or mps, not 'tpu'",
    "--train.device cuda:99": "device cuda:99: not available here",
    "--data.tokenizer none.json": "none.json: no such tokenizer",
    "--model.weights ./nowhere": "nowhere: no such folder; give a run, a Hugging Face folder or a hub name",
    "--output good.tsv": "good.tsv/new: cannot be made",
    "--model.d_model 10000000000000": "out of memory",
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


def test_a_training_with_nothing_to_train_is_stopped_by_its_preflight(refused: Callable[..., str]) -> None:
    line = refused("train --data.train.pairs good.tsv --train.freeze encoder,decoder,embedding", begun=True)
    assert line.startswith("before the first step: WIR003") and "train.freeze: nothing is left to train" in line


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
    "explain SRC9": "SRC9: no such rule; did you mean SRC007?",
    "tokenizer good.tsv -o o.json --vocabulary 2": "--vocabulary should be greater than or equal to 16, not 2",
    "tokenizer good.tsv -o o.txt": "-o o.txt: name a file that ends in .json",
    "tokenizer /dev/null -o o.json": "tokenizer: no text to train on",
    "train {text}": "{text}: a run is there; go on with --resume, replace with --overwrite, or set --name",
    "train {text} --resume --train.steps 1": "--train.steps: the run has 2; it can only be more",
    "train {text} --resume --train.batch_size 9": "--train.batch_size: the run has None; a resumed run",
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
