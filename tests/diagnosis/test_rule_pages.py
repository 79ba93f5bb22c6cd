"""The pages of docs/rules are those of the rules as they are, and hold all that `explain` says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sourcewise.config import Recipe
from sourcewise.config.files import load_recipe
from sourcewise.config.messages import field_at
from sourcewise.diagnosis.diagnose import explain
from sourcewise.diagnosis.rules import RULES
from sourcewise.diagnosis.rules.pages import INDEX, KINDS, pages

FOLDER = Path(__file__).parents[2] / "docs" / "rules"
COMMAND = [sys.executable, "-m", "sourcewise.diagnosis.rules.pages"]


def test_the_pages_in_docs_are_what_the_command_writes() -> None:
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    assert there == pages(), f"run: python {' '.join(COMMAND[1:])} docs/rules"


@pytest.mark.parametrize("code", RULES)
def test_a_page_says_what_explain_says(code: str) -> None:
    page = pages()[f"{code}.md"]

    def words(text: str) -> list[str]:
        return re.findall(r"\w+", re.sub(r"<!--.*?-->|\(\w+\.md\)|```sh|\\", "", text))

    assert set(words(explain(code))) <= set(words(page))


def test_every_rule_is_in_the_index_and_every_room_has_a_name() -> None:
    index = pages()[INDEX]
    for code in RULES:
        assert f"[{code}]({code}.md)" in index
        assert code.rstrip("0123456789") in KINDS


def test_the_command_writes_and_removes(tmp_path: Path) -> None:
    (tmp_path / "OLD123.md").write_text("a rule that was")
    (tmp_path / "notes.md").write_text("somebody's own")
    subprocess.run([*COMMAND, str(tmp_path)], check=True)
    assert {path.name for path in tmp_path.iterdir()} == {*pages(), "notes.md"}
    (tmp_path / "file").write_text("")
    failed = subprocess.run([*COMMAND, str(tmp_path / "file")], capture_output=True, text=True)
    assert failed.returncode == 2 and "cannot be written" in failed.stderr
    assert subprocess.run(COMMAND, capture_output=True).returncode == 1


PASTED = [
    (code, key, value)
    for code, rule in RULES.items()
    for line in rule.cure.split("\n")
    if line.startswith("  ")
    for key, value in re.findall(r"--([a-z_]+\.[a-z_.]+) ('[^']*'|\S+)", line)
]


@pytest.mark.parametrize(("code", "key", "value"), PASTED)
def test_what_a_cure_says_to_paste_is_an_option_of_a_recipe(code: str, key: str, value: str) -> None:
    assert field_at(Recipe, key.split(".")) is not None or key == "data.train.limit", code
    if value not in ("NAME", "FOLDER") and key != "data.train.limit":
        load_recipe("multi30k", {key: yaml.safe_load(value.strip("'"))})


def test_cures_name_options() -> None:
    assert len({key for _, key, _ in PASTED}) > 20
