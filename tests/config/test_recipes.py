"""The published recipes: each validates, and says at its head what it is and how to run it."""

from __future__ import annotations

import pytest

from sourcewise.config.files import load_recipe, shipped_recipes

NAMES = [
    "chat",
    "dates",
    "digits",
    "fsdd",
    "g2p",
    "multi30k",
    "multi30k_1000",
    "multi30k_bahdanau",
    "multi30k_decoder",
    "multi30k_deen",
    "multi30k_pretrain",
    "multi30k_rnn",
    "multi30k_tiny",
    "phoenix14t",
]


COMPARED = [  # these are of tests/comparison/test_published.py
    "compare_bridges_fsdd",
    "compare_bridges_phoenix14t",
    "compare_cures_deep",
    "compare_cures_few",
    "compare_cures_imbalanced",
    "compare_cures_pooled",
]


def test_all_are_found_by_name() -> None:
    assert list(shipped_recipes()) == [*NAMES, *COMPARED]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_recipe_of_its_own_name(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.data.train is not None and recipe.data.valid is not None
    assert recipe.generation.max_new_tokens <= recipe.data.max_target


@pytest.mark.parametrize("name", NAMES)
def test_its_head_tells_the_command(name: str) -> None:
    head = shipped_recipes()[name].read_text(encoding="utf-8").split("\nname:")[0]
    assert f"sourcewise train {name}" in head
    assert "docs/results.md" in head
    assert all(line.startswith("#") or not line for line in head.splitlines())


@pytest.mark.parametrize(
    "name", ["chat", "fsdd", "multi30k", "multi30k_1000", "multi30k_pretrain", "multi30k_tiny", "phoenix14t"]
)
def test_its_files_start_from_a_folder_that_the_user_sets(name: str) -> None:
    recipe = load_recipe(name, {"data.root": "/elsewhere"})
    assert recipe.data.root == "/elsewhere"
    for config in (recipe.data.train, recipe.data.valid, recipe.data.test):
        if config and not isinstance(config, list):
            paths = [
                path
                for path in (config.pairs, config.conversations, config.text, config.manifest, config.features)
                if path
            ]
            assert paths and all(path.startswith(f"{name.partition('_')[0]}/") for path in paths)


@pytest.mark.parametrize("name", ["digits", "dates"])
def test_a_demo_needs_no_files(name: str) -> None:
    recipe = load_recipe(name)
    for config in (recipe.data.train, recipe.data.valid, recipe.data.test):
        assert config is not None and not isinstance(config, list) and config.builtin == name
