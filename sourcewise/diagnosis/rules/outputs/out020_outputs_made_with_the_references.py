from sourcewise.diagnosis.asked import Asking
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class OutputsMadeWithTheReferences(Rule[Asking]):
    """Whether the outputs that are judged are made with the references: of a loop's own generation, how many outputs of
    a batch are others when only its references are; of a Trainer, whether figures of texts (BLEU, ROUGE, WER) are
    computed of the likeliest tokens behind the true ones.

    ## Why that is bad
    A model that is told each word before the next is right nearly always. The figure says nothing of what it says
    alone, and may rise while that gets worse; the best checkpoint is then picked by it.

    ## Threshold and its origin
    Of a loop an error from {share:%} of the outputs, where another call for the same batch gives the same. Of a Trainer
    a warning where compute_metrics gives such a figure and predict_with_generate is not set.
    """

    code, name, level, rank = "OUT020", "outputs are made with the references", "error", 0.05
    learned = False
    share = 0.1  # of the outputs
    explains = "TRN011 OUT00* OUT019"
    cures = Cure(
        "Let the model say each word behind its own, for what is judged (predict_with_generate):",
        "outputs = network.generate(source)  # or a loop that feeds argmax back, not the target",
    )

    def check(self, asking: Asking) -> Findings:
        """See the page."""
        if asking.led:
            yield self.finding(asking.led, "warning" if "predict_with_generate" in asking.led else "error")
