from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring


class AnotherFirstToken(Rule[Wiring]):
    """The token that generation is forced to begin with (forced_bos_token_id of the model's generation settings),
    beside the first tokens of the labels.
    ## Why that is bad
    The model is led to begin as no target of its training begins. What follows is that of another language, or of
    nothing it has seen.
    ## Threshold and its origin
    Error where fewer than {error:words} of the rows begin with the forced token, warning where fewer than
    {warning:words} do: several languages in one set need the code of each. A warning, too, where labels begin with
    ordinary words ({usual:words} have no first token in common): a training may have put the code in front of them by
    hand. Healthy sets: all of them, or none is forced.
    """

    code, name, level = "WIR025", "generation is forced to begin otherwise than the labels", "error"
    explained_by = "WIR001 WIR024"
    error, warning, usual = 0.1, 0.9, 0.9  # of the rows
    explains = "OUT00* TRN011"
    cures = Cure(
        "Set forced_bos_token_id of the generation settings to the first token of the labels (the code of the target"
        " language), for each language that is asked for; or none, where targets have no such token."
    )

    def check(self, wiring: Wiring) -> Findings:
        labels, network = wiring.labels, wiring.network
        if labels is None or network is None or not network.defaults.forced_bos:
            return
        right = sum(labels.first.get(token, 0) for token in network.defaults.forced_bos)
        level = self.below(right / labels.rows)
        if level is None:
            return
        usual, rows = max(labels.first.items(), key=lambda pair: pair[1])
        forced = ", ".join(map(str, network.defaults.forced_bos))
        said = f"outputs begin with the id {forced}; {right} of {labels.rows} rows of labels do"
        if level == "error" and wiring.plan is None and rows < self.usual * labels.rows:
            level = "warning"
            said += " as the tokenizer makes them, which need not be as the training did"
        yield self.finding(f"{said}, {rows} begin with {usual}", level)
