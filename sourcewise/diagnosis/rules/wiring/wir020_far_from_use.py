from sourcewise.diagnosis.rule import Findings, Rule
from sourcewise.diagnosis.wiring import Settings

TRIAL = 100  # steps, below which it is no training


class FarFromUse(Rule[Settings]):
    """
    ## What it measures
    Options that take something away from the training, or weigh a loss against the main one.

    ## Why that is bad
    Each is a cure in small amounts. In large ones the loss hardly depends on what is right any more, and what
    follows looks like a fault of the network.

    ## Threshold and its origin
    train.label_smoothing from {smoothing} (0.1 is usual), model.attention_dropout, and any dropout of a
    Trainer's model, from {dropout} (0.1), train.word_dropout from {word_dropout} (Bowman et al. 2016 go to
    0.75), the weights of guided_attention, attention_mass and contrastive from {weight} (1), and a train.beta1
    that remembers more than {memory:words} of the training, and {usual} steps: 1 / (1 - beta1) (10).

    ## What to do
    As usual:
        --train.label_smoothing 0.1 --model.attention_dropout 0.1 --train.beta1 0.9
    """

    code, name, level = "WIR020", "a setting far from any in use", "warning"
    rank = 0.1
    smoothing, dropout, word_dropout, weight = 0.5, 0.7, 0.9, 10
    memory, usual = 0.2, 30  # of the steps, and steps that any may remember

    def check(self, settings: Settings) -> Findings:
        limits = self.thresholds()
        found = [f"{name} {value:g}" for kind, name, value in settings.options if value >= limits[kind]]
        (name, decay), steps = settings.first_moment, settings.steps
        if steps >= TRIAL and 1 - decay < 1 / max(self.memory * steps, self.usual):
            memory = f"remembers {1 / (1 - decay):,.0f} steps of {steps:,}" if decay < 1 else "never forgets"
            found.append(f"{name} {decay:g} ({memory})")
        if found:
            yield self.finding(", ".join(found))
