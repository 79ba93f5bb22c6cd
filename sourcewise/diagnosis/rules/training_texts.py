"""The texts of the rules over the course of a training; their checks are in `training.py` and `training_steps.py`."""

from __future__ import annotations

from sourcewise.diagnosis.rules.rule import Rule

MEASURED = (
    "Measured on healthy trainings of digits, dates, fsdd and Multi30k (T5 of two sizes, BART, GRU with and without "
    "attention, decoder-only)"
)

NOT_FINITE = Rule(
    code="TRN001",
    name="not finite in training",
    level="error",
    what=(
        "Whether the loss of a step, the norm of its gradient and the weights after it are finite numbers. Where one "
        "is not, the tensor, the frame of features, or the part of the network that overflows is named. In a Trainer "
        "the weights are looked at after such a step, at each evaluation and at the end."
    ),
    why=(
        "A NaN is in every weight after the next step. Our own training stops before that, and its last state is kept. "
        "Hugging Face's Trainer goes on, and logs 0.0 or the mean of the steps before (logging_nan_inf_filter): what "
        "it trains from there on is lost. A batch of which no label counts has no loss to speak of, and does no harm "
        "where its gradient is finite."
    ),
    threshold=(
        "Any at all. Steps that fp16's loss scaling leaves out are not counted. In a Trainer the course is then "
        "judged by what came before, and a network of such weights is looked at no longer."
    ),
    cure=(
        "Where norms grew before, a lower rate or a longer warm-up; where they did not, look at that batch's data; "
        "with bf16, try fp32 once.\n"
        "  --train.learning_rate 3e-4 --train.warmup_steps 1000\n"
        "  --train.precision fp32"
    ),
    causes=("DAT001", "DAT013", "DAT014", "WIR001", "WIR002", "WIR014", "TRN009", "TRN002"),
)

DIVERGED = Rule(
    code="TRN002",
    name="the loss rose and stayed",
    level="error",
    what=(
        "The training loss in tenths of the lines logged so far (the median of each): how far the last one is above "
        "the lowest, beside how far the loss had fallen before."
    ),
    why="The steps are so large that what was learned is lost; further training seldom gets it back.",
    threshold=(
        "At least 0.5 nats, and a quarter of what had been gained (warning) or half of it (error). "
        + MEASURED
        + ": below 0.1 nats. Not judged with scheduled sampling, where the loss rises by design."
    ),
    cure="A lower rate, and a warm-up that gets there slowly:\n  --train.learning_rate 3e-4 --train.warmup_steps 1000",
    causes=("DAT001", "DAT013", "DAT014", "WIR001", "WIR002", "WIR014", "TRN009"),
)

NOT_FALLING = Rule(
    code="TRN003",
    name="the loss does not fall",
    level="error",
    what="The training loss of the first line logged and the median of the last three, once the warm-up is over.",
    why="Nothing is learned: the rate is far too low, the weights are frozen, or no gradient reaches them.",
    threshold=(
        "A fall of less than 5 %, from 100 steps on, at a loss that is not below what the tokens' frequencies alone "
        "give. " + MEASURED + ": 28 % and more after 100 steps."
    ),
    cure="A higher rate (about 1e-3 from scratch), nothing frozen:\n  --train.learning_rate 1e-3 --train.freeze '[]'",
    causes=(
        "WIR001",
        "WIR002",
        "WIR003",
        "WIR012",
        "WIR013",
        "WIR014",
        "WIR016",
        "WIR017",
        "TRN009",
        "TRN006",
        "TRN002",
    ),
)

TOKENS_ALONE = Rule(
    code="TRN004",
    name="only the tokens' frequencies are learned",
    level="error",
    what=(
        "The training loss beside the entropy of the target tokens' frequencies: the loss of a model that says "
        "frequent tokens often and knows neither its source nor the words before."
    ),
    why="Every network gets there in its first hundred steps, through the output bias or embedding alone.",
    threshold=(
        "At most 3 % below that entropy, when the weights had time to move by 0.3 of their size (update ratios "
        "added up) or 1,000 steps are over; an error at the end of the training, before it a warning, from a fifth of "
        "it and 300 steps on. Digits and dates cross it after 60 to 150 steps; speech rests there for longer."
    ),
    cure=(
        "The states that reach the output matrix hardly differ: look for vanishing gradients, a rate that is too "
        "high, and dropout.\n"
        "  --train.learning_rate 3e-4 --model.dropout 0.1"
    ),
    causes=(
        "DAT018",
        "WIR020",
        *("DAT013", "WIR001", "WIR002", "WIR003", "WIR012", "WIR013", "WIR014", "WIR016", "WIR017", "WIR018"),
        *("TRN009", "TRN006", "TRN003"),
    ),
)

LANGUAGE_MODEL = Rule(
    code="TRN005",
    name="it has become a language model",
    level="error",
    what=(
        "The 95 % interval of the source bits at the evaluations in training, on sets of which at least half of the "
        "references are different."
    ),
    why=(
        "The loss falls because the decoder learns which words follow which. That is the easy part; if the source "
        "does not help by then, nothing pulls the decoder towards it any more."
    ),
    threshold=(
        "The upper end below 0.1 bits a token: a warning at the second evaluation in a row after a fifth of the "
        "training and 300 steps; an error at its end, unless source bits still rise (TRN014). "
        + MEASURED
        + ": 0.3 to 8 at the first evaluation. Trainings that come off this plateau by themselves are why it is a "
        "warning at first."
    ),
    cure=(
        "See whether the source can help at all: sources and targets must be of the same row. Then make it easier to "
        "read (fewer frames a slot, more slots), let the loss ask for it, and make the decoder's own way harder:\n"
        "  --train.contrastive 0.3 --train.ctc_weight 0.3 --train.word_dropout 0.3"
    ),
    causes=(
        "DAT018",
        "WIR020",
        *("DAT002", "DAT003", "DAT004", "DAT006", "DAT007", "DAT010", "DAT011", "DAT012", "DAT013", "DAT014", "DAT015"),
        "DAT017",
        *("WIR001", "WIR002", "WIR003", "WIR004", "WIR005", "WIR011", "WIR012", "WIR013", "WIR014", "WIR015", "WIR016"),
        *("WIR017", "WIR018", "WIR019", "TRN009", "TRN006", "TRN002", "TRN003", "TRN004", "MEM001"),
    ),
)

FADING = Rule(
    code="TRN006",
    name="a part gets no gradient",
    level="error",
    what="The norm of the gradient of each part (embedding, encoder, decoder, bridge) beside the norm of all of it.",
    why="What gets no gradient stays as it was drawn. Of the encoder or the bridge that means: the source is noise.",
    threshold=(
        "Below 1e-4 in the median line a warning, below 1e-6 an error. " + MEASURED + ": 0.02 and more (embeddings). "
        "Frozen parts, and the encoder that the route bypass goes past, are left out."
    ),
    cure="Look between that part and the loss for detach(), saturated activations, a mask that hides everything.",
    causes=("WIR001", "WIR002", "WIR004", "WIR011", "WIR012", "WIR013", "WIR014"),
)

EXPLODING = Rule(
    code="TRN007",
    name="large gradients",
    level="warning",
    what="The norm of the gradient before clipping, in nats a target token: its median, and how it grew.",
    why=(
        "Clipping keeps them from doing harm at once, but says that something is far out of scale, and what does the "
        "work is then whatever shouts loudest."
    ),
    threshold="A median above 100, or 100 times what it was in the first half. " + MEASURED + ": 0.3 to 10.",
    cure="Standardised features, an initialisation as the family's own, a lower rate:\n"
    "  --model.bridge.normalize true --train.learning_rate 3e-4",
    causes=("DAT013", "DAT014", "WIR002", "WIR014", "WIR016", "TRN009"),
)

CLIPPED = Rule(
    code="TRN008",
    name="always clipped",
    level="note",
    what="The share of steps whose gradient was clipped, and the median norm beside the limit.",
    why=(
        "The limit, not the gradient, then sets the size of what AdamW averages. AdamW divides by that size again, so "
        "it seldom hurts; a batch ten times as hard counts no more than others."
    ),
    threshold="99 % of the steps, at a median norm of 10 times the limit. Healthy ones are clipped often, to 1 from 2.",
    cure="Nothing, if the loss falls. Else a limit in the range of the norms:\n  --train.clip 10",
    causes=("TRN007",),
)

MOVES = Rule(
    code="TRN009",
    name="size of the updates",
    level="error",
    what=(
        "How far a step near the peak rate moves the weights, as a share of their size: the median over the tensors of "
        "each part, and all these steps added up."
    ),
    why=(
        "Steps as large as the weights leave nothing of what was learned before. Steps so small that all of them "
        "together would not change random weights by a twentieth leave them random."
    ),
    threshold=(
        "Above 0.3 a warning, above 1 an error. Too small: from random weights, at the end, a sum below 0.05 of the "
        "part that moves most; an error where a step is below 1e-4. Measured at a rate of 1e-3 on digits and dates: "
        "1e-3 to 4e-3 a step, the sum 0.3 after 200 steps."
    ),
    cure="A lower rate; from random weights about 1e-3, fine-tuning about 5e-5:\n  --train.learning_rate 1e-3",
    causes=("WIR003", "WIR012", "WIR014"),
)

OVERFITTED = Rule(
    code="TRN010",
    name="over-fitting",
    level="warning",
    what=(
        "The validation loss after its lowest evaluation, while the training loss goes on falling; and both at the end."
    ),
    why="From there on the training set is learned by heart; the time is lost, and the last checkpoint is worse.",
    threshold=(
        "A rise of 10 % and of 0.1 nats, at least two evaluations after the lowest; a note where the figure that "
        "picks the best checkpoint still got better afterwards, as BLEU often does. Also a validation loss of three "
        "times the training loss, and 0.5 nats above it. Ours; in healthy trainings with dropout the training loss is "
        "the higher one."
    ),
    cure=(
        "More data, or less to learn it by heart with; checkpoints/best is from before, so nothing is lost but time:\n"
        "  --model.dropout 0.3 --train.label_smoothing 0.1\n"
        "Of features, or of texts, each example anew every time:\n"
        "  --train.augment.time_masks 2 --train.augment.frequency_masks 2\n"
        "  --train.text_noise.drop 0.1 --train.text_noise.swap 0.1"
    ),
    causes=("DAT018", "WIR020", "DAT003", "DAT010", "DAT015"),
)

OUT_OF_STEP = Rule(
    code="TRN011",
    name="good when led, bad when free",
    level="error",
    what=(
        "The share of outputs that are exactly right, beside the share that the validation loss promises: targets of T "
        "tokens at L nats a token have the probability exp(-L T) each on average, or more (Jensen), and free running "
        "draws from the same probabilities."
    ),
    why=(
        "The loss is measured with the true words before each word. If outputs are far worse than it promises, "
        "generation does not do what training did: another start token, a mask that lets the future be seen, labels "
        "shifted otherwise, a limit on length."
    ),
    threshold=(
        "Fewer than half of what is promised a warning, fewer than a quarter an error; and fewer by more than four "
        "standard deviations, and by 5 points. " + MEASURED + ": never below what is promised."
    ),
    cure=(
        "Compare how decoder inputs are made in training and in generation, and look at the length limit:\n"
        "  --generation.max_new_tokens 256\n"
        "Where both are the same, and only long outputs fail, feed the decoder its own words while it learns:\n"
        "  --train.scheduled_sampling linear"
    ),
    causes=("DAT006", "DAT007", "WIR021", "WIR006", "WIR007", "WIR008", "WIR009", "WIR010"),
)

DROPOUT = Rule(
    code="TRN012",
    name="dropout drowns the signal",
    level="warning",
    what=(
        "How far the training loss (with dropout) and the validation loss (without) are below the entropy of the "
        "target tokens' frequencies."
    ),
    why="What the network knows does not get through its own noise: it learns from a third of its signal, or less.",
    threshold=(
        "At a dropout of 0.3 and more: training shows less than a third of what validation does, which is at least "
        "0.5 nats. " + MEASURED + ": at "
        "dropout 0.1 to 0.3 four fifths and more."
    ),
    cure="  --model.dropout 0.1",
    causes=("WIR018",),
)

TOO_SHORT = Rule(
    code="TRN013",
    name="too short to judge",
    level="note",
    what="The steps of a training from random weights, and how far their updates together could move the weights.",
    why="What has hardly left its random initialisation says nothing yet about data, wiring or rate.",
    threshold="Fewer than 300 steps, whose updates add up to less than a tenth of the weights, or fewer than 50.",
    cure="More steps:\n  --train.steps 1000",
)

STILL_LEARNING = Rule(
    code="TRN014",
    name="still learning at its end",
    level="note",
    what=(
        "The validation loss and the source bits at the end of a training from random weights, beside those after two "
        "thirds of it."
    ),
    why=(
        "What half-trained networks do is no illness: those that become healthy repeat themselves for a while, and do "
        "not end. So of such a training loops and what comes of them (OUT003, OUT004, OUT005, OUT007) are notes and "
        "other poor outputs a level lower, if its source is read or its source bits rise. While a training goes on, "
        "what it has not learned yet (of outputs, source use, memory, attention) is a note: as long as the loss falls "
        "by a twentieth or source bits rise by a tenth over the last third of its steps, and before a fifth of it and "
        "300 steps. So it is of one that ended before 300 steps, if it got better or its source bits are above 0."
    ),
    threshold=(
        "A loss that is lower by a tenth and by 0.05 nats, or source bits that rose by a tenth, and by 0.05 or beyond "
        "their 95 % interval. Digits that end at a WER of 0.9 lost 43 % of their loss in that third, those that end at "
        "0.07 as many: whether it is good enough, the loss alone does not say."
    ),
    cure="More steps, which also keep the rate up for longer:\n  --train.steps 1000",
)

# Causes before symptoms.
RULES = (
    MOVES, FADING, EXPLODING, NOT_FALLING, DIVERGED, NOT_FINITE, OUT_OF_STEP, TOKENS_ALONE, DROPOUT, TOO_SHORT,
    STILL_LEARNING, LANGUAGE_MODEL, CLIPPED, OVERFITTED,
)  # fmt: skip
