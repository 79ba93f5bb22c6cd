"""Targets that a tokenizer cannot say as written are counted before training, with a cure that was tried."""

from __future__ import annotations

import io
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

import sourcewise
from sourcewise.config import Recipe
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.diagnosis.finding import Finding
from tests.diagnosis.test_data_rules import SHAPE, translations

PAIRS = translations(100)


def foreign(folder: Path, texts: list[str], rule: str = "nmt_nfkc") -> str:
    """A SentencePiece model of somebody's, with its own normalisation."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text.replace("\n", " ") for text in texts),
        model_writer=model,
        vocab_size=200,
        hard_vocab_limit=False,
        normalization_rule_name=rule,
        character_coverage=1.0,
        minloglevel=2,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
    )
    (folder / "sp.model").write_bytes(model.getvalue())
    return str(folder / "sp.model")


def written(folder: Path, name: str, targets: list[str]) -> dict[str, str]:
    rows = [{"source": source, "target": target} for (source, _), target in zip(PAIRS, targets, strict=False)]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"pairs": str(folder / name)}


def lost(folder: Path, train: list[str], valid: list[str] | None = None, **data: Any) -> list[Finding]:
    sets = {"train": written(folder, "train.jsonl", train)}
    if valid is not None:
        sets["valid"] = written(folder, "valid.jsonl", valid)
    recipe = Recipe.model_validate({"data": {**sets, "vocabulary": 300, **data}, "model": SHAPE})
    return [finding for finding in sourcewise.preflight(recipe).findings if finding.code == "DAT006"]


TARGETS = [target for _, target in PAIRS]
CHANGES = {
    "line breaks": (lambda text: text.replace(" ", "\n- ", 1), r"\n", "line break (100)", '["\\n"]'),
    "a joiner": (lambda text: text[:3] + "\u200c" + text[3:], r"\u200c", "U+200C (100)", '["\\u200c"]'),
    "a mark of direction": (lambda text: text + "\u200f.", r"\u200f", "U+200F (100)", '["\\u200f"]'),
    "a hard space": (lambda text: text.replace(" ", "\u00a0", 1), r"\xa0", "U+00A0 (100)", '["\\u00a0"]'),
    "full width": (lambda text: text + " ５０％", "５０％", "５ (100)", "５"),
    "a ligature": (lambda text: text + " ﬁno", "ﬁno", "ﬁ (100)", '["ﬁ"]'),
    "composed later": (lambda text: text + " e\u0301", "e", "U+0301 (100)", ""),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_foreign_tokenizer_changes_is_counted_by_text_with_what_helps(tmp_path: Path, change: str) -> None:
    made, shown, named, cure = CHANGES[change]
    targets = [made(text) for text in TARGETS]
    (finding,) = lost(tmp_path, targets, tokenizer=foreign(tmp_path, [*TARGETS, *targets, *(s for s, _ in PAIRS)]))
    assert finding.level == "warning" and named in finding.evidence
    assert "100 of 100 targets cannot be said as written, such as" in finding.evidence
    assert "train.jsonl:1:" in finding.evidence and f"{shown}" in finding.evidence.split(" becomes ")[0]
    assert cure in finding.cure and finding.evidence.isprintable()
    option = finding.cure.partition("--data.add_tokens '")[2].rstrip("'")
    if option and cure:  # it does what it says
        larger = Tokenizer.load(tmp_path / "sp.model").add(json.loads(option))
        assert [larger.decode(larger.encode(text)) for text in targets] == targets
        assert lost(tmp_path, targets, tokenizer=str(tmp_path / "sp.model"), add_tokens=json.loads(option)) == []


def test_indents_of_code_are_cured_with_the_line_breaks(tmp_path: Path) -> None:
    code = [f"def {a}(x):\n    if x:\n        return {b}" for a, b, *_ in (text.split() for text in TARGETS)]
    (finding,) = lost(tmp_path, code, tokenizer=foreign(tmp_path, [*code, *(s for s, _ in PAIRS)]))
    assert finding.level == "warning" and "100 of 100" in finding.evidence
    assert '["\\n", "    ", "        "]' in finding.cure and "100 of 100 tried come back" in finding.cure
    (left,) = lost(tmp_path, code, tokenizer=str(tmp_path / "sp.model"), add_tokens=["\n"])
    assert left.level == "warning" and "lost: space" in left.evidence


def test_blanks_at_the_ends_and_doubled_ones_are_a_note(tmp_path: Path) -> None:
    targets = [f" {text}  x " for text in TARGETS]
    (finding,) = lost(tmp_path, targets, tokenizer=foreign(tmp_path, [*targets, *(s for s, _ in PAIRS)]))
    assert finding.level == "note" and "100 of 100 targets" in finding.evidence


def test_a_few_targets_of_many_are_a_note_that_counts_them(tmp_path: Path) -> None:
    import tests.diagnosis.test_data_rules as rules

    pairs = rules.translations(400)
    targets = [target for _, target in pairs]
    targets[7] += "\n"
    rows = [{"source": source, "target": target} for (source, _), target in zip(pairs, targets, strict=True)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"train": {"pairs": str(tmp_path / "train.jsonl")}, "tokenizer": foreign(tmp_path, targets)}
    found = sourcewise.preflight(Recipe.model_validate({"data": data, "model": SHAPE})).findings
    (finding,) = [each for each in found if each.code == "DAT006" and "targets" in each.evidence]
    assert finding.level == "note" and "1 of 400 targets" in finding.evidence and "train.jsonl:8:" in finding.evidence


def test_case_is_told_and_no_entry_is_offered_for_it(tmp_path: Path) -> None:
    targets = [text.title() for text in TARGETS]
    (finding,) = lost(tmp_path, targets, tokenizer=foreign(tmp_path, TARGETS + [s for s, _ in PAIRS], "nmt_nfkc_cf"))
    assert "100 of 100 targets" in finding.evidence and finding.level == "warning"


def test_tokenizers_trained_here_say_everything(tmp_path: Path) -> None:
    for made, *_ in CHANGES.values():
        assert lost(tmp_path, [made(text) for text in TARGETS]) == []
    assert lost(tmp_path, [unicodedata.normalize("NFD", f"{text} ắ") for text in TARGETS]) == []
    assert lost(tmp_path, [f" {text}  \n\ty " for text in TARGETS], unit="characters") == []


def test_the_validation_set_is_asked_too_and_stops_no_training(tmp_path: Path) -> None:
    (finding,) = lost(tmp_path, TARGETS, [f"{text}\n" for text in TARGETS[:40]])
    assert finding.level == "warning" and "valid.jsonl: 40 of 40 targets" in finding.evidence
    greek = str.maketrans({letter: chr(0x3B1 + i % 24) for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz")})
    (grave,) = lost(tmp_path, TARGETS, [text.translate(greek) for text in TARGETS[:40]])
    assert grave.level == "warning" and "do not come back" in grave.evidence
    assert lost(tmp_path, TARGETS, TARGETS[:40]) == []


def test_targets_are_read_again_whole_where_they_are_cut(tmp_path: Path) -> None:
    assert lost(tmp_path, TARGETS, max_target=4) == []
