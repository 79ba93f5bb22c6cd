import math
from statistics import fmean, variance

from sourcewise.diagnosis.coming import Coming
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class SourcesFade(Rule[Coming]):
    """In a training of others: how strong the features of a batch are (the root mean square of their frames), those of
    the first quarter of the batches beside those of the last.
    ## Why that is bad
    Features are the same in each epoch. Where they grow weaker something writes into them: an augmentation that masks
    or scales the stored clips in place, so that each epoch takes away more, until nothing is left to read.
    ## Threshold and its origin
    Error where the last quarter has less than {weaker:%} of the strength of the first, or more than {stronger:words}
    times it, and {errors} standard errors lie between them; {fewest} batches or more. Healthy trainings stay within
    a tenth.
    """

    code, name, level, rank = "DAT030", "sources that change as the training goes on", "error", 0.4
    weaker, stronger, errors, fewest = 0.7, 2, 8, 16
    explains = "DAT011..DAT014 DAT018 DAT024 DAT027 TRN00[2-5] TRN009..TRN014 OUT00* SRC* MEM* ATT*"
    cures = Cure(
        "Augment a copy, not what the set keeps:",
        "clip = clip.clone()  # array.copy() of numpy, before the first mask",
    )

    def check(self, coming: Coming) -> Findings:
        found = [each.strength for each in coming.batches if each.strength == each.strength]
        quarter = len(found) // 4
        if len(found) < self.fewest:
            return
        first, last = found[:quarter], found[-quarter:]
        before, behind = fmean(first), fmean(last)
        error = math.sqrt((variance(first) + variance(last)) / quarter)
        share = behind / before if before > 0 else 1.0
        if abs(before - behind) > self.errors * error and not self.weaker <= share <= self.stronger:
            evidence = f"the frames of a batch have a root mean square of {before:.3g} in the first quarter of "
            yield self.finding(f"{evidence}{len(found)} batches, of {behind:.3g} in the last")
