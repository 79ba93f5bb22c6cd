from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class WordsBeforeAreNotRead(Rule[Wiring]):
    """Whether any output moves with other words in the targets; of a training in plain PyTorch in {passes} passes.

    ## Why that is bad
    A decoder that is not fed the words before says each word without knowing which it has said: where the source leaves
    a choice, words come twice or not at all. It is fed a constant, the start token again and again, or its own words
    from the first step on, which are wrong then: what comes after a wrong word is learned from rubbish.

    ## Threshold and its origin
    A warning where nothing moves, while other sources move the outputs. A decoder that is fed its own words in many of
    its batches shows itself in one of {passes} passes. Decoders that are meant to say all words at once do so, too.
    """

    code, name, level, rank = "WIR045", "the decoder does not read the words before", "warning", 7.05
    passes = 8
    explained_by = "WIR001 WIR010 WIR011 WIR021"
    explains = "TRN003..TRN005 TRN011 OUT001..OUT008"
    cures = Cure(
        "Feed the decoder the true words, each before the next, at least in most batches while it learns:",
        "logits = decoder(target[:, :-1], memory)  # labels are target[:, 1:]",
        "teacher_forcing_ratio = 1.0  # 0 is for generation",
    )

    def check(self, wiring: Wiring) -> Findings:
        """See the page."""
        moves = wiring.observed.moves if wiring.observed is not None else None
        if moves is not None and moves.unread >= self.passes and wiring.paths.reached:
            evidence = (
                f"other words in the targets move no output in {moves.unread} passes; other sources move them by "
            )
            yield self.finding(f"{evidence}{moves.source:.2g} of the largest")
        paths = wiring.paths if moves is None and wiring.network is not None else None
        if paths is not None and paths.past == 0 == paths.future and paths.reached:
            evidence = "other words in the targets move no logits; other sources move them by "
            yield self.finding(f"{evidence}{paths.source:.2g} of the largest")
