"""Rules are found by what people see, in their words."""

from __future__ import annotations

import pytest

from sourcewise.cli import main
from sourcewise.diagnosis.rules import RULES
from sourcewise.diagnosis.symptoms import SYMPTOMS, symptoms_of

ASKED = {
    "same output": "same output",
    "my model always generates the same sentence": "same output",
    "mode collapse": "same output",
    "identical predictions for every input": "same output",
    "NaN loss": "nan",
    "loss is inf": "nan",
    "loss stuck at 6.9": "loss does not fall",
    "training loss not decreasing": "loss does not fall",
    "loss goes down but generate gives garbage": "loss falls, outputs are wrong",
    "BLEU zero": "loss falls, outputs are wrong",
    "hallucinations": "source ignored",
    "decoder ignores the encoder": "source ignored",
    "vanishing gradients": "gradients vanish or explode",
    "it keeps repeating words": "repetition",
    "generation never stops": "outputs never end",
    "outputs are empty": "empty outputs",
    "just copies the source": "copies the source",
    "umlauts missing": "characters are lost",
    "overfitting": "good in training, bad elsewhere",
    "data leakage": "too good to be true",
    "attention map is flat": "attention looks wrong",
    "results change with batch size": "outputs depend on the batch",
}


@pytest.mark.parametrize("words", list(ASKED))
def test_a_symptom_is_found_by_its_words(words: str) -> None:
    assert ASKED[words] in [each.name for each in symptoms_of(words)]


@pytest.mark.parametrize("symptom", SYMPTOMS, ids=lambda each: each.slug)
def test_every_symptom_has_its_rules_and_is_found_by_its_name(symptom) -> None:
    assert symptoms_of(symptom.name)[0] is symptom
    assert len(symptom.rules) >= 3 and set(symptom.rules) <= set(RULES)


def test_every_rule_that_may_be_an_error_belongs_to_a_symptom() -> None:
    known = {code for symptom in SYMPTOMS for code in symptom.rules}
    grave = {code for code, rule in RULES.items() if rule.level == "error" and not rule.package}
    assert grave - known - {"DAT004", "DAT005"} == set()


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "same", "output"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("same output: does the decoder read its source at all?")
    assert said.index("DAT003") < said.index("WIR011") < said.index("OUT001")
    assert main(["explain", "xyzzy"]) == 2
    assert 'or a symptom: "same output"' in capsys.readouterr().err
    assert main(["explain"]) == 0
    assert capsys.readouterr().out.startswith('Symptoms: "same output"')
