import numpy as np

from sourcewise.diagnosis.measures.reading import MEASURED, OPEN, said
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.trained import Trained
from sourcewise.evaluation.verdict import SOURCE_BITS

QUARTER = 8  # examples in each of the two quarters that are compared, at least


class LongSourcesAreNotRead(Rule[Trained]):
    """Source bits of the quarter of examples with the longest sources, and of that with the shortest.
    ## Why that is bad
    What is long is cut, squeezed into too few slots, or too seldom seen: the outputs for it are guesses.
    ## Threshold and its origin
    The upper end of the longest quarter's 95 % interval is below {share} of the lower end of the shortest quarter's,
    with a higher loss of at least {loss} nats. {measured}: at least 0.46 of the short ones' bits (0.60 by a recurrent
    network with one fixed vector, which suffers most), but where the loss is near 0.
    """

    code, name, level = "SRC003", "long sources are not read", "warning"
    explained_by = "DAT007 DAT003 ATT002 MEM002"
    share, loss, measured = 0.25, OPEN, MEASURED
    cures = Cure(
        "See whether sources are cut (DAT007), then give them room: more latents, or fewer frames a slot; and "
        "attention instead of one vector.",
        {"data.max_source": 512, "model.bridge.kind": "convolution", "model.bridge.stride": 4},
    )

    def check(self, trained: Trained) -> Findings:
        gains = trained.gains
        if gains is None:
            return
        order = np.argsort(gains.lengths, kind="stable")
        count = len(order) // 4
        if count < QUARTER or gains.lengths[order[count - 1]] >= gains.lengths[order[-count]]:
            return
        rows = np.arange(len(order))[:, None]
        short, long = (
            gains.bits(np.isin(rows, part) & (gains.places >= 0)) for part in (order[:count], order[-count:])
        )
        read, unread = short.ci95()[0], long.ci95()[1]
        if read >= SOURCE_BITS and unread < self.share * read and long.loss >= max(self.loss, short.loss):
            evidence = f"with sources from {gains.lengths[order[-count]]} on, targets gain {said(long)}"
            evidence += f"; up to {gains.lengths[order[count - 1]]}, {said(short)}"
            yield self.finding(f"{evidence}; the loss is {long.loss:.2f} against {short.loss:.2f} nats")
