from sourcewise.diagnosis.outputs import Outputs, share_of
from sourcewise.diagnosis.rule import CannotTell, Cure, Findings, Rule
from sourcewise.metrics.texts import words


class CopiesItsSource(Rule[Outputs]):
    """The share of outputs that are one stretch of their source's words ({least:words} of them or more, case ignored),
    beyond the share of references that are. Text sources only.
    ## Why that is bad
    The encoder is read but the task was not learned: an untranslated sentence is copied through.
    ## Threshold and its origin
    Warning from {warning} points more copies than the references have, error from {error}. Ours.
    """

    code, name, level, rank = "OUT008", "copies its source", "error", 3.1
    explained_by = "DAT016 DAT017"
    warning, error = 10, 50  # points more outputs than references
    least = 0.5  # of the source's words
    cures = Cure(
        "Check that source and target are not the same column, that the training set has no pairs whose target is the "
        "source, and that the task prefix at evaluation is the one used in training (--data.train.prefix, "
        "--data.test.prefix).",
        instead="Check that source and target are not the same column, that the training set has no pairs whose target "
        "is the source, and that the task prefix at evaluation is the one used in training.",
    )

    def check(self, outputs: Outputs) -> Findings:
        sources = outputs.sources
        if not any(sources):
            raise CannotTell("copying of the source", "the evaluation has no source texts")
        copied = share_of(self.copied(o, s) for o, s in zip(outputs.outputs, sources, strict=True))
        normal = share_of(self.copied(r, s) for r, s in zip(outputs.references, sources, strict=True))
        if level := self.from_on(copied - normal):
            evidence = f"{copied:.0f} % of the outputs are copied out of their source"
            yield self.finding(f"{evidence}; {normal:.0f} % of the references are", level)

    def copied(self, text: str, source: str) -> bool:
        """Whether a text is one stretch of its source's words, enough of them (a task prefix may be left out)."""
        given, read = words(text.casefold()), words(source.casefold())
        if not given or len(given) < self.least * len(read):
            return False
        return any(read[i : i + len(given)] == given for i in range(len(read) - len(given) + 1))
