import numpy as np

from sourcewise.diagnosis.likelihood import Likelihood
from sourcewise.diagnosis.measures.changed import EXCHANGED
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class SourcesRightButForOneChange(Rule[Likelihood]):
    """How much likelier the targets become with one change that is made to every source: columns exchanged; frames in
    the order of their numbers as text, or back from it, at half the rate or at twice; numbers on another scale.

    ## Why that is bad
    The network has learned to read, and what it is given now was made otherwise than what it was trained on: a file
    with its columns the other way round, frames that were sorted by name (1, 10, 11, 2), another frame rate, pictures
    divided by 255 or not. All figures are those of a failure.

    ## Threshold and its origin
    At least {gain} nats per target token, {deviations} standard errors over at least {fewest} examples, and a loss that
    is then at most {share} of what it was, and below that of a guess. Asked of trained networks only.
    """

    code, name, level, rank = "SRC007", "sources are right but for one change", "error", 0.055
    explained_by = "WIR001"
    explains = "OUT00* OUT012 OUT013 SRC001..SRC003 SRC005 TRN003..TRN005 TRN010 TRN011"
    gain, deviations, fewest, share = 0.5, 5, 8, 0.5
    cures = Cure(
        "Make the sources as those of the training were made: the same program and options for both, frames sorted by "
        "number, the same rate and scale:",
        "files = sorted(folder.glob('*.jpg'), key=lambda file: int(file.stem))",
    )
    columns = Cure("Read its columns the other way round:", "--source target --target source  # evaluate, diagnose")

    def check(self, likelihood: Likelihood) -> Findings:
        if not likelihood.trained or len(likelihood.own) < self.fewest or not likelihood.changes:
            return
        best = min(likelihood.changes, key=lambda each: float(each.nats.mean()))
        gained, before, then = likelihood.each - best.nats, float(likelihood.each.mean()), float(best.nats.mean())
        error = float(gained.std(ddof=1)) / np.sqrt(len(gained))
        reads = then <= self.share * before and then < likelihood.guessing
        if reads and float(gained.mean()) >= max(self.gain, self.deviations * error):
            said = f"with {best.what} the loss is {then:.2f} nats per token, with all as it is {before:.2f}"
            cures = [self.columns] if best.what == EXCHANGED else []
            yield self.finding(f"{said} ({len(gained)} examples)", "error", *cures)
