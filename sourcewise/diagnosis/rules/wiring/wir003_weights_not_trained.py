from collections.abc import Collection, Sequence

from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.measures.adapters import idle_adapters
from sourcewise.diagnosis.measures.first_step import Weight, adapted, counted
from sourcewise.diagnosis.observed import Gradients
from sourcewise.diagnosis.rule import CannotTell, Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

STALE = Cure(
    "Make the optimizer last: after .to(device), resize_token_embeddings, copies, adapters and loading, of the weights "
    "that are then trained:",
    "optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)",
)


UNMATCHED = Cure(
    "Look at what load_state_dict(..., strict=False) returns: its missing_keys should be none of this part. A prefix "
    "such as module., model. or _orig_mod. is to be taken off:",
    'state = {name.removeprefix("module."): table for name, table in state.items()}',
    "print(model.load_state_dict(state, strict=False))",
)
NAMELESS = Cure(
    "Adapters whose target_modules name no module leave nothing to learn. Take the names from the model itself:",
    "print({name.rpartition('.')[2] for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)})",
)


UNKNOWN = Cure(
    "Layers in a Python list or dict are unknown to parameters(), .to() and state_dict(), and so are bare tensors:",
    "self.layers = nn.ModuleList(layers)  # nn.ModuleDict, nn.ParameterList",
)
RATED = Cure(
    "Give each group of parameters a rate; what is to stay as it was drawn is better left out:",
    'torch.optim.AdamW([{"params": encoder.parameters(), "lr": 1e-4}, {"params": decoder.parameters(), "lr": 1e-3}])',
)
ACTIVE = Cure("An adapter that is added is not active until it is made so:", 'model.set_adapter("name")')


class WeightsNotTrained(Rule[Wiring]):
    """Which weights would not be changed by the first step: frozen by the recipe, frozen by something else, or missing
    from the optimizer.
    ## Why that is bad
    They stay what they are. Where they are pretrained that may be wanted; where they are random it leaves the rest of
    the network to work around noise.
    ## Threshold and its origin
    Any weight that the recipe does not freeze is an error, unless adapters (LoRA) are trained in place of it. A part
    that the recipe freezes at its random initialisation (no model.weights) is a warning; the bridge, and all parts
    together, an error. In a training of others: a part that is frozen, or in no optimizer, and all of whose matrices
    look as they were drawn, an error: no singular value is larger than those of independent numbers, which any training
    changes; so where its group in the optimizer has a rate of 0, beside others that have one. And an error where of a
    loaded model only vectors learn, less than {few:%} of its weights and less than
    {vectors:words} of its vectors: adapters whose targets name no module leave that (all biases, or all norms, are a
    method). And weights in no optimizer that the loss depends on and no module knows. A warning where an adapter was
    added after those that are trained, is not active and holds nothing (its second matrix is 0); a note where those
    that are trained have names and held nothing either: several may be trained in turn.
    """

    code, name, level = "WIR003", "weights that are not trained", "error"
    few, vectors = 0.01, 0.5  # of all weights, and of their vectors
    cures = Cure("Train every part, or start from pretrained weights.", {"train.freeze": []})

    def check(self, wiring: Wiring) -> Findings:
        if wiring.nothing_learns:
            yield self.finding(wiring.nothing_learns)
        elif wiring.step is not None and wiring.plan is not None:
            if wiring.observed is not None and wiring.observed.unheld:
                raise CannotTell("which weights no optimizer has", "no optimizer was given: doctor(model, optimizer)")
            found = self.of(wiring.step.weights, wiring.plan.fresh, wiring.plan.loaded)
            if wiring.observed is not None and wiring.observed.gradients.outside[0]:
                tensors, weights = wiring.observed.gradients.outside
                evidence = f"the loss depends on {tensors} tensors of {weights:,} weights that no module has as its "
                yield self.finding(f"{evidence}parameters, and no optimizer holds", None, UNKNOWN)
            yield from self.at_no_rate(wiring)
            began = wiring.step.weights if wiring.observed is None else wiring.observed.began
            yield from self.idle(wiring.step.weights, began)
            others = wiring.observed is not None and wiring.observed.gradients.strangers  # the optimizer's; told below
            if not wiring.plan.fresh and not others:
                yield from self.left(wiring.step.weights)
            yield from found if wiring.observed is None else self.with_strangers(found, wiring.observed.gradients)

    def at_no_rate(self, wiring: Wiring) -> Findings:
        """Parts that look as they were drawn, and whose optimizer has a rate of 0 for them, beside others."""
        weights = wiring.step.weights if wiring.step is not None else ()
        matrices = [w for w in weights if w.matrix and w.learns and not w.frozen and w.optimised]
        parts = [
            part
            for part in dict.fromkeys(w.part for w in matrices if w.still)
            if all(w.still and w.drawn for w in matrices if w.part == part)
        ]
        early = wiring.observed is not None and wiring.observed.early
        if parts and not early:
            rows = [w for w in weights if w.part in parts and w.still]
            evidence = f"{counted(rows, weights)} are in the optimizer at a rate of 0, and look as they were drawn"
            yield self.finding(evidence, None, RATED)

    def with_strangers(self, found: Findings, gradients: Gradients) -> Findings:
        """The same; where the optimizer holds tensors that no module has instead, it was made of others."""
        for said in found:
            if isinstance(said, Finding) and "not in the optimizer" in said.evidence and gradients.strangers:
                evidence = f"{said.evidence}; {gradients.strangers} of the {gradients.held} tensors that it has are of"
                yield self.finding(f"{evidence} no module: it was made of other weights than are trained", None, STALE)
            else:
                yield said

    def idle(self, weights: Sequence[Weight], began: Sequence[Weight]) -> Findings:
        """Of adapters of several names: those that came last and were never made active."""
        if (found := idle_adapters(weights, began)) is not None:
            empty, trained = ", ".join(found.empty), ", ".join(found.trained)
            evidence = f"adapter {empty} is not active and holds nothing (B is 0): adapter {trained} is trained"
            yield self.finding(evidence, "note" if found.in_turn else "warning", ACTIVE)

    def left(self, weights: Sequence[Weight]) -> Findings:
        """Of a network that may have been trained before: what is frozen as it was drawn, and how little learns."""
        matrices = [w for w in weights if w.matrix]
        parts = dict.fromkeys(w.part for w in matrices if w.drawn)
        drawn = [part for part in parts if all(w.drawn for w in matrices if w.part == part)]
        rows = [w for w in weights if w.part in drawn]
        if rows and any(w.part in ("encoder", "decoder", "features", "bridge") for w in rows):
            evidence = f"{counted(rows, weights)} are not trained, and look as they were drawn"
            yield self.finding(f"{evidence}: no checkpoint was loaded into them", None, UNMATCHED)
        learning = [w for w in weights if w.learns and not w.frozen and w.optimised]
        vectors = sum(not w.matrix for w in weights)
        share = sum(w.size for w in learning) / max(1, sum(w.size for w in weights))
        if (
            learning
            and share < self.few
            and not any(w.matrix for w in learning)
            and len(learning) < self.vectors * vectors
        ):
            yield self.finding(
                f"nothing learns but {counted(learning, weights)}: no adapter, no matrix", None, NAMELESS
            )

    def of(self, weights: Sequence[Weight], fresh: bool, loaded: Collection[str]) -> Findings:
        """Of a network that is trained from random weights (`fresh`), but for the parts that were `loaded`."""
        beside = adapted(weights)  # the rest is frozen on purpose, and was trained before
        for what, rows in (
            ("are frozen, though not by train.freeze", [w for w in weights if not w.learns and not beside]),
            ("are not in the optimizer", [w for w in weights if w.learns and not w.frozen and not w.optimised]),
        ):
            if rows:
                yield self.finding(f"{counted(rows, weights)} {what}")
        drawn = [w for w in weights if (fresh or w.part in ("bridge", "features")) and w.part not in loaded]
        frozen = [w for w in drawn if w.frozen]
        if frozen and not beside:
            evidence = f"{counted(frozen, weights)} are frozen at their random initialisation"
            yield self.finding(evidence, "error" if any(w.part == "bridge" for w in frozen) else "warning")
