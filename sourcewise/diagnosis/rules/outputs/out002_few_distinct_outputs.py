import math
from collections import Counter
from collections.abc import Sequence

from sourcewise.diagnosis.outputs import MIN_EXAMPLES, Outputs
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.evaluation.verdict import DIVERSITY_BANDS


class FewDistinctOutputs(Rule[Outputs]):
    """The variety of the outputs as a share of the references' own: distinct texts, or the effective number of texts
    (exp of the entropy), whichever speaks more for the model. The effective number keeps a classifier that never gives
    its rarest labels from being called collapsed. Where source texts are known each source counts once, and of several
    references that it has, the one that was said.
    ## Why that is bad
    Many sources share an output: the model tells groups of sources apart, not sources.
    ## Threshold and its origin
    Below {error} % an error (mode collapse), below {warning} % a warning: the bands of the verdict of `sourcewise
    evaluate`. As that verdict (OUT009) it is a note on the run's own sets while it trains, or where its loss still fell
    at its end (TRN014): sums of two digits rest for a thousand steps at half of the variety before they are learned.
    """

    code, name, level = "OUT002", "few distinct outputs", "error"
    explained_by = "DAT015 DAT018 WIR020 SRC001 OUT001 OUT006"
    implied_by = "OUT001:error OUT006:error"
    until_the_end = True
    warning, error = DIVERSITY_BANDS  # percent of the references' variety
    cures = Cure(
        "Train longer before changing anything if the loss still falls. Then look at how much of the source survives: "
        "fewer frames a slot, more latents, longer sources:",
        {"model.bridge.stride": 4},
        {"model.bridge.latents": 128},
        {"data.max_source": 512, "data.max_frames": 2000},
        instead="Train longer before changing anything if the loss still falls. Then look at how much of the source "
        "survives: whether the tokenizer cuts it, and whether a pooled memory is too small for it.",
    )

    def check(self, outputs: Outputs) -> Findings:
        # Of a source that comes with several references one is enough: a model says the same to it each time.
        references, given = outputs.wanted, outputs.outputs
        if any(outputs.sources):
            places = {source: i for i, source in reversed(list(enumerate(outputs.sources)))}
            firsts = [i for i, source in enumerate(outputs.sources) if not source or places[source] == i]
            references, given = [references[i] for i in firsts], [given[i] for i in firsts]
        if len(given) < MIN_EXAMPLES:
            return
        distinct, distinct_references = len(set(given)), len(set(references))
        effective, effective_references = effective_number(given), effective_number(references)
        share = 100 * max(distinct / distinct_references, effective / effective_references)
        if level := self.below(share):
            evidence = (
                f"{distinct} distinct outputs where the references have {distinct_references} "
                f"(effective number {effective:.1f} against {effective_references:.1f}), {share:.0f} % of their variety"
            )
            if len(given) < len(outputs.outputs):
                evidence += f"; of the {len(given)} different sources of {len(outputs.outputs)} examples"
            yield self.finding(evidence, level)


def effective_number(texts: Sequence[str]) -> float:
    """How many equally common texts would be as varied: exp of the entropy (Hill number of order 1)."""
    shares = [count / len(texts) for count in Counter(texts).values()]
    return math.exp(-sum(s * math.log(s) for s in shares))
