from sourcewise.diagnosis.outputs import Outputs
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.evaluation.verdict import POOR, verdict_of


class PoorVerdict(Rule[Outputs]):
    """The verdict of `sourcewise evaluate` on these outputs: where their score lies among baselines that need no model,
    distinct outputs, source bits.
    ## Why that is bad
    A model whose outputs fail is not healthy, however its wiring, its data and its training look. One that is not above
    copying the target of the nearest training source has not learned the task yet.
    ## Threshold and its origin
    Error where the verdict is failed: not above the best constant output or random targets of the right length, mode
    collapse, or an unread source. Warning where it is below copying. Each by a paired bootstrap over examples (95 %,
    Koehn 2004) in the set's own metric. Without baselines, error where the band of `evaluate` is failed. A note where
    the training was too short to judge (TRN013), and on the run's own sets while it trains or where its loss still fell
    at its end (TRN014). Whatever else is found explains it, so it is listed last.
    """

    code, name, level = "OUT009", "a poor verdict", "error"
    explained_by = "* -OUT009"
    learned, until_the_end = False, True
    cures = Cure(
        "What is listed above it is the likelier cause: begin there. Where it is found alone, hold the set "
        "against the training data: the same task prefix, case, script and conventions of the targets; features"
        " scaled alike, in the same order of dimensions, at the same frame rate; references in the order of the"
        " sources. Then read outputs beside references:",
        "sourcewise evaluate MODEL DATA -o results",
    )

    def check(self, outputs: Outputs) -> Findings:
        outputs.check_generated()
        evaluation = outputs.evaluation  # however few: what `evaluate` says of them, `diagnose` does not deny
        said = verdict_of(evaluation)
        if said is not None and said.level in POOR:
            evidence = f"evaluate says {said.level} of {len(evaluation.rows)} examples: {said.text.rstrip('.')}"
            yield self.finding(evidence, "error" if said.level == "failed" else "warning")
