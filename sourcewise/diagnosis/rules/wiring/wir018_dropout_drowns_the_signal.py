from sourcewise.diagnosis.measures import signals
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class DropoutDrownsTheSignal(Rule[Wiring]):
    """With dropout of {dropout} and more: how alike the logits of one batch are for two draws of it, as a correlation
    (1: dropout does nothing; 0: it is all that is seen).
    ## Why that is bad
    The network is trained on noise of its own making: the source does not get through it.
    ## Threshold and its origin
    Below {warning} a warning, below {error} an error. Measured on fresh T5, BART, GRU and decoder-only networks: 0.6 to
    0.9 at a dropout of 0.1, 0.3 to 0.7 at 0.3, 0.15 to 0.5 at 0.5, 0.02 to 0.3 at 0.7, 0.0 to 0.08 at 0.9.
    """

    code, name, level, rank = "WIR018", "dropout drowns the signal", "error", 14.2
    dropout = 0.5
    warning, error = 0.1, 0.05  # a correlation
    cures = Cure("", {"model.dropout": 0.1}, instead="Less dropout in the configuration of the model.")

    def check(self, wiring: Wiring) -> Findings:
        if (inside := wiring.inside) is None:
            return
        name, rate = inside.plan.dropout or ("", 0.0)
        if rate < self.dropout:
            return
        alike = signals.measure_noise(inside.network, inside.batch)
        if level := self.below(alike):
            evidence = f"with {name} {rate} the logits of two draws have a correlation of {alike:.2f}"
            yield self.finding(evidence, level)
