import re
from collections.abc import Sequence

from sourcewise.diagnosis.outputs import Outputs, shown
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.rules.outputs.out010_shared_mark import bleu
from sourcewise.evaluation.verdict import bleu_applies

_APART = re.compile(r"(?<=\S) [.,](?= |$)|@-@|&(?:apos|quot|amp|lt|gt|#\d+);")
_JOINED = re.compile(r"\w[.,](?= |$)")
_INDIFFERENT = ("tok:none", "tok:zh", "tok:char", "tok:ja-mecab", "tok:ko-mecab", "tok:spm", "tok:flores")


class OtherConvention(Rule[Outputs]):
    """Whether references are tokenised (full stops and commas with a space before them, escapes such as &apos;), or
    have no capitals, and whether the outputs are and have alike. Where BLEU minds: its signature names a tokenizer of
    words, and no lower-casing.
    ## Why that is bad
    Where the two differ, right words count as wrong. Where both are tokenised, figures of raw text, which most papers
    give today, are others.
    ## Threshold and its origin
    References are tokenised where {apart:%} have such a mark, and {often} times as many as have one that is joined to
    its word. Note where the outputs are too, warning where they are not. Warning too where one side has no capitals and
    {capitals:%} of the other have, and BLEU is higher in small letters. Ours.
    """

    code, name, level = "OUT011", "references of another convention", "warning"
    learned = False
    apart, often, capitals = 0.2, 9, 0.2  # of the texts; times; of the texts
    cures = Cure(
        "Score raw text: detokenise references and outputs, keep the case; or train on targets that are written as the"
        " references are. Say beside the figure what both are:",
        {"data.train.lowercase": True, "data.test.lowercase": True},
    )

    def check(self, outputs: Outputs) -> Findings:
        references, given = outputs.references, outputs.outputs
        signature = str(outputs.evaluation.metrics.get("bleu_signature") or "")
        if not bleu_applies(references):
            return
        said = [*self.marks(references, given, signature), *self.case(references, given, signature)]
        if said:
            grave = any(grave for grave, _ in said)
            yield self.finding("; ".join(words for _, words in said), "warning" if grave else "note")

    def marks(self, references: Sequence[str], given: Sequence[str], signature: str) -> list[tuple[bool, str]]:
        """(whether that is grave, words) where references are tokenised."""
        if any(name in signature for name in _INDIFFERENT):
            return []
        sides = [self.tokenised(texts) for texts in (references, given)]
        if sides == [True, True]:
            first = next(text for text in references if _APART.search(text))
            return [(False, f"references and outputs are tokenised, such as {shown(first)}")]
        for there, texts, others, joined in (
            (sides[0], "references", "outputs", given),
            (sides[1], "outputs", "references", references),
        ):
            if there and sum(bool(_JOINED.search(text)) for text in joined) >= self.apart * len(joined):
                return [(True, f"the {texts} are tokenised (marks with a space before them), the {others} are not")]
        return []

    def tokenised(self, texts: Sequence[str]) -> bool:
        """Whether these texts are."""
        apart = sum(bool(_APART.search(text)) for text in texts)
        joined = sum(bool(_JOINED.search(text)) for text in texts)
        return apart >= self.apart * len(texts) and apart >= self.often * joined

    def case(self, references: Sequence[str], given: Sequence[str], signature: str) -> list[tuple[bool, str]]:
        """(grave, words) where one side has no capitals."""
        if "case:lc" in signature:
            return []
        sides = {"references": references, "outputs": given}
        share = {name: sum(text != text.lower() for text in texts) / len(texts) for name, texts in sides.items()}
        for one, other in (("references", "outputs"), ("outputs", "references")):
            if share[one] == 0 and share[other] >= self.capitals:
                asked = bleu(references, given)
                small = bleu([text.lower() for text in references], [text.lower() for text in given])
                if small > asked:
                    words = f"the {one} have no capitals, {100 * share[other]:.0f} % of the {other} have"
                    return [(True, f"{words}: BLEU {asked:.2f}, in small letters {small:.2f}")]
        return []
