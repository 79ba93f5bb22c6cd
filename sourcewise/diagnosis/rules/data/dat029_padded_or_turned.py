from collections.abc import Sequence

from sourcewise.diagnosis.measures.features import SAMPLE
from sourcewise.diagnosis.measures.forms import ALIKE, Form, padding, turning
from sourcewise.diagnosis.pairs import Pairs
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class PaddedOrTurned(Rule[Pairs]):
    """Padding that is stored in the matrices: frames at one end that are all alike (within {alike} deviations), and
    without which the matrices have at least twice as many different lengths. And matrices that are (dims, frames): all
    have as many rows, and neighbouring columns go together, not neighbouring rows. In up to {sample} examples.
    ## Why that is bad
    Stored padding counts as frames. It is read, attended to and standardised with, every source seems to be of one
    length, and computing it takes as long as the rest. In a turned matrix each dimension is taken for a moment: strides
    join dimensions, and nothing moves in time.
    ## Threshold and its origin
    Padding: in {matrices:words} of the matrices; a warning from {warning:%} of all frames, an error from {error:words}.
    Turned: apart from their means, columns correlate with their neighbours by {least}, and by {apart} more than rows.
    Where bands lie side by side, as in log-mel features, both do: there by {more} more, and the levels of rows are
    alike in all matrices, by {levels} of their variance and {times} times as much as those of columns. An error where
    {matrices:words} of the matrices also end in columns that are all alike, each in another number; else a warning.

    Ours: fsdd, phoenix14t and sets with silence at their ends are as different in length without these frames. Measured
    on fsdd: frames correlate by 0.85, bands by 0.76; 0.54 of the variance of bands is alike, 0.32 of first frames'.
    """

    code, name, level, rank = "DAT029", "padded or turned matrices", "error", 1.15
    warning, error = 0.05, 0.5  # of the frames
    matrices, least, apart, more = 0.5, 0.6, 0.5, 0.05  # a share, and three correlations
    levels, times = 0.4, 1.5  # shares of the variance
    alike, sample = ALIKE, SAMPLE
    explained_by = "DAT011"
    padded = Cure("Store each matrix at its own length: batches are padded in training, where padding is masked.")
    turned = Cure("Store matrix.T: a matrix is (frames, dims), a row for each moment.")
    cures = (padded, turned)

    def check(self, pairs: Pairs) -> Findings:
        for name, forms in pairs.forms():
            yield from list(self.of_turned(name, forms)) or self.of_padded(name, forms)

    def of_turned(self, name: str, forms: Sequence[Form]) -> Findings:
        """Whether the rows of these matrices are dimensions."""
        found = turning(forms)
        if found is None or found.across < max(self.least, found.down + self.more):
            return
        filled = found.padded >= self.matrices and found.different >= self.matrices * found.matrices / 2
        rows_are_dims = found.of_rows >= max(self.levels, self.times * found.of_columns)
        if not (filled or rows_are_dims or found.across >= found.down + self.apart):
            return
        evidence = (
            f"{name}: all {found.matrices} matrices have {found.rows} rows; neighbouring rows correlate by "
            f"{found.down:.2f}, neighbouring columns by {found.across:.2f}, as frames do: they look turned"
        )
        if rows_are_dims:
            evidence += f"; rows have levels of their own ({found.of_rows:.2f}, columns {found.of_columns:.2f})"
        if filled:
            evidence += f"; {100 * found.padded:.0f} % end in columns that are all alike, padding of different lengths"
        yield self.finding(evidence, "error" if filled else "warning", self.turned)

    def of_padded(self, name: str, forms: Sequence[Form]) -> Findings:
        """Whether frames of these matrices are padding."""
        found = padding(forms)
        if found is None or found.padded < self.matrices * found.matrices:
            return
        if level := self.from_on(found.share):
            alike = "all alike" if found.fill is None else f"{found.fill:.4g} throughout"
            evidence = (
                f"{name}: {found.padded} of {found.matrices} matrices {found.where} in frames that are {alike}, "
                f"{100 * found.share:.0f} % of all frames; the longest has {found.most} frames without these, "
                f"{found.longest} with them; {found.whole} different lengths have become {found.lengths}"
            )
            yield self.finding(evidence, level, self.padded)
