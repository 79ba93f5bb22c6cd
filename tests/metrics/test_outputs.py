"""Output metrics: figures worked out by hand, and what must hold for any text."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sourcewise.metrics.counting import Counting, bleu_score, word_error_rate
from sourcewise.metrics.outputs import length_ratio, length_sd_ratio, longest_run, output_metrics, repeats
from sourcewise.metrics.texts import plain, words

KEYS = {
    "bleu", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "chrf", "wer", "cer", "exact_match_pct", "unique_pct",
    "reference_unique_pct", "top_output_pct", "length_ratio", "length_sd_ratio", "empty_pct", "unfinished_pct",
    "repetition_pct", "examples",
}  # fmt: skip


def test_every_figure_of_a_set_worked_out_by_hand():
    references = ["a b c d", "e f g h", "e f g h", "i j k l"]
    outputs = ["a b c d", "e f x h", "", "x x x x"]
    found = output_metrics(references, outputs, [True, True, True, False])
    signed = {key for key in KEYS if f"{key}_signature" in found}
    assert set(found) == KEYS | {f"{key}_signature" for key in signed}
    assert signed == {"bleu", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "chrf", "wer", "cer", "exact_match_pct"}
    assert found["examples"] == 4
    assert found["exact_match_pct"] == 25
    assert found["wer"] == pytest.approx((0 + 1 + 4 + 4) / 16)
    assert found["unique_pct"] == 100
    assert found["reference_unique_pct"] == 75
    assert found["top_output_pct"] == 25
    assert found["length_ratio"] == 12 / 16
    assert found["length_sd_ratio"] == pytest.approx(1 + math.sqrt(3))  # references all have one length; sd of 4 4 0 4
    assert found["empty_pct"] == 25
    assert found["unfinished_pct"] == 25
    assert found["repetition_pct"] == 25


def test_bleu_is_the_geometric_mean_of_precisions():
    # One word of eight differs: 7/8, 5/7 (bigrams), 3/6, 2/5; as long as the reference, so no penalty.
    score, signature = bleu_score(["a b c d e f g h"], ["a b x d e f g h"])
    assert score == pytest.approx(100 * (7 / 8 * 5 / 7 * 3 / 6 * 2 / 5) ** 0.25)
    assert "case:mixed" in signature and "tok:13a" in signature


def test_brevity_penalty_of_half_the_words():
    score, _ = bleu_score(["a b c d e f g h i j"], ["a b c d e"])
    assert score == pytest.approx(100 * math.exp(1 - 10 / 5))


@pytest.mark.parametrize(
    ("reference", "tokenizer"),
    [
        ("我爱你们大家好", "zh"),
        ("わたしはあなたをあいしています", "char"),
        ("สวัสดีครับ", "char"),
        ("a man 人 walks", "13a"),
    ],
)
def test_bleu_takes_characters_where_no_spaces_are_written(reference, tokenizer):
    score, signature = bleu_score([reference], [reference])
    assert f"tok:{tokenizer}" in signature
    assert score == pytest.approx(100)


def test_words_are_characters_in_scripts_without_spaces_only():
    assert words("hello, wörld 我爱\tпривет") == ["hello,", "wörld", "我", "爱", "привет"]
    assert words(" \n") == []


def test_word_error_rate_counts_characters_of_unspaced_scripts_where_asked_for():
    by_characters = Counting(wer_words="characters")
    assert word_error_rate(["我爱你们大家好"], ["我爱你们大家"], by_characters) == pytest.approx(1 / 7)
    assert word_error_rate(["我爱你们大家好"], ["我爱你们大家"]) == 1  # as jiwer: words stand between spaces


@pytest.mark.parametrize(
    ("references", "outputs", "expected"),
    [([""], [""], 0), ([""], ["a b"], 2), (["a", ""], ["a", "b"], 1), (["a b"], [""], 1), (["a"], ["a b c"], 2)],
)
def test_word_error_rate_of_empty_sides(references, outputs, expected):
    assert word_error_rate(references, outputs) == expected


def test_lengths_of_empty_references_stay_finite():
    assert length_ratio(["", ""], ["a b", ""]) == 2
    assert length_sd_ratio(["", ""], ["", ""]) == 1
    assert length_sd_ratio(["a", "a b c"], ["a b", "a b"]) == 0  # outputs never vary
    assert length_sd_ratio(["a", "a b c"], ["a", "a b c d e"]) == 2


def test_same_text_in_another_unicode_form_is_an_exact_match():
    composed, decomposed = "caf\u00e9  noir", "cafe\u0301 noir "
    assert plain(composed) == plain(decomposed)
    assert output_metrics([composed], [decomposed], [True])["exact_match_pct"] == 100


CODE = "def f(x):\n    return x\n"


@pytest.mark.parametrize(
    ("output", "same"),
    [
        (CODE, True),
        (CODE.strip(), True),
        (CODE.replace("\n", "\r\n"), True),
        ("def f(x): return x", False),
        ("def f(x):\n return x", False),
        ("def f(x):\nreturn x", False),
        ("def f(x):\n    return  x ", True),  # spaces within a line, as ever
    ],
)
def test_lines_and_indents_of_code_count(output, same):
    assert (output_metrics([CODE], [output], [True])["exact_match_pct"] == 100) == same


@pytest.mark.parametrize(
    ("output", "reference", "expected"),
    [
        ("zero zero zero", "zero zero zero", False),  # it was said
        ("zero zero zero zero", "zero zero zero", False),  # one too many is an error, not a loop
        ("zero zero zero zero zero", "zero zero zero", True),
        ("one one one", "one one two", False),
        ("one one one", "one two three", True),
        ("the station the station", "a train", False),
        ("the station the station the station", "a train", True),
        ("well the end the end the end of it", "the end", True),
        ("a b c d e f a b c d e f", "a", False),
        ("hahahahahahahahaha", "he laughs", True),
        ("1000000", "1000001", False),
        ("", "", False),
        ("", "a a a", False),
        ("我我我我", "我们", True),
    ],
)
def test_degenerate_repetition(output, reference, expected):
    assert repeats(output, reference) is expected


def test_longest_run_counts_units_in_direct_succession():
    assert longest_run(["the", "cat", "the", "cat", "sat"], 2) == 2
    assert longest_run(["the", "cat", "the", "cat", "the"], 2) == 2  # the third is not whole
    assert longest_run(list("aaab"), 1) == 3
    assert longest_run(list("abc"), 1) == 1
    assert longest_run(["a"], 2) == 0


def test_lists_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="2 outputs"):
        output_metrics(["a"], ["a", "b"], [True])
    with pytest.raises(ValueError, match="no examples"):
        output_metrics([], [], [])


text = st.text(st.sampled_from(list("ab 我の\u0301é\n\t.")), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(text, text, st.booleans()), min_size=1, max_size=6))
def test_figures_stay_in_their_ranges_for_any_text(rows):
    references, outputs, finished = (list(column) for column in zip(*rows, strict=True))
    found = output_metrics(references, outputs, finished)
    for key, value in found.items():
        if key.endswith("_pct") or key in ("bleu", "chrf"):
            assert 0 <= value <= 100, key
        elif not key.endswith("_signature"):
            assert value >= 0 and math.isfinite(value), key


@settings(max_examples=60, deadline=None)
@given(st.lists(text, min_size=1, max_size=6))
def test_exact_outputs_are_perfect_by_every_figure_but_bleu(references):
    found = output_metrics(references, references, [True] * len(references))
    assert found["exact_match_pct"] == 100
    assert found["wer"] == 0
    assert found["repetition_pct"] == 0
    assert found["length_sd_ratio"] == pytest.approx(1)
    assert found["unique_pct"] == found["reference_unique_pct"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=20), st.integers(1, 5))
def test_longest_run_is_found_by_looking_everywhere(items, size):
    best = 0
    for start in range(len(items) - size + 1):
        unit, count = items[start : start + size], 1
        while items[start + count * size : start + (count + 1) * size] == unit:
            count += 1
        best = max(best, count)
    assert longest_run(items, size) == best
