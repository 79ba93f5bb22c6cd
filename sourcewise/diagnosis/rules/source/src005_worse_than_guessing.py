from sourcewise.diagnosis.likelihood import Likelihood
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class WorseThanGuessing(Rule[Likelihood]):
    """The loss of a trained network on a set, beside that of somebody to whom all tokens of the vocabulary are alike.
    ## Why that is bad
    Whoever knows nothing is right more often. A network that is sure of what is wrong was trained on other ids: its
    rows were permuted in a conversion, its vocabulary is another one's, ids are shifted, or sources are of another
    kind.
    ## Threshold and its origin
    At least {above} nats per token above ln(vocabulary), by a network whose weights are not those that networks begin
    with (norms of ones, biases of zeros, tables that end at the bound of their initialisation). Measured on a published
    GRU from letters to phones: 10.3 nats with the rows of its letters permuted, 4.3 by guessing, 0.3 as it was.
    """

    code, name, level, rank = "SRC005", "worse than guessing", "error", 0.08
    learned = True  # a training on a new task begins so
    explained_by = "WIR* TRN001..TRN009 TRN015 SRC004 DAT003 DAT006 OUT013 DAT022..DAT026"
    explains = "OUT00* SRC001..SRC003"
    above = 1.0
    cures = Cure(
        "Weights and ids do not belong together. Compare the tokenizer's vocabulary with the one of the training, row "
        "by row: the order, where special tokens stand, whether ids begin at 0 or 1. Compare the logits of one example "
        "with those of the program that trained the weights; a converted table may be permuted or transposed."
    )

    def check(self, likelihood: Likelihood) -> Findings:
        if likelihood.trained and likelihood.loss >= likelihood.guessing + self.above:
            said = f"the loss is {likelihood.loss:.2f} nats per token; to guess among {likelihood.vocabulary:,} tokens"
            yield self.finding(f"{said} costs {likelihood.guessing:.2f}")
