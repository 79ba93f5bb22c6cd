from sourcewise.diagnosis.observed import Rates
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

ONCE_A_STEP = (
    Cure(
        "A schedule in steps is stepped with every batch, one in epochs with every epoch: in one place only, behind "
        "optimizer.step(). Or count in what it is stepped by:",
        "warmup = epochs_of_warmup * len(loader)  # where scheduler.step() is called for each batch",
    ),
)


class RateNeverAtItsPeak(Rule[Wiring]):
    """The highest learning rate of all steps of a training beside the highest that its schedule ever gives. In plain
    PyTorch, where the schedule is not known: the highest so far beside the rate that the optimizer was made with, how
    often it changed, and how often it turned from rising to falling.
    ## Why that is bad
    A warm-up of 4,000 steps in a training of 600, or one that counts epochs as steps, keeps the rate so low that hardly
    anything is learned. A schedule of epochs that is stepped with every batch goes up and down, or ends, in no time.
    ## Threshold and its origin
    Below {warning:words} of the peak a warning, below {error:words} an error. In plain PyTorch below {error:words}
    after {patient} steps in which it changed less than once in {stretch} steps; a warm-up that is stepped with every
    batch changes each time. A rate that turned {turns:words} times, and once in {soon} steps or fewer, is a warning.
    """

    code, name, level, rank = "WIR041", "the learning rate never reaches its peak", "error", 1.4
    explained_by = "WIR001"
    error, warning = 0.1, 0.5  # of the peak
    patient, stretch, turns, soon = 60, 20, 6, 25
    explains = "WIR014 WIR030 TRN003..TRN006 TRN009 TRN013 TRN014 TRN015 OUT00* SRC* MEM* ATT*"
    cures = Cure(
        "Count the warm-up in the steps that are taken, a twentieth of them:",
        {"train.warmup_steps": 200},
    )

    def check(self, wiring: Wiring) -> Findings:
        plan = wiring.plan
        if plan is not None and plan.reached is not None:
            highest, ever = plan.reached
            level = self.below(highest / ever) if ever > 0 else None
            if level is not None:
                evidence = f"in {plan.steps:,} steps the rate comes to {highest:.2g} at most; its schedule would bring "
                yield self.finding(f"{evidence}it to {ever:.2g} after that", level)
        if wiring.observed is not None and wiring.observed.rates is not None:
            yield from self.of_steps(wiring.observed.rates)

    def of_steps(self, rates: Rates) -> Findings:
        """Of the steps of a loop so far."""
        if rates.steps < self.patient or rates.base <= 0:
            return
        how = f"in {rates.steps} steps the rate changed {rates.changes} times"
        if rates.highest < self.error * rates.base and rates.changes * self.stretch <= rates.steps:
            evidence = f"{how}, and is {rates.highest:.2g} at most; the optimizer was made with {rates.base:.2g}"
            yield self.finding(evidence, None, *ONCE_A_STEP)
        elif rates.turns >= self.turns and rates.steps <= self.soon * rates.turns:
            evidence = f"{how}, and turned between rising and falling {rates.turns} times"
            yield self.finding(evidence, "warning", *ONCE_A_STEP)
