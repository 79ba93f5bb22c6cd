"""`sourcewise score`: what it reads, how it matches, what it refuses, what it prints and writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import sourcewise
from sourcewise.cli import main
from sourcewise.errors import RequestError
from sourcewise.metrics.counting import Counting, scorer
from tests.commands import Models, write_features
from tests.training.recipes import pairs_file

REFERENCES = ["the cat sat on the mat", "a dog runs in the big park", "hello there my good friend"]
A = ["the cat sat on a mat", "a dog ran in the big park", "hello my good friend"]
B = ["a cat sits", "the dog runs in the big park", "hello there good friends"]

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file into the current folder and gives its name."""
    monkeypatch.chdir(tmp_path)

    def written(name: str, *lines: str, end: str = "\n") -> str:
        (tmp_path / name).write_bytes("".join(line + end for line in lines).encode())
        return name

    return written


def scores(*words: str, capsys: pytest.CaptureFixture[str]) -> dict:
    assert main(["score", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refusal(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["score", *words]) == 2
    return capsys.readouterr().err.removeprefix("sourcewise: error: ").strip()


def test_files_of_every_kind_give_the_same_scores(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    plain = write("ref.txt", *REFERENCES), write("a.txt", *A)
    rows = [f"{i}\t{reference}" for i, reference in enumerate(REFERENCES)]
    tables = [
        write("ref.tsv", "id\ttext", *rows),
        write("ref.csv", "target", *REFERENCES),
        write("ref.jsonl", *(json.dumps({"reference": text}) for text in REFERENCES)),
    ]
    outputs = [
        write("out.jsonl", *(json.dumps({"id": str(i), "output": A[i]}) for i in (2, 0, 1))),
        write("out.tsv", "id\tprediction", *(f"{i}\t{text}" for i, text in enumerate(A))),
    ]
    wanted = scores(*plain, capsys=capsys)["systems"][0]["scores"]
    for table in tables[1:]:
        assert scores(table, "a.txt", capsys=capsys)["systems"][0]["scores"] == wanted
    for file in outputs:
        found = scores(tables[0], file, capsys=capsys)
        assert found["systems"][0]["scores"] == wanted
        assert any("another order" in note for note in found["notes"]) == (file == "out.jsonl")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_byte_order_marks_and_spaces_at_ends_do_not_count(
    write: Write, end: str, mark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = scores(write("r", *REFERENCES), write("a", *A), "--chrf-whitespace", capsys=capsys)
    (first, *others) = [text + " " for text in A]
    odd = scores("r", write("b", mark + first, *others, end=end), "--chrf-whitespace", capsys=capsys)
    assert odd["systems"][0]["scores"] == plain["systems"][0]["scores"]


def test_separators_of_unicode_end_no_line_and_empty_lines_are_texts(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    found = scores(
        write("r", "a b\u2028c d", "", "e f\x85g"), write("a", "a b\u2028c d", "", "e f\x85g"), capsys=capsys
    )
    assert found["examples"] == 3 and found["systems"][0]["scores"]["exact_match_pct"] == 100
    assert found["systems"][0]["figures"]["empty_pct"] == pytest.approx(100 / 3)
    assert "r: empty references: 1" in found["notes"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["x"], "o: 1 text, but r has 3 examples"),
        ([*A, ""], "o: 4 texts, but r has 3 examples; its last line is empty"),
        ([*A, "b", "c"], "o: 5 texts, but r has 3 examples"),
        ([], "o: 0 texts, but r has 3 examples"),
    ],
)
def test_another_number_of_texts_is_told_with_both(
    write: Write, lines: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refusal(write("r", *REFERENCES), write("o", *lines), capsys=capsys) == said


def test_ids_of_another_kind_are_told(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    references = write("r.tsv", "id\ttarget", *(f"clip{i}\t{text}" for i, text in enumerate(REFERENCES)))
    outputs = write("o.tsv", "id\toutput", *(f"{i}\t{text}" for i, text in enumerate(A)))
    assert scores(references, outputs, capsys=capsys)["notes"] == [
        "o.tsv: its ids are of another kind than those of r.tsv; matched by order"
    ]


def test_several_references_however_they_come(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    more = [B[0], REFERENCES[1].upper(), "hi friend"]
    files = scores(write("r", *REFERENCES), write("a", *A), "-r", write("r2", *more), capsys=capsys)
    both = list(zip(REFERENCES, more, strict=True))
    lists = write("l.jsonl", *(json.dumps({"target": each}) for each in both))
    columns = write("c.tsv", "target\ttarget2", *("\t".join(each) for each in both))
    repeated = [f"{i}\t{each[k]}" for k in (0, 1) for i, each in enumerate(both)]
    twice = write("s.tsv", "source\ttarget", *repeated)
    doubled = write("aa", *A, *A)
    assert files["most_references"] == 2 and "nrefs:2" in files["signatures"]["bleu"]
    for name in (lists, columns):
        assert scores(name, "a", capsys=capsys)["systems"][0]["scores"] == files["systems"][0]["scores"]
    joined = scores(twice, doubled, "--join-sources", capsys=capsys)
    assert joined["examples"] == 3 and joined["systems"][0]["scores"] == files["systems"][0]["scores"]
    assert joined["notes"] == []
    once = scores(twice, "a", "--join-sources", capsys=capsys)
    assert once["systems"][0]["scores"] == joined["systems"][0]["scores"]
    other = scores(twice, write("ab", *A, *B), "--join-sources", capsys=capsys)
    assert other["notes"] == ["ab: 3 outputs differ from the first of their source, which counts"]
    apart = scores(twice, doubled, capsys=capsys)
    assert apart["examples"] == 6 and any("join_sources" in note for note in apart["notes"])


def test_examples_may_have_different_numbers_of_references(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"target": [REFERENCES[0], A[0]]}, {"target": REFERENCES[1]}, {"target": [REFERENCES[2]]}]
    found = scores(write("r.jsonl", *map(json.dumps, rows)), write("a", *A), capsys=capsys)
    assert "nrefs:var" in found["signatures"]["bleu"]
    assert found["systems"][0]["scores"]["exact_match_pct"] == pytest.approx(100 / 3)


@pytest.mark.parametrize(
    ("files", "words", "said"),
    [
        ({"r": REFERENCES, "a": A}, "r a a", "a: is there twice"),
        ({"r": REFERENCES}, "r b", "b: no such file or folder"),
        ({"a": A}, "r a", "r: no such file"),
        ({"r": [], "a": []}, "r a", "r: no references; a set needs at least one"),
        ({"r": REFERENCES, "a": A}, "r a --metrics bleu,blau", "--metrics blau: not one of all, bleu_1"),
        ({"r": REFERENCES, "a": A}, "r a --bleu-tokenize thai", "--bleu-tokenize should be 'auto', '13a'"),
        ({"r": REFERENCES, "a": A}, "r a --bleu-smooth-value 2", "bleu_smooth_value goes with bleu_smooth floor"),
        ({"r": REFERENCES, "a": A}, "r a --ter-asian", "ter_asian goes with ter_normalized"),
        ({"r": REFERENCES, "a": A}, "r a --samples 10", "--samples 10: goes with --paired"),
        ({"r": REFERENCES, "a": A}, "r a --join-sources", "r: no sources to join"),
        ({"r": REFERENCES, "a": A}, "r a --metrics comet", "--metrics comet: reads sources, too"),
        ({"r.tsv": ["x\ty", "1\t2"], "a": A}, "r.tsv a", "r.tsv: no column target, reference"),
        ({"r.tsv": ["target", *REFERENCES], "a": A}, "r.tsv a --group signer", "r.tsv: no column 'signer'"),
        ({"r": REFERENCES, "a.jsonl": ['{"text": "x"}'] * 3}, "r a.jsonl", "a.jsonl: no column output, hypothesis"),
        ({"r": REFERENCES, "a.json": ["{}"]}, "r a.json", "a.json: a .json is not read here"),
        ({"r": REFERENCES, "a.jsonl": ['{"output": ["x"]}'] * 3}, "r a.jsonl", "a.jsonl:1: 'output' is a list"),
        (
            {"r.tsv": ["id\ttarget", "1\tx", "2\ty"], "o.tsv": ["id\toutput", "1\tx", "3\ty"]},
            "r.tsv o.tsv",
            "o.tsv: 1 of 2 ids of r.tsv have no output, the first is 2",
        ),
        (
            {"r.tsv": ["id\ttarget", "1\tx", "2\ty"], "o.tsv": ["id\toutput", "2\tx", "2\ty"]},
            "r.tsv o.tsv",
            "o.tsv: 2 rows have the id 2, so ids cannot match it",
        ),
    ],
)
def test_wrong_requests_are_refused_in_a_line(
    write: Write, files: dict[str, list[str]], words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, lines in files.items():
        write(name, *lines)
    found = refusal(*words.split(), capsys=capsys)
    assert found.startswith(said) and "\n" not in found


@pytest.mark.parametrize("tokenizer", ["ja-mecab", "ko-mecab"])
def test_a_missing_tokenizer_is_told_with_what_installs_it(
    write: Write, tokenizer: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sacrebleu.tokenizers import tokenizer_ja_mecab, tokenizer_ko_mecab

    for module in (tokenizer_ja_mecab, tokenizer_ko_mecab):
        monkeypatch.setattr(module, "MeCab", None)
    said = refusal(write("r", *REFERENCES), write("a", *A), "--bleu-tokenize", tokenizer, capsys=capsys)
    assert said.endswith(f"pip install 'sourcewise[{tokenizer[:2]}]'")


def test_a_model_of_a_tokenizer_is_never_fetched(
    write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sacrebleu.utils.SACREBLEU_DIR", str(tmp_path))
    said = refusal(write("r", *REFERENCES), write("a", *A), "--bleu-tokenize", "flores200", capsys=capsys)
    assert "bleu_tokenize flores200: its model" in said and "downloads it" in said


def test_groups_are_known_by_the_columns_that_trainings_know(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{text}\t{'ann' if i else 'bob'}" for i, text in enumerate(REFERENCES)]
    for column in ("client_id", "Video_ID"):
        found = scores(write("r.tsv", f"target\t{column}", *rows), write("a", *A), capsys=capsys)
        assert {part["name"] for part in found["parts"] if part["by"] == column} == {"ann", "bob"}


def test_parts_of_a_set_are_scored_on_their_own(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{text}\t{'ann' if i else 'bob'}" for i, text in enumerate(REFERENCES)]
    train = write("train.tsv", "source\ttarget", f"x\t{REFERENCES[2].upper()}", "y\tthe cat sat on the mat or not")
    found = scores(write("r.tsv", "target\tsigner", *rows), write("a", *A), "--train", train, capsys=capsys)
    parts = {(part["by"], part["name"]): part for part in found["parts"]}
    assert parts["signer", "ann"]["examples"] == 2 and parts["signer", "bob"]["examples"] == 1
    alone = scorer("chrf", [(REFERENCES[0],)]).score([A[0]])
    assert parts["signer", "bob"]["scores"]["a"]["chrf"] == pytest.approx(alone)
    assert parts["training text", "text seen in train"]["examples"] == 1
    assert parts["rarest word", "a word that is not in train"]["examples"] == 1
    assert sum(part["examples"] for (by, _), part in parts.items() if by == "length") == 3


def test_tables_are_printed_and_written(write: Write, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = [write("r", *REFERENCES), write("a", *A), write("b|<i>", *B), "--paired", "bootstrap", "--samples", "50"]
    assert main(["score", *words, "--markdown", "s.md", "--html", "s.html"]) == 0
    printed = capsys.readouterr().out
    for text in (printed, (tmp_path / "s.md").read_text(), (tmp_path / "s.html").read_text()):
        assert "BLEU-1" in text and "50 resamples, seed 12345" in text and "tok:13a|order:1|smooth:exp" in text
    assert "<i>" not in (tmp_path / "s.html").read_text() and "b\\|<i>" in (tmp_path / "s.md").read_text()


def test_equal_systems_are_not_told_apart(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", write("r", *REFERENCES), write("a", *A), write("b", *A), "--paired", "bootstrap"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("b − a"))
    assert set(line.split("\t")[1:]) == {"equal"}


def test_a_run_its_folder_of_results_and_a_model(
    models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = str(models.text)
    wanted = json.loads((models.text / "metrics.json").read_text())
    own = scores(run, run, capsys=capsys)["systems"][0]["scores"]
    for key in ("bleu", "bleu_1", "chrf", "wer", "cer", "exact_match_pct"):
        assert own[key] == pytest.approx(wanted[key], abs=1e-9), key

    valid = pairs_file(tmp_path, "valid.tsv", 24, 1)
    found = scores(str(valid), run, capsys=capsys)
    assert found["systems"][0]["scores"] == own and found["notes"] == []

    other = pairs_file(tmp_path, "other.tsv", 12, 5)
    sourcewise.evaluate(run, str(other)).write(tmp_path / "results")
    generated, kept = scores(str(other), run, "results", capsys=capsys)["systems"]
    assert generated["scores"] == kept["scores"]

    folder = tmp_path / "exported"
    shutil.copytree(models.text / "checkpoints" / "best", folder)
    assert "outputs generated now" in str(scores(str(other), str(folder), capsys=capsys)["notes"])
    said = refusal(str(write_lines(tmp_path / "lines", 12)), str(folder), capsys=capsys)
    assert "no sources to generate from" in said


def test_a_model_of_features_writes_for_a_manifest(
    models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_features(tmp_path, lengths=(6, 8, 5, 7))
    header, *lines = (tmp_path / "m.tsv").read_text().splitlines()
    rows = [f"{line}\t{'ann' if i % 2 else 'bob'}" for i, line in enumerate(lines)]
    (tmp_path / "m.tsv").write_text("\n".join([f"{header}\tsigner", *rows]) + "\n")
    found = scores("m.tsv", str(models.features), "--features", "features", capsys=capsys)
    evaluated = sourcewise.evaluate(str(models.features), "m.tsv", features="features").metrics
    assert found["systems"][0]["scores"]["chrf"] == pytest.approx(evaluated["chrf"])
    assert {part["name"] for part in found["parts"] if part["by"] == "signer"} == {"ann", "bob"}


def write_lines(path: Path, count: int) -> Path:
    path.write_text("one\n" * count)
    return path


COMET = """#!/bin/sh
while [ $# -gt 0 ]; do
  case "$1" in --to_json) out=$2;; -t) a=$2; b=$3;; --version) echo "comet-score 2.2.7"; exit 0;; esac; shift
done
[ -n "$BROKEN" ] && { echo "no such model" >&2; exit 1; }
echo "{\\"$a\\": [{\\"COMET\\": 0.5}, {\\"COMET\\": 0.75}, {\\"COMET\\": 1.0}]}" > "$out"
"""


def test_comet_counts_by_its_own_command(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [write("r", *REFERENCES), write("a", *A), "--sources", write("s", *B), "--metrics", "comet,chrf"]
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert "pipx install unbabel-comet" in refusal(*words, capsys=capsys)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "comet-score").write_text(COMET)
    (tmp_path / "bin" / "comet-score").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    found = scores(*words, capsys=capsys)
    assert found["systems"][0]["scores"]["comet"] == 0.75
    assert found["signatures"]["comet"] == "nrefs:1|model:Unbabel/wmt22-comet-da|version:comet-2.2.7"
    monkeypatch.setenv("BROKEN", "1")
    assert refusal(*words, capsys=capsys).endswith("failed: no such model")


def test_conventions_that_change_a_figure_are_told(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    zh = write("zh", *["我们今天去公园里散步"] * 3)
    found = scores(
        zh, zh.replace("zh", write("zh2", *["我们今天去公园散步"] * 3)), "--bleu-tokenize", "13a", capsys=capsys
    )
    assert any(note.startswith("wer: words stand between spaces") for note in found["notes"])
    assert any("bleu_tokenize 13a does not split" in note and "zh does" in note for note in found["notes"])
    tokenised = scores(write("t", *(f"{text} ." for text in REFERENCES)), write("a", *A), capsys=capsys)
    assert any("3 of 3 references end in a mark of its own" in note for note in tokenised["notes"])
    cased = scores(write("r", *REFERENCES), write("u", *(text.title() for text in A)), capsys=capsys)
    assert any("lowercase compares them without" in note for note in cased["notes"])
    healthy = scores(
        write("h", *(text.capitalize() + "." for text in REFERENCES)), write("o", *map(str.title, A)), capsys=capsys
    )
    assert healthy["notes"] == []


def test_the_library_scores_texts() -> None:
    from sourcewise.scoring.table import score_texts

    found = score_texts(REFERENCES, {"a": A}, metrics="bleu4,chrF++", counting=Counting(lowercase=True))
    assert found.keys == ["chrf_pp", "bleu_4"] and "case:lc" in found.signatures["bleu_4"]
    with pytest.raises(RequestError, match="b: 1 text, but references has 3 examples"):
        score_texts(REFERENCES, {"b": ["x"]})
