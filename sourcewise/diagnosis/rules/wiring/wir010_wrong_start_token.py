from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Start, Wiring
from sourcewise.model.protocol import Network


class WrongStartToken(Rule[Wiring]):
    """Which token the decoder begins with in training and at generation: the one the network names, the one its
    configuration names, and the one that explains the loss that training sums; and what it says as text.
    ## Why that is bad
    Generation starts with a token that training never began with: the first words are wrong, often all.
    ## Threshold and its origin
    Any difference is an error; an id outside the vocabulary too. A start token that is a piece of text, not a special
    token, is a warning. So is the end of text, or the unknown token, in a T5, which begins with its padding. Tokens
    that were added, such as languages, are left alone.
    """

    code, name, level = "WIR010", "wrong decoder start token", "error"
    cures = Cure("Set decoder_start_token_id to what the model was trained with: T5 padding, BART the end of text.")

    def check(self, wiring: Wiring) -> Findings:
        if wiring.network is not None and wiring.start is not None:
            yield from self.of(wiring.network, wiring.start)
        if loss := next((loss for loss in wiring.losses if loss.fault == "start"), None):
            yield self.finding(loss.evidence)

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
