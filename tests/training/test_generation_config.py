"""A run's checkpoint says how it searches: transformers' `generate`, asked for nothing, gives its outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import sourcewise
from sourcewise.config import Recipe
from sourcewise.errors import DataWarning
from sourcewise.model.weights.checkpoint import save_network
from sourcewise.training.learner import Learner
from sourcewise.training.setup import set_up
from tests.generation.folders import change, write_folder
from tests.model.families.zoo import folder_of, task, tokenizer

SHAPE = {"d_model": 16, "d_ff": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1, "positions": 48}
SEARCHES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "greedy": {"beams": 1, "max_new_tokens": 30},
    "beams": {"beams": 3, "max_new_tokens": 24, "length_penalty": 0.5, "no_repeat_ngram": 2, "early_stopping": True},
    "penalties": {
        "beams": 2,
        "max_new_tokens": 26,
        "min_new_tokens": 4,
        "repetition_penalty": 1.3,
        "encoder_no_repeat_ngram": 3,
        "encoder_repetition_penalty": 1.2,
        "early_stopping": "never",
    },
}
SOURCES = ["ran mol tiv", "sak", "pel dor nim fus gab hyl ran", "mol mol"]


def trained(folder: Path, generation: dict[str, Any], **model: Any) -> sourcewise.Run:
    words = ["ran", "mol", "tiv", "sak", "pel", "dor", "nim", "fus", "gab", "hyl"]
    rows = [f"{a} {b}\t{b[::-1]} {a[::-1]} {a}\n" for a in words for b in words]
    (folder / "pairs.tsv").write_text("source\ttarget\n" + "".join(rows))
    recipe = {
        "name": "run",
        "output": str(folder),
        "data.train.pairs": str(folder / "pairs.tsv"),
        "data.max_source": 32,
        "data.max_target": 32,
        "train.steps": 12,
        "train.learning_rate": 0.02,
        "train.warmup_steps": 2,
        "train.preflight": False,
        "train.precision": "fp32",
        "data.vocabulary": 48,
        **{f"generation.{key}": value for key, value in ({"max_new_tokens": 40} | generation).items()},
        **{f"model.{key}": value for key, value in model.items()},
    }
    return sourcewise.train(None, recipe)


@torch.inference_mode()
def generated(folder: Path, sources: list[str] = SOURCES) -> list[str]:
    """What transformers' `generate` gives, asked for nothing."""
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = [model.generate(tokenizer(text, return_tensors="pt").input_ids)[0] for text in sources]
    return [tokenizer.decode(row, skip_special_tokens=True) for row in rows]


@pytest.mark.parametrize("family", ["t5", "bart"])
@pytest.mark.parametrize("search", SEARCHES)
def test_transformers_searches_as_the_run_does(family: str, search: str, tmp_path: Path) -> None:
    run = trained(tmp_path, SEARCHES[search], family=family, **SHAPE)
    model = sourcewise.load(run.folder)
    outputs = model.generate(SOURCES)
    assert generated(run.last) == outputs
    assert len({*outputs}) > 1 and max(len(model.tokenizer.encode(text)) for text in outputs) > 3
    # Taken out of its run the folder is a stranger's, and still says it all.
    elsewhere = tmp_path / "elsewhere"
    run.last.rename(elsewhere)
    assert sourcewise.load(elsewhere).generate(SOURCES) == outputs


def test_drawing_is_said_whole(tmp_path: Path) -> None:
    sampled = {"sample": True, "temperature": 0.7, "top_p": 0.9, "min_p": 0.05}
    run = trained(tmp_path, sampled, family="t5", **SHAPE)
    said = json.loads((run.last / "generation_config.json").read_text())
    expected = {"do_sample": True, "num_beams": 1, "temperature": 0.7, "top_p": 0.9, "min_p": 0.05, "top_k": 0}
    assert said.items() >= expected.items()
    own, alone = sourcewise.load(run.folder), tmp_path / "alone"
    run.last.rename(alone)
    assert sourcewise.load(alone).generate(SOURCES, seed=3) == own.generate(SOURCES, seed=3)


def test_what_the_weights_were_said_with_is_told_and_its_ids_stay(tmp_path: Path) -> None:
    """Of a folder that training begins with, the ids go on; its search gives way to the recipe's, which is told."""
    write_folder("bart", tmp_path / "start")
    change(tmp_path / "start", num_beams=6, length_penalty=2.0, suppress_tokens=[9, 20], eos_token_id=[1, 12])
    with pytest.warns(DataWarning, match="asks for beams = 6, length_penalty = 2.0: not followed") as told:
        run = trained(tmp_path, {}, weights=str(tmp_path / "start"))
    assert any("not followed; `generation` of the recipe holds" in str(each.message) for each in told)
    said = json.loads((run.last / "generation_config.json").read_text())
    assert said["eos_token_id"] == [1, 12] and said["bad_words_ids"] == [[9], [20]]
    assert said["forced_eos_token_id"] == 1 and said["num_beams"] == 4 and "length_penalty" not in said
    assert sourcewise.load(run.folder).network.defaults.ends == (1, 12)
    assert generated(run.last) == sourcewise.load(run.folder).generate(SOURCES)


STRANGE = {  # settings of the folder that a training begins with, which are not the recipe's
    "num_beams": 6,
    "length_penalty": 2.0,
    "max_length": 9,
    "min_length": 7,
    "no_repeat_ngram_size": 1,
    "repetition_penalty": 1.9,
    "num_return_sequences": 2,
    "suppress_tokens": [10],
}


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("kind", ["m2m_100", "pegasus", "encoder-decoder (BERT2GPT)"])
def test_so_does_a_model_that_transformers_computes(kind: str, search: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    start = tmp_path / "start"
    folder_of(kind, start)
    tokenizer(start)
    change(start, **STRANGE)
    data = {"train": task(tmp_path, "text"), "max_source": 40, "max_target": 40}
    generation = {"max_new_tokens": 30} | SEARCHES[search]
    train = {"steps": 2, "learning_rate": 1e-3, "warmup_steps": 1, "precision": "fp32"}
    recipe = {"model": {"weights": str(start)}, "data": data, "train": train, "generation": generation}
    setup = set_up(Recipe.model_validate(recipe))
    learner = Learner(setup)
    for _ in range(2):
        learner.learn([np.arange(len(setup.train))])
    save_network(setup.network, tmp_path / "out", setup.tokenizer, setup.recipe.generation)
    texts = [f"s{i} s{(i * 7) % 20} s{i}" for i in range(4)]
    outputs = sourcewise.load(tmp_path / "out").generate(texts)
    assert generated(tmp_path / "out", texts) == outputs and len({*outputs}) > 1
    assert "s6" not in " ".join(outputs).split()  # its suppressed token is no setting of the search
