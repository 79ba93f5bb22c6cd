import re
from collections import Counter
from collections.abc import Sequence

from sourcewise.diagnosis.outputs import MIN_EXAMPLES, Outputs, shown
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.evaluation.verdict import bleu_applies
from sourcewise.metrics.outputs import output_metrics

_MARK = re.compile(r"[\W_]+|[\W_]+\w+[\W_]+")  # signs alone, or signs around a word


class SharedMark(Rule[Outputs]):
    """The share of references, and of outputs, that end in the same mark, which has a space before it, such as " .", or
    is a token such as "<eos>". With the BLEU that both have without it. Where most references have four words or more.
    ## Why that is bad
    Nothing is translated there, but it counts as right, and as a part of right word pairs. Papers differ in whether
    they append such a mark, so their figures cannot be compared: on PHOENIX14T it was worth a point of BLEU at 12.
    ## Threshold and its origin
    Note where {share:%} of both end in it, and BLEU is lower without by {points} or more. Ours.
    """

    code, name, level = "OUT010", "outputs and references share an appended mark", "note"
    learned = False
    share, points = 0.95, 0.05  # of the texts; BLEU
    cures = Cure("Say beside the figure that both end in this mark, or take it off both before they are scored.")

    def check(self, outputs: Outputs) -> Findings:
        references, given = outputs.references, outputs.outputs
        if not bleu_applies(references):
            return
        mark, count = last_word(references)
        said = sum(output.split()[-1:] == [mark] for output in given)
        if (
            not _MARK.fullmatch(mark)
            or count < self.share * len(references)
            or said < self.share * sum(map(bool, given))
        ):
            return
        if said < MIN_EXAMPLES:
            return
        both, neither = bleu(references, given), bleu(without(references, mark), without(given, mark))
        if both - neither >= self.points:
            evidence = f"{count} of {len(references)} references and {said} of the outputs end in {shown(mark)}"
            yield self.finding(f"{evidence}: BLEU {both:.2f} with it, {neither:.2f} without")


def last_word(texts: Sequence[str]) -> tuple[str, int]:
    """The commonest last word, and how many texts end in it."""
    ends = Counter(end for text in texts for end in text.split()[-1:])
    return ends.most_common(1)[0] if ends else ("", 0)


def without(texts: Sequence[str], mark: str) -> list[str]:
    """The texts without this word at their end."""
    return [" ".join(text.split()[:-1]) if text.split()[-1:] == [mark] else text for text in texts]


def bleu(references: Sequence[str], given: Sequence[str]) -> float:
    """BLEU as evaluations have it."""
    return float(output_metrics(references, given, [True] * len(given))["bleu"])
