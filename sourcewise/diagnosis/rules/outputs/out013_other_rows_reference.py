from sourcewise.diagnosis.measures.rows import BLOCK, ERRORS, SHIFTS, moved_rows
from sourcewise.diagnosis.outputs import Outputs
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class OtherRowsReference(Rule[Outputs]):
    """Whether outputs are more like the reference of a row up to {farthest} lines away than like their own: the F1 of
    their words, in blocks of {block} rows.
    ## Why that is bad
    Sources and references are off by a line, all or from some row on: a header that was read as data, a blank line that
    one file lost. The model is right, and every figure is that of shuffled references.
    ## Threshold and its origin
    Blocks where another row's reference is more like the output by {by}, and by {errors:words} standard errors. In
    healthy sets neighbouring references are no more alike than others. Ours.
    """

    code, name, level, rank = "OUT013", "outputs fit the references of other rows", "error", 0.2
    learned = False
    by, errors, block, farthest = 0.15, ERRORS, BLOCK, max(SHIFTS)
    explains = "OUT00* SRC001..SRC005"
    cures = Cure(
        "Look at the rows that are named: a line too many or too few in one of the two files, a header read as data, "
        "or a sort of one column alone. Make the table of one source, and number its rows."
    )

    def check(self, outputs: Outputs) -> Findings:
        found = moved_rows(outputs.outputs, outputs.references, self.by)
        if found is None:
            return
        where = f"{abs(found.shift)} row{'s' * (abs(found.shift) > 1)} {'later' if found.shift > 0 else 'earlier'}"
        said = f"{found.rows} of {len(outputs.rows)} outputs, the first of row {found.first + 1}, are more like the "
        yield self.finding(f"{said}reference {where} ({found.theirs:.2f}) than like their own ({found.own:.2f})")
