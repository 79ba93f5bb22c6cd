from sourcewise.diagnosis.keeping import Keeping, better
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class WorstCheckpoint(Rule[Keeping]):
    """The figure by which a Trainer picks its best checkpoint, and whether it takes the higher or the lower; and, where
    weights were restored after the last step, their validation loss beside those of the evaluations before.
    ## Why that is bad
    The worst checkpoint of the training is then kept, and early stopping ends it when it gets better. Transformers
    takes the higher of every figure whose name does not end in loss, unless greater_is_better says otherwise: of an
    error rate, too.
    ## Threshold and its origin
    An error where the figure's name tells that the other direction is the better one (loss, wer, cer, perplexity, ...;
    bleu, rouge, accuracy, ...); names that do not tell are not judged. Of restored weights a warning, where their
    loss is (to {same}) the highest of {fewest:words} evaluations or more, and {times} times the lowest.
    """

    code, name, level, rank = "TRN016", "the worst checkpoint is kept", "error", 0.5
    fewest, times, same = 3, 1.25, 1e-4
    explains = "OUT00* SRC* MEM* ATT* TRN010 TRN011"
    cures = Cure(
        "Say which direction is the better one:",
        "greater_is_better = False  # of a loss, WER and CER; True of BLEU, chrF, ROUGE and accuracy",
    )

    def check(self, keeping: Keeping) -> Findings:
        right = better(keeping.metric) if keeping.metric and keeping.used else ""
        if right and (right == "higher") != keeping.higher:
            taken = "highest" if keeping.higher else "lowest"
            evidence = f"{keeping.used} takes the {taken} {keeping.metric}, and the {right} is the better"
            yield self.finding(evidence)
            return
        losses = list(keeping.losses)
        if len(losses) <= self.fewest or losses[-1][0] != losses[-2][0] or losses[-1][1] == losses[-2][1]:
            return
        (step, now), before = losses[-1], losses[:-1]
        lowest, highest = min(loss for _, loss in before), max(loss for _, loss in before)
        if abs(now - highest) <= self.same * highest and now >= self.times * lowest:
            best = next(at for at, loss in before if loss == lowest)
            evidence = f"after step {step} weights were restored whose validation loss is {now:.3f}, the highest of "
            yield self.finding(f"{evidence}{len(before)} evaluations; that of step {best} was {lowest:.3f}", "warning")
