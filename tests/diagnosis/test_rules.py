"""Rules over an evaluation: each finds its fault, and none is found on healthy sets, however few their targets."""

import random

import pytest

from sourcewise.diagnosis.outputs import MIN_EXAMPLES, Outputs
from sourcewise.diagnosis.ranking import ranked
from sourcewise.diagnosis.rules import RULES, look
from sourcewise.evaluation.results import Evaluation, Row
from sourcewise.metrics.outputs import output_metrics

OUTPUTS = "OUT* -OUT009"  # all but the verdict
RNG = random.Random(5)
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
WORDS = [a + b for a in ("ba", "de", "fi", "go", "lu", "mi", "na", "po") for b in ("r", "st", "nk", "lm", "x")]


def sentences(count, shortest=4, longest=14):
    return [" ".join(RNG.choices(WORDS, k=RNG.randint(shortest, longest))) for _ in range(count)]


def evaluation(references, given, sources=None, finished=None, **metrics):
    finished = finished or [True] * len(given)
    sources = sources or [""] * len(given)
    rows = [
        Row(str(i), s, r, o, f) for i, (s, r, o, f) in enumerate(zip(sources, references, given, finished, strict=True))
    ]
    return Evaluation(output_metrics(references, given, finished) | metrics, rows)


def found(*args, **kwargs):
    return {f.code: f for f in look(Outputs(evaluation(*args, **kwargs)), codes=OUTPUTS).findings}


def noisy(texts, share, rng=None):
    """Outputs of a decent model: this share of the words is another word of the set."""
    rng = rng or random.Random(1)
    pool = [w for t in texts for w in t.split(" ")]
    return [" ".join(rng.choice(pool) if rng.random() < share else w for w in t.split(" ")) for t in texts]


LABELS = ["positive", "negative"] * 100
SKEWED = ["ham"] * 180 + ["spam"] * 20
RARE = ["ham"] * 198 + ["spam"] * 2
ZIPF = [label for k in range(1, 13) for label in [f"class {k}"] * (120 // k)]
TAIL = [f"common {k}" for k in range(6)] * 30 + [f"rare {k}" for k in range(6)]
STRINGS = [" ".join(RNG.choices(DIGITS, k=RNG.randint(3, 6))) for _ in range(200)]
DATES = [f"{RNG.randint(1990, 2030)}-{RNG.randint(1, 12):02d}-{RNG.randint(1, 28):02d}" for _ in range(200)]
TEXTS = sentences(200)
HAN = ["我爱你们大家", "他不喜欢这个", "今天天气很好", "明天我去北京"] * 5
REPEATING = [" ".join([RNG.choice(DIGITS)] * RNG.randint(2, 6)) for _ in range(100)]


@pytest.mark.parametrize(
    ("references", "given"),
    [
        (LABELS, LABELS),
        (LABELS, noisy(LABELS, 0.3)),
        (SKEWED, SKEWED),
        (SKEWED, ["ham"] * 186 + ["spam"] * 14),
        (RARE, ["ham"] * 200),  # two of two hundred missed is no collapse
        (TAIL, [c if c.startswith("common") else "common 1" for c in TAIL]),  # rare labels, half of all, never given
        (STRINGS, STRINGS),
        (STRINGS, noisy(STRINGS, 0.2)),
        (DATES, noisy(DATES, 0.1)),
        (TEXTS, noisy(TEXTS, 0.4)),
        (REPEATING, REPEATING),
        (REPEATING, noisy(REPEATING, 0.1)),
        (["yes"] * 40, ["yes"] * 40),  # one target only
        ([""] * 5 + TEXTS[:45], [""] * 5 + TEXTS[:45]),  # targets that are empty
        ([f"in this video you will see {w}" for w in WORDS], [f"in this video you will see {w}" for w in WORDS]),
        (HAN, [t[:-1] for t in HAN]),
    ],
)
def test_healthy_sets_have_no_findings(references, given):
    assert found(references, given) == {}


@pytest.mark.parametrize(
    ("references", "given", "code", "level", "evidence"),
    [
        (TEXTS, ["bar dest"] * 200, "OUT001", "error", '100 % of 200 outputs are "bar dest"'),
        (TEXTS, ["bar dest"] * 110 + TEXTS[110:], "OUT001", "error", "55 %"),
        (LABELS, ["positive"] * 200, "OUT001", "error", "the commonest reference has 50.0 %"),
        (SKEWED, ["ham"] * 200, "OUT001", "warning", "the commonest reference has 90.0 %"),
        (TEXTS, TEXTS[:40] * 5, "OUT002", "error", "40 distinct outputs where the references have 200"),
        (TEXTS, TEXTS[:120] + TEXTS[:80], "OUT002", "warning", "120 distinct"),
        (ZIPF, [f"class {k % 2 + 1}" for k in range(len(ZIPF))], "OUT002", "error", "2 distinct"),
        (TEXTS, [f"i am going to {t}" for t in TEXTS], "OUT003", "error", "100 % of the outputs and in 0 %"),
        (TEXTS, [f"i am going to {t}" for t in TEXTS[:60]] + TEXTS[60:], "OUT003", "warning", "30 % of the outputs"),
        (TEXTS, [t + " la la la la" for t in TEXTS[:72]] + TEXTS[72:], "OUT004", "error", "36.0 %"),
        (TEXTS, [t + " la la la la" for t in TEXTS[:28]] + TEXTS[28:], "OUT004", "warning", "14.0 % of 200"),
        (TEXTS, [t + " la la la la" for t in TEXTS[:20]] + TEXTS[20:], "OUT004", "note", "10.0 %"),
        (TEXTS, [t.split(" ")[0] + t.split(" ")[-1] for t in TEXTS], "OUT005", "error", "times the words"),
        (TEXTS, [" ".join(t.split(" ")[: len(t.split(" ")) * 3 // 5]) for t in TEXTS], "OUT005", "warning", "0.5"),
        (TEXTS, [t + " " + u for t, u in zip(TEXTS, TEXTS[::-1], strict=True)], "OUT005", "warning", "2.00 times"),
        (TEXTS, [" ".join(t.split(" ")[:9]) for t in sentences(200, 9, 14)], "OUT005", "warning", "vary 0.00 times as"),
        (TEXTS, [""] * 60 + TEXTS[60:], "OUT006", "error", "30.0 % of 200 outputs are empty"),
        (TEXTS, [""] * 4 + TEXTS[4:], "OUT006", "warning", "2.0 %"),
    ],
)  # fmt: skip
def test_each_fault_is_found_with_its_figure(references, given, code, level, evidence):
    findings = found(references, given)
    assert code in findings
    assert findings[code].level == level
    assert evidence in findings[code].evidence
    assert findings[code].cure


def test_several_references_of_a_source_are_no_collapse():
    sources = [f"question {i // 5}" for i in range(200)]
    given = [TEXTS[i // 5 * 5] for i in range(200)]  # one of the five each time
    assert found(TEXTS, given, sources) == {}
    assert found(TEXTS, given)["OUT002"].level == "error"  # without sources nobody knows
    same = [TEXTS[i // 40] for i in range(200)]  # 5 outputs for 40 questions
    finding = found(TEXTS, same, sources)["OUT002"]
    assert finding.level == "error" and "of the 40 different sources of 200 examples" in finding.evidence


def test_endless_outputs_are_told_from_a_limit_that_is_too_low():
    unfinished = [False] * 100 + [True] * 100
    rambling = found(TEXTS, [t + " and more and yet more words so" for t in TEXTS], finished=unfinished)["OUT007"]
    assert rambling.level == "error"
    assert "end of text was not learned" in rambling.cure
    cut = found(TEXTS, [t.rsplit(" ", 1)[0] for t in TEXTS], finished=unfinished)["OUT007"]
    assert cut.level == "warning"
    assert "--generation.max_new_tokens" in cut.cure


def test_sources_that_share_their_right_replies_are_no_collapse():
    """Questions asked in many ways, each with several right replies, of which the model has one favourite."""
    sources = [f"question {i // 4}" for i in range(160)]
    references = [TEXTS[4 * (i // 16) + i % 4] for i in range(160)]  # four replies to the four ways of each question
    given = [TEXTS[4 * (i // 16)] for i in range(160)]
    assert found(references, given, sources) == {}
    assert found(references, given)["OUT002"].level == "error"  # without sources nobody knows
    assert found(references, [TEXTS[0]] * 160, sources)["OUT001"].level == "error"


def test_a_limit_that_cuts_all_outputs_explains_that_they_are_alike():
    cut = [t.split(" ")[0] for t in STRINGS]
    findings = found(STRINGS, cut, finished=[False] * len(cut))
    assert set(findings) == {"OUT005", "OUT007"}
    assert [f.code for f in ranked(list(findings.values()))] == ["OUT007", "OUT005"]
    collapsed = found(STRINGS, ["one"] * len(cut), finished=[False] * len(cut))
    assert collapsed["OUT001"].level == "error"


@pytest.mark.parametrize(
    ("unfinished", "level"), [(4, None), (20, "note"), (28, "warning"), (60, "warning"), (72, "error")]
)
def test_some_outputs_that_do_not_end_are_no_more_than_they_are(unfinished, level):
    given = [t + " and more and yet more words of it" * (i < unfinished) for i, t in enumerate(TEXTS)]
    given[100:] = [t + " so" * 2 for t in given[100:]]  # longer than the references in any case
    finding = found(TEXTS, given, finished=[i >= unfinished for i in range(200)]).get("OUT007")
    assert (finding.level if finding else None) == level


def test_a_loop_without_spaces_is_no_limit_that_is_too_low():
    dates = [f"19{k:02}-05-28" for k in range(60)]
    looping = [d + "-28" * 12 if k < 20 else d for k, d in enumerate(dates)]
    finding = found(dates, looping, finished=[k >= 20 for k in range(60)])["OUT007"]
    assert "end of text was not learned" in finding.cure and "times the references' characters" in finding.evidence


def test_copies_of_the_source_are_found_behind_a_task_prefix():
    sources = [f"translate English to German: {t}" for t in sentences(100, 6, 12)]
    copied = [s.split(": ")[1] for s in sources]
    finding = found(TEXTS[:100], copied, sources)["OUT008"]
    assert finding.level == "error"
    assert "100 % of the outputs" in finding.evidence


def test_copying_is_no_fault_where_the_references_copy_too():
    sources = [f"correct: {t}" for t in TEXTS]
    assert found(TEXTS, TEXTS, sources) == {}


def test_labels_that_stand_in_their_source_are_no_copies():
    sources = [f"sentiment: this was a {label} thing to see in the evening" for label in LABELS]
    assert found(["1" if label == "positive" else "0" for label in LABELS], LABELS, sources) == {}


def test_one_output_for_everything_is_said_once():
    assert set(found(TEXTS, ["bar dest nask"] * 200)) & {"OUT001", "OUT002", "OUT003"} == {"OUT001"}
    assert set(found(TEXTS, [""] * 200)) == {"OUT006"}


def test_too_few_examples_are_not_judged():
    assert found(TEXTS[: MIN_EXAMPLES - 1], ["same"] * (MIN_EXAMPLES - 1)) == {}
    assert "OUT001" in found(TEXTS[:MIN_EXAMPLES], ["same"] * MIN_EXAMPLES)


def test_rows_without_figures_are_measured():
    rows = [Row(str(i), "", t, "la la la la", False) for i, t in enumerate(TEXTS)]
    codes = {f.code for f in look(Outputs(Evaluation({"unfinished_pct": None}, rows))).findings}
    assert {"OUT001", "OUT004", "OUT007"} <= codes


def bits(low, high, references, tokens_each, **more):
    metrics = {
        "source_bits": (low + high) / 2,
        "source_bits_ci95": [low, high],
        "target_tokens": tokens_each * len(references),
    }
    rows = [Row(str(i), "", r, r) for i, r in enumerate(references)]
    return look(Outputs(Evaluation(metrics | {"examples": len(rows)} | more, rows)), codes="SRC001").findings


def test_an_unread_source_is_found_with_both_losses():
    (finding,) = bits(0.02, 0.06, TEXTS, 10, loss=2.107, loss_shuffled=2.137)
    assert (finding.code, finding.level) == ("SRC001", "error")
    assert "0.040 bits" in finding.evidence
    assert "0.020 to 0.060" in finding.evidence
    assert "2.107 nats" in finding.evidence and "2.137" in finding.evidence


@pytest.mark.parametrize(("low", "high"), [(0.02, 0.1), (0.02, 3.0), (2.0, 4.0)])
def test_a_source_that_may_be_read_is_left_alone(low, high):
    assert bits(low, high, TEXTS, 10) == []


def test_skewed_labels_read_as_well_as_they_can_be_are_healthy():
    # 1 % of another label: even a perfect reader gains less than 0.1 bits per token there.
    assert bits(0.03, 0.09, RARE, 2) == []
    assert [f.code for f in bits(0.0, 0.01, RARE, 2)] == ["SRC001"]


def test_one_target_for_all_leaves_nothing_to_read():
    assert bits(-0.01, 0.01, ["yes"] * 40, 2) == []


def test_no_source_bits_no_finding():
    assert look(Outputs(Evaluation({}, [Row("a", "", "b", "c")])), codes="SRC001").findings == []


def test_every_rule_has_its_texts_and_known_causes():
    assert {f"OUT00{k}" for k in range(1, 9)} | {"SRC001"} <= set(RULES)
    for code, rule in RULES.items():
        assert rule.code == code
        for text in (rule.name, *rule.written, rule.cure):
            assert len(text) > 8
        assert set(rule.causes) <= set(RULES) - {code}


def test_every_option_a_cure_names_exists():
    import re

    from sourcewise.config.files import options

    known = {row[0] for row in options()}
    named = {(code, key) for code, rule in RULES.items() for key in re.findall(r"--([a-z]+\.[a-z_.]+\w)", rule.cure)}
    assert named, "cures name options"
    assert {(code, key) for code, key in named if key not in known} == set()
