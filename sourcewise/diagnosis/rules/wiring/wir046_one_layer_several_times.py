from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class OneLayerSeveralTimes(Rule[Wiring]):
    """Whether a list of layers (ModuleList, Sequential) holds one and the same layer several times, in a training or
    a model of somebody's own modules.

    ## Why that is bad
    [layer] * 6 makes six names of one layer: the stack has a sixth of its weights, and each gradient is the sum of six.
    It is as slow as the whole stack, learns less, and a checkpoint of it does not fit one that was built as meant.

    ## Threshold and its origin
    A warning for any layer with weights that stands twice in a list. Whoever shares layers on purpose (ALBERT,
    Universal Transformers) calls one layer several times, and may pass over it.
    """

    code, name, level, rank = "WIR046", "one layer stands several times", "warning", 34.5
    explained_by = "WIR001"
    explains = "TRN003 TRN005 OUT009"
    cures = Cure(
        "Make a layer for each place, or copy it:",
        "self.layers = nn.ModuleList([Layer(width) for _ in range(6)])  # or deepcopy(layer)",
    )

    def check(self, wiring: Wiring) -> Findings:
        """See the page."""
        if wiring.repeated:
            yield self.finding(wiring.repeated)
