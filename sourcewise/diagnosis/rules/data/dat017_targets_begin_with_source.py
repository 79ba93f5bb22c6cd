import numpy as np

from sourcewise.diagnosis.pairs import FEWEST, SAMPLE, Pairs, named, quoted, sample
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class TargetsBeginWithSource(Rule[Pairs]):
    """The share of pairs whose target tokens begin with all of their source's, the end of text left out, and go on for
    {beyond:words} tokens or more; of sources of {prompt:words} tokens and more; up to {pairs} pairs.
    ## Why that is bad
    A decoder-only model is trained on the prompt and the answer in one. Here the encoder reads the source: the loss
    then counts mostly the copying of what is known, outputs repeat the prompt before they answer, and the answer is
    learned from that copy instead of from the source.
    ## Threshold and its origin
    From {share:%} of the pairs. Ours: a script does it to all of them; a task that adds to its source, such as
    punctuation, changes it in between. In dates and Multi30k no pair is so; of a chat set's replies one in nine begins
    with the question, as greetings do.
    """

    code, name, level, rank = "DAT017", "targets that begin with their source", "warning", 4.2
    share, pairs = 0.9, SAMPLE
    prompt, beyond = 3, 2  # tokens
    cures = Cure("Let targets (labels) hold the answer and its end of text alone; the source is read from where it is.")

    def check(self, pairs: Pairs) -> Findings:
        for part in pairs.parts:
            asked, begun = 0, []
            for i in map(int, sample(len(part)) if part.sources is not None else ()):
                source, target = np.asarray(part.sources[i]), np.asarray(part.targets[i])  # type: ignore[index]
                source = source[source != part.tokenizer.eos_id]
                if len(source) >= self.prompt:
                    asked += 1
                    if len(target) > len(source) + self.beyond and np.array_equal(target[: len(source)], source):
                        begun.append(i)
            if asked >= FEWEST and len(begun) >= self.share * asked:
                evidence = (
                    f"{100 * len(begun) / asked:.0f} % of {asked} targets begin with all of their source and go on"
                )
                yield self.finding(named(part, f"{evidence}, such as {quoted(part.dataset[begun[0]].target)}"))
