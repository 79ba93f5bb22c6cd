"""Write golden files anew: python -m tests.golden.make PART... from the repository's folder, with OMP_NUM_THREADS=1.

PART is one of
    figures      logits, losses, gradients          seconds
    curves       twenty steps of training           seconds
    diagnoses    the exam's faults and controls     minutes
    inputs       models, tokenizer, pairs, batch    never again: the other files are computed from these
    old_run      two run folders                    never again: they would no longer be old

**This is allowed only for a change of behaviour that was made on purpose, and that CHANGES.md beside this file lists,
with its reason, in the same commit.** Where a test of these files fails otherwise, the code is what is wrong. Weights
and batches are read from files, so another order of initialisation is no such change.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

os.environ["SOURCEWISE_COMPILE"] = "0"

import torch
from safetensors.torch import save_file
from torch import nn

import sourcewise
from sourcewise.config import ModelConfig, Recipe
from sourcewise.data.examples import Dataset, Example
from sourcewise.data.readers.digits import WORDS as DIGITS
from sourcewise.data.readers.digits import read_digits
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.model.builder import build_network
from sourcewise.model.weights.checkpoint import save_network
from tests.golden import computed
from tests.golden.inputs import CONTROLS, DIMS, FAMILIES, FAULTS, HERE, PRECISIONS, SIZE
from tests.training.recipes import SPOKEN, WORDS, pairs_file

SHAPE = {"d_model": 16, "d_ff": 24, "heads": 2, "encoder_layers": 2, "decoder_layers": 2, "dropout": 0.0}
BATCH = {  # ids of sources, prompts and labels; the label 1 is the end of text; frames of features
    "sources": [[9, 14, 7, 14, 21, 5, 1], [12, 1], [6, 7, 19, 28, 1], [18, 8, 24, 17, 30, 22, 1], [3, 5, 1]],
    "prompts": [[9, 14], [12], [6, 7, 19], [18], [3, 5]],
    "frames": [24, 7, 16, 21, 1],
    "labels": [[20, 6, 15, 1], [11, 8, 25, 26, 9, 1], [1], [8, 18, 1], [29, 19, 4, 10, 1]],
}


def main(parts: list[str]) -> None:
    writers = {"inputs": inputs, "figures": figures, "curves": curves, "diagnoses": diagnoses, "old_run": old_run}
    if not parts or not set(parts) <= writers.keys():
        sys.exit(__doc__)
    torch.set_num_threads(1)
    for part in parts:
        writers[part]()


def inputs() -> None:
    """Models whose every tensor matters, the tokenizer and pairs of the trainings, and the batch."""
    pairs_file(HERE, size=200)
    texts = [" ".join(words) for words in (WORDS, SPOKEN, DIGITS)]
    tokenizer = Tokenizer.train(texts, SIZE)
    tokenizer.save(HERE / "tokenizer")
    write_json("batch.json", BATCH)
    for number, family in enumerate(FAMILIES):
        torch.manual_seed(number)
        features = family == "bridge"
        made = {"family": "t5" if features else family, **SHAPE, "bridge": {"stride": 3}, "positions": 64}
        config = ModelConfig.model_validate(made)
        data = read_digits(limit=50) if features else Dataset([Example("a", "b", "c")], name="texts")
        network = build_network(config, tokenizer, data)
        for parameter in network.parameters():
            if parameter.ndim == 1:  # gains of 1 and biases of 0 would hide their place
                nn.init.normal_(parameter, float(parameter.detach().mean()), 0.2)
        assert network.dims == (DIMS if features else 0)
        save_network(network, HERE / "models" / family)


def figures() -> None:
    """One file a family and precision."""
    (HERE / "figures").mkdir(exist_ok=True)
    for family in FAMILIES:
        for precision in PRECISIONS:
            with tempfile.TemporaryDirectory() as scratch:
                found = computed.figures(family, precision, Path(scratch))
            save_file(found, HERE / "figures" / f"{family}-{precision}.safetensors")
    write_json("machine.json", computed.machine())


def curves() -> None:
    """One file for all."""
    with tempfile.TemporaryDirectory() as output:
        write_json("curves.json", {family: computed.curve(family, Path(output)) for family in FAMILIES})
    write_json("machine.json", computed.machine())


def diagnoses() -> None:
    """One file for all."""
    asked = [("fault", *each) for each in FAULTS] + [("control", *each) for each in CONTROLS]
    write_json("diagnoses.json", [computed.diagnosis(*each) for each in asked])


def old_run() -> None:
    """Two runs as they are left behind, and how they go on; what `report` draws again is left out."""
    to = HERE / "old_run"
    with _folder() as folder:
        shutil.copy(HERE / "pairs.tsv", folder / "pairs.tsv")
        for recipe in (_text(), _features()):
            run = sourcewise.train(recipe)
            for drawn in ("report.html", "training_curves.png"):
                (run.folder / drawn).unlink()
        shutil.copytree(folder, to, dirs_exist_ok=True)
        seen = {name: computed.codes(sourcewise.diagnose(name).to_dict()) for name in ("text", "features")}
        told = {name: computed.continued(Path(name)) for name in ("text", "features")}
    write_json("old_run/continued.json", told)
    write_json("old_run/diagnoses.json", seen)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        yield Path(folder)


def _text() -> Recipe:
    pairs = {"pairs": "pairs.tsv"}
    data = {"train": pairs, "valid": pairs | {"limit": 20}, "test": pairs | {"limit": 10}, "vocabulary": 48}
    return _old("text", data, {"family": "t5"}, {"average": 2})


def _features() -> Recipe:
    data = {use: {"builtin": "digits", "split": use, "limit": n} for use, n in (("train", 100), ("valid", 10))}
    data["test"] = {"builtin": "digits", "split": "test", "limit": 10}
    return _old("features", {**data, "vocabulary": 48}, {"family": "rnn"}, {})


def _old(name: str, data: dict[str, Any], model: dict[str, Any], train: dict[str, Any]) -> Recipe:
    shape = SHAPE | {"encoder_layers": 1, "decoder_layers": 1} | model
    steps = {"steps": 60, "evaluate_every": 30, "log_every": 5, "batch_tokens": 400, "warmup_steps": 4}
    fixed = {"precision": "fp32", "threads": 1, "device": "cpu", "preflight": False, "learning_rate": 1e-2}
    tree = {"name": name, "output": ".", "data": data, "model": shape, "train": steps | fixed | train}
    return Recipe.model_validate(tree | {"generation": {"beams": 2, "max_new_tokens": 12}})


def write_json(name: str, value: Any) -> None:
    """One line a change: indented, floats as they read back exactly."""
    (HERE / name).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
