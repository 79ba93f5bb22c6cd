from sourcewise.diagnosis.finding import Level
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

READ = Cure(
    "See what the encoder is given, and that lengths are those of the sources, divided by just as much as its layers "
    "leave out; read all places, up to the last:",
    "lengths = (source != pad).sum(1)  # not of the targets; behind a stride of 2: (lengths + 1) // 2",
    "packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)",
)


class PartsOutOfReach(Rule[Wiring]):
    """Which outputs of a training in plain PyTorch move when a single place of their source is another one, before
    anything is learned: of all outputs of examples in which that place moves some.
    ## Why that is bad
    What is said at one place can then be read from some places of the source only, whatever the model learns. Heads
    that are cut off by view(batch, heads, time, size) without a transpose, masks on the wrong axis and windows do that:
    the loss falls, since some words are within reach, and comes to rest too high.
    ## Threshold and its origin
    Warning where {warning:%} of these outputs never move, error from {error:%} on. A network that reads its whole
    source has 0: attention to all places, and states that run over all, move each output by a little. Not asked of
    networks that were trained, whose attention is sharp, nor in bf16, which rounds small moves away. A warning where
    {some:%} of the words of sources, and an error where {most:%} (of quarters of sources of frames, {quarters:%}), move
    no output at all when others stand in their place, of {fewest} that were tried: a mask that is too short behind
    frames that are joined or left out, lengths of the other side, an index along the wrong axis, or a cut leave them
    out.
    """

    code, name, level = "WIR043", "parts of the source are out of reach", "error"
    explained_by = "WIR001 WIR005 WIR011 WIR028 WIR032"
    explains = "TRN003 TRN005 SRC003 SRC005 OUT00*"
    warning, error = 0.05, 0.15  # of the outputs
    some, most, fewest = 0.15, 0.4, 12  # of the words that were exchanged; words
    quarters = 0.2  # of the quarters of sources
    cures = Cure(
        "Cut heads off the last axis, and move them before time; see that each mask runs along the keys:",
        "q = q.view(batch, time, heads, size).transpose(1, 2)  # not view(batch, heads, time, size)",
    )

    def check(self, wiring: Wiring) -> Findings:
        dead = wiring.observed.moves.dead if wiring.observed is not None else None
        if dead is not None and dead.tried >= self.fewest and dead.unmoved >= self.some * dead.tried:
            most = self.most if dead.parts == "words" else self.quarters
            level: Level = "error" if dead.unmoved >= most * dead.tried else "warning"
            parts = {"words": "words of sources", "quarters": "quarters of sources"}[dead.parts]
            evidence = f"of {dead.tried} {parts}, each exchanged for another, {dead.unmoved} move no output at all"
            yield self.finding(f"{evidence}: they are cut off, or nothing reads them", level, READ)
            return
        share = wiring.observed.moves.unreached if wiring.observed is not None else None
        if share is not None and (found := self.from_on(share)):
            evidence = f"{100 * share:.0f} % of the outputs are never moved by a place of the source that moves others"
            yield self.finding(f"{evidence} of the same example", found)
