from dataclasses import replace

from sourcewise.data.encoding import ExampleSet
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.measures.alignment import CHANCE, CLEAR, FEWEST, QUARTER, WHOLE
from sourcewise.diagnosis.measures.pairing import goes_by_order, pairing_of
from sourcewise.diagnosis.measures.running import running_ids
from sourcewise.diagnosis.pairs import FEWEST as FEWEST_IDS
from sourcewise.diagnosis.pairs import MOSTLY, Pairs, named, sample
from sourcewise.diagnosis.rule import CannotTell, Cure, Findings, Rule

COLUMN = Cure(
    "Name the column that holds the texts to be read, not the one of their ids:",
    {"data.train.source": "text"},
    instead="Take the sources from the column that holds the texts to be read, not from the one of their ids.",
)


class MisalignedPairs(Rule[Pairs]):
    """How far the pairing of sources and targets stands out from shuffled pairs, in deviations of these, by what shows
    it most: tokens, letters and words by their place, pairs and triples of letters, letters that repeat, whole texts,
    lengths, what a source shares with its target; for features mean frames, of all and of each third, and their number.
    Each is the Hilbert-Schmidt independence criterion (Gretton et al. 2005) with its exact mean and variance over all
    permutations (Kazi-Aoual et al. 1995). Up to {whole} examples of a set, and of each quarter of it up to {quarter},
    so that a file that slips out of step halfway is found, with the lines where. And whether the sources are running
    ids: names or bare numbers of one form, each once, whose number rises from row to row or leaves hardly one out.
    ## Why that is bad
    A manifest sorted otherwise than its targets, or one line too many, pairs every source with another's target. The
    loss still falls to that of a language model, and nothing else tells.
    ## Threshold and its origin
    Below {chance} is no better than shuffled; for a quarter, while another is above {clear}. Also where the target of
    the next or previous line fits twice as well, and above {clear}, unless each line goes on from the one before, as in
    a conversation. Measured: sums, ciphers, reversed and sorted strings, translations and spellings have 4.6 to 590
    from 200 examples on, 175 shuffles of seven sets at most 3.8. That nothing is seen is no finding where it might not
    show: with fewer than {fewest} examples; with few different targets (labels), unless sources come again and their
    targets differ; with short targets, unless what hangs on two letters of the source would show. Short numbers are a
    warning, since arithmetic can hide. Of a validation set a warning: the training goes well, but what it is judged by,
    and its best checkpoint, are chance. Running ids are an error from {ids} examples on, unless targets hold their
    numbers; where the pairing stands out only if it does so with the next one's target, too, and bare numbers not
    where nothing can be told of it.
    """

    code, name, level, rank = "DAT003", "sources and targets do not belong together", "error", 7.1
    explained_by = "DAT002 DAT004 DAT011 DAT012"
    chance, clear = CHANCE, CLEAR  # deviations
    fewest, whole, quarter, ids = FEWEST, WHOLE, QUARTER, FEWEST_IDS  # examples
    cures = Cure(
        "Look at ten pairs. Then pair them anew by id instead of by line, or find the line where one side "
        "slipped. A training on half of the set that is in step tells whether the rest is to blame:",
        {"data.train.limit": 2000},
    )

    def check(self, pairs: Pairs) -> Findings:
        pairs.check_whole()
        found = [said for part in pairs.train.parts for said in self.of(part, pairs.column)]
        yield from found
        if pairs.valid is not None and not any(isinstance(said, Finding) for said in found):  # what judges is by chance
            judged = [said for part in pairs.valid.parts for said in self.of(part, pairs.column)]
            yield from (replace(said, level="warning") for said in judged if isinstance(said, Finding))

    def of(self, part: ExampleSet, column: str = "") -> Findings:
        """Of one set; a warning where it is short numbers that may have been worked out."""
        if part.drawn:
            yield CannotTell(f"pairs of {part.dataset.name}", "they are made of plain text anew in each epoch")
            return
        known, of = pairing_of(part), f" of {part.dataset.name}" if part.dataset.name else ""
        if ids := ids_in(part, known.state):
            words = f"the sources{column and f' (column {column})'} are running ids, each of which occurs once: {ids}"
            yield self.finding(named(part, words), None, COLUMN)
        elif known.state == "not told":
            yield CannotTell(f"whether sources and targets{of} belong together", known.words)
        elif known.state != "in step":
            yield self.finding(named(part, known.words), "error" if known.state == "out of step" else "warning")


def ids_in(part: ExampleSet, state: str) -> str:
    """The first of the running ids that the sources of a set are, by the state of its pairing; "" where they are none.

    Names tell nothing where targets only change along the set; bare numbers are texts, too, unless no more goes with
    them than their place in the set.
    """
    if part.dataset.dims or len(part) < FEWEST_IDS:
        return ""
    places = sample(len(part))
    examples = [part.dataset[int(place)] for place in places]
    targets = [example.target for example in examples]
    found = running_ids([example.source for example in examples], targets)
    if found is None or (state == "not told" and not found.names):
        return ""
    if state != "out of step" and len(set(targets)) < MOSTLY * len(targets):
        return ""  # labels may hang on a number in ways that do not show
    if state == "in step" and not goes_by_order(part, places[found.order]):
        return ""
    return found.words
