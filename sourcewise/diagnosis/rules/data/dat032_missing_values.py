from collections import Counter
from statistics import median

from sourcewise.diagnosis.pairs import Pairs, made_of_text, named
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.metrics.texts import words

NAMES = "nan none null nil n/a #n/a na <na> nat undefined missing tbd #ref! #value! #name? #div/0! [] {} - -- ?"
MISSING = frozenset(NAMES.split(" "))  # as pandas, spreadsheets and databases write what is not there


class MissingValues(Rule[Pairs]):
    """The share of sources, and of targets, that are the name of a missing value and nothing else: nan, None, null,
    #N/A, as spreadsheets and programs write a cell that is empty.

    ## Why that is bad
    The model learns to say "nan" for sources that have an answer, or that a source "nan" means whatever stands beside
    it. As references they count every right output as wrong.

    ## Threshold and its origin
    Where texts have {words:words} words or more in the middle, so that none is a list of labels, of which one may well
    be "none": warning from {warning:%} of one side, and {fewest:words} rows; error from {error:%}. Ours. Real
    texts have none.
    """

    code, name, level, rank = "DAT032", "names of missing values in the place of texts", "error", 2.3
    warning, error, fewest, words = 0.005, 0.05, 3, 3  # of the texts; rows; words of the median text
    explains = "DAT004 DAT009 DAT020 TRN010 OUT001..OUT003 OUT009 OUT015"
    cures = Cure(
        "Leave these rows out where the table is made, before it is written as text:",
        'table = table.dropna(subset=["source", "target"])',
        'table = pandas.read_csv(file, keep_default_na=False)  # where "nan" or "null" are words',
    )

    def check(self, pairs: Pairs) -> Findings:
        """See the page."""
        for part in pairs.parts:
            read = () if part.dataset.dims or made_of_text(part) else (("sources", [e.source for e in part.dataset]),)
            for side, texts in (*read, ("targets", [e.target for e in part.dataset])):
                found = Counter(text.strip() for text in texts if text.strip().casefold() in MISSING)
                level, rows = self.from_on(found.total() / len(texts)), found.total()
                if level and rows >= self.fewest and median(len(words(text)) for text in texts[:2000]) >= self.words:
                    text, times = found.most_common(1)[0]
                    evidence = f"{rows} of {len(texts):,} {side} are the name of a missing value, such as {text!r}"
                    yield self.finding(named(part, f"{evidence} ({times} times)"), level)
