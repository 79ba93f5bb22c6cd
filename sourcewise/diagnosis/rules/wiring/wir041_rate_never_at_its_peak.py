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
FEWER = Cure(
    "Or the schedule was told too many steps: a loader's length is its batches, a dataset's its examples; accumulated "
    "batches are one step:",
    "OneCycleLR(optimizer, max_lr, steps_per_epoch=len(loader), epochs=epochs)",
)


class RateNeverAtItsPeak(Rule[Wiring]):
    """The highest learning rate of all steps of a training beside the highest that its schedule ever gives. In plain
    PyTorch, where the schedule is not known: the highest so far beside the rate that the optimizer was made with, how
    often it changed, how often it turned from rising to falling; with `steps=`, whether it rose up to the end.
    ## Why that is bad
    A warm-up of 4,000 steps in a training of 600, or one that counts epochs as steps, keeps the rate so low that hardly
    anything is learned; so does a schedule that takes examples for batches. A schedule of epochs that is stepped with
    every batch goes up and down, or ends, in no time.
    ## Threshold and its origin
    Below {warning:words} of the peak a warning, below {error:words} an error. In plain PyTorch below {error:words}
    after {patient} steps in which it changed less than once in {stretch} steps; a warm-up that is stepped with every
    batch changes each time. A rate that rose in {end:%} of the planned steps, and never fell, is below its peak. One
    that turned {turns:words} times, and once in {soon} steps or fewer, is a warning.
    """

    code, name, level, rank = "WIR041", "the learning rate never reaches its peak", "error", 1.4
    explained_by = "WIR001"
    error, warning = 0.1, 0.5  # of the peak
    patient, stretch, turns, soon = 60, 20, 6, 25
    end = 0.9  # of the planned steps
    explains = "WIR014 WIR030 TRN003..TRN006 TRN009 TRN013 TRN014 TRN015 OUT00* SRC* MEM* ATT*"
    cures = Cure(
        "Count the warm-up in the steps that are taken, a twentieth of them:",
        {"train.warmup_steps": 200},
    )

    def check(self, wiring: Wiring) -> Findings:
        plan = wiring.plan
        if plan is not None and plan.reached is not None:
            far = plan.reached
            level = self.below(far.highest / far.ever) if far.ever > 0 else None
            if level is not None:
                evidence = f"in {far.steps:,} steps the rate comes to {far.highest:.2g} at most; its schedule would "
                yield self.finding(f"{evidence}bring it to {far.ever:.2g} after that", level, *self.all_cures, FEWER)
                return
        if wiring.observed is not None and wiring.observed.rates is not None:
            yield from self.of_steps(wiring.observed.rates, plan.steps if plan is not None else 0)

    def of_steps(self, rates: Rates, total: int) -> Findings:
        """Of the steps of a loop so far, of so many; 0: not known."""
        if rates.steps < self.patient or rates.base <= 0:
            return
        share = rates.highest / rates.base
        if rates.rising and 0 < total * self.end <= rates.steps and share < self.warning:
            evidence = f"the rate has risen in all {rates.steps} steps of {total}, to {rates.highest:.2g} at most: the "
            level = self.below(share) if rates.known else "warning"
            evidence += f"training ends within its warm-up; the optimizer was made for {rates.base:.2g}"
            yield self.finding(evidence, level, *self.all_cures, FEWER)
            return
        how = f"in {rates.steps} steps the rate changed {rates.changes} times"
        if rates.highest < self.error * rates.base and rates.changes * self.stretch <= rates.steps:
            evidence = f"{how}, and is {rates.highest:.2g} at most; the optimizer was made with {rates.base:.2g}"
            yield self.finding(evidence, None, *ONCE_A_STEP)
        elif rates.turns >= self.turns and rates.steps <= self.soon * rates.turns:
            evidence = f"{how}, and turned between rising and falling {rates.turns} times"
            yield self.finding(evidence, "warning", *ONCE_A_STEP)
