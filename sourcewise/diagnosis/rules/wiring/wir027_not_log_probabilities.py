from sourcewise.diagnosis.finding import Level
from sourcewise.diagnosis.measures.objective import CLOSE, ROUGH, SUMS
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

SAID = {
    "probabilities": "the outputs are probabilities, and the loss takes them for log-probabilities (NLLLoss)",
    "softmax": "a softmax makes probabilities of the outputs, and the loss takes them for log-probabilities (NLLLoss)",
    "scores": "the outputs are no log-probabilities, and the loss takes them for such (NLLLoss): no row sums to 1",
    "twice": "the outputs are probabilities, and the loss makes a softmax of them once more (CrossEntropyLoss)",
    "axis": "the softmax before the loss runs along time or the batch, not along the vocabulary: no row sums to 1",
    "squares": "the loss is the squares of outputs less ones at the labels (MSELoss): a wrong word costs little",
    "binary": "the loss asks of each token by itself whether it is the label (BCEWithLogitsLoss), and nearly none is",
    "viewed": "the outputs (batch, time, vocabulary) are viewed as (batch, vocabulary, time), not turned: each number "
    "counts for another token at another place",
    "again": "a softmax makes probabilities of the outputs, and the loss makes one of these again (CrossEntropyLoss)",
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
}

LINEAR = Cure(
    "Let the output layer be the last: logits are any numbers, below 0 and above.",
    "return self.out(hidden)  # no relu, tanh, sigmoid or dropout behind it",
)


class NotLogProbabilities(Rule[Wiring]):
    """What the loss of a training in plain PyTorch takes the model's outputs for, by its gradient there: that of
    NLLLoss is one number a token, that of a cross-entropy the probabilities less one at the label.
    ## Why that is bad
    NLLLoss of probabilities is minus their mean: it lies between -1 and 0, its gradient is a fraction of the right one
    where the model is wrong, and it learns the frequent tokens only. NLLLoss of raw scores has no lower end. A softmax
    of probabilities can never be sure of anything, and its gradient all but vanishes. A softmax along time makes places
    rivals instead of tokens. view() in place of transpose() takes the numbers in another order. Squares, and a
    question for each token by itself, ask for what is not there far more than for what is: a warning.
    ## Threshold and its origin
    An activation that is the last thing before the softmax is an error, too: a ReLU, a sigmoid or a tanh bounds the
    logits, so that no word can be ruled out; dropout there sets some to 0 by chance, a warning. It is found by the
    graph of the loss. Any of these is an error; which it is follows from the outputs' sums (1 within {sums}) and from
    the gradient's shape (within {close}; {rough} in bf16 and fp16). Label smoothing, weights of classes, sums and
    means, scaled losses and log_softmax before CrossEntropyLoss are as they should be.
    """

    code, name, level, rank = "WIR027", "the loss is given what it is not made for", "error", 1.3
    explained_by = "WIR001"
    explains = "WIR002 WIR013 WIR014 TRN002..TRN006 TRN009"
    close, rough, sums = CLOSE, ROUGH, SUMS  # of the largest, and of a sum
    cures = Cure(
        "NLLLoss is given torch.log_softmax(logits, dim=-1); CrossEntropyLoss the logits themselves, with no softmax.",
    )

    def check(self, wiring: Wiring) -> Findings:
        seen = wiring.observed
        if seen is not None and seen.squeezed and seen.given not in SAID:
            evidence = f"the last thing before the softmax of the loss is {seen.squeezed}; the loss is {seen.loss:.4g}"
            yield self.finding(evidence, "warning" if seen.squeezed == "dropout" else "error", LINEAR)
        if seen is None or seen.given not in SAID:
            return
        evidence = f"{SAID[seen.given]}; the loss is {seen.loss:.4g}"
        if seen.nats == seen.nats:  # known
            evidence += f", the cross-entropy of the same labels {seen.nats:.4g} nats a token"
        level: Level | None = "warning" if seen.given in ("squares", "binary") else None
        yield self.finding(evidence, level, Cure(self.cures.words, CURES[seen.given]))
