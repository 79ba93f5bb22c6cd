import numpy as np

from sourcewise.diagnosis.outputs import Outputs
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class RowsOfAnotherSource(Rule[Outputs]):
    """How many rows have a target that their own source explains no better than another one does, and that is far less
    likely than the others are, although the model reads its sources.
    ## Why that is bad
    Such rows are paired wrongly, here and there: what they teach is wrong, and as references they count right outputs
    as wrong. No line is off, so that nothing shows in the order of the rows.
    ## Threshold and its origin
    Warning from {warning:%} of {rows} rows or more: {nats} nats a token at least, {times:words} times those of the
    median row, and less than {gain:words} of what its own source gains the median row. Only of a model that gains
    {reads} nats a token and more by its sources in the median row. Ours.
    """

    code, name, level = "OUT015", "targets that belong to no source of theirs", "warning"
    learned = False
    explained_by = "DAT003 OUT013 DAT026 DAT009"
    warning, rows = 0.06, 48  # of the rows; rows
    nats, times, gain, reads = 1.0, 4, 0.25, 0.5  # nats a token; times the median; of the median's; nats a token
    cures = Cure(
        "Look at the rows that are named: pairs that were joined by the wrong key, shuffled in part, or labelled by "
        "mistake. Train without the rows whose loss stays highest, and see whether the others get better."
    )

    def check(self, outputs: Outputs) -> Findings:
        rows = [row for row in outputs.evaluation.rows if row.tokens and row.nats == row.nats]
        if len(rows) < self.rows:
            return
        tokens = np.array([row.tokens for row in rows])
        own = np.array([row.nats for row in rows]) / tokens
        gains = np.array([row.nats_shuffled for row in rows]) / tokens - own
        if not np.isfinite(gains).all() or float(np.median(gains)) < self.reads:
            return
        far = own >= max(self.nats, self.times * float(np.median(own)))
        wrong = np.flatnonzero(far & (gains < self.gain * float(np.median(gains))))
        if len(wrong) >= self.warning * len(rows):
            named = ", ".join(rows[int(i)].id for i in wrong[:5])
            evidence = f"{len(wrong)} of {len(rows)} targets ({named}, …) are as unlikely with their own source, "
            evidence += f"{own[wrong].mean():.1f} nats a token, as with another; the median target has "
            yield self.finding(f"{evidence}{np.median(own):.2f} with its own, {np.median(gains):.1f} more with another")
