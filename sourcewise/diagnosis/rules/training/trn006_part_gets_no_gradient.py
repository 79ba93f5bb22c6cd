from sourcewise.diagnosis.course import FEW_LINES, MEASURED, Course, middle
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class PartGetsNoGradient(Rule[Course]):
    """The norm of the gradient of each part (embedding, encoder, decoder, bridge) beside the norm of all of it.
    ## Why that is bad
    What gets no gradient stays as it was drawn. Of the encoder or the bridge that means: the source is noise.
    ## Threshold and its origin
    Below {warning} in the median line a warning, below {error} an error. {measured}: 0.02 and more (embeddings). Frozen
    parts, and the encoder that the route bypass goes past, are left out.
    """

    code, name, level, rank = "TRN006", "a part gets no gradient", "error", 0.2
    explained_by = "WIR001 WIR002 WIR004 WIR011 WIR012 WIR013 WIR014"
    warning, error = 1e-4, 1e-6  # of the norm of all of the gradient
    measured = MEASURED
    cures = Cure(
        "Look between that part and the loss for detach(), saturated activations, a mask that hides everything."
    )

    def check(self, course: Course) -> Findings:
        if course.stopped is not None or len(course.train) < FEW_LINES:
            return
        both = [(line.get("gradient_norms") or {}, line.get("gradient_norm")) for line in course.train]
        shares = {
            part: middle([norms[part] / norm for norms, norm in both if part in norms and norm] or [1.0])
            for part in course.parts("gradient_norms")
            if part not in course.plan.past
        }
        weak = {part: share for part, share in shares.items() if share < self.warning}
        if weak:
            said = ", ".join(f"{part} {share:.1e}" for part, share in weak.items())
            rest = ", ".join(f"{part} {share:.2g}" for part, share in shares.items() if part not in weak)
            evidence = f"of the gradient's norm have: {said} (median of {len(course.train)} lines)"
            yield self.finding(f"{evidence}; the others: {rest or 'none'}", self.below(min(weak.values())))
