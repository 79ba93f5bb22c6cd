"""Recipes and options: what is read, what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sourcewise.config import Recipe
from sourcewise.config.files import load_recipe, options, parse_overrides, save_recipe
from sourcewise.errors import RequestError

PAIRS = {"pairs": "train.tsv"}

# (what a recipe says, the line that is told of it)
WRONG: list[tuple[dict[str, Any], str]] = [
    # unknown keys: the same name elsewhere, a near one here, a near one elsewhere, else what there is
    ({"train": {"stepz": 5}}, "train.stepz: unknown key; did you mean train.steps?"),
    ({"trian": {"steps": 5}}, "trian: unknown key; did you mean train?"),
    ({"Train": {"steps": 5}}, "Train: unknown key; did you mean train?"),
    ({"steps": 5}, "steps: unknown key; did you mean train.steps?"),
    ({"train": {"beams": 4}}, "train.beams: unknown key; did you mean generation.beams?"),
    ({"learningrate": 1}, "learningrate: unknown key; did you mean train.learning_rate?"),
    ({"data": {"train": {"pairz": "a"}}}, "data.train.pairz: unknown key; did you mean data.train.pairs?"),
    (
        {"data": {"train": [{**PAIRS, "limits": 1}]}},
        "data.train.0.limits: unknown key; did you mean data.train.0.limit?",
    ),
    ({"frobnicate": 1}, "frobnicate: unknown key; known here: name, output, seed, data, model, train, generation"),
    # wrong types
    ({"train": {"steps": "many"}}, "train.steps should be a valid integer, not 'many'"),
    ({"train": {"steps": 1.5}}, "train.steps should be a valid integer, not 1.5"),
    ({"train": {"steps": True}}, "train.steps should be a number, not True"),
    ({"train": {"learning_rate": False}}, "train.learning_rate should be a number, not False"),
    ({"train": {"steps": [1]}}, "train.steps should be a valid integer, not a list"),
    ({"data": {"train": {**PAIRS, "lowercase": "maybe"}}}, "data.train.lowercase should be true or false, not 'maybe'"),
    ({"data": {"root": 5}}, "data.root should be text, not 5"),
    ({"data": {"train": {"pairs": ["a.tsv"]}}}, "data.train.pairs should be text, not a list"),
    ({"train": {1: 2}}, "train.1 should be a key that is text, not 1"),
    # out of range
    ({"train": {"steps": 0}}, "train.steps should be greater than 0, not 0"),
    ({"train": {"label_smoothing": 1.0}}, "train.label_smoothing should be less than 1, not 1.0"),
    ({"train": {"sampling_half": 0}}, "train.sampling_half should be greater than 0, not 0"),
    ({"train": {"word_dropout": 1.0}}, "train.word_dropout should be less than 1, not 1.0"),
    ({"train": {"focal": -1}}, "train.focal should be greater than or equal to 0, not -1"),
    (
        {"train": {"scheduled_sampling": "sigmoid"}},
        "train.scheduled_sampling should be 'none', 'linear', 'exponential' or 'inverse_sigmoid', not 'sigmoid'",
    ),
    ({"seed": -1}, "seed should be greater than or equal to 0, not -1"),
    ({"train": {"learning_rate": float("nan")}}, "train.learning_rate should be a finite number, not nan"),
    ({"train": {"schedule": "cos"}}, "train.schedule should be 'cosine', 'inverse_sqrt' or 'constant', not 'cos'"),
    (
        {"train": {"freeze": ["encodr"]}},
        "train.freeze.0 should be 'encoder', 'decoder', 'embedding', 'bridge' or 'features', not",
    ),
    ({"train": {"device": "gpu"}}, "train.device should be auto, cpu, cuda, cuda:1 or mps, not 'gpu'"),
    ({"name": "../up"}, "name should be folder of the run under output: letters, digits, . _ -, not '../up'"),
    ({"name": ".."}, "name should be folder of the run"),
    ({"data": {"train": {**PAIRS, "weight": 0}}}, "data.train.weight should be greater than 0, not 0"),
    # sections
    ({"train": 5}, "train should be a section with keys like epochs, steps, batch_tokens, batch_size, not 5"),
    ({"train": [1]}, "train should be a section with keys like epochs, steps, batch_tokens, batch_size, not a list"),
    (
        {"model": {"bridge": "perceiver"}},
        "model.bridge should be a section with keys like kind, stride, latents, layers",
    ),
    # a training set is a section or a list of sections
    (
        {"data": {"train": "x.tsv"}},
        "data.train should be a section with keys like pairs, conversations, text, denoise, not",
    ),
    (
        {"data": {"train": ["a.tsv"]}},
        "data.train.0 should be a section with keys like pairs, conversations, text, denoise",
    ),
    ({"data": {"train": []}}, "data.train should have at least one entry, not an empty list"),
    (
        {"data": {"valid": ["x.tsv"]}},
        "data.valid.0 should be a section with keys like pairs, conversations, text, denoise, not",
    ),
    (
        {"data": {"train": [PAIRS, {"manifest": "m", "weight": 0}]}},
        "data.train.1.weight should be greater than 0, not 0",
    ),
    ({"data": {"train": {}}}, "data.train: give one of pairs, conversations, text, manifest and builtin, not none"),
    (
        {"data": {"train": {**PAIRS, "builtin": "digits"}}},
        "data.train: give one of pairs, conversations, text, manifest and builtin, not pairs",
    ),
    (
        {"data": {"train": [{**PAIRS, "manifest": "m"}]}},
        "data.train.0: give one of pairs, conversations, text, manifest and builtin, not pairs",
    ),
    ({"data": {"train": {**PAIRS, "features": "f"}}}, "data.train: features goes with a manifest; give manifest too"),
    ({"data": {"train": {"builtin": "digit"}}}, "data.train.builtin should be 'digits' or 'dates', not 'digit'"),
    # mixtures and conversations
    ({"data": {"train": [PAIRS, PAIRS]}}, "data.train: two sets are called train; give each a name of its own"),
    ({"data": {"valid": [PAIRS, {**PAIRS, "metric": "blue"}]}}, "data.valid.1.metric should be 'bleu', 'chrf', 'wer'"),
    ({"data": {"rate_cap": 10}}, "data: rate_cap and temperature go with rates: proportional"),
    ({"data": {"rates": "proportional", "temperature": 0}}, "data.temperature should be greater than 0, not 0"),
    ({"data": {"chat": {"turn": "{role}"}}}, "data.chat: turn should hold {text} once, not '{role}'"),
    ({"data": {"chat": {"model_roles": ["User"]}}}, "data.chat: user is named twice among the roles"),
    (
        {"data": {"valid": PAIRS}, "train": {"best": "tasks_mean"}},
        "recipe: train.best tasks_mean is the mean of the tasks' metrics; give data.valid its metric",
    ),
    # keys that contradict each other
    ({"model": {"d_model": 10, "heads": 4}}, "model: d_model 10 is not a multiple of heads 4; set d_kv"),
    (
        {"generation": {"min_new_tokens": 9, "max_new_tokens": 5}},
        "generation: min_new_tokens 9 is above max_new_tokens 5",
    ),
]


def refusal(*arguments: Any) -> str:
    with pytest.raises(RequestError) as caught:
        load_recipe(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("tree", "line"), WRONG, ids=[line[:60] for _, line in WRONG])
def test_a_wrong_recipe_is_told_in_one_line_with_file_and_key(tmp_path: Path, tree: dict[str, Any], line: str) -> None:
    import yaml

    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    assert refusal(path).startswith(f"{path}: {line}")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("train:\n  steps: [1, 2\n", ":3: not a recipe's YAML: "),
        ("train:\n\tsteps: 1\n", ":2: not a recipe's YAML: found character '\\t' that cannot start any token"),
        ("train: {steps: 1}\nseed: 1\ntrain: {epochs: 2}\n", ":3: not a recipe's YAML: train is given twice"),
        ("just words\n", ": a recipe is a YAML mapping with sections name, output, seed, data, model, train"),
        ("- a\n- b\n", ": a recipe is a YAML mapping"),
        ("seed: !!python/object:os.system {}\n", ":1: not a recipe's YAML: could not determine a constructor"),
    ],
)
def test_a_file_that_is_no_recipe_is_told_with_its_line(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    assert refusal(path).startswith(f"{path}{line}")


def test_a_recipe_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"name: caf\xe9\n")
    assert refusal(path) == f"{path}: not UTF-8 text (byte 9)"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("digit", "digit: no such recipe; did you mean digits?"),
        ("missing/digits.yaml", "missing/digits.yaml: no such recipe; did you mean digits?"),
        ("qqq", "qqq: no such recipe; a file, a run folder, or one of "),
    ],
)
def test_an_unknown_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(name).startswith(line)
    (tmp_path / "folder").mkdir()
    assert refusal("folder").startswith("folder: no such recipe; ")


def test_what_the_command_line_got_wrong_is_told_as_an_option() -> None:
    assert refusal("digits", {"train.stepz": 1}) == "--train.stepz: unknown key; did you mean --train.steps?"
    assert refusal("digits", {"train.steps": 0}) == "--train.steps should be greater than 0, not 0"
    assert refusal("digits", {"train.steps.more": 1}) == "--train.steps.more: train.steps is not a section"
    assert refusal(None, {"data.train": {"pairs": 1}}) == "--data.train.pairs should be text, not 1"


def test_options_cannot_reach_into_a_mixture(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {train: [{pairs: a.tsv}, {pairs: b.tsv}]}\n", encoding="utf-8")
    assert refusal(path, {"data.train.limit": 5}) == "--data.train.limit: train is a list in the recipe; edit it there"


@pytest.mark.parametrize(
    ("words", "overrides"),
    [
        (["--train.steps", "100", "--seed=3"], {"train.steps": 100, "seed": 3}),
        (["--train.learning_rate", "5e-5"], {"train.learning_rate": 5e-5}),
        (["--train.steps", "1e4"], {"train.steps": 1e4}),
        (["--train.batch-size", "16"], {"train.batch_size": 16}),
        (["--train.steps", "null"], {"train.steps": None}),
        (["--generation.sample", "true"], {"generation.sample": True}),
        (["--train.freeze", "[encoder, bridge]"], {"train.freeze": ["encoder", "bridge"]}),
        (["--data.train", "{pairs: a.tsv, limit: 5}"], {"data.train": {"pairs": "a.tsv", "limit": 5}}),
        # text is what was typed, whatever YAML would make of it
        (["--data.train.prefix", "translate: "], {"data.train.prefix": "translate: "}),
        (["--name", "2024"], {"name": "2024"}),
        (["--name", "on"], {"name": "on"}),
        (["--data.train.pairs=a=b.tsv"], {"data.train.pairs": "a=b.tsv"}),
        (["--data.train.source", "null"], {"data.train.source": None}),
        (["--model", "google/flan-t5-small"], {"model": "google/flan-t5-small"}),
    ],
)
def test_options_are_read(words: list[str], overrides: dict[str, Any]) -> None:
    assert parse_overrides(words) == overrides


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--train.steps"], "--train.steps: a value is missing"),
        (["--train.steps", "--seed", "1"], "--train.steps: a value is missing"),
        (["train.steps", "1"], "train.steps: not understood; options look like --train.steps 100"),
        (["--", "1"], "--: not understood; options look like --train.steps 100"),
        (["--train..steps", "1"], "--train..steps: not understood; options look like --train.steps 100"),
    ],
)
def test_options_that_are_none(words: list[str], line: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_overrides(words)
    assert str(caught.value) == line


def test_yaml_numbers_and_empty_sections(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("train:\n  learning_rate: 5e-5\n  steps: 1e4\nmodel:\ndata: {root: '1e3'}\n", encoding="utf-8")
    recipe = load_recipe(path)
    assert (recipe.train.learning_rate, recipe.train.steps, recipe.data.root) == (5e-5, 10_000, "1e3")
    assert recipe.model == Recipe().model


def test_model_takes_a_name_beside_its_keys() -> None:
    both = load_recipe(None, {"model.dropout": 0.2, "model": "t5-small"})
    assert (both.model.weights, both.model.dropout) == ("t5-small", 0.2)
    other_order = load_recipe(None, {"model": "t5-small", "model.dropout": 0.2})
    assert other_order == both


def test_freeze_takes_words() -> None:
    assert load_recipe(None, {"train.freeze": "encoder, bridge"}).train.freeze == ["encoder", "bridge"]


def test_a_saved_recipe_is_complete_and_loads_the_same(tmp_path: Path) -> None:
    recipe = load_recipe("digits", {"train.learning_rate": 3e-5, "data.train.prefix": "read: ", "seed": 7})
    save_recipe(recipe, tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    text = (tmp_path / "recipe.yaml").read_text(encoding="utf-8")
    assert all(f"{row[0].split('.')[-1]}:" in text for row in options() if not row[0].startswith("data."))


def test_a_run_folder_is_its_recipe_wherever_it_lies(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere" / "mine"
    folder.mkdir(parents=True)
    save_recipe(load_recipe("digits", {"seed": 7}), folder / "recipe.yaml")
    recipe = load_recipe(folder)
    assert (recipe.seed, Path(recipe.output) / recipe.name) == (7, folder)


def test_every_option_says_what_it_is() -> None:
    rows = options()
    assert len({key for key, *_ in rows}) == len(rows) > 80
    for key, kind, _, description in rows:
        assert description and kind, key
    kinds = {key: (kind, default) for key, kind, default, _ in rows}
    assert kinds["train.steps"] == ("integer", "")
    assert kinds["train.schedule"] == ("cosine|inverse_sqrt|constant", "cosine")
    assert kinds["train.freeze"] == ("list of encoder|decoder|embedding|bridge|features", "")
    assert kinds["generation.sample"] == ("true|false", "false")
    assert kinds["data.train.builtin"][0] == "digits|dates"
    assert kinds["generation.top_p"] == ("number", "1.0")
