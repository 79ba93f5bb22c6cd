"""The texts of the rules over the wiring; their checks are in `wiring.py`."""

from __future__ import annotations

from sourcewise.diagnosis.rules.rule import Rule

MEASURED = (
    "Measured on 26 fresh networks (T5 tied, untied, gated and 12 blocks deep, BART, GRU and LSTM with and without "
    "attention, decoder-only; digits through each bridge and by each route)"
)

NOT_FINITE = Rule(
    code="WIR001",
    name="values that are not finite",
    level="error",
    what="Whether the logits of one batch are finite numbers.",
    why="One NaN or infinity becomes a NaN in every weight with the first step.",
    threshold="Any at all. It is measured in fp32: what overflows there overflows everywhere.",
    cure=(
        "Look for NaN or infinities in the features (a standard deviation of zero, the logarithm of zero), then for "
        "pretrained weights that were saved after a diverged training. T5 overflows in fp16: train in bf16.\n"
        "  --train.precision fp32"
    ),
)

NOISE = Rule(
    code="WIR021",
    name="noise that stays on at evaluation",
    level="error",
    what=(
        "How far the logits of one batch are apart from one pass to the next, in eval mode, as a share of the largest "
        "logit; beside it, how far another source moves them. Two passes; up to eight where the network draws random "
        "numbers."
    ),
    why=(
        "The same source then has another output each time, and every figure is that of a network with noise in it. "
        "What is found by comparing passes (WIR004 to WIR007, WIR010, WIR011) cannot be told from the noise, and is "
        "not asked."
    ),
    threshold=(
        "More than 1e-4 a warning; from a tenth of what another source does, an error. Measured on small T5 and BART, "
        "fresh and trained: exactly 0; with a dropout of 0.1 that stays on 0.11 to 0.39, with noise of a tenth of the "
        "memory's size 0.04 to 0.12, with feed-forward layers left out at random 0.28 to 0.41. A fresh BART hardly "
        "reads its source (0.01), and shows a hundredth of all that: hence the comparison."
    ),
    cure=(
        "Look in forward() for what does not heed eval(): F.dropout(x, p) and F.dropout(x, p, True) need "
        "training=self.training, torch.randn and torch.rand an `if self.training:` before them; and for a train() or "
        "eval() that was overridden. nn.Dropout heeds it by itself."
    ),
    causes=("WIR001",),
)

SCALE = Rule(
    code="WIR002",
    name="initial scale",
    level="error",
    what="The standard deviation of the logits over the vocabulary, averaged over the target positions of one batch.",
    why=(
        "With all logits equal no gradient gets past the output matrix: nothing learns. With logits far too large the "
        "softmax is all or nothing, and the first thousands of steps only undo the initialisation. The initial loss "
        "does not tell: an untied T5 of Hugging Face begins at 37 to 75 nats, not at ln V, and that is healthy."
    ),
    threshold=(
        "Error at 0 (all logits equal), and above 4 √d_model; warning below 0.02. " + MEASURED + ": 0.12 (BART, whose "
        "0.02 is the smallest initialisation in use; over a width of 32) to 1.4. The largest in use is that of an "
        "untied T5 of Hugging Face, a head of deviation 1 on normalised states: √d_model."
    ),
    cure=(
        "Initialise as the family does: a fresh network of a recipe is, unless its weights were changed afterwards. "
        "If the weights are pretrained, check that all of them were loaded. Or draw the matrices by another rule:\n"
        "  --model.initialization xavier"
    ),
    causes=("WIR001",),
)

NOT_TRAINED = Rule(
    code="WIR003",
    name="weights that are not trained",
    level="error",
    what=(
        "Which weights would not be changed by the first step: frozen by the recipe, frozen by something else, or "
        "missing from the optimizer."
    ),
    why=(
        "They stay what they are. Where they are pretrained that may be wanted; where they are random it leaves the "
        "rest of the network to work around noise."
    ),
    threshold=(
        "Any weight that the recipe does not freeze is an error. A part that the recipe freezes at its random "
        "initialisation (no model.weights) is a warning; the bridge, and all parts together, an error."
    ),
    cure="Train every part, or start from pretrained weights.\n  --train.freeze '[]'",
)

ENCODER_PATH = Rule(
    code="WIR004",
    name="encoder not in the path",
    level="error",
    what=(
        "How far the logits move when noise of their own size is added to all weights of the encoder, as a share of "
        "the largest logit (distance from the mean over the vocabulary)."
    ),
    why="The source reaches the decoder past the encoder: its weights are never read and never learn.",
    threshold=(
        "At most 1e-6, while another source moves them. "
        + MEASURED
        + ": 0.0099 and more; exactly 0 where the encoder is "
        "not read. With the recipe's own route bypass that is as asked, and a note."
    ),
    cure="What `encode` returns must be what the encoder made of the vectors.\n  --model.route encoder",
    causes=("WIR001", "WIR002"),
)

PADDING_READ = Rule(
    code="WIR005",
    name="padding is read",
    level="error",
    what=(
        "How far the logits move when padded positions of the sources hold garbage and there are more of them, as a "
        "share of the largest logit; beside it, how far they then move with other content in the real positions."
    ),
    why=(
        "What comes out depends on the neighbours in the batch: on the length of the longest. The figures of an "
        "evaluation then change with the batch size. With an inverted mask the source itself is hidden."
    ),
    threshold=(
        "More than 1e-4, and more than a hundredth of what other content does. " + MEASURED + ": at most 2.2e-7, the "
        "rounding of fp32, in which it is measured whatever the training rounds to. Where layers compute in bf16 or "
        "fp16 by themselves: four times the step of their numbers at 1 (measured: 0.9 of it)."
    ),
    cure=(
        "The mask must be true where a position is real, for the encoder's self-attention, the cross-attention, and "
        "whatever pools or convolves over time. Hugging Face's generate(inputs_embeds=...) takes a mask of ones "
        "unless it is given one."
    ),
    causes=("WIR001", "WIR002"),
)

FUTURE_SEEN = Rule(
    code="WIR006",
    name="the decoder sees the future",
    level="error",
    what=(
        "How far the logits of a target's first half move when the tokens of its second half are others, as a share "
        "of the largest logit."
    ),
    why=(
        "In training the answer is then in the input: the loss falls to nearly zero, and outputs are nonsense, since "
        "at generation there is no future to read."
    ),
    threshold="More than 1e-4; with layers that round by themselves as for WIR005. " + MEASURED + ": exactly 0.",
    cure="Bar every position after the query from the decoder's self-attention (a causal mask).",
    causes=("WIR001", "WIR002"),
)

NOT_SHIFTED_ONCE = Rule(
    code="WIR007",
    name="labels are not shifted once",
    level="error",
    what=(
        "The loss of one batch as training sums it, against the nats that `decode` gives for the same labels when it "
        "reads the start token and then the labels but the last; and whether labels begin with the start token."
    ),
    why=(
        "Not shifted, the decoder reads the very token it has to say: the loss falls to zero and outputs repeat one "
        "token. Shifted twice, it learns to say each token a step late, or to skip every other one."
    ),
    threshold=(
        "A relative difference above 1e-4 that feeding the labels unshifted or shifted twice explains, or that nothing "
        "tried explains. " + MEASURED + ": at most 2e-7. Autocast (bf16, fp16) is off while it is measured: it alone "
        "gives up to 8e-4. Where layers compute in bf16 or fp16 by themselves: half the step of their numbers at 1. "
        "Labels that begin with the start token are a note where the tokenizer puts it before every text, as BERT's "
        "does with [CLS], and they keep their end of text."
    ),
    cure=(
        "Shift in one place only: labels are the target as it is, with its end of text and without a start token; the "
        "network makes the decoder's input of them."
    ),
    causes=("WIR001", "WIR010"),
)

PADDING_COUNTED = Rule(
    code="WIR008",
    name="padding counts as target",
    level="error",
    what=(
        "Rows whose first end of text is followed by a label that is padding or the end again; and whether the loss "
        "that training sums is that of the labels with padding counted."
    ),
    why=(
        "Most of the loss is then the padding's, which is learned in no time: the loss looks good, depends on the "
        "batch size, and hides what the targets do."
    ),
    threshold="Half of the rows (healthy sets have none: a text has one end), or a loss that is the same to 1e-4.",
    cure="Labels of padded positions are -100, and only those: by length, not by id, where padding and end share one.",
    causes=("WIR001",),
)

NO_END = Rule(
    code="WIR009",
    name="the end of text is not learned",
    level="error",
    what="Rows without an end of text among their labels; and whether the loss that training sums leaves it out.",
    why="What is never a label is never said: every output runs to its length limit.",
    threshold=(
        "Warning where more than a tenth of the rows have none, error from half, or where the loss is that without "
        "it. Here every target ends with it, cut ones too."
    ),
    cure=(
        "The tokenizer must end a target with the id the network calls the end of text (eos_token_id). Where padding "
        "and the end of text share an id, masking by id masks both: mask by length."
    ),
    causes=("WIR008",),
)

WRONG_START = Rule(
    code="WIR010",
    name="start token",
    level="error",
    what=(
        "Which token the decoder begins with in training and at generation: the one the network names, the one its "
        "configuration names, and the one that explains the loss that training sums; and what it says as text."
    ),
    why="Generation starts with a token that training never began with: the first words are wrong, often all.",
    threshold=(
        "Any difference is an error; an id outside the vocabulary too. A start token that is a piece of text, not a "
        "special token, is a warning. So is the end of text, or the unknown token, in a T5, which begins with its "
        "padding. Tokens that were added, such as languages, are left alone."
    ),
    cure="Set decoder_start_token_id to what the model was trained with: T5 padding, BART the end of text.",
)

SOURCE_UNREACHED = Rule(
    code="WIR011",
    name="the source does not reach the logits",
    level="error",
    what=(
        "How far the logits of one batch move when every source holds what another one holds, its length kept, as a "
        "share of the largest logit. With features, a prompt stays."
    ),
    why="Whatever the source says, the decoder says the same. No training mends that: there is no path to learn.",
    threshold=(
        "At most 1e-6. "
        + MEASURED
        + ": 0.0028 (BART, whose first outputs depend on the source least) to 0.63; exactly 0 "
        "where the path is cut."
    ),
    cure=(
        "Follow the source: features (are they constant?), bridge (are its weights zero?), encoder, memory, "
        "cross-attention (is every slot masked, its output projection zero?). The first place where two sources look "
        "alike is the fault."
    ),
    causes=("DAT014", "WIR001", "WIR002", "WIR005", "WIR013", "WIR014"),
)

NO_GRADIENT = Rule(
    code="WIR012",
    name="no gradient",
    level="error",
    what="Which weights that are to be trained the loss of one batch does not depend on, as autograd sees it.",
    why=(
        "The forward pass reads them, and so nothing looks wrong; but they are never told what to become. A detach() "
        "behind the encoder leaves it random for good."
    ),
    threshold=(
        "Error where all weights of a part (embedding, encoder, decoder, bridge) have no gradient or one of exactly 0, "
        "warning for single tensors that have none. "
        + MEASURED
        + ": every tensor has one, but for an encoder that the "
        "route bypass goes past."
    ),
    cure="Look for detach(), no_grad() or .data between these weights and the loss.",
    causes=("WIR001", "WIR002", "WIR003", "WIR004", "WIR011", "WIR019"),
)

VANISHING = Rule(
    code="WIR013",
    name="vanishing gradients",
    level="error",
    what=(
        "The gradient of each layer for one batch (root mean square over its weights, in nats a target token, after "
        "clipping), from the first to the last of a stack."
    ),
    why=(
        "Layers whose gradient drowns do not learn; with them, the source does not get through. Saturating "
        "activations (sigmoid, tanh) lose a factor of 4 and more a layer (Glorot & Bengio 2010)."
    ),
    threshold=(
        "Error below 1e-8, and a ten-thousandth of the largest layer's: AdamW divides by the gradient's root mean "
        "square plus its epsilon of 1e-8, below which updates shrink with it. Warning where a layer has less than a "
        "ten-thousandth of the largest of its own stack. " + MEASURED + ": 6e-6 and more, and within a stack at least "
        "a tenth (30 GRU layers)."
    ),
    cure=(
        "Fewer layers, ones with residuals and norms, or attention past them.\n"
        "  --model.encoder_layers 2 --model.decoder_layers 2\n"
        "  --model.family t5\n"
        "  --model.attention bahdanau"
    ),
    causes=("WIR001", "WIR002"),
)

RATE = Rule(
    code="WIR014",
    name="learning rate",
    level="error",
    what=(
        "How much one step at the peak learning rate changes each tensor, as a share of its own root mean square; the "
        "median over all tensors. AdamW's updates hardly depend on the gradient, so one step tells."
    ),
    why=(
        "Updates as large as the weights wipe out what was learned before, each time; too small ones do not get from "
        "the random initialisation to anything in the steps there are."
    ),
    threshold=(
        "Error at 0 and above 1 (a step replaces the weights), warning above 0.3. " + MEASURED + ", at 1e-3: 0.0048 to "
        "0.049. From random weights, a warning where all steps together, each in the same direction at the peak rate, "
        "would change them by less than a tenth; not for a trial of fewer than 100 steps. "
        "Also a warning: a warm-up of four times the training and more. And the weight decay times the peak rate, what "
        "a step takes of the weights whatever it learns: above 0.01 a warning, above 0.1 an error. In use are 1e-5 to "
        "1e-4; 1 / that is how many steps a weight remembers (Wang & Aitchison 2024)."
    ),
    cure="From scratch about 1e-3, fine-tuning about 5e-5:\n  --train.learning_rate 1e-3",
    causes=("WIR003", "WIR013"),
)

# Causes before symptoms.
RULES = (
    NOT_FINITE,
    NOISE,
    SCALE,
    NOT_TRAINED,
    RATE,
    ENCODER_PATH,
    PADDING_READ,
    FUTURE_SEEN,
    NOT_SHIFTED_ONCE,
    PADDING_COUNTED,
    NO_END,
    WRONG_START,
    VANISHING,
    SOURCE_UNREACHED,
    NO_GRADIENT,
)
