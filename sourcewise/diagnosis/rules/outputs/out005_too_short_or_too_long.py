import numpy as np

from sourcewise.diagnosis.outputs import Outputs
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.metrics.texts import words


class TooShortOrTooLong(Rule[Outputs]):
    """Words of all outputs over words of all references, and the spread of both lengths.
    ## Why that is bad
    Short outputs leave things out and pay BLEU's brevity penalty; long ones add what was not said.
    ## Threshold and its origin
    Ratio below {warning} or above {long} a warning, below {error} or above {far} an error. BLEU's brevity penalty exp(1
    - 1/ratio) takes 35 % of the score at {warning} and 78 % at {error}; at {long} a third of the words is surplus. Also
    a warning: output lengths that vary less than {spread:words} of the references' (where those vary by {some:words}
    word or more).
    """

    code, name, level = "OUT005", "outputs too short or too long", "error"
    explained_by = "DAT007 DAT016 DAT017 SRC001 OUT001 OUT004 OUT006 OUT007"
    implied_by = "OUT006:error"
    warning, error = 0.7, 0.4  # of the references' words
    long, far = 1.5, 2.5  # the same, too long
    spread, some = 0.25, 1  # of the references' deviation, and of that itself, in words
    cures = Cure(
        "Check that targets are not cut (--data.max_target) and that outputs are not (--generation.max_new_tokens, see "
        "OUT007). Then shift the search, to longer outputs above 1, to shorter ones below:",
        {"generation.length_penalty": 1.2},
        instead="Check that neither targets nor outputs are cut (see OUT007). Then shift the search, to longer outputs "
        "above 1, to shorter ones below:",
    )

    def check(self, outputs: Outputs) -> Findings:
        lengths = [len(words(reference)) for reference in outputs.references]
        if not any(lengths):
            return
        ratio, varies = outputs.figures["length_ratio"], outputs.figures["length_sd_ratio"]
        evidence = f"outputs have {ratio:.2f} times the words of the references"
        if level := self.below(ratio) or ("error" if ratio > self.far else "warning" if ratio > self.long else None):
            yield self.finding(evidence, level)
        elif (deviation := float(np.std(lengths))) >= self.some and varies < self.spread:
            evidence += f", but vary {varies:.2f} times as much in length"
            yield self.finding(f"{evidence} (the references' deviation is {deviation:.1f} words)", "warning")
