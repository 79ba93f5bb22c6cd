"""The texts of the rules over how a trained network reads; their checks are in `reading.py`."""

from __future__ import annotations

from sourcewise.diagnosis.rules.rule import Rule

STILL = 0.05  # of its weight that the head which moves most has elsewhere than on average
FIXED = 0.9  # of its weight that the least fixed head has on one slot
ALIKE = 0.02  # distance of a memory's vectors from their mean, over their size
HEAD = 3  # target tokens that are the first ones
OPEN = 0.5  # nats a token from which on there is something left to be read
FIRST_ONLY = 0.1  # of the first tokens' source bits
LONG_LOST = 0.25  # of the short sources' source bits

MEASURED = (
    "Measured on 15 trained networks that read (T5, recurrent and decoder-only; digits, spoken digits, dates, "
    "Multi30k, conversations; from 30 steps to the end)"
)

MEMORY_ALIKE = Rule(
    code="MEM001",
    name="memory alike across examples",
    level="error",
    what=(
        "How far the encoder's outputs at the same place of different examples are from their mean, as a share of "
        "their own size (root mean squares; one batch)."
    ),
    why=(
        "The decoder gets the same memory whatever the source: no attention and no training of the decoder can read "
        "what is not in it."
    ),
    threshold=(
        f"Below {ALIKE}. {MEASURED}: 0.58 to 0.87; 0.11 after 30 steps over digits, when nothing is read yet. bf16 "
        "rounds a vector by 0.004 of its size: what is hardly larger is noise to whoever reads it."
    ),
    cure=(
        "Look from the source on: are the features different (DAT011, DAT012), are the bridge's weights zero, does the "
        "mask hide all slots, has the encoder diverged? Then train from before it happened, with a lower rate.\n"
        "  --train.learning_rate 3e-4 --train.clip 1.0"
    ),
    causes=("DAT001", "DAT002", "DAT011", "DAT012", "WIR001", "WIR002", "WIR003", "WIR005", "WIR014"),
)

SLOTS_ALIKE = Rule(
    code="MEM002",
    name="memory alike across positions",
    level="warning",
    what=(
        "How far the encoder's outputs at different places of one example are from their mean, as a share of their own "
        "size (root mean squares; one batch)."
    ),
    why="The memory is one vector, repeated: cross-attention has nothing to choose from; order and detail are lost.",
    threshold=f"Below {ALIKE}, of memories of 4 slots or more. {MEASURED}: 0.36 (Perceiver) to 0.95, and 0.11 early.",
    cure=(
        "A bridge that keeps time apart, and positions in it:\n"
        "  --model.bridge.kind convolution --model.bridge.positions true\n"
        "With text, look for an encoder that averages over positions, or one too deep to have been trained."
    ),
    causes=("MEM001", "DAT011", "WIR001", "WIR002", "WIR013"),
)

ATTENTION_STILL = Rule(
    code="ATT001",
    name="cross-attention never moves",
    level="warning",
    what=(
        "How much of a head's cross-attention is, token by token, elsewhere than where it is on average over the "
        "target (half the absolute difference; 0 to 1), for the head of all layers that moves most."
    ),
    why=(
        "Every target token reads the same mixture of the source. The decoder can know what the source is about, not "
        "which part of it comes next: words are lost, repeated, or in the order that targets usually have."
    ),
    threshold=(
        f"Below {STILL}. {MEASURED}: 0.36 to 0.80. Fresh networks have 0.008 to 0.02, and 0.04 after 30 steps over "
        "digits: it is where training begins."
    ),
    cure=(
        "Train longer; where it stays, give memory and decoder positions to find their place by, and an auxiliary loss "
        "that aligns the memory with the targets; where both go the same way, one on attention off the diagonal.\n"
        "  --model.bridge.positions true --model.decoder_positions true --train.ctc_weight 0.5\n"
        "  --train.guided_attention 1"
    ),
    causes=(
        "DAT018",
        "WIR020",
        "DAT003",
        "MEM001",
        "MEM002",
        "SRC001",
        "WIR001",
        "WIR003",
        "WIR011",
        "WIR012",
        "WIR014",
    ),
)

ATTENTION_FIXED = Rule(
    code="ATT002",
    name="cross-attention on one position",
    level="warning",
    what=(
        "The share of a head's cross-attention, over a whole target, that is on the one slot it reads most; for the "
        "head of all layers that is least fixed."
    ),
    why="All heads look at one slot, often the first or the end of text: the rest of the source is never read.",
    threshold=f"{FIXED} and above, of sources of 4 slots and targets of 4 tokens or more. {MEASURED}: 0.06 to 0.36.",
    cure=(
        "Look whether the mask hides all slots but one, and whether one slot's vector is far larger than the others "
        "(WIR002, DAT013). Then train with a lower rate, or with dropout.\n"
        "  --train.learning_rate 3e-4 --model.dropout 0.1"
    ),
    causes=("DAT013", "DAT014", "MEM001", "SRC001", "WIR001", "WIR002", "WIR005", "WIR011", "WIR014"),
)

FIRST_TOKENS = Rule(
    code="SRC002",
    name="source read by the first tokens only",
    level="warning",
    what=(
        f"Source bits of the first {HEAD} tokens of the targets, and of those after them, with 95 % intervals over up "
        "to 240 examples."
    ),
    why=(
        "The decoder takes a hint of the source to begin with and then goes on by itself: fluent outputs that begin "
        "right and end as targets usually do."
    ),
    threshold=(
        "The upper end of the later tokens' interval is below 0.1 bits and a tenth of the first ones' lower end, while "
        f"the later ones' loss is {OPEN} nats or more: there is something left to read. {MEASURED}: at least 0.36 of "
        "the first ones' bits, but in conversations, whose replies are certain (0.02 nats) after their beginning."
    ),
    cure=(
        "Make the target's own past worth less, so that the source is worth more:\n"
        "  --train.word_dropout 0.2 --train.scheduled_sampling linear\n"
        "With features, positions and an aligning loss:\n"
        "  --model.decoder_positions true --train.ctc_weight 0.5"
    ),
    causes=("DAT003", "DAT017", "MEM001", "MEM002", "ATT001", "ATT002", "WIR006", "WIR007", "WIR019"),
)

LONG_LOST_RULE = Rule(
    code="SRC003",
    name="long sources are not read",
    level="warning",
    what="Source bits of the quarter of examples with the longest sources, and of that with the shortest.",
    why="What is long is cut, squeezed into too few slots, or too seldom seen: the outputs for it are guesses.",
    threshold=(
        f"The upper end of the longest quarter's 95 % interval is below {LONG_LOST} of the lower end of the shortest "
        f"quarter's, with a higher loss of at least {OPEN} nats. {MEASURED}: at least 0.46 of the short ones' bits "
        "(0.60 by a recurrent network with one fixed vector, which suffers most), but where the loss is near 0."
    ),
    cure=(
        "See whether sources are cut (DAT007), then give them room: more latents, or fewer frames a slot; and "
        "attention instead of one vector.\n"
        "  --data.max_source 512 --model.bridge.kind convolution --model.bridge.stride 4"
    ),
    causes=("DAT007", "DAT003", "ATT002", "MEM002"),
)

# Causes before symptoms.
RULES = (MEMORY_ALIKE, SLOTS_ALIKE, FIRST_TOKENS, LONG_LOST_RULE, ATTENTION_FIXED, ATTENTION_STILL)
