from collections import Counter
from collections.abc import Sequence

from sourcewise.diagnosis.outputs import Outputs, shown
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.metrics.texts import words


class GenericPhrases(Rule[Outputs]):
    """The phrase of {length:words} words that most outputs share, by how many more outputs than references contain it.
    ## Why that is bad
    Outputs differ in a word or two and share a frame ('I am going to show you how to ...'): the model falls back on
    what is frequent instead of what was said. Distinct outputs alone do not show it.
    ## Threshold and its origin
    Warning from {warning} points more outputs than references, error from {error}. Ours: one sentence frame in a
    quarter of all outputs, beyond what the references themselves do.
    """

    code, name, level = "OUT003", "generic phrases", "error"
    explained_by = "SRC001 OUT001 OUT002"
    implied_by = "OUT001:error"
    length = 3  # of a phrase
    warning, error = 25, 50  # points more outputs than references
    cures = Cure(
        "Usually under-training or a source that is read only in part: see the source bits, train longer, and "
        "give the decoder less to lean on:",
        {"train.label_smoothing": 0.1, "model.dropout": 0.2},
    )

    def check(self, outputs: Outputs) -> Findings:
        given, wanted = outputs.outputs, outputs.wanted
        in_outputs, in_references = self.phrases(given), self.phrases(wanted)
        if not in_outputs:
            return
        phrase, excess = max(
            ((p, (count - in_references[p]) * 100 / len(given)) for p, count in in_outputs.items()),
            key=lambda item: item[1],
        )
        if level := self.from_on(excess):
            shares = 100 * in_outputs[phrase] / len(given), 100 * in_references[phrase] / len(wanted)
            evidence = f"{shown(' '.join(phrase))} stands in {shares[0]:.0f} % of the outputs and in "
            yield self.finding(f"{evidence}{shares[1]:.0f} % of the references", level)

    def phrases(self, texts: Sequence[str]) -> Counter[tuple[str, ...]]:
        """In how many texts each phrase stands."""
        counts: Counter[tuple[str, ...]] = Counter()
        for text in texts:
            items = words(text)
            counts.update({tuple(items[i : i + self.length]) for i in range(len(items) - self.length + 1)})
        return counts
