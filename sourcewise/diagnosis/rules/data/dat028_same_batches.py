from sourcewise.diagnosis.coming import Coming
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class SameBatches(Rule[Coming]):
    """How many different batches, whatever the order of their examples, the first {first} of a training are.
    ## Why that is bad
    All steps but the first few teach nothing new: the batches are learned by heart, and the rest of the data is never
    seen. next(iter(loader)) in the loop begins the loader anew in each step; a sampler whose seed is set in each epoch
    draws the same again; a stream that is opened anew gives its beginning.
    ## Threshold and its origin
    Warning where {most} different batches or fewer come {times} times each, or more. Whoever learns one batch by heart
    on purpose, as a check, may pass over it.
    """

    code, name, level, rank = "DAT028", "the same batches again and again", "warning", 2.5
    first, most, times = 64, 8, 5
    implies = "DAT010 DAT015"
    explains = "TRN010 TRN011 OUT00* SRC* DAT009"
    cures = Cure(
        "Go through the loader, and let it shuffle by a generator that goes on:",
        "for batch in loader: ...  # not next(iter(loader)) in each step",
        "sampler.set_epoch(epoch)  # DistributedSampler: or every epoch has one order",
    )

    def check(self, coming: Coming) -> Findings:
        keys = list(coming.first)
        kinds = len(set(keys))
        if 0 < kinds <= self.most and len(keys) >= self.times * kinds and len(keys) >= self.most:
            again = "one and the same" if kinds == 1 else f"{kinds} different ones"
            yield self.finding(f"the first {len(keys)} batches are {again}")
