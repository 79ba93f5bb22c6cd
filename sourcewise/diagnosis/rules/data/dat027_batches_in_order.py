from collections.abc import Sequence

from sourcewise.diagnosis.coming import Batched, Coming
from sourcewise.diagnosis.measures.drift import SHUFFLED, Drift, as_varied, drift_of, only_rises
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class BatchesInOrder(Rule[Coming]):
    """The lengths and the tokens of the batches of a training in the order in which they come: how far batches differ,
    over what batches of shuffled examples would, and how much each is like the next.
    ## Why that is bad
    Data that is sorted by length or class, or streamed file after file, teaches one kind of example at a time: the loss
    saw-tooths with it, and what was learned of one kind is forgotten with the next.
    ## Threshold and its origin
    Warning where batches differ {apart} times as much as shuffled ones in some figure, and neighbours correlate by
    {alike} or more, and by more than in any of {orders} other orders of the same batches; of {fewest} batches or more.
    Batches of examples of one length, themselves in a random order, are healthy. So is a curriculum from short to long
    that has ended: lengths only rise, and the last {last:words} of the batches hold all of them, in no order.
    """

    code, name, level, rank = "DAT027", "batches come in an order", "warning", 3.5
    apart, alike, orders, fewest, last = 3, 0.5, SHUFFLED, 24, 0.25
    explains = "TRN002..TRN005 TRN008..TRN010 OUT00* SRC* MEM* ATT*"
    cures = Cure(
        "Shuffle the examples, anew in every epoch; where they are streamed, through a buffer that is larger than a "
        "file or a class, and with the files in another order:",
        "loader = DataLoader(data, batch_size=32, shuffle=True)",
        "stream = stream.shuffle(seed=0, buffer_size=10_000)  # datasets, webdataset",
    )

    def check(self, coming: Coming) -> Findings:
        batches = coming.batches
        if len(batches) < self.fewest or coming.grouped:  # a Trainer's own sampler puts the longest first
            return
        lengths, tokens = slice(0, coming.lengths), slice(coming.lengths, None)
        every = {"lengths": self.drift(batches, lengths), "tokens": self.drift(batches, tokens)}
        what, found = next(((what, each) for what, each in every.items() if each is not None), ("", None))
        if found is None or (every["lengths"] is not None and self.has_ended(batches, lengths, tokens)):
            return
        evidence = f"the {what} of batches differ {found.apart:.3g} times as much as those of shuffled ones, and each "
        evidence += f"is like the next (correlation {found.neighbours:.2f}, at most {found.by_chance:.2f} in "
        yield self.finding(f"{evidence}{self.orders} other orders), from step {batches[0].step} to {batches[-1].step}")

    def drift(self, batches: Sequence[Batched], figures: slice) -> Drift | None:
        """How these figures of batches drift; None where the batches are in no order."""
        found = drift_of(batches, figures, self.apart)
        ordered = found is not None and found.neighbours >= self.alike and found.neighbours > found.by_chance
        return found if ordered else None

    def has_ended(self, batches: Sequence[Batched], lengths: slice, tokens: slice) -> bool:
        """Whether it is a curriculum from short to long (longer ones have more words, too), and over."""
        last = batches[-max(8, int(self.last * len(batches))) :]
        if not only_rises(batches, lengths) or not as_varied(last, batches, lengths):
            return False
        return self.drift(last, lengths) is None and self.drift(last, tokens) is None
