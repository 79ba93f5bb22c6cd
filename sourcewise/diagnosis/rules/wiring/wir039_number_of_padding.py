from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class NumberOfPadding(Rule[Wiring]):
    """How many sources and targets of a training have the id of padding between two words, where no padding may stand.
    ## Why that is bad
    A word that has the number of padding is hidden wherever padding is: masks leave it out of the source, its label
    does not count, and its embedding stays zero. It is never read and never said. It happens where a vocabulary is
    numbered from 0 and padding is 0, or a token is set as padding that texts use.
    ## Threshold and its origin
    From {least:%} of the sources or targets, and {fewest:words} rows of them: healthy rows have none, wherever they
    are padded. A warning where nothing is known to hide it.
    """

    code, name, level, rank = "WIR039", "a word has the number of padding", "error", 1.3
    least, fewest = 0.02, 3
    explains = "WIR005 WIR008 WIR009 WIR023 TRN003..TRN005 OUT00* SRC*"
    cures = Cure(
        "Give padding an id of its own, that no word has: begin the numbering of words behind the special tokens, or "
        "add a token:",
        'tokenizer.add_special_tokens({"pad_token": "<pad>"})\n  network.resize_token_embeddings(len(tokenizer))',
    )

    def check(self, wiring: Wiring) -> Findings:
        found = wiring.within
        if found is None or not found.rows:
            return
        many = [n for n in (found.sources, found.targets) if n >= max(self.fewest, self.least * found.rows)]
        if not many:
            return
        evidence = f"id {found.pad} is padding, and stands between words in {found.sources} of {found.rows} sources and"
        evidence += f" {found.targets} targets"
        if found.hidden:
            evidence += ": it is masked there, too"
        yield self.finding(evidence, "error" if found.hidden else "warning")
