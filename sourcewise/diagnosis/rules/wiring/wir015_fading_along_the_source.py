from sourcewise.diagnosis.measures import signals
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class FadingAlongTheSource(Rule[Wiring]):
    """The gradient of the loss by the vectors that enter the encoder (or the bridge's slots), over the four longest
    sources: its root mean square in each eighth of a source, the weakest beside the strongest.
    ## Why that is bad
    What lies there cannot be learned: a recurrent network loses a factor a step (Bengio et al. 1994), and a vector that
    stands for all of a long source holds its ends. What comes out fits the ends of the source only.
    ## Threshold and its origin
    Below {warning} a warning, below {error} an error. The weights are shared by all positions, and noise falls with
    the root of what is averaged: to stand out from the rest a share of {warning} takes 1e8 target tokens, more than
    a small training sees; one of {error} takes 1e12, more than any. Each is a level less where a recipe asks for
    one vector (WIR019): such networks are so, and only their longest sources suffer; so it is in a training in
    plain PyTorch, but below {hopeless} an error. Measured on fresh ones: with attention, T5 and decoder-only 0.4
    and more over up to 600 slots; one vector of a GRU 1e-5 over 77 slots and 1e-9 over 155, of an LSTM 1e-3 and
    1e-5. Sources of fewer than {fewest} slots are not judged.
    """

    code, name, level = "WIR015", "gradients fade along the source", "error"
    explained_by = "WIR001 WIR002 WIR013"
    warning, error, hopeless = 1e-4, 1e-6, 1e-12  # of the strongest eighth's gradient
    fewest = signals.FEWEST  # memory positions
    cures = Cure(
        "Attention, which reaches every slot in one step, or shorter sources:",
        {"model.attention": "bahdanau"},
        {"model.family": "t5"},
    )

    def seen(self, wiring: Wiring) -> tuple[signals.Fading | None, bool]:
        """The gradients along the sources, and whether the decoder is known to attend to these."""
        if wiring.observed is not None:
            return wiring.observed.fading, False
        if (inside := wiring.inside) is None:
            return None, False
        fading = signals.measure_fading(inside.network, signals.long_batch(inside.examples))
        return fading, inside.network.attends

    def check(self, wiring: Wiring) -> Findings:
        fading, attends = self.seen(wiring)
        if fading is None or not max(fading.eighths) > 0:
            return
        share = min(fading.eighths) / max(fading.eighths)
        level = self.below(share)
        if level is not None:
            weakest = fading.eighths.index(min(fading.eighths)) + 1
            evidence = f"in sources of {fading.slots} slots the {weakest}th eighth has {share:.1e} of the strongest's"
            if not attends and (wiring.observed is None or share >= self.hopeless):
                level = "warning" if level == "error" else "note"
            yield self.finding(f"{evidence} gradient", level)
