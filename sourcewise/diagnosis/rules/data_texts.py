"""The texts of the rules over training data; their checks are in `data.py`, `pairing.py` and `data_features.py`."""

from __future__ import annotations

from sourcewise.diagnosis.rules.rule import Rule

REFUSED = Rule(
    code="DAT001",
    name="data that cannot be trained on",
    level="error",
    what="What the readers refuse: NaN or infinity in features, frames that disagree with the manifest, empty targets.",
    why="One NaN makes the loss and then every weight NaN; a matrix of another length is a matrix of another example.",
    threshold="One such example is enough: nothing is trained before it is mended.",
    cure="Extract the features of that example again, or take its line out of the file; then look at the others.",
)

SAME_SOURCE = Rule(
    code="DAT002",
    name="same source for many targets",
    level="error",
    what="The share of examples that have the commonest source text (a task prefix alone is an empty source).",
    why="Where sources are empty or all alike nothing tells the targets apart: only a language model can be learned.",
    threshold=(
        "Warning from 5 % of the examples, error from 50 %, where these have at least 10 different targets. Ours: a "
        "set of questions may well repeat one, half of a set may not."
    ),
    cure=(
        "Check that the source column is the one meant, and that its cells are filled:\n"
        "  --data.train.source COLUMN --data.train.target COLUMN"
    ),
)

MISALIGNED = Rule(
    code="DAT003",
    name="sources and targets do not belong together",
    level="error",
    what=(
        "How far the pairing of sources and targets stands out from shuffled pairs, in deviations of these, by what "
        "shows it most: tokens, letters and words by their place, pairs and triples of letters, letters that repeat, "
        "whole texts, lengths, what a source shares with its target; for features mean frames, of all and of each "
        "third, and their number. Each is the Hilbert-Schmidt independence criterion (Gretton et al. 2005) with its "
        "exact mean and variance over all permutations (Kazi-Aoual et al. 1995). Up to 800 examples of a set, and of "
        "each quarter of it up to 400, so that a file that slips out of step halfway is found, with the lines where."
    ),
    why=(
        "A manifest sorted otherwise than its targets, or one line too many, pairs every source with another's "
        "target. The loss still falls to that of a language model, and nothing else tells."
    ),
    threshold=(
        "Below 4 is no better than shuffled; for a quarter, while another is above 10. Also where the target of the "
        "next or previous line fits twice as well, and above 10, unless each line goes on from the one before, as in a "
        "conversation. Measured: sums, ciphers, reversed and sorted strings, translations and spellings have 4.6 to "
        "590 from 200 examples on, 175 shuffles of seven sets at most 3.8. That nothing is seen is no finding where it "
        "might not show: with fewer than 200 examples; with few different targets (labels), unless sources come "
        "again and their targets differ; with short targets, unless what hangs on two letters of the source would "
        "show. Short numbers are a warning, since arithmetic can hide. Of a validation set a warning: the training "
        "goes well, but what it is judged by, and its best checkpoint, are chance."
    ),
    cure=(
        "Look at ten pairs. Then pair them anew by id instead of by line, or find the line where one side slipped. A "
        "training on half of the set that is in step tells whether the rest is to blame:\n"
        "  --data.train.limit 2000"
    ),
    causes=("DAT002", "DAT004", "DAT011", "DAT012"),
)

IMBALANCE = (
    "A loss that wants the own source likelier than another's, and one for which what is certain counts little:\n"
    "  --train.contrastive 0.3 --train.focal 2\n"
    "To let rare tokens come more often, or weigh more, is meant for few that dominate; where many words are rare it "
    "did harm:\n"
    "  --train.resample_below 0.01\n"
    "  --train.token_weights effective_number"
)

SAME_TARGET = Rule(
    code="DAT004",
    name="one target for many sources",
    level="error",
    what="The share of examples that have the commonest target, beside how many different targets there are.",
    why="Saying it always is right that often: the loss is low before any source is read, and gives no reason to.",
    threshold=(
        "Error from 90 %, or from 50 % in a set of 10 different targets or more; warning from 80 %, or from 30 % in "
        "such a set. Ours: two labels of half of the examples each are no imbalance, and the commonest reply of a "
        "healthy chat set has 17 %."
    ),
    cure="Keep fewer of these examples. " + IMBALANCE,
)

SAME_TOKEN = Rule(
    code="DAT005",
    name="one token dominates the targets",
    level="error",
    what="The share of the commonest token among the target tokens, ends of text not counted.",
    why="A model that says nothing else is right that often, and the gradients of the others drown.",
    threshold=(
        "Warning from 50 %, error from 80 %, where the targets hold at least 5 different tokens. Ours: in six healthy "
        "sets the commonest has 7 to 18 %; strings of 0 and 1 are left alone."
    ),
    cure=(
        "Look whether the tokenizer makes one token of all that it does not know (DAT006) and whether targets are "
        "padded with a word of their own. " + IMBALANCE
    ),
    causes=("DAT004", "DAT006"),
)

LOST_CHARACTERS = Rule(
    code="DAT006",
    name="texts lost in the tokenizer",
    level="error",
    what=(
        "The share of characters that do not come back when texts are turned into ids and read again (case, spaces "
        "and Unicode's compatible forms apart), and the share of unknown tokens, of sources and of targets, up to "
        "1,000. Of up to 5,000 targets also how many do not come back exactly as written: line breaks, indents, "
        "joiners, other forms. Of the training set, and of the validation set."
    ),
    why=(
        "What the tokenizer does not know can neither be read nor said, however long the training; and no output can "
        "equal a reference that the tokenizer changes."
    ),
    threshold=(
        "Of either side: warning from 2 % of the characters, error from 20 %. Ours. A vocabulary of whole words "
        "leaves its rarest words out by design: there the bounds are 20 and 50 %. Targets that do not come back are a "
        "warning from 1 % of them, else a note; so are those of one line that lose nothing but spaces at their ends or "
        "doubled ones. Of the validation set there is no error: it is not learned from."
    ),
    cure=(
        "Take a tokenizer that was trained on this language, train one here (leave data.tokenizer out), or add what "
        "is lacking:\n"
        "  --data.add_tokens '[ß, ä]'"
    ),
    causes=("DAT015",),
)

CUT = Rule(
    code="DAT007",
    name="sources or targets cut",
    level="error",
    what=(
        "The share of examples longer than data.max_source, data.max_frames or data.max_target, and the share of all "
        "tokens or frames that is cut off; and of targets longer than generation.max_new_tokens lets outputs be. In a "
        "Trainer's data, which is ids already: sources of the largest length there is that lack the end of text, which "
        "the tokenizer gives each text, or have as many tokens as its model_max_length."
    ),
    why="What is cut off a source cannot be told; a cut target teaches to stop in the middle of a sentence.",
    threshold=(
        "Warning from 5 % of the examples, error where half of all tokens or frames are cut off. Ours. Of ids nobody "
        "knows how much is gone: there an error where half of the sources are cut, and shorter than an average target. "
        "Conversations are cut by turns, on purpose, and not counted on the source's side."
    ),
    cure="Raise the limit to the longest, or leave long examples out:",
)

LEAK = Rule(
    code="DAT008",
    name="validation examples in the training set",
    level="warning",
    what=(
        "The share of validation examples that are in the training set too: the same source text and target, or for "
        "features the same matrix. Beside it, the share whose source alone is."
    ),
    why="The figures then measure what was learned by heart; the best checkpoint is the most over-fitted one.",
    threshold=(
        "Warning from 5 % of the pairs (the sets of Multi30k share none). Ours. Sets that are the same on purpose "
        "get it too: their figures are those of the training set."
    ),
    cure="Set examples aside that are not trained on:\n  --data.valid.pairs other.tsv",
)

AMBIGUOUS = Rule(
    code="DAT009",
    name="several targets for one source",
    level="warning",
    what=(
        "The share of examples whose source text comes with different targets, and the loss that no model can get "
        "below for it: the entropy of the targets given the source, in nats a target token."
    ),
    why="One of them is said, the others count as wrong; a loss that stays there is no fault of the training.",
    threshold="Note from 1 % of the examples, warning where the loss that is left is 0.5 nats a token or more. Ours.",
    cure=(
        "Nothing, where all of them are right (paraphrases): judge by metrics that take several. Else leave the "
        "worse ones out, or give the source what tells them apart, such as more of the conversation."
    ),
    causes=("DAT002", "DAT003"),
)

DUPLICATES = Rule(
    code="DAT010",
    name="duplicate pairs",
    level="warning",
    what="The share of examples whose source and target both stand in an earlier example of their set too. Texts only.",
    why="They count more than others, and a random split of such a set puts the same pair on both sides.",
    threshold="Note from 5 %, warning from 30 %. Ours.",
    cure="Keep one of each, or give rarer sets a weight of their own (data.train.weight) instead of copies.",
)

DEAD = Rule(
    code="DAT011",
    name="dead features",
    level="error",
    what=(
        "The share of examples whose matrix is one number throughout (all zero), and of dimensions that never change, "
        "in up to 500 examples."
    ),
    why="A constant says nothing: these examples can only be learned by heart, or as a language model.",
    threshold=(
        "Error from half of the examples or where no dimension changes; warning from 1 % of the examples or half of "
        "the dimensions. A dimension is constant that deviates by less than 1e-4, as where features are standardised."
    ),
    cure="Extract the features of these examples again, and look at one matrix before training.",
)

ALIKE = Rule(
    code="DAT012",
    name="features alike across examples",
    level="error",
    what=(
        "How much the matrices of two examples of nearest length differ over the frames both have, as a share of how "
        "much the two deviate from the middle of all: 1.4 where they have nothing to do with each other. In up to 500 "
        "examples."
    ),
    why="Examples that look alike cannot be told apart; with different targets only chance can get them right.",
    threshold=(
        "Error where the median is below 0.1; warning where 5 % of the pairs differ by less than 0.001 and have "
        "different targets. Ours: on digits, fsdd and phoenix14t the medians are 1.0 to 1.4, no pair is below 0.6."
    ),
    cure="Check that the extractor was given the clip of each row, not one clip for all, and not its first frame.",
    causes=("DAT011",),
)

SCALE = Rule(
    code="DAT013",
    name="features on another scale",
    level="warning",
    what=(
        "The root mean square of features as the bridge gets them: less its mean, over its deviation. These are the "
        "training set's own, those of the weights trained from, or none (bridge.normalize false)."
    ),
    why=(
        "The bridge's weights, like embeddings, are drawn for numbers around 1. Far smaller ones vanish beside its "
        "biases; far larger ones saturate it, or are not the features that the weights know."
    ),
    threshold="Outside 0.1 to 10. Ours: standardised features have 1, and one extractor's seldom differ by 10.",
    cure="Let each dimension be standardised, or extract features as those the weights were trained on:\n"
    "  --model.bridge.normalize true",
)

OUTLIERS = Rule(
    code="DAT014",
    name="exploding features",
    level="error",
    what=(
        "Examples that lie more than 100 times further from the middle of a dimension than nine of ten do, and than "
        "is usual in half of all dimensions; in up to 500 examples."
    ),
    why="One such number sets the scale of its whole dimension, and the gradient of its batch.",
    threshold=(
        "100 times. Ours: in digits, fsdd and phoenix14t no example reaches 2 times as far as nine of ten. An error "
        "where, over the deviation that they cause, nine of ten examples stay within 0.1 in half of the dimensions: "
        "standardised, nothing is left of these."
    ),
    cure="Look at that example; extract it again, clip its features, or leave it out.",
)

FEW = Rule(
    code="DAT015",
    name="few examples",
    level="warning",
    what="How many examples there are to train random weights with, and how often each would be seen.",
    why=(
        "They are learned by heart: the loss reaches zero and says nothing. Often a limit that was set to try the "
        "recipe is still in it."
    ),
    threshold="Fewer than 100, seen 20 times each and more. Ours; the smallest set of a recipe here has 1,000.",
    cure=(
        "All examples, or pretrained weights to start from:\n"
        "  --data.train.limit null\n"
        "  --model.weights NAME\n"
        "Or a loss that aligns targets with sources; and, in a long training, each example anew every time:\n"
        "  --train.guided_attention 1 --train.ctc_weight 0.3\n"
        "  --train.augment.time_masks 2 --train.augment.frequency_masks 2 --train.augment.speed 0.15\n"
        "  --train.text_noise.drop 0.1 --train.text_noise.swap 0.1"
    ),
)

COPIES = Rule(
    code="DAT016",
    name="targets that are their sources",
    level="error",
    what=(
        "The share of training pairs whose target is the text of its source (a prefix left out, case ignored), beside "
        "that of the validation set. Texts only; up to 1,000 pairs."
    ),
    why="What is learned is to copy, and the loss on it is near zero; on real pairs the model repeats its input.",
    threshold=(
        "From 10 %, where the validation set has less than a fifth of that, a warning; an error from half of the pairs "
        "where there is a validation set. Ours. Tasks that copy, such as correction, do so in both."
    ),
    cure="See that the target column is the one meant, and leave untranslated pairs out:\n  --data.train.target COLUMN",
)

WITH_SOURCE = Rule(
    code="DAT017",
    name="targets that begin with their source",
    level="warning",
    what=(
        "The share of pairs whose target tokens begin with all of their source's, the end of text left out, and go on "
        "for two tokens or more; of sources of three tokens and more; up to 1,000 pairs."
    ),
    why=(
        "A decoder-only model is trained on the prompt and the answer in one. Here the encoder reads the source: the "
        "loss then counts mostly the copying of what is known, outputs repeat the prompt before they answer, and the "
        "answer is learned from that copy instead of from the source."
    ),
    threshold=(
        "From 90 % of the pairs. Ours: a script does it to all of them; a task that adds to its source, such as "
        "punctuation, changes it in between. In dates and Multi30k no pair is so; of a chat set's replies one in nine "
        "begins with the question, as greetings do."
    ),
    cure="Let targets (labels) hold the answer and its end of text alone; the source is read from where it is.",
)

# Causes before symptoms.
RULES = (
    REFUSED, DEAD, ALIKE, SAME_SOURCE, SAME_TARGET, COPIES, WITH_SOURCE, FEW, LOST_CHARACTERS, CUT, MISALIGNED,
    SAME_TOKEN, SCALE, OUTLIERS, LEAK, AMBIGUOUS, DUPLICATES,
)  # fmt: skip
