from sourcewise.diagnosis.plan import UNKNOWN
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

TRIAL = 100  # steps, below which it is no training


class FarFromUse(Rule[Wiring]):
    """Options that take something away from the training, or weigh a loss against the main one.
    ## Why that is bad
    Each is a cure in small amounts. In large ones the loss hardly depends on what is right any more, and what follows
    looks like a fault of the network.
    ## Threshold and its origin
    train.label_smoothing from {smoothing} (0.1 is usual), model.attention_dropout, and any dropout of a Trainer's
    model, from {dropout} (0.1), train.word_dropout from {word_dropout} (Bowman et al. 2016 go to 0.75), the weights of
    guided_attention, attention_mass and contrastive from {weight} (1), and a train.beta1 that remembers more than
    {memory:words} of the training, and {usual} steps: 1 / (1 - beta1) (10). Of somebody's own optimizer: an eps of an
    Adam from {epsilon} (1e-8), which then drowns small gradients; betas the wrong way round, by {swapped} and more; a
    momentum from {momentum}; and a maximize of {maximize}, which goes up the loss.
    """

    code, name, level, rank = "WIR020", "a setting far from any in use", "warning", 0.1
    smoothing, dropout, word_dropout, weight = 0.5, 0.7, 0.9, 10
    epsilon, swapped, momentum, maximize = 0.01, 0.05, 0.995, 1
    explains = "TRN002..TRN005 TRN009 OUT009"
    memory, usual = 0.2, 30  # of the steps, and steps that any may remember
    cures = Cure("As usual:", {"train.label_smoothing": 0.1, "model.attention_dropout": 0.1, "train.beta1": 0.9})

    def check(self, wiring: Wiring) -> Findings:
        plan, limits = wiring.plan or UNKNOWN, self.thresholds()
        found = [f"{name} {value:g}" for kind, name, value in plan.taken if value >= limits[kind]]
        (name, decay), steps = plan.first_moment or ("", 0.0), plan.steps
        if steps >= TRIAL and 1 - decay < 1 / max(self.memory * steps, self.usual):
            memory = f"remembers {1 / (1 - decay):,.0f} steps of {steps:,}" if decay < 1 else "never forgets"
            found.append(f"{name} {decay:g} ({memory})")
        if found:
            yield self.finding(", ".join(found))
