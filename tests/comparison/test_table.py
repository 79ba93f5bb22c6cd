"""What a table says of its rows: a winner only where neither seeds nor examples could have made it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np

from sourcewise.baselines.measure import take
from sourcewise.comparison.finished import Finished
from sourcewise.comparison.plan import Comparison, load_comparison
from sourcewise.comparison.table import Table
from sourcewise.evaluation.results import Row
from sourcewise.metrics.measure import Measure
from sourcewise.metrics.outputs import output_metrics
from sourcewise.reporting.comparison import as_csv, as_html, as_json, as_markdown, notes
from tests.baselines.sets import texts

WORDS = ("one", "two", "three", "four", "five", "six")


def comparison(folder: Path, variants: str = "plain: , cured: ", seeds: str = "[0, 1, 2]") -> Comparison:
    path = folder / "c.yaml"
    path.write_text(
        f"output: {folder}/runs\ntrain: {{best: wer}}\ncompare: {{seeds: {seeds}, variants: {{{variants}}}}}\n"
    )
    return load_comparison(path)


def finished(of: Comparison, rates: dict[str, list[float]], size: int = 150) -> list[Finished]:
    """Trainings whose outputs have this share of wrong words, by variant and seed."""
    rng, found = np.random.default_rng(0), []
    references = [[str(w) for w in rng.choice(WORDS, rng.integers(3, 7))] for _ in range(size)]
    for each in of.planned:
        wrong = rates[each.variant][[p.seed for p in of.of(each.variant)].index(each.seed)]
        outputs = [[w if rng.random() >= wrong else "none" for w in words] for words in references]
        rows = [
            Row(str(i), "", " ".join(r), " ".join(o), nats=wrong, nats_shuffled=1 + wrong, tokens=len(r))
            for i, (r, o) in enumerate(zip(references, outputs, strict=True))
        ]
        metrics = output_metrics([r.reference for r in rows], [r.output for r in rows], [True] * size)
        metrics |= {"source_bits": 1.44, "source_bits_ci95": [1.3, 1.5], "target_tokens": 500, "loss": wrong}
        lines = [
            {"kind": "start", "parameters": 1234, "device": "cpu, 1 threads"},
            {"kind": "train", "tokens_per_s": 100.0, "seconds": 90.0},
        ]
        found.append(Finished(each, metrics, rows, lines))
    return found


def table(folder: Path, rates: dict[str, list[float]]) -> Table:
    of = comparison(folder, ", ".join(f"{name}: " for name in rates), str(list(range(len(next(iter(rates.values())))))))
    return Table.of(of, finished(of, rates), {})


def test_a_clear_difference_has_a_winner(tmp_path: Path) -> None:
    found = table(tmp_path, {"plain": [0.3, 0.31, 0.29], "cured": [0.1, 0.11, 0.09]})
    assert found.winner == "cured"
    assert found.better("cured", "wer") == 1 and found.differences["cured"]["wer"].sign == -1
    assert found.better("cured", "source_bits") == 0
    assert found.conclusion == "cured is best by wer, over seeds and over examples."


def test_seeds_that_scatter_allow_none(tmp_path: Path) -> None:
    found = table(tmp_path, {"plain": [0.1, 0.3, 0.5], "cured": [0.02, 0.2, 0.4]})
    examples = found.differences["cured"]["wer"].examples
    assert examples is not None and examples[1] < 0  # over examples alone it would hold
    assert found.winner is None and found.better("cured", "wer") == 0
    assert found.conclusion == "cured leads by wer, but cannot be told from plain."


def test_few_examples_allow_none(tmp_path: Path) -> None:
    of = comparison(tmp_path)
    found = Table.of(of, finished(of, {"plain": [0.3] * 3, "cured": [0.2] * 3}, size=6), {})
    assert found.winner is None


def test_the_winner_must_beat_every_row_not_only_the_first(tmp_path: Path) -> None:
    found = table(tmp_path, {"plain": [0.4, 0.41, 0.42], "a": [0.1, 0.11, 0.12], "b": [0.1, 0.11, 0.12]})
    assert found.better("a", "wer") == found.better("b", "wer") == 1
    assert found.winner is None and len(found.tied) == 1


def test_one_seed_marks_nothing(tmp_path: Path) -> None:
    found = table(tmp_path, {"plain": [0.5], "cured": [0.0]})
    assert found.winner is None and found.better("cured", "wer") == 0
    assert "with one seed each" in found.conclusion
    assert "±" not in as_markdown(found).split("|")[17] and any("one seed" in note for note in notes(found))


def test_a_table_that_is_not_complete_says_so(tmp_path: Path) -> None:
    of = comparison(tmp_path)
    done = finished(of, {"plain": [0.3] * 3, "cured": [0.1] * 3})
    assert Table.of(of, [], {}).conclusion == "No training is finished yet."
    part = Table.of(of, done[:3], {"cured-2": "step 3: the loss is nan"})
    assert part.winner is None and "So far" in part.conclusion
    assert "Training cured-2 failed: step 3: the loss is nan." in as_markdown(part)
    assert "(2 missing)" in as_markdown(part)


def test_other_examples_are_not_paired(tmp_path: Path) -> None:
    of = comparison(tmp_path)
    done = finished(of, {"plain": [0.3, 0.31, 0.3], "cured": [0.1, 0.11, 0.1]})
    for each in done:
        if each.planned.variant == "cured":
            each.rows = each.rows[:-1]
    found = Table.of(of, done, {})
    assert found.differences["cured"]["wer"].examples is None
    assert any("not measured on the same examples" in note for note in notes(found))


def test_every_form_says_the_same(tmp_path: Path) -> None:
    found = table(tmp_path, {"plain": [0.3, 0.31, 0.29], "cured": [0.1, 0.11, 0.09]})
    tree = json.loads(as_json(found))
    wer = tree["lines"][1]["figures"]["wer"]["mean"]
    assert tree["winner"] == "cured" and tree["lines"][1]["differences"]["wer"]["examples"][1] < 0
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert float(rows[1]["wer"]) == wer and rows[1]["best"] == "True" and rows[0]["wer_difference"] == ""
    assert f"{wer:.3f} ± " in as_markdown(found) and "| cured (best) |" in as_markdown(found)
    page = as_html(found)
    assert f"{wer:.3f} ± " in page and 'class="best"' in page and "http" not in page.replace("http-equiv", "")


def test_a_page_shows_names_as_they_are_not_as_markup(tmp_path: Path) -> None:
    of = comparison(tmp_path, "plain: , b: {data.train: {pairs: <b>x}}", "[0]")
    page = as_html(Table.of(of, finished(of, {"plain": [0.3], "b": [0.1]}), {"b-0": "<script>"}))
    assert "<script>" not in page and "<b>x" not in page


def test_a_page_draws_the_course_of_each_variant(tmp_path: Path) -> None:
    found = table(tmp_path, {"plain": [0.3, 0.31, 0.29], "cured": [0.1, 0.11, 0.09]})
    assert "data-chart=" not in as_html(found)  # nothing was logged
    for line in found.lines:
        folder = line.finished[0].planned.folder
        folder.mkdir(parents=True, exist_ok=True)
        logged = [{"kind": "evaluation", "step": step, "loss": 1.0, "source_bits": 2.0} for step in (10, 20)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in logged))
    page = as_html(found)
    assert page.count("data-chart=") == 2  # loss and source bits
    assert '<span class="key second">cured</span>' in page


def test_baselines_stand_below_the_variants(tmp_path: Path) -> None:
    of = comparison(tmp_path)
    trainings = finished(of, {"plain": [0.3, 0.31, 0.29], "cured": [0.1, 0.11, 0.09]})
    references = [row.reference for row in trainings[0].rows]
    train = texts([(text, text) for text in references[::-1]], "train")
    taken = take(texts([(f"{text} {i}", text) for i, text in enumerate(references)]), [train], Measure("wer"))
    assert taken is not None
    for each in trainings:
        each.metrics |= {"judged_by": "wer", "baselines": taken.against([row.output for row in each.rows])}
    found = Table.of(of, trainings, {})
    assert found.same_baselines
    scores = {name: found.baselines[name]["wer"] for name in ("constant", "length", "copy")}
    rows = {
        line.split(" | ")[0].strip("| "): line for line in as_markdown(found).splitlines() if line.startswith("| (")
    }
    assert list(rows) == ["(constant)", "(length)", "(copy)"]
    for name, value in scores.items():
        assert f"| {value:.3f} |" in rows[f"({name})"] and f"<td>({name})</td>" in as_html(found)
    table = {row["variant"]: row for row in csv.DictReader(io.StringIO(as_csv(found)))}
    assert float(table["(copy)"]["wer"]) == scores["copy"] == 0
    assert json.loads(as_json(found))["baselines"]["constant"]["wer"] == scores["constant"]
    (note,) = [note for note in notes(found) if "baselines" in note]
    assert "150 training examples (train); copied by TF-IDF of words" in note and "others" not in note
    trainings[-1].metrics["baselines"] = {
        **trainings[-1].metrics["baselines"],
        "copy": {**found.baselines["copy"], "wer": 0.5},
    }
    assert any("their data are others" in note for note in notes(Table.of(of, trainings, {})))


def test_without_baselines_there_are_no_such_rows(tmp_path: Path) -> None:
    found = table(tmp_path, {"plain": [0.3, 0.31], "cured": [0.1, 0.11]})
    assert "(copy)" not in as_markdown(found) and not any("baselines" in note for note in notes(found))
