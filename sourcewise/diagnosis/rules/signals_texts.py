"""The texts of the rules over what runs through a network; their checks are in `signals.py`."""

from __future__ import annotations

from sourcewise.diagnosis.rules.rule import Rule

MEASURED = (
    "Measured on 20 fresh networks (T5 tied, untied and 12 blocks deep, BART, GRU and LSTM with and without "
    "attention, decoder-only; digits through each bridge)"
)

FADING = Rule(
    code="WIR015",
    name="gradients fade along the source",
    level="error",
    what=(
        "The gradient of the loss by the vectors that enter the encoder (or the bridge's slots), over the four longest "
        "sources: its root mean square in each eighth of a source, the weakest beside the strongest."
    ),
    why=(
        "What lies there cannot be learned: a recurrent network loses a factor a step (Bengio et al. 1994), and a "
        "vector that stands for all of a long source holds its ends. What comes out fits the ends of the source only."
    ),
    threshold=(
        "Below 1e-4 a warning, below 1e-6 an error. The weights are shared by all positions, and noise falls with the "
        "root of what is averaged: to stand out from the rest a share of 1e-4 takes 1e8 target tokens, more than a "
        "small training sees; one of 1e-6 takes 1e12, more than any. Each is a level less where a recipe asks for one "
        "vector (WIR019): such networks are so, and only their longest sources suffer. Measured on fresh ones: with "
        "attention, T5 and decoder-only 0.4 and more over up to 600 slots; one vector of a GRU 1e-5 over 77 slots and "
        "1e-9 over 155, of an LSTM 1e-3 and 1e-5. Sources of fewer than 16 slots are not judged."
    ),
    cure="Attention, which reaches every slot in one step, or shorter sources:\n"
    "  --model.attention bahdanau\n  --model.family t5",
    causes=("WIR001", "WIR002", "WIR013"),
)

ACTIVATIONS = Rule(
    code="WIR016",
    name="size of the activations",
    level="error",
    what="The root mean square of what each block gives on one batch, before the first step; blocks of fresh networks.",
    why=(
        "Values that grow from block to block overflow or saturate what follows; values that are all but zero carry "
        "no source. Normalisation hides both from the loss, not from the gradient."
    ),
    threshold=(
        "Above 50 a warning, above 1,000 an error; below 0.01 a warning. " + MEASURED + ": 0.2 to 5.4, at most four "
        "times from the first block to the last."
    ),
    cure=(
        "Initialise as the family does: a fresh network of a recipe is, unless its weights were changed afterwards. Or "
        "draw the matrices by another rule:\n"
        "  --model.initialization xavier"
    ),
    causes=("WIR001",),
)

NOT_BY_HEART = Rule(
    code="WIR017",
    name="one batch cannot be learned by heart",
    level="error",
    what=(
        "The loss of a copy that is trained on six examples for up to 40 steps at 3e-3, without dropout, beside the "
        "entropy of the frequencies of their own target tokens. Not tried where it would take more than seconds."
    ),
    why="What cannot learn six examples by heart will not learn a set; and what is wrong is the wiring, not the data.",
    threshold=(
        "No less than 90 % of that entropy, and a fall of less than 5 % over the last quarter of the steps. "
        + MEASURED
        + ": at most 58 % (a BART of width 32), most below 25 %; a width of 16 is slower, and still falls."
    ),
    cure="Look at the findings above; if there are none: initialisation, activations, saturated or missing norms.",
    causes=tuple(f"WIR{n:03d}" for n in (1, 2, 3, 4, 5, 7, 11, 12, 13, 16)),
)

DROPOUT = Rule(
    code="WIR018",
    name="dropout drowns the signal",
    level="error",
    what=(
        "With dropout of 0.5 and more: how alike the logits of one batch are for two draws of it, as a correlation (1: "
        "dropout does nothing; 0: it is all that is seen)."
    ),
    why="The network is trained on noise of its own making: the source does not get through it.",
    threshold=(
        "Below 0.1 a warning, below 0.05 an error. Measured on fresh T5, BART, GRU and decoder-only networks: 0.6 to "
        "0.9 at a dropout of 0.1, 0.3 to 0.7 at 0.3, 0.15 to 0.5 at 0.5, 0.02 to 0.3 at 0.7, 0.0 to 0.08 at 0.9."
    ),
    cure="  --model.dropout 0.1",
)

ONE_VECTOR = Rule(
    code="WIR019",
    name="one vector for a long source",
    level="warning",
    what="How many slots the memory of a source has, beside the length of sources and targets.",
    why=(
        "All that the target says must be in that one vector from the start; it holds a gist, and the more is to be "
        "told the less of it is right (Cho et al. 2014)."
    ),
    threshold=(
        "One slot for sources of 16 and more and targets of 4 tokens and more on average. Ours; a note where the "
        "recipe asks for it: a recurrent network with model.attention none."
    ),
    cure="Attention over all of the source:\n  --model.attention bahdanau\n  --model.family t5",
)

# Causes before symptoms.
RULES = (ACTIVATIONS, DROPOUT, ONE_VECTOR, FADING, NOT_BY_HEART)
