"""Scores are sacreBLEU's, jiwer's and rouge-score's own, with several references and every option."""

from __future__ import annotations

import jiwer
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from sourcewise.errors import RequestError
from sourcewise.metrics.buckets import by_frequency, by_group, by_length, by_training_text
from sourcewise.metrics.counting import SCORES, Counting, scorer, scorers
from sourcewise.metrics.significance import paired_test, score_interval

FIRST = ["The cat sat on the mat.", "A dog runs in the big park", "hello there, my good friend", "short"]
SECOND = ["A cat was sitting on a mat", "The dog ran through a park!", "good day, my friend", "brief"]
OUTPUTS = ["the cat sits on a Mat .", "a dog runs in a park", "hello my friend", ""]
REFERENCES = list(zip(FIRST, SECOND, strict=True))


@pytest.mark.parametrize("smooth", ["exp", "floor", "add-k", "none"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("lowercase", [True, False])
def test_bleu_of_every_order_and_smoothing(smooth: str, order: int, lowercase: bool) -> None:
    theirs = BLEU(lowercase=lowercase, smooth_method=smooth, max_ngram_order=order, force=True)
    counting = Counting(bleu_tokenize="13a", bleu_smooth=smooth, lowercase=lowercase)  # type: ignore[arg-type]
    for examples in (1, 4):  # of one example sacreBLEU sums nothing, and add-k must not write into what is kept
        wanted = theirs.corpus_score(OUTPUTS[:examples], [FIRST[:examples], SECOND[:examples]]).score
        ours = scorer(f"bleu_{order}", REFERENCES[:examples], counting)
        assert ours.score(OUTPUTS[:examples]) == ours.score(OUTPUTS[:examples]) == pytest.approx(wanted, abs=1e-12)
    assert (f"|order:{order}|" in ours.signature) == (order < 4)


def test_bleu_1_is_the_precision_of_words_with_the_penalty_of_brevity() -> None:
    found = BLEU(force=True).corpus_score(OUTPUTS, [FIRST])
    assert scorer("bleu_1", [(r,) for r in FIRST]).score(OUTPUTS) == pytest.approx(found.bp * found.precisions[0])


def test_chrf_and_ter_with_their_options() -> None:
    columns = [FIRST, SECOND]
    chrf = CHRF(word_order=2, lowercase=True, whitespace=True).corpus_score(OUTPUTS, columns).score
    counting = Counting(lowercase=True, chrf_whitespace=True, ter_normalized=True, ter_case_sensitive=True)
    assert scorer("chrf_pp", REFERENCES, counting).score(OUTPUTS) == pytest.approx(chrf)
    ter = TER(normalized=True, case_sensitive=True).corpus_score(OUTPUTS, columns).score
    assert scorer("ter", REFERENCES, counting).score(OUTPUTS) == pytest.approx(ter)


def test_of_several_references_wer_and_cer_take_the_closest() -> None:
    for key, measure in (("wer", jiwer.process_words), ("cer", jiwer.process_characters)):
        alone = scorer(key, [(r,) for r in FIRST])
        found = measure(FIRST, OUTPUTS)
        wanted = (found.substitutions + found.deletions + found.insertions) / (
            found.substitutions + found.deletions + found.hits
        )
        assert alone.score(OUTPUTS) == pytest.approx(wanted)
        both = scorer(key, [(*each, output) for each, output in zip(REFERENCES, OUTPUTS, strict=True)])
        assert both.score(OUTPUTS) == 0
        assert "nrefs:3" in both.signature and "jiwer-" in both.signature


def test_rouge_takes_the_best_reference_and_stems_where_asked_for() -> None:
    theirs = RougeScorer(["rougeL"], use_stemmer=True)
    wanted = [theirs.score_multi(r, o)["rougeL"].fmeasure for r, o in zip(REFERENCES, OUTPUTS, strict=True)]
    found = scorer("rouge_l", REFERENCES, Counting(rouge_stem=True))
    assert found.score(OUTPUTS) == pytest.approx(100 * sum(wanted) / 4) and "stem:yes" in found.signature


def test_exact_is_any_reference_in_any_form() -> None:
    references = [("cafe\u0301", "tea"), ("a  b",), ("X",)]
    assert scorer("exact_match_pct", references).score(["caf\u00e9", "a b ", "x"]) == pytest.approx(200 / 3)
    assert scorer("exact_match_pct", references, Counting(lowercase=True)).score(["tea", "a b", "x"]) == 100


def test_every_score_of_parts_adds_up_and_lies_in_its_interval() -> None:
    for key, each in scorers(SCORES, REFERENCES).items():
        whole, sums = each.score(OUTPUTS), each.statistics(OUTPUTS)
        assert float(each.of_sums(sums[:2].sum(0) + sums[2:].sum(0))) == pytest.approx(whole), key
        low, high = score_interval(each, OUTPUTS)
        assert low <= whole <= high, key


def test_a_paired_test_of_every_score_with_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [[*OUTPUTS[1:], OUTPUTS[0]], OUTPUTS]
    for key, each in scorers(SCORES, REFERENCES).items():
        for test in ("bootstrap", "randomisation"):
            first, again = (paired_test(each, OUTPUTS, others, test, 40) for _ in range(2))  # type: ignore[arg-type]
            assert first == again and all(0 < found.p <= 1 for found in first), key
            assert "seed:12345" in first[0].signature and ":40|" in first[0].signature
    monkeypatch.setenv("SACREBLEU_SEED", "seven")
    with pytest.raises(RequestError, match="SACREBLEU_SEED=seven: a seed is a whole number, or none"):
        paired_test(each, OUTPUTS, others, "bootstrap", 5)


def test_buckets_hold_every_example_once() -> None:
    training = ["the cat sat on the mat.", *["a dog runs in the big park"] * 12]
    groups = {"signer": ["ann", "", "bob", "ann"]}
    for found in (
        by_length(REFERENCES),
        by_frequency(REFERENCES, training),
        by_training_text(REFERENCES, training),
        by_group(groups),
    ):
        assert sorted(row for bucket in found for row in bucket.rows) == [0, 1, 2, 3]
    assert {each.name: list(each.rows) for each in by_group(groups)} == {"ann": [0, 3], "(none)": [1], "bob": [2]}
    assert {each.name: list(each.rows) for each in by_training_text(REFERENCES, training)} == {
        "text seen in train": [0, 1],
        "text not in train": [2, 3],
    }
    assert {each.name: list(each.rows) for each in by_frequency(REFERENCES, training)} == {
        "a word that is not in train": [2, 3],
        "1 to 9 times": [0],
        "10 to 99 times": [1],
    }


def test_many_groups_are_told_as_the_commonest_and_the_rest() -> None:
    names = [f"s{i}" for i in range(30)] + ["s0"]
    found = by_group({"speaker": names})
    assert len(found) == 12 and found[0].name == "s0" and found[-1].name == "19 others"
    assert sum(len(each.rows) for each in found) == 31
