from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class OutputLayerTiedAway(Rule[Wiring]):
    """Whether a model of transformers has an output layer of its own, in memory or in its file, while its configuration
    says that the embedding is its output layer (tie_word_embeddings).

    ## Why that is bad
    What is saved by such a configuration leaves the layer out, and what is opened puts the embedding in its place: the
    training was good, and the folder says rubbish.

    ## Threshold and its origin
    An error in a folder whose file has both tables, which differ by more than rounding; a warning in a training, where
    nothing is saved yet. Healthy models have one table for both, or tie_word_embeddings false.
    """

    code, name, level, rank = "WIR050", "the output layer is tied away", "error", 1.06
    explains = "WIR010 WIR036 OUT00* OUT017 SRC005 SRC006 TRN011"
    cures = Cure(
        "Say in the configuration what the model is, before it is saved, and in config.json of what was saved:",
        "network.config.tie_word_embeddings = False",
    )

    def check(self, wiring: Wiring) -> Findings:
        """See the page."""
        if wiring.tied:
            yield self.finding(wiring.tied, "warning" if wiring.plan is not None else None)
