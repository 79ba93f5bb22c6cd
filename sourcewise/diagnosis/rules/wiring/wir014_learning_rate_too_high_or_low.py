import math

import numpy as np

from sourcewise.diagnosis.measures.first_step import FirstStep, adapted
from sourcewise.diagnosis.measures.wiring import MEASURED
from sourcewise.diagnosis.plan import Plan
from sourcewise.diagnosis.rule import CannotTell, Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class LearningRateTooHighOrLow(Rule[Wiring]):
    """How much one step at the peak learning rate changes each tensor, as a share of its own root mean square; the
    median over all tensors. AdamW's updates hardly depend on the gradient, so one step tells.
    ## Why that is bad
    Updates as large as the weights wipe out what was learned before, each time; too small ones do not get from the
    random initialisation to anything in the steps there are.
    ## Threshold and its origin
    Error at 0 and above {error} (a step replaces the weights), warning above {warning}. {measured}, at 1e-3: 0.0048 to
    0.049. From random weights, a warning where all steps together, each in the same direction at the peak rate, would
    change them by less than {way:words}; not for a trial of fewer than {trial} steps. Also a warning: a warm-up of
    {endless:words} times the training and more. And the weight decay times the peak rate, what a step takes of the
    weights whatever it learns: above {fades} a warning, above {forgets} an error. In use are 1e-5 to 1e-4; 1 / that is
    how many steps a weight remembers (Wang & Aitchison 2024).
    """

    code, name, level, rank = "WIR014", "learning rate too high or too low", "error", 3.1
    explained_by = "WIR003 WIR013"
    implied_by = "WIR003 WIR012 WIR013"  # what a step does is beside the point where weights do not learn
    warning, error = 0.3, 1  # of the weights, in a step
    way, trial = 0.1, 100  # of random weights in all steps, and steps of a training that need not get anywhere
    endless = 4  # times as many steps of warm-up as there are steps
    fades, forgets = 0.01, 0.1  # of the weights, taken by weight decay in a step
    measured = MEASURED
    cures = Cure("From scratch about 1e-3, fine-tuning about 5e-5:", {"train.learning_rate": 1e-3})

    def check(self, wiring: Wiring) -> Findings:
        plan = wiring.plan
        if plan is None:
            return
        if plan.no_rate:
            yield CannotTell("the learning rate", plan.no_rate)
        if plan.standing:
            yield self.finding(plan.standing)
        if wiring.any_step is None:
            return
        faded = list(self.of_decay(plan.rate, plan.weight_decay))
        yield from faded
        if not faded and wiring.step is not None:
            yield from self.of_updates(wiring.step, plan)

    def of_decay(self, rate: float, weight_decay: float) -> Findings:
        """A step's decay, peak rate times weight decay, takes more than the gradient can give."""
        share = rate * weight_decay
        if share <= self.fades:
            return
        half = math.ceil(math.log(0.5) / math.log1p(-share)) if share < 1 else 1
        evidence = (
            f"a weight decay of {weight_decay:g} at the peak rate of {rate:g} takes {share:.2g} of the weights in a "
            f"step: after {half} {'step' if half == 1 else 'steps'} half of what was learned is gone"
        )
        cure = Cure("Usual is 0.01 to 0.1:", {"train.weight_decay": 0.01})
        yield self.finding(evidence, "error" if share > self.forgets else "warning", cure)

    def of_updates(self, step: FirstStep, plan: Plan) -> Findings:
        """Steps that are too large, too small, or too late."""
        ratios = [w.update / w.value for w in step.weights if w.optimised and w.update > 0 and w.value > 0]
        median = float(np.median(ratios)) if ratios else math.nan
        evidence = f"a step at the peak rate changes a tensor by {median:.2g} of its size (median of {len(ratios)})"
        if median > self.warning:
            yield self.finding(evidence, "error" if median > self.error else "warning")
        elif plan.fresh and not adapted(step.weights) and plan.steps >= self.trial and median * plan.steps < self.way:
            evidence += f"; {plan.steps} such steps in one direction, by {median * plan.steps:.2g}"
            higher = Cure("A higher rate, or more steps:", {"train.learning_rate": 1e-3})
            yield self.finding(evidence, "warning", higher)
        elif plan.steps >= self.trial and plan.warmup >= self.endless * plan.steps:
            evidence = f"the warm-up has {plan.warmup:,} steps, the training {plan.steps:,}"
            yield self.finding(evidence, "warning", Cure("A twentieth of the steps:", {"train.warmup_steps": 200}))
