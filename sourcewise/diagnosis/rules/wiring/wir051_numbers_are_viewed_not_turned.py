from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class NumbersAreViewedNotTurned(Rule[Wiring]):
    """Each view() and reshape() of a forward pass through somebody's own modules, by the line that calls it: whether
    neighbouring axes are split and merged, or numbers get to other places. A second pass has sources and targets that
    are one place wider, so that it shows where one size is a multiple of another.

    ## Why that is bad
    A view keeps the order of the numbers, and turns no axis. Heads that are cut out of (batch, time, width) by
    view(batch, heads, time, depth) hold pieces of several words each; (batch, channels, time, bands) viewed as (batch,
    time, channels * bands) puts the frames of one channel where all channels of a frame should be. Shapes fit, the loss
    falls, and the network has to learn around it: padding and later words get in, and order is lost.

    ## Threshold and its origin
    An error for each view whose axes are neither parts of an axis nor several that lie side by side (of the steps from
    one entry to the next along the axes of both shapes one is no multiple of another), or which has the same axes in
    another order. Not of weights, of what is alike along an axis, of installed packages, nor of tables with an edge of
    zeros, which are shifted by a view on purpose (relative positions).
    """

    code, name, level, rank = "WIR051", "numbers are viewed, not turned", "error", 1.27
    explained_by = "WIR001 WIR032 WIR038"
    explains = (
        "WIR005 WIR006 WIR011 WIR013 WIR022 WIR028 WIR043..WIR045 TRN003..TRN005 TRN010 TRN011 MEM* ATT* OUT00* SRC*"
    )
    cures = Cure(
        "Split or merge axes that lie side by side, and turn them by transpose() or permute():",
        "x = x.view(batch, time, heads, depth).transpose(1, 2)  # not view(batch, heads, time, depth)",
        "x = x.transpose(1, 2).reshape(batch, time, heads * depth)  # and back again",
        "x = x.permute(0, 2, 1, 3).flatten(2)  # (batch, channels, time, bands) to (batch, time, -1)",
        "x = x.transpose(1, 2)  # (batch, time, dims) to (batch, dims, time)",
    )

    def check(self, wiring: Wiring) -> Findings:
        """See the page."""
        if wiring.scrambled:
            yield self.finding(f"{wiring.scrambled}: numbers of several places stand in each")
