import numpy as np

from sourcewise.diagnosis.asked import Asking
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class SearchThatNoReferenceFits(Rule[Asking]):
    """The shortest and longest outputs that the search allows (min_new_tokens and max_new_tokens, or min_length and
    max_length of a folder's generation_config.json; generation_max_length of a Trainer, or 20 tokens), beside the
    lengths of the references in tokens.
    ## Why that is bad
    Where the end of text is forbidden until after a reference ends, every output is too long, and what fills it is made
    up. Where it is cut before, none can be complete. Such settings stay in a folder from its former task.
    ## Threshold and its origin
    Error where {error:words} of the references or more are shorter than the shortest output, or longer than the longest
    one; warning from {warning:words}.
    """

    code, name, level, rank = "OUT014", "outputs are asked for that no reference fits", "error", 0.1
    learned = False
    error, warning = 0.5, 0.1  # of the references
    explains = "OUT00* TRN011"
    cures = Cure(
        "Set the lengths of this task, beside or in generation_config.json:",
        {"generation.min_new_tokens": 0, "generation.max_new_tokens": 128},
        instead="Set min_new_tokens (min_length) and max_new_tokens (max_length) for this task, in the call or in "
        "generation_config.json.",
    )

    def check(self, asking: Asking) -> Findings:
        lengths = np.asarray(asking.encoded.target_lengths)
        bounds = [
            ("min_new_tokens", asking.shortest, lengths < asking.shortest, "shorter"),
            ("max_new_tokens", asking.longest, lengths > asking.longest, "longer"),
        ]
        for key, bound, beyond, words in bounds:
            share = float(beyond.mean())
            if level := self.from_on(share):
                said = asking.told or f"{key} is {bound} (min_length or max_length of a folder, where it has that)"
                rest = f"{100 * share:.0f} % of the references are {words}, their median is {int(np.median(lengths))}"
                yield self.finding(f"{said}; {rest} tokens", level)
