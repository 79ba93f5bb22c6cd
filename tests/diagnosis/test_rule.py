"""A rule is one file whose text says what its check does; rules of other packages are found, and cannot break ours."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sourcewise.diagnosis import ranking, rules
from sourcewise.diagnosis.rule import CURES, TITLES, CannotTell, Cure, Findings, Rule, asked, matching, parsed, span
from sourcewise.diagnosis.rules import RULES
from sourcewise.errors import Notice
from sourcewise.runtime import plugins

ROOT = Path(__file__).parents[2]


def file_of(rule: Rule[Any]) -> Path:
    return Path(str(importlib.import_module(type(rule).__module__).__file__))


@pytest.mark.parametrize("code", RULES)
def test_every_number_of_a_rule_is_in_its_text(code: str) -> None:
    page = type(RULES[code]).__doc__ or ""
    assert [name for name in RULES[code].thresholds() if not re.search(rf"\{{{name}[:}}]", page)] == []


# What a sentence says that has measured numbers, or those of others; and numbers that are no thresholds.
ORIGIN = re.compile(
    r"[Mm]easured|\bOurs\b|[Hh]ealthy|[Ff]resh|\b[Ii]n use\b|et al\.|penalty|[Dd]igits|\bof 60 outputs|chat set|"
    r"takes 1e8|rounds a vector"
)
NO_THRESHOLD = re.compile(
    r"\{[^}]*\}|[A-Z]{3}\d{3}|[Tt]5|fp16|fp32|bf16|Multi30k|95 %|100 %|\bat 1\b|\([\d.]+[^)]*\)|√|\b[01]\b"
)
WORDS = re.compile(
    r"\b(two|three|four|five|six|eight|nine|ten|half|a (third|quarter|fifth|tenth|twentieth|hundredth))\b"
)
IN_WORDS = {  # of a sentence that has a number in words which is none of its thresholds
    "DAT003": "two letters of the source|for a quarter",
    "DAT014": "nine of ten",
    "SRC001": "half of their own entropy",
    "TRN007": "first half",
}


def unnamed(text: str, but: str = "") -> list[str]:
    """The numbers of a threshold's text, but for its origin, that are none of the rule's constants."""
    found = []
    for sentence in re.split(r"(?<!al\.)(?<=\.)\s+", " ".join(text.split())):
        if not ORIGIN.search(sentence):
            left = NO_THRESHOLD.sub(" ", sentence)
            found += re.findall(r"\d[\d.,e-]*", left)
            found += [each[0] for each in WORDS.findall(re.sub(but, "", left) if but else left)]
    return found


@pytest.mark.parametrize("code", RULES)
def test_every_number_of_a_threshold_is_a_constant_of_its_rule(code: str) -> None:
    text = parsed(inspect.cleandoc(type(RULES[code]).__doc__ or ""))[TITLES[2]]
    assert unnamed(text, IN_WORDS.get(code, "")) == []


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Warning from {warning:%}, error from 50 %.", ["50"]),
        ("Above a tenth of them. Measured on 26 networks: 0.3.", ["a tenth"]),
        ("Below {least}. Measured: 0.2 to 4. Not of fewer than 16 examples.", ["16"]),
        ("A rise of {rise:%}, three evaluations after the lowest.", ["three"]),
    ],
)
def test_a_number_without_a_name_is_seen(text: str, numbers: list[str]) -> None:
    assert unnamed(text) == numbers


@pytest.mark.parametrize("code", RULES)
def test_a_check_compares_with_no_number_that_has_no_name(code: str) -> None:
    class Numbers(ast.NodeVisitor):
        found: list[float] = []

        def visit_Subscript(self, node: ast.Subscript) -> None:
            self.visit(node.value)

        def visit_Constant(self, node: ast.Constant) -> None:
            if isinstance(node.value, (int, float)):
                self.found.append(node.value)

    numbers = Numbers()
    for node in ast.walk(ast.parse(file_of(RULES[code]).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare):
            numbers.visit(node)
    assert set(numbers.found) <= {0, 1, 2, 100}, "a threshold is an attribute of the class"


def test_a_rule_is_one_file() -> None:
    assert len({file_of(rule) for rule in RULES.values()}) == len(RULES)
    for code, rule in RULES.items():
        assert re.fullmatch(rf"{code.lower()}_[a-z_]+\.py", file_of(rule).name)
    assert not list((ROOT / "sourcewise").rglob("*_texts.py"))


def test_the_docstring_is_the_page() -> None:
    assert [title for title, _ in RULES["OUT006"].sections] == [*TITLES, CURES]
    text = dict(RULES["OUT006"].sections)
    assert text["Threshold and its origin"].startswith("Warning from 2 %, error from 20 %")
    assert text["What to do"].split("\n")[-1] == "  --generation.min_new_tokens 2 --generation.length_penalty 1.2"
    with pytest.raises(TypeError, match="Nameless: its docstring has the sections What it measures"):
        type("Nameless", (Rule,), {"code": "XYZ001", "__orig_bases__": (Rule[str],), "__doc__": "Nothing."})


@pytest.mark.parametrize(
    ("patterns", "codes"),
    [
        ("B*", ["B1", "B2", "B3"]),
        ("* -B*", ["A1"]),
        ("B1..B2 A1", ["A1", "B1", "B2"]),
        ("B* -B1..B2", ["B3"]),
        ("", []),
    ],
)
def test_patterns_of_codes(patterns: str, codes: list[str]) -> None:
    assert matching(patterns, ["A1", "B1", "B2", "B3"]) == codes


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (["MEM001", "MEM002"], "MEM001, MEM002"),
        (["SRC001", "OUT006", "OUT001", "OUT003", "OUT002"], "SRC001, OUT001 to OUT003, OUT006"),
        (["WIR004", "WIR006", "WIR005", "WIR011"], "WIR004 to WIR006, WIR011"),
        (["ELS7"], "ELS7"),
    ],
)
def test_codes_in_words(codes: list[str], words: str) -> None:
    assert span(codes) == words


PAGE = "\n".join(f"## {title}\nWords, from {{bound}} on.\n" for title in TITLES).partition("\n")[2]


class Long(Rule[str]):
    __doc__ = PAGE
    code, name, level = "XYZ001", "a long text", "warning"
    explains = "OUT006"
    bound = 3
    cures = Cure("Shorten it:", {"data.max_source": 2})

    def check(self, text: str) -> Findings:
        if not text:
            raise CannotTell("length", "an empty text")
        if len(text) >= self.bound:
            yield self.finding(f"{len(text)} letters", "error" if text == "xxxxx" else None)


class Longer(Long):
    __doc__ = PAGE
    code, name, level, explains = "XYZ002", "a longer text", "error", ""
    implied_by = "XYZ001:error"
    bound = 4


def test_what_another_says_already_is_not_listed() -> None:
    def codes(text: str) -> list[str]:
        return [finding.code for finding in asked([Long(), Longer()], [text]).findings]

    assert (codes("xx"), codes("xxx"), codes("xxxx"), codes("xxxxx")) == (
        [],
        ["XYZ001"],
        ["XYZ001", "XYZ002"],
        ["XYZ001"],
    )
    assert asked([Long(), Longer()], [""]).not_checked == ["length (XYZ001, XYZ002): an empty text"]
    assert asked([Long()], [5]).findings == []


class Broken(Rule[str]):
    __doc__ = PAGE
    code, name, level = "XYZ003", "a broken one", "error"
    bound = 1
    cures = Cure("Mend it.")

    def check(self, text: str) -> Findings:
        raise ZeroDivisionError("by zero")


def plugged(monkeypatch: pytest.MonkeyPatch, **points: Any) -> dict[str, Rule[Any]]:
    def point(name: str, value: Any) -> Any:
        def load() -> Any:
            if isinstance(value, Exception):
                raise value
            return value

        dist = SimpleNamespace(name="stranger", version="1.0")
        return SimpleNamespace(name=name, value=name, dist=dist, load=load, group=rules.ENTRY_POINTS)

    monkeypatch.setattr(plugins, "entries", lambda group, path: [point(*each) for each in points.items()])
    return rules._all()


def test_rules_of_other_packages_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("stranger_rules")
    for rule in (Long, Longer):
        monkeypatch.setattr(rule, "__module__", "stranger_rules")
        setattr(module, rule.__name__, rule)
    found = plugged(monkeypatch, mine=module, other=Broken)
    assert set(found) - set(RULES) == {"XYZ001", "XYZ002", "XYZ003"}
    assert "XYZ001" in found["OUT006"].causes and "XYZ001" in found["OUT009"].causes
    assert found["XYZ001"].package == "stranger" and "3" in found["XYZ001"].page()
    piece = asked(list(found.values()), ["xxxx"])
    assert [finding.code for finding in piece.findings] == ["XYZ001", "XYZ002"]
    assert piece.not_checked == ["a broken one (XYZ003, of stranger): ZeroDivisionError: by zero"]


@pytest.mark.parametrize("value", [ImportError("no module named nowhere"), object, 5, type(RULES["OUT006"])])
def test_a_package_that_is_broken_is_a_warning_that_names_it(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(Notice, match="plug-in bad of stranger 1.0 .* left out: "):
        found = plugged(monkeypatch, bad=value, good=Long)
    assert set(found) - set(RULES) == {"XYZ001"}


def test_rules_that_explain_each_other_are_ranked_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Long(), Longer()
    first.causes, second.causes = ("XYZ002",), ("XYZ001",)
    monkeypatch.setattr(ranking, "RULES", {"XYZ001": first, "XYZ002": second})
    ranking._all_causes.cache_clear()
    listed = ranking.ranked([second.finding("b"), first.finding("a")])
    ranking._all_causes.cache_clear()
    assert {finding.code for finding in listed} == {"XYZ001", "XYZ002"}


def test_the_script_adds_a_rule_with_test_and_page(tmp_path: Path) -> None:
    for folder in ("sourcewise", "scripts", "docs/rules"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *words]
        env = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    made = run("scripts/add_rule.py", "DAT099", "pairs-of-one-language")
    name = "dat099_pairs_of_one_language.py"
    assert made.stdout.split() == [
        f"sourcewise/diagnosis/rules/data/{name}", f"tests/diagnosis/rules/test_{name}", "docs/rules/DAT099.md"
    ], made.stderr  # fmt: skip
    assert "pairs of one language" in (tmp_path / "docs" / "rules" / "README.md").read_text(encoding="utf-8")
    told = run("-m", "sourcewise", "explain", "DAT099")
    assert "Warning from 10 %, error from 50 %" in told.stdout, told.stderr
    assert "there is a rule DAT099 already" in run("scripts/add_rule.py", "DAT099", "again").stderr
    assert "a code is one of DAT, WIR" in run("scripts/add_rule.py", "XYZ019", "again").stderr
    checked = run(
        "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), f"sourcewise/diagnosis/rules/data/{name}"
    )
    assert checked.returncode == 0, checked.stdout
