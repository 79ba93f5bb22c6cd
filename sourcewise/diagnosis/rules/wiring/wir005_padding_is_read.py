from sourcewise.diagnosis.measures.wiring import CHAOTIC, LEAK, MEASURED, STEPS
from sourcewise.diagnosis.rule import CannotTell, Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

FAR = 10  # times what real positions do: then the mask looks inverted


class PaddingIsRead(Rule[Wiring]):
    """How far the logits move when padded positions of the sources hold garbage and there are more of them, as a share
    of the largest logit; beside it, how far they then move with other content in the real positions.
    ## Why that is bad
    What comes out depends on the neighbours in the batch: on the length of the longest. The figures of an evaluation
    then change with the batch size. With an inverted mask the source itself is hidden.
    ## Threshold and its origin
    More than {leak}, and more than {share:words} of what other content does. {measured}: at most 2.2e-7, the rounding
    of fp32, in which it is measured whatever the training rounds to. Where layers compute in bf16 or fp16 by
    themselves: {steps:words} times the step of their numbers at 1 (measured: 0.9 of it). And more than {chaotic:words}
    times what a change of the encoder's weights as small as rounding does. In a loop of one's own padding
    that is read is a warning, and nothing where recurrent layers or convolutions run over it; a mask that hides most of
    what is real an error.
    """

    code, name, level = "WIR005", "padding is read", "error"
    explained_by = "WIR001 WIR002"
    leak, share, steps, chaotic, measured = LEAK, 0.01, STEPS, CHAOTIC, MEASURED
    cures = Cure(
        "The mask must be true where a position is real, for the encoder's self-attention, the cross-attention,"
        " and whatever pools or convolves over time. Hugging Face's generate(inputs_embeds=...) takes a mask of"
        " ones unless it is given one."
    )

    def check(self, wiring: Wiring) -> Findings:
        known = wiring.all_paths
        unread = known.source is not None and not known.reached  # then no mask of the sources can do harm (WIR011)
        if (hidden := wiring.hidden) and not (unread and not hidden.masked and wiring.observed):
            evidence = f"of {hidden.real} source positions{wiring.where or ' of a batch'} the attention mask hides "
            evidence += str(hidden.hidden)
            evidence += f", and of {hidden.padding} of padding it shows {hidden.shown}"
            if not hidden.masked:
                evidence += "; it is given none" if wiring.observed else "; the batch has no attention_mask"
            elif 2 * hidden.hidden > hidden.real:
                short = hidden.shown <= hidden.padding // 2
                evidence += ": the lengths it is made of are too small" if short else ": it looks inverted"
            elif wiring.observed and hidden.hidden:
                evidence += ": it is the mask of something else, such as of the targets"
            yield self.finding(evidence, "warning" if wiring.observed and not hidden.masked else "error")
        paths = wiring.paths
        if paths.padding is None or paths.padding <= max(paths.leak, self.share * (paths.unpadded or 0)):
            return
        if getattr(getattr(wiring.network, "body", None), "edges", False):
            raise CannotTell("whether padding is read", "convolutions of this model's encoder read some in any case")
        evidence = f"garbage in the sources' padding moves the logits by {paths.padding:.2g} of the largest"
        if paths.unpadded is not None:
            evidence += f"; other content in their real positions, by {paths.unpadded:.2g}"
            if FAR * paths.unpadded < paths.padding:
                evidence += ", far less: the mask looks inverted"
        yield self.finding(evidence, "error" if wiring.observed is None else "warning")
