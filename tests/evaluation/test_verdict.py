"""The verdict: every boundary, and the sets BLEU has no say on."""

import pytest

from sourcewise.evaluation.verdict import (
    bleu_applies,
    bleu_band,
    diversity_band,
    judge,
    kappa,
    share_band,
    source_use,
    unread_below,
)
from sourcewise.metrics.outputs import output_metrics

SENTENCES = [
    f"the {a} man {b} a dog" for a in ("old", "young", "tall", "short") for b in ("sees", "has", "feeds", "walks")
]


def judged(references, outputs, **more):
    return judge(output_metrics(references, outputs, [True] * len(outputs)) | more, references, outputs)


@pytest.mark.parametrize(
    ("bleu", "name"),
    [
        (10.01, "excellent"),
        (10, "good"),
        (8, "good"),
        (7.99, "moderate"),
        (5, "moderate"),
        (4.99, "failed"),
        (0, "failed"),
    ],
)
def test_bleu_bands(bleu, name):
    assert bleu_band(bleu) == name


@pytest.mark.parametrize(
    ("share", "name"),
    [(100, "good"), (70.01, "good"), (70, "some repetition"), (50, "some repetition"), (49.99, "mode collapse")],
)
def test_diversity_bands(share, name):
    assert diversity_band(share) == name


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1, "excellent"),
        (0.8, "good"),
        (0.6, "good"),
        (0.59, "moderate"),
        (0.4, "moderate"),
        (0.39, "failed"),
        (-1, "failed"),
    ],
)
def test_bands_of_shares(value, name):
    assert share_band(value) == name


@pytest.mark.parametrize(
    ("low", "high", "use"),
    [
        (0.02, 0.0999, "not read"),
        (0.02, 0.1, "uncertain"),
        (0.1, 3, "read"),
        (-0.5, -0.1, "not read"),
        (None, None, "not measured"),
    ],
)
def test_source_use_is_read_off_the_interval(low, high, use):
    assert source_use({"source_bits_ci95": [low, high], "target_tokens": 100}, SENTENCES) == use


def test_no_interval_is_not_measured():
    assert source_use({}, SENTENCES) == "not measured"
    assert source_use({"source_bits_ci95": [float("nan"), float("nan")]}, SENTENCES) == "not measured"


def test_a_good_translation():
    verdict = judged(SENTENCES, SENTENCES, source_bits=4.0, source_bits_ci95=[3.5, 4.5], target_tokens=100)
    assert (verdict.level, verdict.band, verdict.diversity, verdict.source_use) == (
        "undecided",  # without baselines
        "excellent",
        "good",
        "read",
    )
    assert verdict.text.startswith("no baselines to hold it against; ")
    assert "BLEU 100.0: excellent" in verdict.text
    assert "4.00 [3.50, 4.50]: the decoder reads its source" in verdict.text


def test_an_unread_source_fails_whatever_the_score():
    verdict = judged(SENTENCES, SENTENCES, source_bits=0.02, source_bits_ci95=[0.0, 0.05], target_tokens=100)
    assert verdict.band == "excellent"
    assert verdict.level == "failed"
    assert "the decoder does not read its source" in verdict.text


def test_mode_collapse_fails():
    some = SENTENCES[:9] + [SENTENCES[0]] * 7  # 9 of 16 distinct: 56 %
    few = SENTENCES[:7] + [SENTENCES[0]] * 9  # 7 of 16: 44 %
    assert judged(SENTENCES, some).band == "excellent"
    assert judged(SENTENCES, some).diversity == "some repetition"
    assert judged(SENTENCES, some).level == "undecided"
    assert judged(SENTENCES, few).level == "failed"


def test_exact_dates_and_labels_are_excellent_though_bleu_is_zero():
    dates = [f"2024-{month:02d}-{day:02d}" for month in range(1, 13) for day in (3, 17)]
    labels = ["positive", "negative"] * 10
    for texts in (dates, labels):
        assert not bleu_applies(texts)
        assert judged(texts, texts).band == "excellent"
    assert output_metrics(labels, labels, [True] * 20)["bleu"] == 0


def test_wrong_dates_fail():
    dates = [f"2024-{k % 12 + 1:02d}-{(5 * k) % 28 + 1:02d}" for k in range(40)]
    assert judged(dates, dates[20:] + dates[:20]).band == "failed"


def test_dates_off_by_a_day_are_close_at_best():
    dates = [f"2024-{month:02d}-{day:02d}" for month in range(1, 13) for day in (3, 17)]
    close = [d[:-1] + "4" for d in dates]
    assert output_metrics(dates, close, [True] * 24)["bleu"] > 60  # sacrebleu splits at hyphens: "excellent"
    verdict = judged(dates, close)
    assert verdict.band == "moderate"
    assert "close" in verdict.text


def test_the_majority_label_for_everything_is_worth_nothing():
    references = ["ham"] * 90 + ["spam"] * 10
    verdict = judged(references, ["ham"] * 100)
    assert kappa(references, ["ham"] * 100) == 0
    assert verdict.band == "failed"
    assert "90.0 % exactly right" in verdict.text


def test_of_several_references_each_is_right():
    references = [("ham", "pork"), ("spam",), ("ham", "pork"), ("spam",)]
    assert kappa(references, ["pork", "spam", "ham", "spam"]) == 1
    assert kappa(references, ["pork"] * 4) == 0
    assert kappa([("Ham",), ("spam",)], ["hAM", "SPAM"], lowercase=True) == 1


def test_kappa_is_cohens():
    # 2 × 2 table 20, 5, 10, 15: observed 0.7, expected 0.5 (the textbook example).
    references = ["yes"] * 25 + ["no"] * 25
    outputs = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert kappa(references, outputs) == pytest.approx(0.4)


def test_targets_that_are_all_the_same_leave_nothing_to_read():
    texts = ["the same old story"] * 12
    verdict = judged(texts, texts, source_bits=0.0, source_bits_ci95=[-0.01, 0.01], target_tokens=60)
    assert (verdict.level, verdict.band) == ("undecided", "excellent")
    assert "nothing to read" in verdict.text


def test_the_bound_follows_what_the_targets_hold():
    assert unread_below(SENTENCES, 16 * 8) == 0.1
    assert unread_below(["a", "b"] * 50, 200) == 0.1  # one bit an example, half a bit a token: half of that is more
    rare = ["a"] * 99 + ["b"]  # 0.0808 bits an example, two tokens each
    assert unread_below(rare, 200) == pytest.approx(0.0808 / 4, rel=1e-3)
    assert unread_below(["a"] * 10, 20) == 0


def test_bleu_applies_from_half_of_four_word_references():
    assert bleu_applies(["a b c d", "a"])
    assert not bleu_applies(["a b c d", "a", "b"])
    assert bleu_applies(["我爱你们"])
    assert not bleu_applies([])


def test_one_empty_example_gets_a_verdict():
    assert judged(["a b c d e"], [""]).level == "failed"
    assert judged([""], [""]).band == "excellent"


def test_to_dict_is_ready_for_json():
    assert set(judged(SENTENCES, SENTENCES).to_dict()) == {"level", "band", "diversity", "source_use", "text"}


# ── the place among the baselines ─────────────────────────────────────────────────────────────────────────────────────


def beside(constant, length, copy, metric="bleu", can_tell=True):
    """Baselines of so many points each, and the intervals of what outputs are above them."""
    found = {}
    for name, (score, low, high) in {"constant": constant, "length": length, "copy": copy}.items():
        difference = {"difference": (low + high) / 2, "difference_ci95": [low, high], "can_tell": can_tell}
        found[name] = {metric: score, **difference}
    return {"metric": metric, "taken_from": "x", "copied_by": "y", "outputs": {}, **found}


FAR = (3.0, 5.0, 9.0)


@pytest.mark.parametrize(
    ("baselines", "level", "said"),
    [
        (beside(FAR, FAR, (12.0, 0.1, 3.0)), "above copying", "(BLEU 12.0, +1.55 [+0.10, +3.00])"),
        (beside(FAR, FAR, (12.0, -0.1, 3.0)), "below copying", "not above copying the target"),
        (beside(FAR, FAR, (12.0, -6.0, -3.0)), "below copying", "-4.50 [-6.00, -3.00]"),
        (beside(FAR, (3.0, -0.5, 1.0), FAR), "failed", "not above random training targets of the right length"),
        (beside((3.0, 0.0, 1.0), FAR, FAR), "failed", "not above one output for every source"),
        (beside((3.0, -2.0, -1.0), FAR, FAR, can_tell=False), "failed", "not above one output"),
        (beside((100.0, 0.0, 0.0), FAR, FAR, can_tell=False), "undecided", "cannot tell good outputs from one output"),
        (beside(FAR, FAR, (100.0, -5.0, -1.0), can_tell=False), "below copying", "not above copying"),
        (beside(FAR, FAR, (99.0, -1.0, 2.0), can_tell=False), "undecided", "cannot tell good outputs from copying"),
    ],
)
def test_the_level_is_where_the_score_lies(baselines, level, said):
    verdict = judged(SENTENCES, SENTENCES, baselines=baselines)
    assert verdict.level == level and said in verdict.text and verdict.band == "excellent"


def test_a_low_band_above_copying_is_above_copying():
    verdict = judged(SENTENCES, SENTENCES, bleu=4.0, baselines=beside(FAR, FAR, (2.0, 1.0, 3.0)))
    assert (verdict.level, verdict.band) == ("above copying", "failed")


def test_an_unread_source_and_mode_collapse_fail_above_copying_too():
    high = beside(FAR, FAR, FAR)
    unread = {"source_bits": 0.0, "source_bits_ci95": [0.0, 0.05], "target_tokens": 100}
    assert judged(SENTENCES, SENTENCES, baselines=high, **unread).level == "failed"
    assert judged(SENTENCES, SENTENCES[:1] * 16, baselines=high).level == "failed"


@pytest.mark.parametrize(
    ("metric", "value", "band"),
    [("wer", 0.53, "moderate"), ("wer", 0.1, "excellent"), ("wer", 1.3, "failed"), ("chrf", 38.6, "failed"),
     ("chrf", 61.0, "good"), ("bleu", 13.4, "excellent")],
)  # fmt: skip
def test_each_metric_is_judged_by_itself(metric, value, band):
    verdict = judged(SENTENCES, SENTENCES, judged_by=metric, **{metric: value})
    assert verdict.band == band


def test_the_worst_task_of_a_mixture_judges_it():
    tasks = {
        "de": {"baselines": beside(FAR, FAR, FAR)},
        "labels": {"baselines": beside((50.0, -2.0, 1.0), FAR, FAR, "exact_match_pct")},
    }
    verdict = judged(SENTENCES, SENTENCES, tasks=tasks, baselines=beside(FAR, FAR, FAR))
    assert verdict.level == "failed" and verdict.text.startswith("labels: not above one output for every source (")


def test_a_plug_in_that_is_gone_or_failed_leaves_it_undecided():
    gone = beside(FAR, FAR, FAR, "of_a_plug_in")
    assert judged(SENTENCES, SENTENCES, judged_by="of_a_plug_in", baselines=gone).level == "above copying"
    for name in ("constant", "length", "copy"):
        gone[name] = {"of_a_plug_in": None, "can_tell": False}
    assert judged(SENTENCES, SENTENCES, baselines=gone).level == "undecided"
