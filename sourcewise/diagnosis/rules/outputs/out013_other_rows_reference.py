from sourcewise.diagnosis.measures.rows import BLOCK, ERRORS, SHIFTS, exchanged_rows, moved_rows
from sourcewise.diagnosis.outputs import Outputs
from sourcewise.diagnosis.rule import Cure, Findings, Rule

SORTED = Cure(
    "Put the outputs back into the order of their examples: whoever sorts a batch by length keeps the way back:",
    "lengths, order = lengths.sort(descending=True)",
    "outputs = [outputs[i] for i in order.argsort().tolist()]",
)


class OtherRowsReference(Rule[Outputs]):
    """Whether outputs are more like the reference of a row up to {farthest} lines away than like their own: the F1 of
    their words, in blocks of {block} rows.
    ## Why that is bad
    Sources and references are off by a line, all or from some row on: a header that was read as data, a blank line that
    one file lost. The model is right, and every figure is that of shuffled references.
    ## Threshold and its origin
    Blocks where another row's reference is more like the output by {by}, and by {errors:words} standard errors. In
    healthy sets neighbouring references are no more alike than others. And {most:words} of the outputs, {fewest} or
    more, that are exactly the reference of another row, each of another one, and more than are right, where references
    differ: so it is where a batch was sorted. Ours.
    """

    code, name, level, rank = "OUT013", "outputs fit the references of other rows", "error", 0.2
    learned = False
    by, errors, block, farthest = 0.15, ERRORS, BLOCK, max(SHIFTS)
    most, fewest = 0.3, 8  # of the outputs, and outputs, that are other rows' references
    explains = "OUT00* SRC001..SRC005"
    cures = Cure(
        "Look at the rows that are named: a line too many or too few in one of the two files, a header read as data, "
        "or a sort of one column alone. Make the table of one source, and number its rows."
    )

    def check(self, outputs: Outputs) -> Findings:
        found = moved_rows(outputs.outputs, outputs.references, self.by)
        if found is None:
            yield from self.of_order(outputs)
            return
        where = f"{abs(found.shift)} row{'s' * (abs(found.shift) > 1)} {'later' if found.shift > 0 else 'earlier'}"
        said = f"{found.rows} of {len(outputs.rows)} outputs, the first of row {found.first + 1}, are more like the "
        yield self.finding(f"{said}reference {where} ({found.theirs:.2f}) than like their own ({found.own:.2f})")

    def of_order(self, outputs: Outputs) -> Findings:
        """Whether outputs are the references of others, in any order."""
        found = exchanged_rows(outputs.outputs, outputs.references)
        if found is not None and found.rows >= max(self.most * found.of, self.fewest) and found.rows > found.right:
            (first, other), rows = found.first, found.rows
            said = (
                f"{rows} of {found.of} outputs are exactly the reference of another row, each of another one, such as "
            )
            yield self.finding(f"{said}row {first + 1} that of row {other + 1}; {found.right} are right", None, SORTED)
