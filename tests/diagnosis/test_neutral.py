"""Rules know no host, neither our recipes nor somebody's Trainer: each host builds what they are given."""

from __future__ import annotations

import re
from collections.abc import Iterator

import grimp
import pytest

from sourcewise.diagnosis.cure import Cure, pasted
from sourcewise.diagnosis.rules import RULES
from sourcewise.integrations.cures import LOOP, as_arguments

HOSTS = ("sourcewise.config", "sourcewise.training", "sourcewise.integrations", "sourcewise.diagnosis.ours")
SUBJECTS = (
    *("Against", "Asking", "Beside", "Coming", "Course", "Keeping", "Likelihood"),
    *("Moved", "Outputs", "Pairs", "Trained", "Wiring"),
)
OF_OURS = re.compile(r"--[a-z]|\b(?:train|model|data|generation)\.[a-z_]+|checkpoints/|\brecipe")


def reached(graph: grimp.ImportGraph, start: set[str]) -> set[str]:
    """These modules, and all of the diagnosis that they import, directly or not."""
    known, waiting = set(start), list(start)
    while waiting:
        found = {m for m in graph.find_modules_directly_imported_by(waiting.pop()) if ".diagnosis" in m} - known
        known |= found
        waiting += found
    return known


def test_nothing_that_a_rule_stands_on_knows_a_host() -> None:
    graph = grimp.build_graph("sourcewise", cache_dir=None)
    rules = {m for m in graph.modules if m.startswith("sourcewise.diagnosis.rules.")} - {
        "sourcewise.diagnosis.rules.pages"
    }
    modules = reached(graph, rules)
    assert {f"sourcewise.diagnosis.{name}" for name in ("pairs", "wiring", "course", "trained", "outputs")} <= modules
    found = {(m, o) for m in modules for o in graph.find_modules_directly_imported_by(m) if o.startswith(HOSTS)}
    assert found == set()


def test_there_are_twelve_kinds_of_what_rules_look_at() -> None:
    assert sorted({rule.subject.__name__ for rule in RULES.values() if not rule.package}) == sorted(SUBJECTS)


def test_names_are_faults_and_no_two_rules_have_the_same() -> None:
    names = [rule.name for rule in RULES.values()]
    assert len(set(names)) == len(names)
    assert not [name for name in names if re.match(r"(size|scale|amount|rate|length)\b", name)]


@pytest.mark.parametrize("code", RULES)
def test_a_trainer_is_told_nothing_that_it_does_not_have(code: str) -> None:
    told = as_arguments(RULES[code].all_cures)
    assert told and not OF_OURS.search(told), told
    assert told.splitlines()[0].strip() and not told.rstrip().endswith(":")


@pytest.mark.parametrize("code", RULES)
def test_a_loop_is_told_lines_of_pytorch_and_no_bridge(code: str) -> None:
    told = as_arguments(RULES[code].all_cures, LOOP)
    assert told and not re.search(r"--[a-z]|Seq2Seq|GenerationConfig|\b(?:train|data|generation)\.[a-z_]+", told), told
    lines = [line for line in told.splitlines() if line.startswith("  ")]
    assert not [line for line in lines if "bridge" in line]


@pytest.mark.parametrize("code", RULES)
def test_options_of_a_cure_are_options_of_a_recipe(code: str) -> None:
    known = set(options())
    assert {name for cure in RULES[code].all_cures for name in cure.options} <= known


def options() -> Iterator[str]:
    from sourcewise.config import Recipe

    def under(model: type, prefix: str) -> Iterator[str]:
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            yield prefix + name
            for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
                for each in (kind, *getattr(kind, "__args__", ())):
                    if hasattr(each, "model_fields"):
                        yield from under(each, f"{prefix}{name}.")

    yield from under(Recipe, "")


@pytest.mark.parametrize(
    ("cure", "ours", "arguments"),
    [
        (Cure("Slower:", {"train.learning_rate": 3e-4}), "  --train.learning_rate 3e-4", "(learning_rate=3e-4)"),
        (
            Cure("Clip:", {"train.clip": 1.0, "model.dropout": 0.1}),
            "  --train.clip 1.0 --model.dropout 0.1",
            "(max_grad_norm=1.0)",
        ),
        (Cure("Thaw:", {"train.freeze": []}), "  --train.freeze '[]'", "Thaw."),
        (Cure("All:", {"data.train.limit": None}, instead="All of it."), "  --data.train.limit null", "All of it."),
        (Cure("Run:", "sourcewise train RECIPE.yaml"), "  sourcewise train RECIPE.yaml", "Run."),
        (Cure("Pad:", "DataCollatorForSeq2Seq(tokenizer)"), "  DataCollatorForSeq2Seq(tokenizer)", "(tokenizer)"),
        (
            Cure("Both:", {"generation.beams": 4, "train.steps": 9}),
            "  --generation.beams 4 --train.steps 9",
            "  GenerationConfig(num_beams=4)\n  Seq2SeqTrainingArguments(max_steps=9)",
        ),
    ],
)
def test_a_cure_is_said_as_its_host_takes_it(cure: Cure, ours: str, arguments: str) -> None:
    assert pasted([cure]).endswith(ours) and as_arguments([cure]).endswith(arguments)
