"""Does the decoder read its source? (row E1)"""

from __future__ import annotations

from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.rules import signals_texts, wiring_texts
from sourcewise.diagnosis.rules.rule import Rule
from sourcewise.evaluation.results import Evaluation
from sourcewise.evaluation.verdict import SOURCE_BITS, source_use, unread_below

SOURCE_UNUSED = Rule(
    code="SRC001",
    name="source unused",
    level="error",
    what=(
        "Source bits: how much better a target token is predicted with its own source than with the source of "
        "another example of similar length, log2 p(y_t | y_<t, x) - log2 p(y_t | y_<t, x'), averaged over all target "
        "tokens, with a 95 % bootstrap interval over examples."
    ),
    why=(
        "At zero the model is a language model of its targets. The loss still falls and the outputs are fluent, but "
        "they have nothing to do with the input, and no decoding option will change that."
    ),
    threshold=(
        f"The upper end of the interval is below {SOURCE_BITS} bits a token. Chosen between two measured trainings: a "
        "collapsed one (handwriting, outputs 'the station the station') has 0.04 bits, the same model on spoken "
        "digits 8.3. Where targets repeat and hold few bits to begin with, the bound is half of their own entropy a "
        "token, if that is less."
    ),
    cure=(
        "Find where the source gets lost: check that sources and targets are paired row by row (shuffle one manifest "
        "against the other and the loss should get worse), that features are not constant or near zero, that bridge "
        "and encoder are trained and not frozen. Then overfit 20 examples: a healthy model reaches a loss near zero "
        "on them.\n"
        "  sourcewise train RECIPE.yaml --data.train.limit 20 --train.steps 300 --train.freeze '[]'\n"
        "If that works, the model needs longer training, more data, a bridge with fewer frames a slot, or a loss that "
        "asks for the source:\n"
        "  --model.bridge.kind convolution --model.bridge.stride 4\n"
        "  --train.ctc_weight 0.3 --train.contrastive 0.3"
    ),
    causes=(
        "DAT018",
        "WIR020",
        *(
            "DAT001",
            "DAT002",
            "DAT003",
            "DAT004",
            "DAT005",
            "DAT006",
            "DAT007",
            "DAT010",
            "DAT011",
            "DAT012",
            "DAT013",
            "DAT014",
            "DAT015",
            "DAT017",
        ),
        *(rule.code for rule in (*wiring_texts.RULES, *signals_texts.RULES)),
        *("TRN009", "TRN006", "TRN001", "TRN002", "TRN003", "TRN004", "TRN005", "TRN013", "MEM001", "MEM002"),
    ),
)

RULES = (SOURCE_UNUSED,)


def check(evaluation: Evaluation) -> list[Finding]:
    """SRC001, where the evaluation measured source bits."""
    metrics = evaluation.metrics
    if source_use(metrics, evaluation.references) != "not read":
        return []
    low, high = metrics["source_bits_ci95"]
    bound = unread_below(evaluation.references, int(metrics.get("target_tokens") or 0))
    evidence = (
        f"a target token gains {metrics['source_bits']:.3f} bits from its own source (95 % interval {low:.3f} to "
        f"{high:.3f}, {metrics.get('examples', len(evaluation.rows))} examples); unused below {bound:.2g}"
    )
    if metrics.get("loss") is not None and metrics.get("loss_shuffled") is not None:
        evidence += f"; loss {metrics['loss']:.3f} nats a token with its own source"
        evidence += f", {metrics['loss_shuffled']:.3f} with another's"
    return [SOURCE_UNUSED.finding(evidence)]
