"""Evaluations measure as the recipe says: several references, tokenisers, case, scores on request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sacrebleu.metrics.bleu import BLEU

import sourcewise
from sourcewise.cli import main
from sourcewise.config.files import load_recipe
from sourcewise.errors import Notice, RequestError
from sourcewise.evaluation.results import Evaluation, Row, read_translations
from tests.commands import Models
from tests.training.recipes import pairs_file, recipe


def several(folder: Path) -> Path:
    """The toy language with a second reference in capitals."""
    rows = [line.split("\t") for line in pairs_file(folder, "plain.tsv", 16, 3).read_text().splitlines()[1:]]
    path = folder / "several.jsonl"
    texts = [{"source": source, "target": [target, target.upper()]} for source, target in rows]
    path.write_text("".join(json.dumps(text) + "\n" for text in texts))
    return path


def test_all_references_count_and_are_kept(models: Models, tmp_path: Path) -> None:
    found = sourcewise.evaluate(str(models.text), str(several(tmp_path)), generation={"max_new_tokens": 6})
    columns = [[row.references[i] for row in found.rows] for i in (0, 1)]
    bleu = BLEU(force=True)
    assert found.metrics["bleu"] == pytest.approx(bleu.corpus_score(found.outputs, columns).score)
    assert found.metrics["bleu_signature"] == str(bleu.get_signature()) and "nrefs:2" in str(bleu.get_signature())
    found.write(tmp_path / "out")
    kept = read_translations(tmp_path / "out" / "translations.tsv")
    assert [row.references for row in kept] == [row.references for row in found.rows]


def test_translations_with_different_numbers_of_references_are_read_as_they_were(tmp_path: Path) -> None:
    rows = [Row("1", "", "a\tb", '"x', others=("c\n", "d")), Row("2", "", "e", "", others=()), Row("3", "", "f", "g")]
    Evaluation({}, rows).write(tmp_path)
    assert (tmp_path / "translations.tsv").read_text().splitlines()[
        0
    ] == "id\treference\toutput\treference2\treference3"
    assert [(r.id, r.references, r.output) for r in read_translations(tmp_path / "translations.tsv")] == [
        ("1", ("a\tb", "c\n", "d"), '"x'),
        ("2", ("e",), ""),
        ("3", ("f",), "g"),
    ]


def test_options_of_the_command_line_and_of_a_recipe_measure_alike(
    models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(pairs_file(tmp_path, "test.tsv", 12, 4))
    words = ["evaluate", str(models.text), data, "--json"]
    asked = ["--bleu-tokenize", "char", "--bleu-smooth", "floor", "--lowercase", "--wer-words", "characters"]
    asked += ["--metrics", "ter,chrf++"]
    assert main([*words, *asked]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "case:lc|eff:no|tok:char|smooth:floor[0.10]" in found["bleu_signature"]
    assert found["wer_signature"].startswith("nrefs:1|case:lc|words:characters") and "rouge_l" not in found
    assert found["ter"] >= 0 and "nw:2" in found["chrf_pp_signature"]
    options = {"bleu_tokenize": "char", "bleu_smooth": "floor", "lowercase": True, "wer_words": "characters"}
    again = sourcewise.evaluate(str(models.text), data, evaluation={**options, "metrics": ["ter", "chrf_pp"]}).metrics
    assert {key: again[key] for key in found if "signature" in key or key in ("bleu", "ter", "wer")} == {
        key: value for key, value in found.items() if "signature" in key or key in ("bleu", "ter", "wer")
    }


def test_a_training_measures_valid_and_test_as_its_recipe_says(tmp_path: Path) -> None:
    evaluation = {"bleu_tokenize": "char", "lowercase": True}
    made = recipe(tmp_path, train__steps=4, train__evaluate_every=2, train__best="ter", evaluation=evaluation)
    run = sourcewise.train(made)
    lines = [line for line in run.metrics() if line["kind"] == "evaluation"]
    final = json.loads((run.folder / "metrics.json").read_text())
    for metrics in (*lines, final):
        assert "case:lc" in metrics["bleu_signature"] and "tok:char" in metrics["bleu_signature"]
        assert isinstance(metrics["ter"], float)  # it chooses the best checkpoint
    loaded: Any = sourcewise.load(run.folder)
    assert sourcewise.evaluate(loaded, str(tmp_path / "valid.tsv")).metrics["bleu"] == final["bleu"]


def test_words_of_a_script_without_spaces_are_remarked_on_once(models: Models, tmp_path: Path) -> None:
    path = tmp_path / "zh.tsv"
    path.write_text("source\ttarget\n" + "".join(f"ba do\t今天去公园里散步{i}\n" for i in range(4)))
    asked: dict[str, Any] = {"generation": {"max_new_tokens": 3}}
    with pytest.warns(Notice, match="zh.tsv: wer: words stand between spaces") as told:
        found = sourcewise.evaluate(str(models.text), str(path), **asked)
        sourcewise.evaluate(str(models.text), str(path), **asked)
    assert sum("wer: words" in str(each.message) for each in told) == 1
    assert found.metrics["wer"] >= 1 and "tok:zh" in found.metrics["bleu_signature"]


def test_rows_of_one_source_are_joined_where_asked_for(models: Models, tmp_path: Path) -> None:
    path = tmp_path / "twice.tsv"
    path.write_text("source\ttarget\nba do\tone two\nki\tthree\nba do\ttwo one\n")
    apart = sourcewise.evaluate(str(models.text), str(path)).metrics
    joined = sourcewise.evaluate(str(models.text), str(path), join_sources=True).metrics
    assert (apart["examples"], joined["examples"]) == (3, 2) and "nrefs:var" in joined["bleu_signature"]
    assert main(["evaluate", str(models.text), str(path), "--join-sources", "--require", "examples=2"]) == 0


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("bleu_tokenize", "thai", "should be 'auto', '13a'"),
        ("metrics", ["bleurt"], "should be 'chrf_pp', 'ter' or 'rouge_l'"),
        ("bleu_smooth_value", 0.5, "goes with bleu_smooth floor or add-k, not with exp"),
        ("ter_asian", True, "goes with ter_normalized or ter_no_punctuation"),
        ("wer_words", "none", "should be 'spaces' or 'characters'"),
    ],
)
def test_wrong_options_are_told(key: str, value: object, said: str) -> None:
    with pytest.raises(RequestError, match=said.replace("(", r"\(")):
        load_recipe("dates", {f"evaluation.{key}": value})
