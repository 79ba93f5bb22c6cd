from sourcewise.diagnosis.beside import Beside
from sourcewise.diagnosis.measures.unlike import (
    FEWEST_NEW,
    FEWEST_ODD,
    LONGER,
    MOST_ODD,
    SHARE,
    TIMES,
    shapes_unlike,
    texts_unlike,
)
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class TargetsUnlikeTraining(Rule[Beside]):
    """How the references of a set differ from the targets of training, of which a run keeps a profile: new triples of
    letters, what nearly all training targets have, how they are written, and their shapes, such as 9999-99-99.
    ## Why that is bad
    Outputs are written as the training targets are. Where references are written otherwise, right outputs count as
    wrong.
    ## Threshold and its origin
    Warning as for sources (DAT022: triples that are new from {new:%} on, shares that differ by {share:points} points,
    {longer:%} that are longer than any);
    and where {odd:%} of the references have a shape that no training target has, and
    {times} times as many as of held-back training targets. Where more than {own:%} of those have a shape of their own,
    as sentences do, shapes are not compared.
    """

    code, name, level = "DAT023", "references unlike the targets of training", "warning"
    learned = False
    new, times, share, odd, own, longer = FEWEST_NEW, TIMES, SHARE, FEWEST_ODD, MOST_ODD, LONGER
    explains = "OUT00* SRC*"
    cures = Cure(
        "Write the references as the training targets are written (case, marks, order of day and month, tokens), or"
        " train on targets that are written as the references. Our option for case:",
        {"data.test.lowercase": True},
    )

    def check(self, beside: Beside) -> Findings:
        theirs, own = beside.trained.targets, beside.own.targets
        texts = [example.target for example in beside.dataset]
        if found := [*texts_unlike(theirs, own, texts), *shapes_unlike(theirs, own)]:
            yield self.finding(f"{beside.dataset.name}: " + "; ".join(found))
