from sourcewise.diagnosis.measures.reworded import reworded
from sourcewise.diagnosis.outputs import MIN_EXAMPLES, Outputs, shown
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class RightButForOneChange(Rule[Outputs]):
    """How many outputs would be exactly right with one change that is the same for all: words, or letters, in the other
    order; a word too much or missing in front or at the end; spaces lost; pieces of words not put together; each word
    several times.

    ## Why that is bad
    The model says what it should, and what turns ids into texts says something else: a search that follows its words
    back and does not turn them, a start token that is kept, a first word that is cut off as if it were one, an end that
    is not looked for, a tokenizer that leaves out spaces. Figures are those of a failure.

    ## Threshold and its origin
    At least {most:words} of the outputs right with the change, and {gained:points} points more than without, of the
    references that are not empty. Healthy outputs, and poor ones, gain a few points at most.
    """

    code, name, level, rank = "OUT021", "outputs are right but for one change", "error", 0.11
    learned = False
    most, gained = 0.4, 0.3  # of the outputs
    explained_by = "OUT018 OUT020"
    explains = "OUT001..OUT006 OUT008..OUT011 OUT013 OUT017 SRC004 TRN011"
    cures = Cure(
        "Look at how ids become texts, and print one example step by step: what the search gives, without the start "
        "token, up to the end of text, in the order in which it is to be read:",
        "ids = ids[1:] if ids[0] == start_id else ids",
        "ids = ids[: ids.index(end_id)] if end_id in ids else ids",
        "text = tokenizer.decode(ids, skip_special_tokens=True)",
    )

    def check(self, outputs: Outputs) -> Findings:
        """See the page."""
        found = reworded(outputs.outputs, outputs.references)
        if found is None or found.rows < MIN_EXAMPLES:
            return
        share, before = found.changed / found.rows, found.right / found.rows
        if share >= self.most and share - before >= self.gained:
            mark = f" ({shown(found.mark)})" if found.mark else ""
            evidence = f"{found.right} of {found.rows} outputs are right, and {found.changed} would be but for one "
            yield self.finding(f"{evidence}change: {found.what}{mark}")
