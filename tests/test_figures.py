"""The table of figures: one that is added, here or by a package, is known to every command, table and page."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import sourcewise
from sourcewise import figures
from sourcewise.cli import main
from sourcewise.config.files import load_recipe
from sourcewise.errors import Notice, RequestError
from sourcewise.evaluation.requirement import parse_requirement
from sourcewise.evaluation.results import Evaluation
from sourcewise.figures import FIGURES, Figure
from sourcewise.metrics.outputs import plugin_metrics
from sourcewise.reporting.comparison import as_csv, as_html, as_json, as_markdown, print_table
from sourcewise.reporting.terminal import measured, print_evaluation
from tests.commands import Models
from tests.comparison.test_table import table
from tests.training.recipes import pairs_file, recipe

pytestmark = pytest.mark.pages


def share_of_first(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Outputs that begin as their reference does, in percent."""
    both = zip(hypotheses, references, strict=True)
    return 100 * sum(h.split()[:1] == r.split()[:1] for h, r in both) / len(references)


FIRST_WORD = Figure(
    key="first_word_pct",
    label="first word right, whatever follows",
    format="{:.1f} %",
    better="higher",
    range=(0, 100),
    short="first word",
    meaning="outputs that begin as their reference",
    measure=share_of_first,
)


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more figure in the table."""
    monkeypatch.setitem(FIGURES, FIRST_WORD.key, FIRST_WORD)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, dict[str, str]], None]]:
    """Puts a package with such a module and such entry points on the path, as pip would; it is looked for anew."""
    kept = dict(FIGURES)

    def install(code: str, entries: dict[str, str]) -> None:
        (tmp_path / "strange_metrics.py").write_text(code)
        info = tmp_path / "strange_metrics-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strange-metrics\nVersion: 1.5\n")
        lines = [f"{name} = strange_metrics:{value}" for name, value in entries.items()]
        (info / "entry_points.txt").write_text("\n".join(["[sourcewise.metrics]", *lines]) + "\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        figures._add_plugins.cache_clear()

    yield install
    FIGURES.clear()
    FIGURES.update(kept)
    figures._add_plugins.cache_clear()


@pytest.mark.usefixtures("added")
def test_an_added_figure_is_trained_by_evaluated_required_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    valid = {"pairs": str(pairs_file(tmp_path, "valid.tsv", 24, 1)), "metric": "first_word_pct"}
    data = {"train": {"pairs": str(pairs_file(tmp_path))}, "valid": valid, "vocabulary": 64}
    made = recipe(tmp_path, data=data, train__steps=8, train__evaluate_every=4, train__best="first_word_pct")
    run = sourcewise.train(made)
    lines = [line for line in run.metrics() if line["kind"] == "evaluation"]
    assert [line["tasks_mean"] for line in lines] == [line["first_word_pct"] for line in lines]

    results = tmp_path / "results"
    words = ["evaluate", str(run.folder), valid["pairs"], "-o", str(results), "--require"]
    assert main([*words, "first_word_pct>=0"]) == 0
    found = json.loads((results / "metrics.json").read_text())["first_word_pct"]
    rows = [line.split("\t") for line in (results / "translations.tsv").read_text().splitlines()[1:]]
    assert found == share_of_first([row[2] for row in rows], [row[1] for row in rows])
    assert f"first word right, whatever follows\t{found:.1f} %  [" in capsys.readouterr().out
    assert main([*words, "first_word_pct>100"]) == 1
    assert "required first_word_pct>100, but first_word_pct is" in capsys.readouterr().err

    page = (run.folder / "report.html").read_text()
    assert "First word right" in page
    assert "outputs that begin as their reference" in page  # the tile
    assert "first word %" in page  # the table of evaluations


@pytest.mark.usefixtures("added")
def test_an_added_figure_is_in_every_table_of_a_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = table(tmp_path, {"plain": [0.5, 0.52, 0.48], "cured": [0.1, 0.11, 0.09]})
    for line in found.lines:
        for each in line.finished:
            each.metrics |= plugin_metrics([r.output for r in each.rows], [r.reference for r in each.rows])
    assert found.better("cured", "first_word_pct") == 1
    print_table(found)
    for text in (as_markdown(found), as_html(found), capsys.readouterr().out):
        assert "first word %" in text
    assert "first_word_pct_difference" in as_csv(found)
    figures = json.loads(as_json(found))["lines"][1]["figures"]
    assert figures["first_word_pct"]["mean"] == pytest.approx(90, abs=4)


@pytest.mark.usefixtures("added")
def test_recipes_know_an_added_figure() -> None:
    assert load_recipe("dates", {"train.best": "first_word_pct"}).train.best == "first_word_pct"
    with pytest.raises(RequestError, match=r"--train.best should be 'bleu', .* or 'first_word_pct', not 'first'"):
        load_recipe("dates", {"train.best": "first"})


CODE = """
from sourcewise.figures import Figure

def longest(hypotheses, references):
    return max(map(len, hypotheses))

LONGEST = Figure(key="longest", label="longest output", format="{:.0f} characters", measure=longest)
"""


def test_a_package_adds_a_figure_by_an_entry_point(installed: Callable[[str, dict[str, str]], None]) -> None:
    installed(CODE, {"longest": "LONGEST"})
    assert parse_requirement("longest<100").met_by(plugin_metrics(["abc", "abcde"], ["", ""]))
    assert ("longest output", "5 characters") in measured({"longest": 5.0})


MADE = "from sourcewise.figures import Figure\nFIGURE = Figure("
BROKEN = {
    "import strange_and_missing": "ModuleNotFoundError: No module named 'strange_and_missing'",
    "FIGURE = 3": "TypeError: it is no sourcewise.figures.Figure but 3",
    f"{MADE}key='bleu', label='mine', measure=max)": "ValueError: there is a figure bleu already",
    f"{MADE}key='mine', label='mine')": "ValueError: mine has no measure",
    f"{MADE}key='A b', label='mine', measure=max)": "ValueError: the key 'A b' is no name",
    f"{MADE}key='mine', label='mine', format='%d', measure=max)": "ValueError: mine: the format '%d' writes no number",
    f"{MADE}key='mine', label='mine', format='{{:d}}', measure=max)": "ValueError: Unknown format code 'd'",
    "FIGURE_ = 3": "AttributeError: module 'strange_metrics' has no attribute 'FIGURE'",
}


@pytest.mark.parametrize("code", BROKEN, ids=BROKEN.get)
def test_a_broken_plug_in_is_named_and_left_out(
    installed: Callable[[str, dict[str, str]], None], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "strange_metrics", raising=False)
    before = list(FIGURES)
    installed(code, {"odd": "FIGURE"})
    with pytest.warns(Notice) as told:
        assert list(figures.figures()) == before
    (said,) = [str(each.message) for each in told if each.category is Notice]
    assert said.startswith("plug-in odd of strange-metrics 1.5 (sourcewise.metrics): left out: ")
    assert BROKEN[code] in said


@pytest.mark.parametrize("value", ["many", None, True], ids=str)
def test_a_figure_that_fails_is_told_once_and_is_null(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: object
) -> None:
    key = f"failing_{value}".lower()
    failing = Figure(key=key, label="failing", measure=lambda *texts: value)  # type: ignore[arg-type,return-value]
    monkeypatch.setitem(FIGURES, key, failing)
    with pytest.warns(Notice, match=f"figure {key} of tests.test_figures: left out: TypeError"):
        assert plugin_metrics(["a"], ["b"]) == {key: None}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = plugin_metrics(["a"], ["b"])
    assert measured(found) == [] and not parse_requirement(f"{key}>=0").met_by(found)
    print_evaluation(Evaluation(found))
    assert "failing" not in capsys.readouterr().out


def test_every_figure_of_an_evaluation_is_in_the_table(models: Models, tmp_path: Path) -> None:
    found = sourcewise.evaluate(models.text, str(pairs_file(tmp_path)), generation={"max_new_tokens": 3}).metrics
    numbers = {key for key, value in found.items() if isinstance(value, (int, float))}
    on_request = {"rouge_l", "chrf_pp", "ter", "comet"}
    assert numbers <= set(FIGURES) <= numbers | on_request | {"tasks_mean", "exact_any_pct"}


@pytest.mark.parametrize(("key", "value", "points"), [("wer", 0.25, 75.0), ("bleu", 31.2, 31.2), ("wer", 1.5, -50.0)])
def test_points_are_of_a_hundred_and_the_more_the_better(key: str, value: float, points: float) -> None:
    assert FIGURES[key].points(value) == points
