import numpy as np

from sourcewise.diagnosis.likelihood import Likelihood
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class SourcesTurnedAround(Rule[Likelihood]):
    """How much likelier the targets become when every source is turned from its end to its beginning.
    ## Why that is bad
    The network has learned to read, but is given its sources from the other side: a flip that only one of training and
    use has, a right-to-left script stored the other way round, frames of a clip in descending order. Its outputs look
    like the task and are wrong.
    ## Threshold and its origin
    At least {gain} nats per target token, {deviations} standard errors over at least {fewest} examples, and a loss that
    is then at most {share} of what it was, and below that of a guess: the network can read them so. Networks that read
    in the right order lose by it, networks that have not learned to read hardly move. Measured on a published GRU from
    letters to phones: 7.84 nats with its letters turned around, 0.29 as they were.
    """

    code, name, level, rank = "SRC004", "sources are read from the wrong end", "error", 0.05
    explained_by = "WIR001"
    explains = "OUT00* SRC001..SRC003 TRN003..TRN005 TRN011"
    gain, deviations, fewest, share = 0.5, 5, 8, 0.5
    cures = Cure(
        "Give the network its sources in the order of its training: look for a flip in the one of data set, collator, "
        "conversion and call that the training did not have (`[::-1]`, `flip`, `reverse`, files sorted the other way)."
    )

    def check(self, likelihood: Likelihood) -> Findings:
        if likelihood.turned is None or len(likelihood.own) < self.fewest:
            return
        gained = likelihood.own - likelihood.turned
        error = float(gained.std(ddof=1)) / np.sqrt(len(gained))
        per_token = float(gained.sum() / likelihood.tokens.sum())
        turned = float(likelihood.turned.sum() / likelihood.tokens.sum())
        reads = turned <= self.share * likelihood.loss and turned < likelihood.guessing
        if reads and per_token >= self.gain and float(gained.mean()) >= self.deviations * error:
            said = f"with sources turned from end to beginning the loss is {turned:.2f} nats per token"
            yield self.finding(f"{said}, with them as they are {likelihood.loss:.2f} ({len(gained)} examples)")
