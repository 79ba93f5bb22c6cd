from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Start, Wiring
from sourcewise.model.protocol import Network

START = Cure(
    "Put a start token before each target, the one that generation begins with:",
    "target = torch.nn.functional.pad(target, (1, 0), value=start_id)  # then read target[:, :-1], learn target[:, 1:]",
)


class WrongStartToken(Rule[Wiring]):
    """Which token the decoder begins with in training and at generation: the one the network names, the one its
    configuration names, and the one that explains the loss that training sums; and what it says as text.
    ## Why that is bad
    Generation starts with a token that training never began with: the first words are wrong, often all.
    ## Threshold and its origin
    Any difference is an error; an id outside the vocabulary too. A start token that is a piece of text, not a special
    token, is a warning. So is the end of text, or the unknown token, in a T5, which begins with its padding. Tokens
    that were added, such as languages, are left alone. In a loop of one's own: an error where fewer than {one:%} of the
    rows begin with the same token, which is a label elsewhere in {words:%} of them: so it is where the target's first
    word is read in place of a start token.
    """

    code, name, level = "WIR010", "wrong decoder start token", "error"
    one, words = 0.5, 0.9  # of the rows
    cures = Cure("Set decoder_start_token_id to what the model was trained with: T5 padding, BART the end of text.")

    def check(self, wiring: Wiring) -> Findings:
        if wiring.network is not None and wiring.start is not None:
            yield from self.of(wiring.network, wiring.start)
        first = wiring.observed.edges.first if wiring.observed is not None and wiring.observed.edges else None
        if first is not None and wiring.observed is not None and wiring.observed.edges is not None:
            yield from self.of_first(first, wiring.observed.edges.rows)
        if loss := next((loss for loss in wiring.losses if loss.fault == "start"), None):
            yield self.finding(loss.evidence)

    def of_first(self, first: tuple[int, int, int], rows: int) -> Findings:
        """Of a loop of one's own: what the decoder reads first and never says should tell nothing of the target."""
        several, common, said = first
        if common < self.one * rows and said >= self.words * rows:
            evidence = f"there is no start token: the decoder begins with {several} different tokens in {rows} rows, "
            evidence += f"which are labels elsewhere in {said} of them; the first word of each target is never learned"
            yield self.finding(evidence, None, START)

    def of(self, network: Network, start: Start) -> Findings:
        """Of a network and the token that it begins with."""
        token, configured = network.start_id, start.configured
        if not 0 <= token < network.vocabulary:
            yield self.finding(f"the start token has the id {token}, the vocabulary {network.vocabulary} entries")
        elif configured is not None and configured != token:
            yield self.finding(f"training starts with the id {token}, {start.where} says {configured}")
        elif start.text:
            yield self.finding(f"the start token (id {token}) is a piece of text, {start.text!r}", "warning")
        elif start.odd:
            yield self.finding(f"the start token (id {token}) is {start.odd}", "warning")
