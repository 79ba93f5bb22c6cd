from collections import Counter

from sourcewise.data.readers.bad_rows import LEFT_OUT
from sourcewise.diagnosis.pairs import Pairs
from sourcewise.diagnosis.rule import CannotTell, Cure, Findings, Rule


class RefusedData(Rule[Pairs]):
    """What the readers refuse: NaN or infinity in features, frames that disagree with the manifest, empty targets.
    ## Why that is bad
    One NaN makes the loss and then every weight NaN; a matrix of another length is a matrix of another example.
    ## Threshold and its origin
    One such example is enough: nothing is trained before it is mended.
    """

    code, name, level = "DAT001", "data that cannot be trained on", "error"
    cures = Cure(
        "Extract the features of that example again, or take its line out of the file; then look at the others."
    )

    def check(self, pairs: Pairs) -> Findings:
        if pairs.refused:
            yield self.finding(pairs.refused)
        left_out = Counter((note.file, note.what) for note in pairs.train.notes if note.what.startswith(LEFT_OUT))
        for (file, what), count in left_out.items():
            yield CannotTell(f"{count:,} rows of {file}", what)
