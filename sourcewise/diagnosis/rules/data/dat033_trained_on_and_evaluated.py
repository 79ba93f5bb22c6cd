from sourcewise.diagnosis.against import Against
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class TrainedOnAndEvaluated(Rule[Against]):
    """How many examples of an evaluation, in a training of others, passed in its training, too: the same source and the
    same target. Beside it, how many examples of the training come twice by nature.

    ## Why that is bad
    The figures then measure what was learned by heart: they look good, and say nothing of what is new. So it is where
    the loader of the training is evaluated on, or a set is split behind its copies, or drawn anew without a seed.

    ## Threshold and its origin
    A warning from {share:%} of the examples, where fewer than {usual:%} come twice by nature, as small exercises do.
    Of a training that is long only its first examples are known, so that the true share may be larger. Whoever
    evaluates on what was trained on, beside a set that was not, may pass over it.
    """

    code, name, level, rank = "DAT033", "what is evaluated on was trained on", "warning", 8.1
    share, usual = 0.1, 0.03  # of the examples
    learned = False
    explains = "TRN010 OUT009"
    cures = Cure(
        "Set examples aside before anything is copied or drawn, by a seed, and evaluate on these alone:",
        "train, valid = random_split(rows, [0.9, 0.1], torch.Generator().manual_seed(0))",
    )

    def check(self, against: Against) -> Findings:
        """See the page."""
        count = len(against.own.keys)
        if against.enough and against.seen >= self.share * count and against.usual < self.usual:
            evidence = f"{against.seen} of {count} examples of {against.name or 'the evaluation'} are among the first "
            yield self.finding(f"{evidence}{len(against.trained.keys)} that were trained on, source and target alike")
