from sourcewise.data.batches import IGNORED
from sourcewise.diagnosis.observed import Edges
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

NAMED = Cure(
    "Name the end of text that the tokenizer writes, in the configuration and in the generation settings:",
    "network.config.eos_token_id = network.generation_config.eos_token_id = tokenizer.eos_token_id",
)


class EndNotLearned(Rule[Wiring]):
    """Rows without an end of text among their labels; and whether the loss that training sums leaves it out.
    ## Why that is bad
    What is never a label is never said: every output runs to its length limit.
    ## Threshold and its origin
    Warning where more than {warning:words} of the rows have none, error from {error:words}, or where the loss is that
    without it. Another id that stands at the end of {mostly:%} of the rows and nowhere else is named: it ends texts,
    and the network has the id of another vocabulary. Here every target ends with it, cut ones too. In a loop of one's
    own: rows that do not end with the commonest last label, where lengths vary otherwise than those of the sources;
    cut, where {mostly:%} of these are as long as the longest.
    """

    code, name, level = "WIR009", "the end of text is not learned", "error"
    explained_by = "WIR008"
    warning, error, mostly = 0.1, 0.5, 0.9  # of the rows
    cures = Cure(
        "The tokenizer must end a target with the id the network calls the end of text (eos_token_id). Where "
        "padding and the end of text share an id, masking by id masks both: mask by length."
    )

    def check(self, wiring: Wiring) -> Findings:
        if wiring.unlabelled:
            yield self.finding(f"no label of {wiring.unlabelled} rows counts: all are {IGNORED}")
        edges = wiring.observed.edges if wiring.observed is not None else None
        if edges is not None and edges.vary:
            yield from self.of_edges(edges)
        labels = wiring.labels
        if labels is not None and labels.rows - labels.ended > self.warning * labels.rows:
            level = self.from_on((labels.rows - labels.ended) / labels.rows)
            evidence, cures = f"{labels.ended} of {labels.rows} rows of labels hold the end of text", list[Cure]()
            if wiring.network is not None and labels.closing and labels.closing[1] >= self.mostly * labels.rows:
                token, rows = labels.closing
                evidence += f" (the configuration's eos_token_id, {wiring.network.eos_id}); {rows} end with the id "
                evidence += f"{token}, which stands nowhere else: eos_token_id looks to be that of another vocabulary"
                cures.append(NAMED)
            yield self.finding(evidence, level, *cures)
        elif loss := next((loss for loss in wiring.losses if loss.fault == "end"), None):
            yield self.finding(loss.evidence)

    def of_edges(self, edges: Edges) -> Findings:
        """Of a loop of one's own, where nobody says which token ends a text."""
        without = edges.rows - edges.ended
        if level := self.from_on(without / edges.rows):
            evidence = f"no token ends the targets: of {edges.rows} rows {edges.ended} have the commonest last label"
            if edges.full >= self.mostly * without:
                evidence += (
                    f"; of the {without} others {edges.full} are as long as the longest, as where targets are cut"
                )
            yield self.finding(evidence, level)
