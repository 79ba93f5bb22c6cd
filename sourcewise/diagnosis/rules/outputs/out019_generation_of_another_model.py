import math

from sourcewise.diagnosis.asked import Asking
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class GenerationOfAnotherModel(Rule[Asking]):
    """In plain PyTorch: the nats that the tokens of the outputs have by the network that is trained, beside those of
    tokens drawn from it, and how many are its likeliest; as long as an output says what its reference says, so that
    the network can be asked what comes next.
    ## Why that is bad
    A search, of whatever kind, says what the network finds likely. Where it does not, another network is asked: a copy
    that was made before the training, an average that has hardly moved, one without the trained weights; or it is asked
    otherwise than in training: another start token, positions that begin anew with each token, a cache in the wrong
    order, a source without its mask. The loss is good, and only outputs show it.
    ## Threshold and its origin
    {times:words} times the nats of drawn tokens and {more} more for an output, or {over} times as many and {errors}
    standard errors apart, where fewer than {likeliest:words} of {fewest} outputs or more are the likeliest throughout.
    A greedy search has all of them, sampling the nats of drawn ones. A network that knows nothing yet cannot be told
    from its copy.
    """

    code, name, level, rank = "OUT019", "outputs are not those of the network that is trained", "error", 0.12
    learned = False
    times, more, over, errors, likeliest, fewest = 2, 1, 1.3, 5, 0.5, 16
    explains = "OUT00* OUT01[0-8] TRN011"
    cures = Cure(
        "Let generate() call the trained module itself, begin with the token that training begins with, and give it "
        "the same masks and positions, in eval mode. An average of weights needs a decay that fits the steps: after "
        "as many steps as 1 / (1 - decay) two thirds of it are new."
    )

    def check(self, asking: Asking) -> Findings:
        said = asking.said
        if said is None or said.outputs < self.fewest or not math.isfinite(said.nats + said.drawn):
            return
        surely = said.nats > self.over * said.drawn and said.apart >= self.errors
        far = said.nats > self.times * said.drawn + self.more
        if (far or surely) and said.likeliest < self.likeliest * said.outputs:
            evidence = f"{said.outputs} outputs, as far as they say what their references say and a token more, have "
            evidence += f"{said.nats:.2f} nats by the network that is trained, tokens drawn from it {said.drawn:.2f}; "
            yield self.finding(f"{evidence}in {said.likeliest} all tokens are its likeliest")
