"""Trainings of several tasks, and of conversations: what they write and what they say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import sourcewise
from sourcewise.cli import main
from sourcewise.config import Recipe
from sourcewise.errors import RequestError
from sourcewise.evaluation.results import Evaluation
from tests.training.recipes import pairs_file, recipe
from tests.training.stopping import Stops

AWKWARD = Path(__file__).parents[1] / "data" / "readers" / "conversations" / "awkward.json"


def mixed(folder: Path, **changes: object) -> Recipe:
    """Two tasks: words into words, and how many there are."""
    words = pairs_file(folder, "words.tsv", 60)
    lines = words.read_text().splitlines()[1:]
    count = folder / "count.tsv"
    count.write_text("source\ttarget\n" + "".join(f"{x.split(chr(9))[0]}\t{len(x.split()) // 2}\n" for x in lines))
    tasks = [
        {"pairs": str(words), "prefix": "translate: ", "metric": "wer"},
        {"pairs": str(count), "prefix": "count: ", "metric": "exact_match_pct", "max_target": 4, "weight": 0.5},
    ]
    data = {"train": tasks, "valid": tasks, "rates": "proportional", "rate_cap": 50, "vocabulary": 64}
    options = {"train__steps": 10, "train__evaluate_every": 5, "train__evaluate_examples": 12, **changes}
    return recipe(folder, name="mixed", data=data, **options)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sourcewise.train(mixed(tmp_path_factory.mktemp("mixed"), train__best="tasks_mean")).folder


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = {"train": {"conversations": str(AWKWARD)}, "valid": {"conversations": str(AWKWARD)}, "vocabulary": 200}
    options = {"name": "chat", "data": {**data, "chat": {"system": ""}, "max_source": 64}, "train__steps": 10}
    return sourcewise.train(recipe(tmp_path_factory.mktemp("chat"), **options)).folder


def test_ten_steps_of_a_mixture_are_evaluated_a_task(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    assert [line["step"] for line in evaluations] == [5, 10]
    for line in evaluations:
        words, count = line["tasks"]["words"], line["tasks"]["count"]
        assert (words["examples"], count["examples"], line["examples"]) == (6, 6, 12)
        assert (words["metric"], count["metric"]) == ("wer", "exact_match_pct")
        mean = (100 * (1 - words["wer"]) + count["exact_match_pct"]) / 2
        assert line["tasks_mean"] == pytest.approx(mean)
        assert line["loss"] != words["loss"] != count["loss"]
    assert evaluations[0]["best"]
    first, second = ((line["tasks_mean"], -line["loss"]) for line in evaluations)
    assert evaluations[1].get("best", False) == (second > first)


def test_the_final_evaluation_is_of_the_whole_and_of_each_task(run: Path) -> None:
    evaluation = Evaluation.from_folder(run)
    assert evaluation.metrics["examples"] == 120 == len(evaluation.rows)
    assert {name: task["examples"] for name, task in evaluation.metrics["tasks"].items()} == {"words": 60, "count": 60}
    assert [row.id for row in evaluation.rows[59:61]] == ["words:60", "count:1"]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert all(text in page for text in ("<td>words</td>", "<td>count</td>", "its metric", "WER "))


def test_a_mixture_stopped_and_resumed_is_the_same(run: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    with pytest.raises(MemoryError):
        sourcewise.train(mixed(tmp_path, train__best="tasks_mean"), listeners=[Stops(7)])
    parts = sourcewise.train(tmp_path / "runs" / "mixed", resume=True)
    first, second = (load_file(r / "checkpoints/last/model.safetensors") for r in (run, parts.folder))
    assert all(first[name].equal(second[name]) for name in first)


def test_which_task_a_file_is_of(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = pairs_file(tmp_path, "other.tsv", 5)
    with pytest.raises(RequestError, match=r"other\.tsv: of which task\? the model knows words, count; name it with"):
        sourcewise.evaluate(run, other)
    assert main(["evaluate", str(run), str(other), "--task", "count", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["examples"] == 5 and figures["tasks_mean"] == figures["exact_match_pct"]
    assert sourcewise.evaluate(run, pairs_file(tmp_path, "words.tsv", 5)).rows[0].source.startswith("translate: ")
    assert main(["evaluate", str(run), str(other), "--task", "cuont"]) == 2
    assert "--task cuont: the model has no such task; it knows words, count" in capsys.readouterr().err
    (tmp_path / "lines.txt").write_text("ba do\n")
    assert main(["generate", str(run), str(tmp_path / "lines.txt")]) == 2
    assert "of which task?" in capsys.readouterr().err
    for words in (["--task", "words"], ["--prefix", "count: "]):
        assert main(["generate", str(run), str(tmp_path / "lines.txt"), "--json", *words]) == 0
        source = json.loads(capsys.readouterr().out)["source"]
        assert source == {"--task": "translate: ba do", "--prefix": "count: ba do"}[words[0]]


def test_a_model_is_diagnosed_on_all_of_its_sets(run: Path) -> None:
    model = sourcewise.load(run)
    assert model.data.valid is not None
    whole = sourcewise.evaluate(model, model.data.valid, generation={"beams": 1})
    assert set(whole.metrics["tasks"]) == {"words", "count"} and len(whole.rows) == 120
    assert sourcewise.diagnose(model).findings


def test_the_terminal_shows_the_tasks(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sourcewise.reporting.terminal import print_evaluation

    print_evaluation(Evaluation.from_folder(run))
    out = capsys.readouterr().out
    assert "task\texamples\tits metric\tloss\tsource bits\tdistinct outputs\n" in out
    assert re.search(r"^words\t60\tWER \d\.\d{3}\t", out, re.M)
    assert re.search(r"^count\t60\texactly right \d+\.\d %\t", out, re.M)
    assert re.search(r"^mean of the tasks' own metrics\t", out, re.M)


def test_what_conversations_hold_amiss_is_told_and_kept_in_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"train": {"conversations": str(AWKWARD)}, "valid": {"conversations": str(AWKWARD)}, "vocabulary": 200}
    made = recipe(tmp_path, name="chat", data={**data, "max_target": 12}, train__steps=2)
    folder = sourcewise.train(made).folder
    said = capsys.readouterr().err
    assert f"{AWKWARD}: not all is taken as it stands: " in said and "empty turn, left out (2)" in said
    assert "\n  starts_with_the_model#1: the model speaks first" in said and "more in " in said
    rows = [line.split("\t") for line in (folder / "notes.tsv").read_text(encoding="utf-8").splitlines()]
    assert rows[0] == ["file", "where", "what"] and [str(AWKWARD), "empty_turn#2", "empty turn, left out"] in rows
    assert len(rows) == len({tuple(row) for row in rows})  # training and validation set are one file: told once
    assert [str(AWKWARD), "over_long#6", "reply cut to max_target 12"] in rows


def test_a_model_of_conversations_is_measured_and_speaks(
    chat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(chat), str(AWKWARD), "--json", "--beams", "1"]) == 0
    out = capsys.readouterr()
    assert json.loads(out.out)["examples"] == 9 and "unknown role 'tool', left out (1)" in out.err
    assert main(["generate", str(chat), str(AWKWARD), "--beams", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 10  # a reply each, and one to the human who has none yet
    (tmp_path / "first.txt").write_text("Who are you?\n")
    assert main(["generate", str(chat), str(tmp_path / "first.txt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == "### Human: Who are you?\n### Assistant: "
    assert main(["diagnose", str(chat), str(AWKWARD), "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["findings"]


def test_replies_are_learnt_with_their_history_and_layout(tmp_path: Path) -> None:
    """The same question has another answer later on; an answer is three lines of code."""
    said = [("hi", "hello"), ("name ?", "bob"), ("code ?", "if (a) {\n\tb;\n}"), ("name ?", "bob again")]
    tree = []
    for start in (0, 2, 3):
        both = (turn for asked, reply in said[start:] for turn in (("human", asked), ("gpt", reply)))
        turns = [{"from": who, "value": text} for who, text in both]
        tree.append({"id": str(start), "conversations": turns})
    file = tmp_path / "chat.json"
    file.write_text(json.dumps(tree))
    data = {"train": {"conversations": str(file)}, "valid": {"conversations": str(file)}, "vocabulary": 100}
    options = {"data": {**data, "chat": {"system": ""}}, "model__d_model": 64, "train__steps": 160}
    rates = {"train__learning_rate": 2e-2, "train__scale_updates": True, "train__evaluate_every": 160}
    made = recipe(tmp_path, **options, **rates, train__batch_tokens=1024, generation__max_new_tokens=40)
    evaluation = sourcewise.train(made).evaluation
    assert evaluation is not None and evaluation.outputs == evaluation.references
    assert "if (a) {\n\tb;\n}" in evaluation.outputs


def test_code_in_replies_survives_the_run(chat: Path) -> None:
    rows = {row.id: row for row in Evaluation.from_folder(chat).rows}
    assert rows["two_human_turns#3"].reference == "It never ends:\n\n    while (1) { }"
    tokenizer = sourcewise.load(chat).tokenizer
    code = "for (;;) {\n\tdo_it();\n}\n\n    while (1) { }"
    assert tokenizer.decode(tokenizer.encode(code)) == code
