"""`sourcewise score` agrees with the command lines of sacreBLEU and jiwer to the last digit."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from sourcewise.cli import main
from tests.scoring.agreement import Case, cases, of_jiwer, of_sacrebleu, run, spaced, unspaced, written

KEYS = {"BLEU": "bleu", "chrF2": "chrf", "chrF2++": "chrf_pp", "TER": "ter"}
ALL = {case.name: case for case in cases()}
QUICK = ("two references", "zh-zh")
DIGITS = 12


def ours(capsys: pytest.CaptureFixture[str], references: list[str], outputs: list[str], *options: str) -> dict:
    more = [word for each in references[1:] for word in ("-r", each)]
    assert main(["score", references[0], *outputs, *more, *options, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def check(case: Case, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    references, outputs = written(case, folder)
    found = ours(capsys, references, [outputs], *case.ours)
    scores, signatures = found["systems"][0]["scores"], found["signatures"]
    for options in (("-m", "bleu", "chrf", "ter"), ("-m", "chrf", "--chrf-word-order", "2")):
        for theirs in of_sacrebleu(references, [outputs], *options, *case.sacrebleu, "-w", str(DIGITS)):
            key = KEYS[theirs["name"]]
            assert f"{scores[key]:.{DIGITS}f}" == f"{theirs['score']:.{DIGITS}f}", (case.name, key)
            assert signatures[key] == theirs["signature"]
    if len(references) == 1 and case.for_jiwer:
        assert scores["wer"] == of_jiwer(*references, outputs)
        assert scores["cer"] == of_jiwer(*references, outputs, "--cer")


def test_there_are_twenty_sets() -> None:
    assert len(ALL) == 20


@pytest.mark.parametrize("name", QUICK)
def test_scores_and_signatures_are_those_of_the_command_lines(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(ALL[name], tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ALL if name not in QUICK])
def test_so_they_are_on_every_set(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(ALL[name], tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize(("tokenizer", "module"), [("ja-mecab", "MeCab"), ("ko-mecab", "mecab_ko")])
def test_words_of_japanese_and_korean(
    tokenizer: str, module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(module, reason=f"pip install 'sourcewise[{tokenizer[:2]}]'")
    references, outputs = unspaced("ja", 3) if tokenizer == "ja-mecab" else spaced("ko", 3)
    options = ("--bleu-tokenize", tokenizer), ("--tokenize", tokenizer)
    check(Case(tokenizer, [references], outputs, *options), tmp_path, capsys)


@pytest.mark.parametrize("seed", ["12345", pytest.param("7", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("test", "theirs"), [("bootstrap", "--paired-bs"), ("randomisation", "--paired-ar")])
def test_paired_tests_are_those_of_sacrebleu(
    test: str,
    theirs: str,
    seed: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    references, outputs = spaced("en", 1, 60)
    systems = [outputs, [*outputs[1:], outputs[0]], [text.upper() for text in outputs]]
    files = [str(tmp_path / name) for name in ("references", "a", "b", "c")]
    for file, texts in zip(files, (references, *systems), strict=True):
        Path(file).write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    monkeypatch.setenv("SACREBLEU_SEED", seed)
    keys = ("bleu", "chrf", "ter")
    found = ours(capsys, files[:1], files[1:], "--paired", test, "--samples", "300", "--metrics", ",".join(keys))
    pairs = {(pair["first"], pair["second"]): pair["p"] for pair in found["paired"]["pairs"]}
    assert list(pairs) == [(files[i], files[j]) for i, j in ((1, 2), (1, 3), (2, 3))]
    words = ("-m", "sacrebleu", files[0], "-i", *files[1:], theirs, f"{theirs}-n", "300", "-m", *keys, "-f", "text")
    printed = re.findall(r"p = (\d\.\d+)", run(sys.executable, *words, "--no-color"))
    # sacreBLEU tests against the first system alone, and prints a line of all scores per system.
    assert printed == [f"{pairs[files[1], file][key]:.4f}" for file in files[2:] for key in keys]
    assert f"seed:{seed}" in found["paired"]["signatures"]["bleu"]
