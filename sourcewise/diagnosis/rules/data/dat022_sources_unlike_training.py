from sourcewise.diagnosis.beside import Beside
from sourcewise.diagnosis.measures.unlike import FEWEST_NEW, LONGER, SHARE, TIMES, texts_unlike
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class SourcesUnlikeTraining(Rule[Beside]):
    """How source texts (or prompts) of a set differ from those of training, of which a run keeps a profile: triples of
    letters that do not occur there; what nearly all training texts have, such as a prefix, and these have not; how they
    are written: capitals, marks, digits, accents, script, Unicode form; whether they are longer than any; and whether
    sources hold their target.
    ## Why that is bad
    A model reads what it has been trained to read. Without the prefix, in other case, script or form its outputs may be
    anything, and the set says nothing about the model.
    ## Threshold and its origin
    Warning where triples are new from {new:%} on, and {times} times as many as in training texts that were held back;
    where at most {share:%} have what nearly all training texts have; where the shares of texts with a habit differ by
    {share:points} points; where {longer:%} have more words than any training text. Digits, dates, Multi30k and g2p: at
    most 1 % are new; in other case 7 to 62 %.
    """

    code, name, level = "DAT022", "sources unlike those of training", "warning"
    learned = False
    new, times, share, longer = FEWEST_NEW, TIMES, SHARE, LONGER
    explains = "OUT00* SRC* MEM* ATT*"
    cures = Cure(
        "Prepare this set as the training data were prepared: the same prefix, case, tokenisation and Unicode form. Our"
        " options for it are those of a set in `data`:",
        {"data.test.prefix": "translate English to German: ", "data.test.lowercase": True},
    )

    def check(self, beside: Beside) -> Findings:
        theirs, own = beside.trained.sources, beside.own.sources
        if theirs is None or own is None:
            return
        texts = [example.source for example in beside.dataset]
        found = list(texts_unlike(theirs, own, texts))
        if abs(beside.trained.answered - beside.own.answered) >= self.share:
            told = f"{100 * beside.own.answered:.0f} % of the sources hold their target"
            found.append(f"{told}, in training {100 * beside.trained.answered:.0f} %")
        if found:
            yield self.finding(f"{beside.dataset.name}: " + "; ".join(found))
