from collections import Counter

from sourcewise.diagnosis.outputs import Outputs
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.metrics.texts import words


class OtherNamesOfTokens(Rule[Outputs]):
    """How far each word of the references has one word of the outputs in its place, and another one than itself; over
    outputs that have as many words as their references.
    ## Why that is bad
    The model does what it was trained to do, and says it in ids that stand for other words here: the tokenizer is that
    of another model, its vocabulary was sorted anew, or rows were added before others. Every figure is that of a
    failure.
    ## Threshold and its origin
    At least {told:%} of {fewest} words or more told by the word of the reference in their place, by at least {kinds}
    words with as many different ones, {known:%} of which references have elsewhere, and at most {same:%} of them right.
    Measured where ids were permuted: 90 % and more; a model that has learned nothing says few words for all.
    """

    code, name, level, rank = "OUT017", "each word has another one in its place", "error", 0.3
    learned = False
    explains = "OUT001..OUT012 SRC005 TRN011"
    told, same, known, kinds = 0.8, 0.3, 0.8, 5  # of the words, of their names, and different words
    fewest = 40  # words
    cures = Cure(
        "Take the tokenizer from the folder of the checkpoint that the weights are of; where the vocabulary was built "
        "anew, build it from the same texts in the same order, or save it beside the weights."
    )

    def check(self, outputs: Outputs) -> Findings:
        pairs = [
            (a, b)
            for reference, output in zip(outputs.references, outputs.outputs, strict=True)
            if len(wanted := words(reference)) == len(said := words(output))
            for a, b in zip(wanted, said, strict=True)
        ]
        if len(pairs) < self.fewest or sum(a == b for a, b in pairs) > self.same * len(pairs):
            return
        there, back = _names(pairs), _names([(b, a) for a, b in pairs])
        told = sum(there.get(a) == b and back.get(b) == a for a, b in pairs) / len(pairs)
        both = [(a, b) for a, b in there.items() if back.get(b) == a]
        own = {a for a, _ in pairs}  # else outputs are in another language, or copies
        if told < self.told or len(both) < self.kinds or sum(b in own for _, b in both) < self.known * len(both):
            return
        shown = ", ".join(f'"{b}" for "{a}"' for a, b in both[:3])
        evidence = (
            f"{100 * told:.0f} % of {len(pairs)} words are told by the word of the reference in their place: {shown}"
        )
        yield self.finding(
            f"{evidence}; ids that are right under the tokenizer of another model look so, and a model of another code"
        )


def _names(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """The commonest second of each first."""
    counts: dict[str, Counter[str]] = {}
    for a, b in pairs:
        counts.setdefault(a, Counter())[b] += 1
    return {a: found.most_common(1)[0][0] for a, found in counts.items()}
