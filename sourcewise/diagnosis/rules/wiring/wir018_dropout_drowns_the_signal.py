from sourcewise.diagnosis.measures import signals
from sourcewise.diagnosis.rule import Findings, Rule
from sourcewise.diagnosis.wiring import one_batch
from sourcewise.training.setup import TrainingSetup


class DropoutDrownsTheSignal(Rule[TrainingSetup]):
    """
    ## What it measures
    With dropout of {dropout} and more: how alike the logits of one batch are for two draws of it, as a
    correlation (1: dropout does nothing; 0: it is all that is seen).

    ## Why that is bad
    The network is trained on noise of its own making: the source does not get through it.

    ## Threshold and its origin
    Below {warning} a warning, below {error} an error. Measured on fresh T5, BART, GRU and decoder-only
    networks: 0.6 to 0.9 at a dropout of 0.1, 0.3 to 0.7 at 0.3, 0.15 to 0.5 at 0.5, 0.02 to 0.3 at 0.7, 0.0 to
    0.08 at 0.9.

    ## What to do
        --model.dropout 0.1
    """

    code, name, level = "WIR018", "dropout drowns the signal", "error"
    rank = 14.2
    dropout = 0.5
    warning, error = 0.1, 0.05  # a correlation

    def check(self, prepared: TrainingSetup) -> Findings:
        rate = prepared.recipe.model.dropout
        if rate < self.dropout:
            return
        alike = signals.measure_noise(prepared.network, one_batch(prepared.train))
        if level := self.below(alike):
            yield self.finding(
                f"with model.dropout {rate} the logits of two draws have a correlation of {alike:.2f}", level
            )
