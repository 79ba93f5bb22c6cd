from collections.abc import Sequence

from sourcewise.data.encoding import ExampleSet
from sourcewise.diagnosis.measures.kinds import Kinds, kinds_of
from sourcewise.diagnosis.pairs import SAMPLE, Pairs, named, quoted, sample
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class TwoKindsOfTargets(Rule[Pairs]):
    """Whether the targets fall into two kinds, by their words or by how they are written (capitals, spaces before
    marks, a mark at the end), and whether the words of a source, or the first token of the target, tell which it is:
    those of each set, and those of all sets of a mixture together.
    ## Why that is bad
    Where nothing says which kind is asked for, a model can only guess: half of its outputs are right in the wrong
    language or form. So it is with two target languages behind one language code, and with sets of two conventions.
    ## Threshold and its origin
    Two kinds of at least {least:%} of {rows} targets or more, that differ in {most:%} of their words at most as shared
    ones, each with {words:words} words and more; or, of {styled:%} at least, in how they are written; and which of
    them it is, is told by the sources' words in no more than {guess:points} points over guessing. Ours.
    """

    code, name, level = "DAT026", "two kinds of targets, and nothing tells which is asked for", "warning"
    explained_by = "DAT003"
    explains = "OUT00* TRN011"
    least, most, words, styled = 0.15, 0.1, 8, 0.3  # of the targets, of their words, words, and of the targets
    rows, guess = 200, 0.15  # targets, and of the sources
    cures = Cure(
        "Say in each source, or by the first token of each target, which is asked for: a prefix, a language code that "
        "is set anew for each row (tokenizer.tgt_lang). Of two conventions write all targets in one."
    )

    def check(self, pairs: Pairs) -> Findings:
        parts = [part for part in pairs.parts if not part.dataset.dims]
        several = False
        for part in parts:
            if len(part) >= self.rows and (kinds := self.of([part])) is not None:
                several = True
                yield self.finding(named(part, _words(kinds)))
        if len(parts) < 2 or several or sum(map(len, parts)) < self.rows:
            return
        if (kinds := self.of(parts)) is not None:
            yield self.finding(f"of the {len(parts)} sets together {_words(kinds)}")

    def of(self, parts: Sequence[ExampleSet]) -> Kinds | None:
        """The two kinds of some sets, where nothing tells them apart."""
        whole = sum(map(len, parts))
        rows = [
            (told(part, int(i)), part.dataset[int(i)].target, int(part.targets[int(i)][0]))
            for part in parts
            for i in sample(len(part), -(-SAMPLE * len(part) // whole))
        ]
        for kinds in kinds_of(rows, self.most, self.words):
            enough = self.least if kinds.by_words else self.styled
            if kinds.share >= enough and kinds.told <= kinds.usual + self.guess and not kinds.first_tells:
                return kinds
        return None


def told(part: ExampleSet, place: int) -> str:
    """A source, and before it what its outputs are made to begin with, such as a language."""
    begins = "" if part.begins is None else " ".join(f"<{i}>" for i in part.begins[place])
    return f"{begins} {part.dataset[place].source}"


def _words(kinds: Kinds) -> str:
    shown = " and ".join(quoted(text, 30) for text in kinds.examples)
    return (
        f"{100 * kinds.share:.0f} % of the targets {kinds.what}, such as {shown}; the sources tell in "
        f"{100 * kinds.told:.0f} % of the rows which it is, guessing in {100 * kinds.usual:.0f} %"
    )
