from sourcewise.diagnosis.finding import Level
from sourcewise.diagnosis.measures import signals
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class ActivationsTooLargeOrSmall(Rule[Wiring]):
    """The root mean square of what each block gives on one batch, before the first step; blocks of fresh networks.
    ## Why that is bad
    Values that grow from block to block overflow or saturate what follows; values that are all but zero carry no
    source. Normalisation hides both from the loss, not from the gradient.
    ## Threshold and its origin
    Above {warning} a warning, above {error} an error; below {small} a warning. {measured}: 0.2 to 5.4, at most four
    times from the first block to the last.
    """

    code, name, level, rank = "WIR016", "activations too large or too small", "error", 14.1
    explained_by = "WIR001"
    warning, error, small = 50, 1000, 0.01  # root mean squares
    measured = signals.MEASURED
    cures = Cure(
        "Initialise as the family does: a fresh network of a recipe is, unless its weights were changed afterwards. Or "
        "draw the matrices by another rule:",
        {"model.initialization": "xavier"},
        instead="Initialise as the family does: a model made from its configuration is.",
    )

    def check(self, wiring: Wiring) -> Findings:
        inside = wiring.inside
        if inside is None or not inside.plan.fresh:
            return  # pretrained blocks may be large: T5's are
        found: list[tuple[Level, str]] = []
        for stack, sizes in signals.measure_activations(inside.network, inside.batch).items():
            most, least = max(sizes), min(sizes)
            name = f"the {stack}'s {len(sizes)}"
            if most > self.warning:
                what = f"block {sizes.index(most)} of {name} gives values of {most:.3g}"
                found.append(("error" if most > self.error else "warning", what))
            elif least < self.small:
                found.append(("warning", f"block {sizes.index(least)} of {name} gives {least:.2g}"))
        if found:
            evidence = "; ".join(what for _, what in found) + " (root mean square)"
            yield self.finding(evidence, "error" if any(level == "error" for level, _ in found) else "warning")
