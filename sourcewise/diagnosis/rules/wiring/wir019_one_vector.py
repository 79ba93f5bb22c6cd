from sourcewise.diagnosis.measures import signals
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class OneVector(Rule[Wiring]):
    """How many slots the memory of a source has, beside the length of sources and targets.
    ## Why that is bad
    All that the target says must be in that one vector from the start; it holds a gist, and the more is to be told the
    less of it is right (Cho et al. 2014).
    ## Threshold and its origin
    One slot for sources of {long} and more and targets of {said} tokens and more on average. Ours; a note where the
    recipe asks for it: a recurrent network with model.attention none.
    """

    code, name, level, rank = "WIR019", "one vector for a long source", "warning", 14.3
    long, said = 16, 4  # tokens or frames of a source, and tokens of a target
    cures = Cure("Attention over all of the source:", {"model.attention": "bahdanau"}, {"model.family": "t5"})

    def check(self, wiring: Wiring) -> Findings:
        if (inside := wiring.inside) is None:
            return
        network, train = inside.network, inside.examples
        length, said, batch = float(train.source_lengths.mean()), float(train.target_lengths.mean()), inside.batch
        if length < self.long or said < self.said or signals.memory_slots(network, batch) > 1:
            return
        units = "frames" if train.dataset.dims else "tokens"
        evidence = f"sources of {length:.0f} {units} on average become one vector, from which {said:.0f} target tokens"
        if train.dataset.dims and signals.bridge_slots(network, batch) == 1:
            cure = Cure("More slots:", {"model.bridge.kind": "convolution", "model.bridge.stride": 4})
            yield self.finding(f"{evidence} are told", "warning", cure)
        else:
            yield self.finding(f"{evidence} are told", "warning" if network.attends else "note")
