"""The verdict: every boundary, and the sets BLEU has no say on."""

import pytest

from sourcewise.evaluation.verdict import (
    bleu_applies,
    bleu_band,
    diversity_band,
    judge,
    kappa,
    kappa_band,
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
def test_kappa_bands(value, name):
    assert kappa_band(value) == name


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
    assert (verdict.level, verdict.quality, verdict.diversity, verdict.source_use) == (
        "excellent",
        "excellent",
        "good",
        "read",
    )
    assert "BLEU 100.0: excellent" in verdict.text
    assert "4.00 [3.50, 4.50]: the decoder reads its source" in verdict.text


def test_an_unread_source_fails_whatever_the_score():
    verdict = judged(SENTENCES, SENTENCES, source_bits=0.02, source_bits_ci95=[0.0, 0.05], target_tokens=100)
    assert verdict.quality == "excellent"
    assert verdict.level == "failed"
    assert "the decoder does not read its source" in verdict.text


def test_diversity_caps_the_level():
    some = SENTENCES[:9] + [SENTENCES[0]] * 7  # 9 of 16 distinct: 56 %
    few = SENTENCES[:7] + [SENTENCES[0]] * 9  # 7 of 16: 44 %
    assert judged(SENTENCES, some).quality == "excellent"
    assert judged(SENTENCES, some).level == "moderate"
    assert judged(SENTENCES, few).level == "failed"


def test_exact_dates_and_labels_are_excellent_though_bleu_is_zero():
    dates = [f"2024-{month:02d}-{day:02d}" for month in range(1, 13) for day in (3, 17)]
    labels = ["positive", "negative"] * 10
    for texts in (dates, labels):
        assert not bleu_applies(texts)
        assert judged(texts, texts).level == "excellent"
    assert output_metrics(labels, labels, [True] * 20)["bleu"] == 0


def test_wrong_dates_fail():
    dates = [f"2024-{k % 12 + 1:02d}-{(5 * k) % 28 + 1:02d}" for k in range(40)]
    assert judged(dates, dates[20:] + dates[:20]).quality == "failed"


def test_dates_off_by_a_day_are_close_at_best():
    dates = [f"2024-{month:02d}-{day:02d}" for month in range(1, 13) for day in (3, 17)]
    close = [d[:-1] + "4" for d in dates]
    assert output_metrics(dates, close, [True] * 24)["bleu"] > 60  # sacrebleu splits at hyphens: "excellent"
    verdict = judged(dates, close)
    assert verdict.quality == "moderate"
    assert "close" in verdict.text


def test_the_majority_label_for_everything_is_worth_nothing():
    references = ["ham"] * 90 + ["spam"] * 10
    verdict = judged(references, ["ham"] * 100)
    assert kappa(references, ["ham"] * 100) == 0
    assert verdict.quality == "failed"
    assert "90.0 % exactly right" in verdict.text


def test_kappa_is_cohens():
    # 2 × 2 table 20, 5, 10, 15: observed 0.7, expected 0.5 (the textbook example).
    references = ["yes"] * 25 + ["no"] * 25
    outputs = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert kappa(references, outputs) == pytest.approx(0.4)


def test_targets_that_are_all_the_same_leave_nothing_to_read():
    texts = ["the same old story"] * 12
    verdict = judged(texts, texts, source_bits=0.0, source_bits_ci95=[-0.01, 0.01], target_tokens=60)
    assert verdict.level == "excellent"
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
    assert judged([""], [""]).level == "excellent"


def test_to_dict_is_ready_for_json():
    assert set(judged(SENTENCES, SENTENCES).to_dict()) == {"level", "quality", "diversity", "source_use", "text"}
