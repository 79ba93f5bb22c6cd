from collections.abc import Sequence

from sourcewise.diagnosis.measures.first_step import ADAPTER, Weight, counted
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class AdaptersTooFewOrSlow(Rule[Wiring]):
    """Where a training learns by adapters (LoRA): the parts that have some, and the peak learning rate.
    ## Why that is bad
    With adapters in the decoder alone the encoder stays as it was: features that are new to it, or another language,
    are read as well as before, and the decoder learns to do without. Adapters start at zero and are few; at the rate of
    a whole model they hardly move.
    ## Threshold and its origin
    Warning where the encoder has none and the decoder has some, or where the peak rate is {slow} or less. A note where
    the encoder has layers of the same names, and reads text: a list of names would have taken these, too, so that
    whoever left them out meant it. In use:
    the examples of peft take 1e-4 to 1e-3, and trainings of all weights 1e-5 to 5e-5.
    """

    code, name, level = "WIR031", "adapters in one part only, or at the rate of a whole model", "warning"
    slow = 5e-5  # learning rate
    explains = "TRN003 TRN014"
    cures = Cure("Adapters of the encoder, too:", {"train.lora.targets": ["all-linear"]})

    def check(self, wiring: Wiring) -> Findings:
        weights = wiring.step.weights if wiring.step is not None else ()
        adapters = [w for w in weights if ADAPTER.search(w.name) and w.learns and not w.frozen]
        if not adapters:
            return
        parts, trained = {w.part for w in adapters}, {w.part for w in weights if w.learns and not w.frozen}
        if "decoder" in parts and "encoder" not in trained and any(w.part == "encoder" for w in weights):
            evidence = f"the decoder has adapters ({counted(adapters, weights)}), the encoder has none"
            yield self.finding(evidence, "note" if is_meant(adapters, weights) else "warning")
        rate = wiring.plan.rate if wiring.plan is not None else 0.0
        if 0 < rate <= self.slow:
            cure = Cure("A rate for adapters, 1e-4 to 1e-3:", {"train.learning_rate": 3e-4})
            yield self.finding(f"the peak rate is {rate:.0e}, that of a whole model", None, cure)


def is_meant(adapters: Sequence[Weight], weights: Sequence[Weight]) -> bool:
    """Whether adapters of a decoder have names of layers that the encoder has, too, where nothing new comes before."""
    if any(w.part in ("bridge", "features") for w in weights):
        return False
    names = {ADAPTER.split(w.name)[0].rstrip(".").rpartition(".")[2] for w in adapters}
    others = {word for w in weights if w.part == "encoder" for word in w.name.split(".")}
    return names <= others
