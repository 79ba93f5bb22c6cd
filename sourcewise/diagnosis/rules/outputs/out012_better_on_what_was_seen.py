from sourcewise.diagnosis.finding import Level
from sourcewise.diagnosis.outputs import MIN_EXAMPLES, Outputs
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.evaluation.verdict import bleu_applies
from sourcewise.figures import figures


class BetterOnSeenTexts(Rule[Outputs]):
    """The score on references that are target texts of the training set too, and on the others, beside that of all: in
    BLEU where most references have four words or more, else by outputs that are exactly right. `evaluate` gives both
    parts where the training data of a run are there.
    ## Why that is bad
    A text of the training set can be said by heart. On new texts the model does as well as on the unseen part.
    ## Threshold and its origin
    Note where the unseen part scores {note:%} less than all, warning from {warning:%}; from {fewest} examples in either
    part on. Ours.
    """

    code, name, level = "OUT012", "better on target texts seen in training", "warning"
    explained_by = "DAT008 DAT020 DAT021"
    learned = False
    note, warning = 0.02, 0.2  # of the score of all
    fewest = MIN_EXAMPLES
    cures = Cure("Quote the score on unseen texts beside that of all; keep such texts out of one of the sets (DAT020).")

    def check(self, outputs: Outputs) -> Findings:
        metrics = outputs.evaluation.metrics
        parts = metrics.get("by_target") or {}
        key = "bleu" if bleu_applies(outputs.references) else "exact_match_pct"
        seen, unseen = parts.get("seen") or {}, parts.get("unseen") or {}
        scores = [each.get(key) for each in (metrics, seen, unseen)]
        if min(seen.get("examples", 0), unseen.get("examples", 0)) < self.fewest or None in scores:
            return
        of_all, on_seen, on_unseen = (float(score or 0) for score in scores)
        lost = 1 - on_unseen / of_all if of_all > 0 else 0.0
        if lost >= self.note:
            figure = figures()[key]
            evidence = (
                f"{seen['examples']} of {len(outputs.rows)} references are target texts of the training set: "
                f"{figure.said('task', on_seen)} there, {figure.said('task', on_unseen)} on the others, "
                f"{figure.said('task', of_all)} on all"
            )
            level: Level = "warning" if lost >= self.warning else "note"
            yield self.finding(evidence, level)
