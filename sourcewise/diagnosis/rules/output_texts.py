"""The texts of the rules over outputs; their checks are in `outputs.py`."""

from __future__ import annotations

from sourcewise.diagnosis.rules.rule import Rule

# What a training shows explains what its outputs do.
TRAINED = ("TRN009", "TRN001", "TRN002", "TRN003", "TRN004", "TRN005", "TRN011", "TRN013")

EMPTY = Rule(
    code="OUT006",
    name="empty outputs",
    level="error",
    what="The share of outputs without any word, beyond the share of references that are empty too.",
    why="The model ends the text at once: the end of text is the likeliest first token for those sources.",
    threshold=(
        "Warning from 2 %, error from 20 %, both in points above the references' own share. Ours: in a set of 200 "
        "a warning takes 4 empty outputs, more than a stray one."
    ),
    cure=(
        "Check that empty targets are not in the training set, that labels are shifted once and that the decoder "
        "starts with the token it was trained with (decoder_start_token_id). Beam search favours short outputs; to "
        "bar the end of text for the first tokens or favour longer ones:\n"
        "  --generation.min_new_tokens 2 --generation.length_penalty 1.2"
    ),
    causes=("SRC001", *TRAINED),
)

SAME_OUTPUT = Rule(
    code="OUT001",
    name="same output for everything",
    level="error",
    what="The share of the commonest output, beside the share of the commonest reference.",
    why="Whatever goes in, the same comes out: mode collapse. BLEU on such a set is the BLEU of one sentence.",
    threshold=(
        "Error where one text is at least half of the outputs and at least 30 points more common than any reference. "
        "Warning where, on skewed targets, the commonest output went at least 80 % of the way from the commonest "
        "reference's share to 100 % (and at least 5 points). Ours; relative, so that a set with two labels is not a "
        "collapse. Of several references of one source the one that was said counts; where the length limit cuts the "
        "outputs (OUT007), references are cut alike."
    ),
    cure=(
        "If SRC001 is found too, the source does not reach the decoder: start there. If not, the targets are likely "
        "skewed: train longer, with a loss that wants the own source likelier than another's, and compare greedy "
        "search with beams (a large beam collapses first):\n"
        "  --train.contrastive 0.3\n"
        "  --generation.beams 1"
    ),
    causes=(
        "DAT018",
        "WIR020",
        "DAT002",
        "DAT004",
        "DAT005",
        "DAT007",
        "DAT012",
        "DAT014",
        "DAT015",
        "WIR018",
        "WIR019",
        "SRC001",
        "OUT006",
        *TRAINED,
    ),
)

FEW_DISTINCT = Rule(
    code="OUT002",
    name="few distinct outputs",
    level="error",
    what=(
        "The variety of the outputs as a share of the references' own: distinct texts, or the effective number of "
        "texts (exp of the entropy), whichever speaks more for the model. The effective number keeps a classifier "
        "that never gives its rarest labels from being called collapsed. Where source texts are known each source "
        "counts once, and of several references that it has, the one that was said."
    ),
    why="Many sources share an output: the model tells groups of sources apart, not sources.",
    threshold=(
        "Below 50 % an error (mode collapse), below 70 % a warning: the bands of the verdict of `sourcewise evaluate`."
    ),
    cure=(
        "Train longer before changing anything if the loss still falls. Then look at how much of the source "
        "survives: fewer frames a slot (--model.bridge.stride), more latents (--model.bridge.latents), longer "
        "sources (--data.max_source, --data.max_frames)."
    ),
    causes=("DAT018", "WIR020", "DAT015", "SRC001", "OUT006", "OUT001"),
)

GENERIC = Rule(
    code="OUT003",
    name="generic phrases",
    level="error",
    what="The phrase of three words that most outputs share, by how many more outputs than references contain it.",
    why=(
        "Outputs differ in a word or two and share a frame ('I am going to show you how to ...'): the model falls "
        "back on what is frequent instead of what was said. Distinct outputs alone do not show it."
    ),
    threshold=(
        "Warning from 25 points more outputs than references, error from 50. Ours: one sentence frame in a quarter "
        "of all outputs, beyond what the references themselves do."
    ),
    cure=(
        "Usually under-training or a source that is read only in part: see the source bits, train longer, and give "
        "the decoder less to lean on:\n"
        "  --train.label_smoothing 0.1 --model.dropout 0.2"
    ),
    causes=("SRC001", "OUT001", "OUT002"),
)

COPIES_SOURCE = Rule(
    code="OUT008",
    name="copies its source",
    level="error",
    what=(
        "The share of outputs that are one stretch of their source's words (half of them or more, case ignored), "
        "beyond the share of references that are. Text sources only."
    ),
    why="The encoder is read but the task was not learned: an untranslated sentence is copied through.",
    threshold="Warning from 10 points more copies than the references have, error from 50. Ours.",
    cure=(
        "Check that source and target are not the same column, that the training set has no pairs whose target is "
        "the source, and that the task prefix at evaluation is the one used in training (--data.train.prefix, "
        "--data.test.prefix)."
    ),
    causes=("DAT016", "DAT017"),
)

REPETITION = Rule(
    code="OUT004",
    name="repetition",
    level="error",
    what=(
        "The share of outputs in which a phrase comes 3 times or more in direct succession (or 1 to 8 characters 8 "
        "times or more), at least 2 times more than any phrase of that length does in the reference."
    ),
    why="The decoder is caught in a loop: what it has just said makes the same thing likeliest again.",
    threshold=(
        "Warning from 10 % of the outputs, error from 30 %. Ours; what references repeat themselves is not counted. "
        "The lower end of the share's one-sided 95 % interval (Wilson 1927) must be there: of 60 outputs 10 for a "
        "warning, of 1,000 116. A note from 5 %: a training that is not over has some."
    ),
    cure=(
        "A model that is trained enough seldom loops: train longer first. At generation, beams and blocking help "
        "(not where targets repeat, as digit strings do):\n"
        "  --generation.beams 4 --generation.no_repeat_ngram 3"
    ),
    causes=("DAT018", "WIR020", "SRC001", "OUT001", "OUT002", "TRN014"),
)

ENDLESS = Rule(
    code="OUT007",
    name="endless outputs",
    level="error",
    what="The share of outputs that reached the length limit without an end of text.",
    why="They are cut, not finished: BLEU counts the surplus as errors, and generation takes as long as it can.",
    threshold=(
        "Warning from 10 %, error from 30 %, a note from 5 %: the bounds of repetition (OUT004), which is what most "
        "outputs that do not end have come to, held against the same interval. Where those that reached it (all "
        "outputs, where it is not known which) have less than 1.1 times their references' characters the limit is too "
        "low rather than the outputs endless: at most a warning."
    ),
    cure=(
        "The end of text was not learned: check that the tokenizer ends every target with it, that -100 covers "
        "padding and not the end of text (where both share an id, masking by id masks both), and that targets are "
        "not cut in training:\n"
        "  --data.max_target 256"
    ),
    causes=("DAT018", "WIR020", "DAT007", "DAT016", "DAT017", "WIR009", "SRC001", "OUT001", "OUT004", "TRN014"),
)

LENGTH = Rule(
    code="OUT005",
    name="too short or too long",
    level="error",
    what="Words of all outputs over words of all references, and the spread of both lengths.",
    why="Short outputs leave things out and pay BLEU's brevity penalty; long ones add what was not said.",
    threshold=(
        "Ratio below 0.7 or above 1.5 a warning, below 0.4 or above 2.5 an error. BLEU's brevity penalty exp(1 - "
        "1/ratio) takes 35 % of the score at 0.7 and 78 % at 0.4; at 1.5 a third of the words is surplus. Also a "
        "warning: output lengths that vary less than a quarter of the references' (where those vary by a word or "
        "more)."
    ),
    cure=(
        "Check that targets are not cut (--data.max_target) and that outputs are not (--generation.max_new_tokens, "
        "see OUT007). Then shift the search:\n"
        "  --generation.length_penalty 1.2      longer; below 1 shorter"
    ),
    causes=("DAT007", "DAT016", "DAT017", "SRC001", "OUT006", "OUT001", "OUT004", "OUT007"),
)

# Causes before symptoms.
RULES = (EMPTY, SAME_OUTPUT, FEW_DISTINCT, GENERIC, COPIES_SOURCE, REPETITION, ENDLESS, LENGTH)
