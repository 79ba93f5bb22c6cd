from sourcewise.diagnosis.rule import Findings, Rule
from sourcewise.errors import FaultyData


class RefusedData(Rule[FaultyData]):
    """
    ## What it measures
    What the readers refuse: NaN or infinity in features, frames that disagree with the manifest, empty targets.

    ## Why that is bad
    One NaN makes the loss and then every weight NaN; a matrix of another length is a matrix of another example.

    ## Threshold and its origin
    One such example is enough: nothing is trained before it is mended.

    ## What to do
    Extract the features of that example again, or take its line out of the file; then look at the others.
    """

    code, name, level = "DAT001", "data that cannot be trained on", "error"

    def check(self, fault: FaultyData) -> Findings:
        yield self.finding(str(fault))
