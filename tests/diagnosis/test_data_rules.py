"""Each fault planted in a small healthy training set is found and named; healthy sets have none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sourcewise
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.rules import RULES
from sourcewise.errors import RequestError

SIZE = 800
SHAPE = {"d_model": 16, "d_ff": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}
SYLLABLES = ("ba", "do", "ki", "lu", "me", "no", "pa", "ro", "su", "ta")
Pair = tuple[str, str]


def translations(size: int = SIZE, seed: int = 0) -> list[Pair]:
    """Pairs of a made language of 100 words, word by word, the last two words swapped."""
    rng = np.random.default_rng(seed)
    words = [a + b for a in SYLLABLES for b in SYLLABLES]
    said = rng.permutation([a + "v" + b for a in SYLLABLES for b in SYLLABLES])
    pairs = []
    for _ in range(size):
        chosen = rng.integers(0, 100, rng.integers(4, 12))
        target = [said[i] for i in (*chosen[:-2], chosen[-1], chosen[-2])]
        pairs.append((" ".join(words[i] for i in chosen), " ".join(target)))
    return pairs


def recipe(folder: Path, train: Sequence[Pair], valid: Sequence[Pair] | None = None, **data: Any) -> dict[str, Any]:
    for name, rows in (("train", train), ("valid", valid or translations(60, 1))):
        lines = "".join(f"{source}\t{target}\n" for source, target in rows)
        (folder / f"{name}.tsv").write_text(f"source\ttarget\n{lines}", encoding="utf-8")
    sets = {name: {"pairs": str(folder / f"{name}.tsv")} for name in ("train", "valid")}
    return {"data": {**sets, "vocabulary": 300, **data}, "model": SHAPE}


# The training set alone is spoilt here, so that the validation set is unlike it: see rules/test_unlike_training.py.
BESIDE = ("DAT022", "DAT023", "DAT024")


def found(tree: dict[str, Any]) -> dict[str, Finding]:
    diagnosis = sourcewise.preflight(sourcewise_recipe(tree))
    return {f.code: f for f in diagnosis.findings if f.code.startswith("DAT") and f.code not in BESIDE}


def sourcewise_recipe(tree: dict[str, Any]) -> Any:
    from sourcewise.config import Recipe

    return Recipe.model_validate(tree)


def grave(findings: dict[str, Finding]) -> list[str]:
    return [code for code, finding in findings.items() if finding.level != "note"]


def test_a_healthy_set_of_translations_has_no_finding(tmp_path: Path) -> None:
    assert found(recipe(tmp_path, translations())) == {}


@pytest.mark.parametrize("name", ["digits", "dates"])
def test_the_embedded_sets_have_no_finding(name: str) -> None:
    from sourcewise.config.files import load_recipe

    given = load_recipe(name, {"data.train.limit": 1500})
    assert [f for f in sourcewise.preflight(given).findings if f.code.startswith("DAT")] == []


def test_few_labels_are_no_fault(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    pairs = [(source, ("good", "bad")[rng.random() < 0.6]) for source, _ in translations()]
    labelled = [(f"{'joy' if target == 'good' else 'pain'} {source}", target) for source, target in pairs]
    valid = [(f"joy {source} x", "good") for source, _ in translations(60, 1)]
    assert grave(found(recipe(tmp_path, labelled, valid))) == []


def shuffled(pairs: list[Pair]) -> list[Pair]:
    order = np.random.default_rng(3).permutation(len(pairs))
    return [(source, pairs[i][1]) for (source, _), i in zip(pairs, order, strict=True)]


def test_shuffled_targets(tmp_path: Path) -> None:
    findings = found(recipe(tmp_path, shuffled(translations())))
    assert findings["DAT003"].level == "error"
    assert grave(findings) == ["DAT003"]


def test_a_file_out_of_step_from_a_line_on(tmp_path: Path) -> None:
    pairs = translations(1200)
    targets = [target for _, target in pairs]
    slipped = targets[:500] + targets[501:] + targets[500:501]
    finding = found(recipe(tmp_path, [(s, t) for (s, _), t in zip(pairs, slipped, strict=True)]))["DAT003"]
    assert "train.tsv:602 to " in finding.evidence  # the second quarter is in step for two thirds


def test_a_neighbour_s_target_that_fits_better(tmp_path: Path) -> None:
    pairs = translations()
    late = [(source, target) for (source, _), (_, target) in zip(pairs, [pairs[-1], *pairs], strict=False)]
    assert grave(found(recipe(tmp_path, late))) == ["DAT003"]
    rng = np.random.default_rng(9)  # neighbours alike, as captions of one picture are: in step by contents, a little
    mixed = [(s, t if rng.random() < 0.4 else late[i][1]) for i, (s, t) in enumerate(pairs)]
    assert "with the next line's target" in found(recipe(tmp_path, mixed))["DAT003"].evidence


def one_target(pairs: list[Pair], share: float) -> list[Pair]:
    return [(s, "no idea" if i % 100 < 100 * share else t) for i, (s, t) in enumerate(pairs)]


@pytest.mark.parametrize(("share", "level"), [(0.95, "error"), (0.6, "error"), (0.35, "warning"), (0.2, None)])
def test_one_target_for_many(tmp_path: Path, share: float, level: str | None) -> None:
    finding = found(recipe(tmp_path, one_target(translations(), share))).get("DAT004")
    assert (finding.level if finding else None) == level
    assert finding is None or f'{100 * share:.0f} % of 800 targets are "no idea"' in finding.evidence


def test_nothing_but_one_target_is_the_cause_and_not_the_pairing(tmp_path: Path) -> None:
    diagnosis = sourcewise.preflight(sourcewise_recipe(recipe(tmp_path, one_target(translations(), 1))))
    assert diagnosis.cause == "DAT004"


def test_one_token_dominates(tmp_path: Path) -> None:
    pairs = [(source, target.split()[0] + " um" * 12) for source, target in translations()]
    finding = found(recipe(tmp_path, pairs, unit="words"))["DAT005"]
    assert finding.level == "error" and '"um" is 92 %' in finding.evidence


@pytest.mark.parametrize("source", ["", "the same"])
def test_sources_that_say_nothing(tmp_path: Path, source: str) -> None:
    pairs = [(source if i % 4 else s, t) for i, (s, t) in enumerate(translations())]
    tree = recipe(tmp_path, pairs)
    tree["data"]["train"]["prefix"] = "translate: "
    findings = found(tree)
    assert findings["DAT002"].level == "error" and "75 % of 800 sources" in findings["DAT002"].evidence
    assert next(iter(findings)) == "DAT002"


def test_characters_the_tokenizer_does_not_know(tmp_path: Path) -> None:
    from sourcewise.data.tokenizers.tokenizer import Tokenizer

    Tokenizer.train([text for pair in translations() for text in pair], 300).save(tmp_path / "tokenizer.json")
    greek = [(source, target.translate(str.maketrans("aou", "αωυ"))) for source, target in translations()]
    finding = found(recipe(tmp_path, greek, tokenizer=str(tmp_path / "tokenizer.json")))["DAT006"]
    assert finding.level == "error"
    assert "targets do not come back: " in finding.evidence and "α (" in finding.evidence


@pytest.mark.parametrize(("limit", "level"), [(3, "error"), (10, "warning"), (64, None)])
@pytest.mark.parametrize("option", ["max_source", "max_target"])
def test_texts_that_are_cut(tmp_path: Path, option: str, limit: int, level: str | None) -> None:
    finding = found(recipe(tmp_path, translations(), **{option: limit})).get("DAT007")
    assert (finding.level if finding else None) == level
    assert finding is None or (f"longer than {option} {limit}" in finding.evidence and option in finding.cure)


def test_validation_pairs_of_the_training_set(tmp_path: Path) -> None:
    valid = [*translations()[:10], *translations(50, 1)]
    finding = found(recipe(tmp_path, translations(), valid))["DAT008"]
    assert finding.level == "warning" and "17 % of 60 validation pairs" in finding.evidence
    assert "valid.tsv:2" in finding.evidence


def test_several_targets_for_a_source_and_the_loss_they_leave(tmp_path: Path) -> None:
    sources = [source for source, _ in translations(400)]
    rng = np.random.default_rng(4)
    words = [a + b for a in SYLLABLES for b in SYLLABLES]
    pairs = [(source, " ".join(rng.choice(words, 3))) for source in sources for _ in range(8)]
    finding = found(recipe(tmp_path, pairs, unit="words"))["DAT009"]
    floor = np.log(8) / 4  # eight equal targets of three words and an end of text
    assert finding.level == "warning" and f"below {floor:.2g} nats" in finding.evidence


def test_copies(tmp_path: Path) -> None:
    assert found(recipe(tmp_path, translations() * 2))["DAT010"].level == "warning"
    few = found(recipe(tmp_path, [*translations(), *translations()[:80]]))["DAT010"]
    assert few.level == "note" and "9 % of 880 pairs are copies" in few.evidence


def clips(size: int = 400, seed: int = 5) -> tuple[list[np.ndarray], list[str]]:
    """Features in which every word of the target is four frames of its own vector, with noise."""
    rng = np.random.default_rng(seed)
    known = np.random.default_rng(6).normal(size=(10, 6))
    matrices, targets = [], []
    for _ in range(size):
        chosen = rng.integers(0, 10, rng.integers(3, 8))
        matrix = np.repeat(known[chosen], 4, axis=0)
        matrices.append((matrix + 0.3 * rng.normal(size=matrix.shape)).astype(np.float32))
        targets.append(" ".join(SYLLABLES[i] for i in chosen))
    return matrices, targets


def feature_recipe(folder: Path, matrices: list[np.ndarray], targets: list[str], **bridge: Any) -> dict[str, Any]:
    sets = {}
    for name, (features, texts) in {"train": (matrices, targets), "valid": clips(40, 7)}.items():
        (folder / name).mkdir()
        rows = []
        for i, (matrix, text) in enumerate(zip(features, texts, strict=True)):
            np.save(folder / name / f"{i}.npy", matrix)
            rows.append(f"{i}\t{len(matrix)}\t{text}\n")
        (folder / f"{name}.tsv").write_text("id\tn_frames\ttext\n" + "".join(rows), encoding="utf-8")
        sets[name] = {"manifest": str(folder / f"{name}.tsv"), "features": str(folder / name)}
    return {"data": {**sets, "vocabulary": 64}, "model": {**SHAPE, "bridge": bridge}}


def test_healthy_features_have_no_finding(tmp_path: Path) -> None:
    assert found(feature_recipe(tmp_path, *clips())) == {}


def spoiled(change: Callable[[int, np.ndarray], np.ndarray]) -> tuple[list[np.ndarray], list[str]]:
    matrices, targets = clips()
    return [change(i, matrix).astype(np.float32) for i, matrix in enumerate(matrices)], targets


@pytest.mark.parametrize(
    ("code", "level", "change"),
    [
        ("DAT011", "error", lambda i, m: 0 * m),
        ("DAT011", "warning", lambda i, m: m if i % 10 else 0 * m),
        ("DAT011", "warning", lambda i, m: m * [1, 1, 0, 0, 0, 0]),
        ("DAT012", "error", lambda i, m: np.resize(clips(1)[0][0], m.shape)),
        ("DAT012", "warning", lambda i, m: m if i % 2 else np.resize(clips(1)[0][0], m.shape)),
        ("DAT014", "error", lambda i, m: m if i else 1e5 * m),
    ],
)
def test_spoiled_features(tmp_path: Path, code: str, level: str, change: Callable[..., np.ndarray]) -> None:
    findings = found(feature_recipe(tmp_path, *spoiled(change)))
    assert findings[code].level == level
    assert next(iter(findings)) == code


def test_features_of_another_clip(tmp_path: Path) -> None:
    matrices, targets = clips()
    findings = found(
        feature_recipe(tmp_path, [matrices[i] for i in np.random.default_rng(8).permutation(400)], targets)
    )
    assert grave(findings) == ["DAT003"] and findings["DAT003"].level == "error"


@pytest.mark.parametrize(("factor", "normalize", "told"), [(100, False, True), (0.01, False, True), (100, True, False)])
def test_features_on_another_scale(tmp_path: Path, factor: float, normalize: bool, told: bool) -> None:
    spoilt = spoiled(lambda i, m: factor * m)
    assert (grave(found(feature_recipe(tmp_path, *spoilt, normalize=normalize))) == ["DAT013"]) == told


def test_a_bridge_trained_on_other_features(tmp_path: Path) -> None:
    tree = feature_recipe(tmp_path, *clips())
    tree |= {"output": str(tmp_path / "runs"), "train": {"steps": 1, "threads": 1}, "generation": {"beams": 1}}
    run = sourcewise.train(sourcewise_recipe(tree))
    (tmp_path / "other").mkdir()
    louder = feature_recipe(tmp_path / "other", *spoiled(lambda i, m: 50 * m))
    louder["model"] = {"weights": str(run.folder)}
    assert grave(found(louder)) == ["DAT013"]


def test_validation_matrices_of_the_training_set(tmp_path: Path) -> None:
    tree = feature_recipe(tmp_path, *clips())
    tree["data"]["valid"] = {**tree["data"]["train"], "limit": 50}
    assert "100 % of 50 validation matrices" in found(tree)["DAT008"].evidence


@pytest.mark.parametrize("fault", ["nan", "frames", "empty"])
def test_what_the_readers_refuse_is_a_finding(tmp_path: Path, fault: str) -> None:
    matrices, targets = clips(30)
    tree = feature_recipe(tmp_path, matrices, ["" if fault == "empty" and i == 7 else t for i, t in enumerate(targets)])
    if fault != "empty":
        np.save(tmp_path / "train" / "7.npy", matrices[7] * np.nan if fault == "nan" else matrices[7][1:])
    diagnosis = sourcewise.preflight(sourcewise_recipe(tree))
    assert [f.code for f in diagnosis.findings] == ["DAT001"] and diagnosis.verdict == "ill"
    assert "train.tsv:9" in diagnosis.findings[0].evidence
    assert diagnosis.not_checked[0].startswith("everything else")


def test_a_file_that_is_not_there_is_a_wrong_request(tmp_path: Path) -> None:
    tree = recipe(tmp_path, translations(30))
    (tmp_path / "train.tsv").unlink()
    with pytest.raises(RequestError, match="no such file"):
        sourcewise.preflight(sourcewise_recipe(tree))


def test_too_few_examples_are_not_judged_and_said_to_be_not(tmp_path: Path) -> None:
    diagnosis = sourcewise.preflight(sourcewise_recipe(recipe(tmp_path, shuffled(translations(150)))))
    assert not any(finding.code == "DAT003" for finding in diagnosis.findings)
    assert any("DAT003" in item and "150 examples" in item for item in diagnosis.not_checked)


def test_labels_that_nothing_goes_with_are_said_not_to_be_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    labelled = [(source, str(rng.choice(["true", "false"]))) for source, _ in translations()]
    diagnosis = sourcewise.preflight(sourcewise_recipe(recipe(tmp_path, labelled)))
    assert not any(finding.code == "DAT003" for finding in diagnosis.findings)
    assert any("DAT003" in item and "2 different targets" in item for item in diagnosis.not_checked)


def test_plain_text_and_mixtures_are_looked_at_part_by_part(tmp_path: Path) -> None:
    tree = recipe(tmp_path, shuffled(translations()))
    (tmp_path / "plain.txt").write_text("".join(f"{target}\n" for _, target in translations()), encoding="utf-8")
    tree["data"]["train"] = [tree["data"]["train"], {"text": str(tmp_path / "plain.txt")}]
    tree["data"]["max_source"] = 32
    diagnosis = sourcewise.preflight(sourcewise_recipe(tree))
    assert "DAT003" in [finding.code for finding in diagnosis.findings]
    assert any("plain.txt" in item for item in diagnosis.not_checked)


def test_the_same_set_gives_the_same_evidence(tmp_path: Path) -> None:
    tree = recipe(tmp_path, shuffled(translations()))
    assert found(tree) == found(tree)


def test_few_examples_seen_again_and_again(tmp_path: Path) -> None:
    few = recipe(tmp_path, translations()[:40]) | {"train": {"steps": 300}}
    assert grave(found(few)) == ["DAT015"]
    limited = recipe(tmp_path, translations()) | {"train": {"steps": 300}}
    limited["data"]["train"]["limit"] = 40
    assert "data.train.limit is 40" in found(limited)["DAT015"].evidence
    assert grave(found({**limited, "train": {"steps": 5}})) == []  # a trial


def test_targets_that_are_their_sources(tmp_path: Path) -> None:
    copies = [(source, source) for source, _ in translations()]
    finding = found(recipe(tmp_path, copies))["DAT016"]
    assert finding.level == "error" and "100 % of the targets" in finding.evidence
    some = [(source, source if i % 5 == 0 else target) for i, (source, target) in enumerate(translations())]
    assert found(recipe(tmp_path, some))["DAT016"].level == "warning"
    both = recipe(tmp_path, copies, [(source, source) for source, _ in translations(60, 1)])
    assert "DAT016" not in found(both)  # a task that copies


def test_outputs_that_may_not_be_as_long_as_targets(tmp_path: Path) -> None:
    short = recipe(tmp_path, translations()) | {"generation": {"max_new_tokens": 3}}
    finding = found(short)["DAT007"]
    assert finding.level == "error" and "generation.max_new_tokens 3" in finding.evidence
    assert grave(found(recipe(tmp_path, translations()) | {"generation": {"max_new_tokens": 60}})) == []


def test_sources_cut_away_are_not_called_shuffled(tmp_path: Path) -> None:
    assert grave(found(recipe(tmp_path, translations(), max_source=2))) == ["DAT007"]


def test_frames_cut_away_are_not_called_shuffled(tmp_path: Path) -> None:
    tree = feature_recipe(tmp_path, *clips())
    tree["data"]["max_frames"] = 1
    assert grave(found(tree)) == ["DAT007"]


def test_sources_lost_in_the_tokenizer_are_not_called_shuffled(tmp_path: Path) -> None:
    from sourcewise.data.tokenizers.tokenizer import Tokenizer

    Tokenizer.train([target for _, target in translations()], 300).save(tmp_path / "tokenizer.json")
    table = {ord(letter): 0x5E00 + i for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
    pairs = [(source.translate(table), target) for source, target in translations()]
    assert grave(found(recipe(tmp_path, pairs, tokenizer=str(tmp_path / "tokenizer.json")))) == ["DAT006"]


def test_what_damages_sources_stands_above_their_independence() -> None:
    from sourcewise.diagnosis.ranking import ranked

    damaged = [RULES[code].finding("") for code in ("DAT003", "DAT007", "DAT006")]
    assert [finding.code for finding in ranked(damaged)] == ["DAT006", "DAT007", "DAT003"]
    a_little = [RULES["DAT003"].finding(""), RULES["DAT007"].finding("", "warning")]
    assert [finding.code for finding in ranked(a_little)] == ["DAT003", "DAT007"]


def test_targets_that_begin_with_their_source(tmp_path: Path) -> None:
    both = [(source, f"{source} {target}") for source, target in translations()]
    finding = found(recipe(tmp_path, both))["DAT017"]
    assert finding.level == "warning" and "100 % of 800 targets begin with all of their source" in finding.evidence
    ended = [(source, f"{source} .") for source, _ in translations()]  # punctuation
    assert "DAT017" not in found(recipe(tmp_path, ended))
    some = [(s, f"{s} {t}" if i % 5 else t) for i, (s, t) in enumerate(translations())]
    assert "DAT017" not in found(recipe(tmp_path, some))


def test_every_rule_of_the_data_is_planted() -> None:
    here = Path(__file__).parent
    files = [Path(__file__), here / "test_settings.py", *(here / "rules").glob("test_*.py")]
    files += (here / "instances").glob("test_*.py")
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    assert [code for code in RULES if code.startswith("DAT") and f'"{code}"' not in source] == []
