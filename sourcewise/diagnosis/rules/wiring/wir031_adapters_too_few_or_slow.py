import re
from collections.abc import Sequence

from sourcewise.diagnosis.measures.first_step import ADAPTER, Weight, counted
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

NAMED = re.compile(r"\.lora_(A|B|embedding_A|embedding_B)\.([^.]+)")  # which table, and of which adapter
ZERO = {"B", "embedding_A"}  # tables that begin at zero
UNNAMED = "default"  # the adapter whose name nobody gave

ACTIVE = Cure("An adapter that is added is not active until it is made so:", 'model.set_adapter("name")')


class AdaptersTooFewOrSlow(Rule[Wiring]):
    """Where a training learns by adapters (LoRA): the parts that have some, the peak learning rate, and of several
    adapters which are trained.
    ## Why that is bad
    With adapters in the decoder alone the encoder stays as it was: features that are new to it, or another language,
    are read as well as before, and the decoder learns to do without. Adapters start at zero and are few; at the rate of
    a whole model they hardly move. An adapter that is added is not active: until it is made so, the one that was there
    is changed, and the new one stays nothing.
    ## Threshold and its origin
    Warning where the encoder has none and the decoder has some, or where the peak rate is below {slow}. A note where
    the encoder has layers of the same names, and reads text: a list of names would have taken these, too, so that
    whoever left them out meant it. Warning, too, where an adapter of another name than those that are trained came after
    them and holds nothing; a note where the one that is trained has a name and held nothing either, since several may
    be trained in turn. In use:
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
        yield from self.of_several(weights, began_of(wiring))
        parts, trained = {w.part for w in adapters}, {w.part for w in weights if w.learns and not w.frozen}
        if "decoder" in parts and "encoder" not in trained and any(w.part == "encoder" for w in weights):
            evidence = f"the decoder has adapters ({counted(adapters, weights)}), the encoder has none"
            yield self.finding(evidence, "note" if is_meant(adapters, weights) else "warning")
        rate = wiring.plan.rate if wiring.plan is not None else 0.0
        if 0 < rate < self.slow:
            cure = Cure("A rate for adapters, 1e-4 to 1e-3:", {"train.learning_rate": 3e-4})
            yield self.finding(f"the peak rate is {rate:.0e}, that of a whole model", None, cure)

    def of_several(self, weights: Sequence[Weight], began: Sequence[Weight]) -> Findings:
        """Of adapters of several names: those that came last and are neither trained nor hold anything."""
        names = list(dict.fromkeys(found[2] for w in weights if (found := NAMED.search(w.name))))  # as they were added
        trained = [name for name in names if any(is_trained(w) for w in of_name(weights, name))]
        behind = names[names.index(trained[-1]) + 1 :] if trained else []
        empty = [name for name in behind if not holds(weights, name) and not holds(began, name)]
        if empty:
            one, other = " and ".join(empty), " and ".join(trained)
            evidence = f"adapter {one} is not active and holds nothing (B is 0); {other} is trained"
            in_turn = UNNAMED not in trained and not any(holds(began, name) for name in trained)
            yield self.finding(evidence, "note" if in_turn else "warning", ACTIVE)


def of_name(weights: Sequence[Weight], name: str) -> list[Weight]:
    """The tables of the adapter of a name."""
    return [w for w in weights if (found := NAMED.search(w.name)) and found[2] == name]


def is_trained(weight: Weight) -> bool:
    """Whether it learns and the loss depends on it."""
    return weight.learns and not weight.frozen and weight.gradient is not None


def holds(weights: Sequence[Weight], name: str) -> bool:
    """Whether an adapter changes what its network computes."""
    tables = of_name(weights, name)
    return any(w.value > 0 for w in tables if (found := NAMED.search(w.name)) and found[1] in ZERO)


def began_of(wiring: Wiring) -> Sequence[Weight]:
    """The weights before the first step."""
    if wiring.observed is not None:
        return wiring.observed.began
    return wiring.step.weights if wiring.step is not None else ()


def is_meant(adapters: Sequence[Weight], weights: Sequence[Weight]) -> bool:
    """Whether adapters of a decoder have names of layers that the encoder has, too, where nothing new comes before."""
    if any(w.part in ("bridge", "features") for w in weights):
        return False
    names = {ADAPTER.split(w.name)[0].rstrip(".").rpartition(".")[2] for w in adapters}
    others = {word for w in weights if w.part == "encoder" for word in w.name.split(".")}
    return names <= others
