"""Diagnosis: the cause first, the contract of --json, and what explain prints."""

import itertools
import json

import pytest

from sourcewise.diagnosis.answer import Diagnosis, Piece
from sourcewise.diagnosis.cure import Cure
from sourcewise.diagnosis.diagnose import diagnose, explain
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.ranking import _all_causes, put_together, ranked
from sourcewise.diagnosis.rules import RULES
from sourcewise.errors import RequestError
from sourcewise.evaluation.results import Evaluation, Row
from sourcewise.metrics.outputs import output_metrics
from tests.diagnosis.evaluations import diagnose_evaluation

REFERENCES = [
    f"the {a} man {b} a {c} dog" for a in ("old", "tall", "sad") for b in ("sees", "has") for c in ("red", "big")
]


def evaluation(given, **metrics):
    rows = [Row(str(i), f"source {i}", r, o) for i, (r, o) in enumerate(zip(REFERENCES, given, strict=True))]
    return Evaluation(output_metrics(REFERENCES, given, [True] * len(given)) | metrics, rows)


def collapsed():
    bits = {"source_bits": 0.02, "source_bits_ci95": [0.0, 0.04], "target_tokens": 100}
    return evaluation(["the station the station the station"] * len(REFERENCES), **bits)


def test_a_healthy_evaluation():
    bits = {"source_bits": 3.0, "source_bits_ci95": [2.5, 3.5], "target_tokens": 100}
    diagnosis = diagnose_evaluation(evaluation(REFERENCES, **bits))
    assert (diagnosis.verdict, diagnosis.cause, diagnosis.findings) == ("healthy", None, [])
    assert any("training" in item for item in diagnosis.not_checked)
    assert not any("SRC001" in item or "OUT008" in item for item in diagnosis.not_checked)


def test_a_collapsed_model_has_its_cause_first():
    diagnosis = diagnose_evaluation(collapsed())
    assert (diagnosis.verdict, diagnosis.cause) == ("ill", "SRC001")
    codes = [f.code for f in diagnosis.findings]
    assert codes[:2] == ["SRC001", "OUT001"]
    assert "OUT004" in codes


def test_json_has_exactly_the_contracts_keys():
    found = json.loads(diagnose_evaluation(collapsed()).to_json())
    assert list(found) == ["verdict", "cause", "findings", "not_checked", "seconds"]
    assert {tuple(f) for f in found["findings"]} == {("code", "name", "level", "evidence", "cure")}
    assert 0 <= found["seconds"] < 5


def test_warnings_alone_are_healthy():
    given = [*REFERENCES[:8], *REFERENCES[:4]]  # 8 of 12 distinct: 67 %
    diagnosis = diagnose_evaluation(evaluation(given))
    assert diagnosis.findings[0].code == "OUT002"
    assert {f.level for f in diagnosis.findings} == {"warning"}
    assert (diagnosis.verdict, diagnosis.cause) == ("healthy", None)


def test_what_was_not_measured_is_said():
    few = Evaluation({}, [Row("a", "", "b", "c")])
    missing = " ".join(diagnose_evaluation(few).not_checked)
    assert "SRC001" in missing and "OUT001 to OUT008" in missing
    without_sources = evaluation(REFERENCES)
    for row in without_sources.rows:
        row.source = ""
    assert any("OUT008" in item for item in diagnose_evaluation(without_sources).not_checked)


def finding(code, level):
    return Finding(code, "", level, "", "")


def test_no_symptom_is_listed_above_its_cause_at_any_level():
    for pair in itertools.permutations(RULES, 2):
        for levels in itertools.product(("error", "warning", "note"), repeat=2):
            codes = [f.code for f in ranked([finding(c, lv) for c, lv in zip(pair, levels, strict=True)])]
            assert sorted(codes) == sorted(pair)
            assert codes[1] not in RULES[codes[0]].causes


def test_unrelated_findings_come_gravest_first():
    given = [finding("OUT008", "note"), finding("OUT005", "warning"), finding("OUT003", "error")]
    assert [f.level for f in ranked(given)] == ["error", "warning", "note"]


def test_only_the_cause_of_the_gravest_finding_overtakes_it():
    given = [finding("OUT008", "warning"), finding("OUT007", "warning"), finding("OUT005", "error")]
    assert [f.code for f in ranked(given)] == ["OUT007", "OUT005", "OUT008"]


def test_what_explains_the_first_error_is_the_cause_however_mild_it_is():
    given = [finding("OUT002", "error"), finding("WIR019", "warning"), finding("DAT009", "warning")]
    assert Diagnosis(ranked(given)).cause == "WIR019"
    assert Diagnosis(ranked(given[1:])).cause is None


def test_no_rule_is_its_own_cause_and_all_causes_are_rules():
    for code, rule in RULES.items():
        assert set(rule.causes) <= set(RULES), code
        assert code not in _all_causes(code)


def test_all_rules_at_once_and_twice_are_all_listed():
    given = [finding(code, "warning") for code in RULES] * 2
    assert len(ranked(given)) == 2 * len(RULES)


def test_explain_prints_every_part_within_a_terminal():
    for code, rule in RULES.items():
        page = explain(code.lower())
        assert page.startswith(f"{code}: {rule.name}")
        assert max(map(len, page.split("\n"))) <= 100
        joined = " ".join(page.split())
        for text in (*rule.written, rule.cure):
            assert " ".join(text.split()) in joined


@pytest.mark.parametrize(
    ("code", "answer"), [("OUT0001", "OUT001"), ("src1", "SRC001"), ("xyz", "known: .*DAT001, DAT002")]
)
def test_explain_names_the_nearest_code(code, answer):
    with pytest.raises(RequestError, match=answer):
        explain(code)


def test_a_run_folder_is_diagnosed_by_the_evaluation_it_holds(tmp_path):
    collapsed().write(tmp_path)
    diagnosis = diagnose(tmp_path)
    assert diagnosis.cause == "SRC001"
    assert any("OUT008" in item for item in diagnosis.not_checked)  # a folder keeps no sources


def test_loops_of_a_training_that_ended_too_early_are_notes():
    loops, endless = (RULES[code].finding("half of them", "error") for code in ("OUT004", "OUT007"))
    cut = RULES["OUT007"].finding("all of them", "warning", Cure("The limit is too low"))
    still = RULES["TRN014"].finding("it fell")
    assert {f.level for f in put_together([Piece([loops, endless])]).findings} == {"error"}
    found = put_together([Piece([still, loops, endless])])
    assert found.verdict == "healthy" and [(f.code, f.level) for f in found.findings] == [
        ("TRN014", "note"),
        ("OUT004", "note"),
        ("OUT007", "note"),
    ]
    assert [f.level for f in put_together([Piece([still, cut])]).findings] == ["note", "warning"]
