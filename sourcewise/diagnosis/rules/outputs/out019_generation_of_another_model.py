import math

from sourcewise.diagnosis.asked import Asking
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class GenerationOfAnotherModel(Rule[Asking]):
    """In plain PyTorch: the nats that the first tokens of the outputs have by the network that is trained, beside those
    of tokens drawn from it, and how many of them are its likeliest.
    ## Why that is bad
    A search, of whatever kind, begins with what the network finds likely. Where it does not, another network is asked:
    a copy that was made before the training, one without the trained weights, or one that begins with another token
    than in training, or reads its source otherwise. The loss is good, and no output shows it.
    ## Threshold and its origin
    {times:words} times the nats of drawn tokens and {more} more, where fewer than {likeliest:words} of {fewest} outputs
    or more begin with the likeliest. A greedy search has all of them, sampling the nats of drawn ones. A network that
    knows nothing yet cannot be told from its copy.
    """

    code, name, level, rank = "OUT019", "outputs are not those of the network that is trained", "error", 0.12
    learned = False
    times, more, likeliest, fewest = 2, 1, 0.5, 16
    explains = "OUT00* OUT01[0-8] TRN011"
    cures = Cure(
        "Let generate() call the trained module itself, begin with the token that training begins with, and give it "
        "the same masks, in eval mode."
    )

    def check(self, asking: Asking) -> Findings:
        said = asking.said
        if said is None or said.outputs < self.fewest or not math.isfinite(said.first + said.drawn):
            return
        if said.first > self.times * said.drawn + self.more and said.likeliest < self.likeliest * said.outputs:
            evidence = f"the first tokens of {said.outputs} outputs have {said.first:.2f} nats by the network that is "
            evidence += f"trained, tokens drawn from it {said.drawn:.2f}; {said.likeliest} of them are its likeliest"
            yield self.finding(evidence)
