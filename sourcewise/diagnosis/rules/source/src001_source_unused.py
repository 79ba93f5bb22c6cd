from sourcewise.diagnosis.outputs import Outputs
from sourcewise.diagnosis.rule import CannotTell, Cure, Findings, Rule
from sourcewise.evaluation.verdict import SOURCE_BITS, source_use, unread_below


class SourceUnused(Rule[Outputs]):
    """Source bits: how much better a target token is predicted with its own source than with the source of another
    example of similar length, log2 p(y_t | y_<t, x) - log2 p(y_t | y_<t, x'), averaged over all target tokens, with a
    95 % bootstrap interval over examples.
    ## Why that is bad
    At zero the model is a language model of its targets. The loss still falls and the outputs are fluent, but they have
    nothing to do with the input, and no decoding option will change that.
    ## Threshold and its origin
    The upper end of the interval is below {bits} bits per token. Chosen between two measured trainings: a collapsed one
    (handwriting, outputs 'the station the station') has 0.04 bits, the same model on spoken digits 8.3. Where targets
    repeat and hold few bits to begin with, the bound is half of their own entropy a token, if that is less.
    """

    code, name, level, rank = "SRC001", "source unused", "error", 0.1
    explained_by = "DAT* -DAT008 -DAT009 -DAT016 -DAT019..DAT021 WIR* TRN001..TRN006 TRN009 TRN013 MEM*"
    says_why = "OUT009:error"
    bits = SOURCE_BITS  # a token
    cures = (
        Cure(
            "Find where the source gets lost: check that sources and targets are paired row by row (shuffle one "
            "manifest against the other and the loss should get worse), that features are not constant or near "
            "zero, that bridge and encoder are trained and not frozen. Then overfit 20 examples: a healthy model "
            "reaches a loss near zero on them.",
            "sourcewise train RECIPE.yaml --data.train.limit 20 --train.steps 300 --train.freeze '[]'",
            instead="Find where the source gets lost: check that sources and targets are paired row by row (shuffle "
            "one side against the other and the loss should get worse), that sources differ from each other, that the "
            "encoder is trained and not frozen. Then overfit 20 examples: a healthy model reaches a loss near zero on "
            "them.",
        ),
        Cure(
            "If that works, the model needs longer training, more data, a bridge with fewer frames a slot, or a "
            "loss that asks for the source:",
            {"model.bridge.kind": "convolution", "model.bridge.stride": 4},
            {"train.ctc_weight": 0.3, "train.contrastive": 0.3},
            instead="If that works, it needs longer training, more data, or to begin from a model that reads such "
            "sources already.",
        ),
    )

    def check(self, outputs: Outputs) -> Findings:
        metrics, references = outputs.evaluation.metrics, outputs.evaluation.references
        used = source_use(metrics, references)
        if used == "not measured":
            raise CannotTell("source use", "the evaluation has no source bits")
        if used != "not read":
            return
        low, high = metrics["source_bits_ci95"]
        bound = unread_below(references, int(metrics.get("target_tokens") or 0))
        evidence = (
            f"a target token gains {metrics['source_bits']:.3f} bits from its own source (95 % interval {low:.3f} to "
            f"{high:.3f}, {metrics.get('examples', len(references))} examples); unused below {bound:.2g}"
        )
        if metrics.get("loss") is not None and metrics.get("loss_shuffled") is not None:
            evidence += f"; loss {metrics['loss']:.3f} nats per token with its own source"
            evidence += f", {metrics['loss_shuffled']:.3f} with another's"
        yield self.finding(evidence)
