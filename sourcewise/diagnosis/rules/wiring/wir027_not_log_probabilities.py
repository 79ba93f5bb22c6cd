from sourcewise.diagnosis.finding import Level
from sourcewise.diagnosis.measures.objective import CLOSE, ROUGH, SUMS
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

SAID = {
    "probabilities": "the outputs are probabilities, and the loss takes them for log-probabilities (NLLLoss, "
    "KLDivLoss)",
    "softmax": "a softmax makes probabilities of the outputs, and the loss takes them for log-probabilities (NLLLoss)",
    "scores": "the outputs are no log-probabilities, and the loss takes them for such (NLLLoss, KLDivLoss): no row "
    "sums to 1",
    "twice": "the outputs are probabilities, and the loss makes a softmax of them once more (CrossEntropyLoss)",
    "axis": "the softmax before the loss runs along time or the batch, not along the vocabulary: no row sums to 1",
    "squares": "the loss is the squares of outputs less ones at the labels (MSELoss): a wrong word costs little",
    "binary": "the loss asks of each token by itself whether it is the label (BCEWithLogitsLoss), and nearly none is",
    "viewed": "the outputs (batch, time, vocabulary) are viewed as (batch, vocabulary, time), not turned: each number "
    "counts for another token at another place",
    "again": "a softmax makes probabilities of the outputs, and the loss makes one of these again (CrossEntropyLoss)",
    "away": "the gradient makes the labels less likely, not more: the loss goes the wrong way, by its sign",
}
CURES = {
    "probabilities": "return torch.log_softmax(logits, dim=-1)  # where the model makes its softmax",
    "softmax": "loss = criterion(torch.log_softmax(logits, dim=-1).flatten(0, -2), labels.flatten())",
    "scores": "criterion = torch.nn.CrossEntropyLoss()  # or torch.log_softmax(logits, dim=-1) before NLLLoss",
    "again": "loss = criterion(logits.flatten(0, -2), labels.flatten())  # without the softmax",
    "squares": "loss = F.cross_entropy(logits.flatten(0, -2), labels.flatten())  # ids as labels, not one-hot",
    "binary": "loss = F.cross_entropy(logits.flatten(0, -2), labels.flatten())  # ids as labels, not one-hot",
    "viewed": "loss = criterion(logits.transpose(1, 2), labels)  # not view() or reshape(); or both flattened",
    "axis": "loss = criterion(torch.log_softmax(logits, dim=-1).flatten(0, -2), labels.flatten())  # the last axis",
    "twice": "return logits  # without the softmax: CrossEntropyLoss makes its own",
    "away": "loss = criterion(logits.flatten(0, -2), labels.flatten())  # no minus: a cross-entropy is to fall",
}

SPREAD = Cure(
    "Smoothing is the share that the label gives away, not the one that it keeps:",
    "criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)",
)
SCALED = Cure(
    "Leave the outputs as they are in training: a temperature is for generation.",
    "loss = criterion(logits.flatten(0, -2), labels.flatten())  # logits are not divided or multiplied before",
)
LINEAR = Cure(
    "Let the output layer be the last: logits are any numbers, below 0 and above.",
    "return self.out(hidden)  # no relu, tanh, sigmoid or dropout behind it",
)


class NotLogProbabilities(Rule[Wiring]):
    """What the loss of a training in plain PyTorch takes the model's outputs for, by its gradient there: that of
    NLLLoss is one number a token, that of a cross-entropy the probabilities less one at the label.
    ## Why that is bad
    NLLLoss of probabilities is minus their mean: it lies between -1 and 0, its gradient is a fraction of the right one
    where the model is wrong, and it learns the frequent tokens only. NLLLoss of raw scores has no lower end, nor has
    KLDivLoss. A softmax of probabilities can never be sure of anything, and its gradient all but vanishes. A softmax
    along time makes places rivals instead of tokens. view() in place of transpose() takes the numbers in another order.
    Squares, and a question for each token by itself, ask for what is not there far more than for what is: a warning. A
    loss with the wrong sign unlearns. Where nearly all of a label is spread over the vocabulary, to be sure of a word
    costs more than to know nothing. Logits divided by a large number are all alike, multiplied by one they are all or
    nothing.
    ## Threshold and its origin
    An activation that is the last thing before the softmax is an error, too: a ReLU, a sigmoid or a tanh bounds the
    logits, so that no word can be ruled out; dropout there sets some to 0 by chance, a warning. It is found by the
    graph of the loss. Any of these is an error; which it is follows from the outputs' sums (1 within {sums}) and from
    the gradient's shape (within {close}; {rough} in bf16 and fp16). Weights of classes, sums and means, scaled losses
    and log_softmax before CrossEntropyLoss are as they should be. So is label smoothing below {smoothing:%} of a label,
    and a temperature below {scaled:words} and above its inverse; outputs between -1 and 1, as cosines are, may be
    multiplied.
    """

    code, name, level, rank = "WIR027", "the loss is given what it is not made for", "error", 1.3
    explained_by = "WIR001"
    explains = "WIR002 WIR013 WIR014 TRN002..TRN006 TRN009"
    close, rough, sums = CLOSE, ROUGH, SUMS  # of the largest, and of a sum
    smoothing, scaled = 0.5, 10  # share of a label; times
    cures = Cure(
        "NLLLoss is given torch.log_softmax(logits, dim=-1); CrossEntropyLoss the logits themselves, with no softmax.",
    )

    def check(self, wiring: Wiring) -> Findings:
        seen = wiring.observed
        if seen is not None and seen.squeezed and seen.given not in SAID:
            evidence = f"the last thing before the softmax of the loss is {seen.squeezed}; the loss is {seen.loss:.4g}"
            yield self.finding(evidence, "warning" if seen.squeezed == "dropout" else "error", LINEAR)
        if seen is None:
            return
        if seen.smoothing >= self.smoothing:
            words = (
                f"{100 * seen.smoothing:.0f} % of each label are spread evenly over the vocabulary (label smoothing)"
            )
            yield self.finding(words, None, SPREAD)
        if not 1 / self.scaled < seen.temperature < self.scaled:
            by = (
                f"divided by {seen.temperature:.3g}"
                if seen.temperature > 1
                else f"multiplied by {1 / seen.temperature:.3g}"
            )
            yield self.finding(f"the outputs are {by} before the softmax of the loss", None, SCALED)
        if seen.given not in SAID:
            return
        evidence = f"{SAID[seen.given]}; the loss is {seen.loss:.4g}"
        if seen.nats == seen.nats:  # known
            evidence += f", the cross-entropy of the same labels {seen.nats:.4g} nats a token"
        level: Level | None = "warning" if seen.given in ("squares", "binary") else None
        yield self.finding(evidence, level, Cure(self.cures.words, CURES[seen.given]))
