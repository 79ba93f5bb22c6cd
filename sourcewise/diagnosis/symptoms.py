"""What people see, in their words, and the rules that find its causes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sourcewise.diagnosis.rule import matching
from sourcewise.diagnosis.rules import RULES


@dataclass(frozen=True, slots=True)
class Symptom:
    """One symptom: how it is called here and by others, what to ask first, and the rules to look at."""

    name: str
    words: str  # that people use for it
    first: str
    codes: str  # patterns, causes before signs

    @property
    def rules(self) -> list[str]:
        """The codes of its rules, in the order in which they are to be asked."""
        found = [code for pattern in self.codes.split() for code in matching(pattern, tuple(RULES))]
        return list(dict.fromkeys(found))

    @property
    def slug(self) -> str:
        """Its name in a file name."""
        return re.sub(r"\W+", "-", self.name)

    def text(self) -> str:
        """For a terminal."""
        rows = [f"  {code}  {RULES[code].level:8} {RULES[code].name}" for code in self.rules]
        return "\n".join([f"{self.name}: {self.first}", *rows])


_UNREAD = (
    "DAT002 DAT003 DAT011..DAT014 DAT018 DAT029 DAT030 WIR003 WIR004 WIR011..WIR013 WIR019 WIR022 WIR023 WIR026 WIR028 "
    "WIR032 WIR034 WIR036..WIR038 WIR041 WIR042 MEM001 ATT001 SRC001"
)
SYMPTOMS = (
    Symptom(
        "same output",
        "same identical constant always every input source collapse collapsed mode generic sentence one answer",
        "does the decoder read its source at all? Source bits near 0 say that it does not. Then the cause lies in the"
        " data, in the path from the source to the decoder, or in a training that was too short.",
        f"{_UNREAD} TRN004 TRN005 TRN009 TRN013 OUT001..OUT003",
    ),
    Symptom(
        "source ignored",
        "ignores ignored unread hallucination hallucinates fluent unrelated language model prior wrong content",
        "what the model says with another source is the measure: source bits, and the gain of each token in a trace.",
        f"{_UNREAD} WIR043 WIR044 WIR051 TRN005 SRC002..SRC005 ATT002",
    ),
    Symptom(
        "loss falls, outputs are wrong",
        "loss low good falls decreases outputs wrong bad garbage bleu zero accuracy teacher forcing inference generate",
        "the loss is that of the next token after the right ones; outputs are not. Is the loss that of the labels, is"
        " the start token right, are outputs and references written alike?",
        "DAT022..DAT024 DAT026 WIR006..WIR010 WIR021 WIR024 WIR025 WIR033 WIR036 WIR040 WIR045 WIR048..WIR050 "
        "DAT032 DAT034 OUT018..OUT021 TRN016 DAT025 TRN011 TRN005 SRC001"
        " SRC004..SRC007 OUT010 OUT011 OUT013 OUT016 OUT017 OUT009",
    ),
    Symptom(
        "loss does not fall",
        "loss stuck plateau flat constant not falling decreasing learning nothing chance log vocabulary",
        "does anything get a gradient, and is the rate right? A batch that cannot be learned by heart is a fault of the"
        " network, not of the data.",
        "WIR001..WIR003 WIR011..WIR018 WIR023 WIR026 WIR027 WIR029..WIR032 WIR034 WIR035 WIR038 "
        "WIR020 WIR041 WIR042 WIR044..WIR048 WIR051 DAT027 DAT028 DAT030 TRN003 TRN004 TRN006 TRN009"
        " TRN015 DAT003",
    ),
    Symptom(
        "nan",
        "nan inf infinite not finite explodes exploding overflow diverges diverged spike",
        "the first tensor that is not finite is the place; TRN001 names it, with the step.",
        "DAT001 DAT013 DAT014 WIR001 WIR002 WIR014 WIR016 TRN001 TRN002 TRN007 TRN009",
    ),
    Symptom(
        "gradients vanish or explode",
        "gradient gradients vanish vanishing vanished explode exploding zero norm clipped deep",
        "what is their size by part and layer, before the first step?",
        "WIR012 WIR013 WIR015 WIR016 WIR020 WIR029 WIR030 WIR034 WIR035 TRN006..TRN009",
    ),
    Symptom(
        "repetition",
        "repeats repeating repetition loops loop again again stutter",
        "are references repetitive too? If not, the model is undertrained, or its search barely penalises it.",
        "DAT018 WIR009 WIR020 WIR022 WIR045 SRC001 TRN011 TRN013 OUT004 OUT007",
    ),
    Symptom(
        "outputs never end",
        "never end ends endless stop eos runs on maximum length cut truncated too long",
        "is the end of text in the labels, and does it count in the loss?",
        "DAT007 WIR007..WIR009 OUT014 OUT016 OUT007 OUT005",
    ),
    Symptom(
        "empty outputs",
        "empty blank nothing outputs pad eos immediately too short",
        "is the first token the end, a padding, or something the tokenizer drops?",
        "DAT006 WIR009 WIR010 SRC001 TRN001 TRN009 OUT006 OUT005",
    ),
    Symptom(
        "copies the source",
        "copies copy source untranslated through echo same as input",
        "are source and target the same column, does the prefix fit, was the task learned?",
        "DAT016 DAT017 DAT022 OUT008",
    ),
    Symptom(
        "characters are lost",
        "unk unknown characters letters missing lost accents umlauts line breaks spaces question marks",
        "can the tokenizer say every reference as it is written?",
        "DAT006 DAT031 DAT022 DAT023 WIR039 OUT018",
    ),
    Symptom(
        "good in training, bad elsewhere",
        "overfit overfits overfitting generalise generalize test new unseen domain other speaker signer validation",
        "is the set like the training data, and was anything of it in there?",
        "DAT022..DAT024 DAT008 DAT019..DAT021 DAT010 DAT015 TRN010 OUT012 OUT015",
    ),
    Symptom(
        "too good to be true",
        "too good leak leakage contamination perfect suspicious high score",
        "what do training and test set share: rows, groups, texts, marks?",
        "DAT008 DAT033 DAT019..DAT021 DAT016 DAT017 OUT010 OUT012 OUT020",
    ),
    Symptom(
        "attention looks wrong",
        "attention map diagonal flat uniform one position same alignment cross",
        "do the positions of the memory differ, and does attention move from token to token?",
        "MEM001 MEM002 WIR005 WIR019 WIR022 WIR043 WIR044 WIR051 ATT001 ATT002 SRC002 SRC003",
    ),
    Symptom(
        "outputs depend on the batch",
        "batch size padding different results random noise changes nondeterministic evaluation",
        "is padding masked everywhere, and is everything in eval mode?",
        "WIR005 WIR008 WIR021 WIR032 WIR033 WIR037 WIR040 WIR049 OUT013 OUT022",
    ),
)
_LEAST, _BESIDE = 0.5, 0.6  # score of the best; share of it from which on others are shown beside it


def symptoms_of(words: str) -> list[Symptom]:
    """The symptoms that are meant by some words, the best first; none where nothing fits.

    Words count by how few symptoms they are used for.
    """
    if named := [each for each in SYMPTOMS if each.name == words.strip().lower()]:
        return named
    known = {each.name: _plain(f"{each.name} {each.words}") for each in SYMPTOMS}
    used = Counter(word for these in known.values() for word in these)
    scores = {each: sum(1 / used[word] for word in _plain(words) & known[each.name]) for each in SYMPTOMS}
    best = max(scores.values())
    if best < _LEAST:
        return []
    return sorted((each for each in SYMPTOMS if scores[each] >= _BESIDE * best), key=lambda each: -scores[each])[:3]


def listed(symptoms: Sequence[Symptom]) -> str:
    """Names, for a sentence."""
    return ", ".join(f'"{each.name}"' for each in symptoms)


def _plain(text: str) -> set[str]:
    """Words without endings that say nothing."""
    stop = {"the", "a", "an", "is", "are", "my", "i", "it", "of", "for", "to", "in", "and", "or", "with", "on", "from"}
    stop |= {"model", "decoder", "get", "gets", "does", "do", "why", "what"}
    found = re.findall(r"\w+", text.lower())
    return {re.sub(r"(ings?|age|ed|es|s)$", "", word) if len(word) > 4 else word for word in found if word not in stop}
