from typing import Any

from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.diagnosis.rule import Findings, Rule
from sourcewise.diagnosis.wiring import Wiring
from sourcewise.model.families.transformer import Transformer


class StartToken(Rule[Wiring]):
    """
    ## What it measures
    Which token the decoder begins with in training and at generation: the one the network names, the one its
    configuration names, and the one that explains the loss that training sums; and what it says as text.

    ## Why that is bad
    Generation starts with a token that training never began with: the first words are wrong, often all.

    ## Threshold and its origin
    Any difference is an error; an id outside the vocabulary too. A start token that is a piece of text, not a
    special token, is a warning. So is the end of text, or the unknown token, in a T5, which begins with its
    padding. Tokens that were added, such as languages, are left alone.

    ## What to do
    Set decoder_start_token_id to what the model was trained with: T5 padding, BART the end of text.
    """

    code, name, level = "WIR010", "start token", "error"

    def check(self, wiring: Wiring) -> Findings:
        if loss := next((loss for loss in wiring.losses if loss.fault == "start"), None):
            yield self.finding(loss.evidence)
        if wiring.tokenizer is not None:
            yield from self.of(wiring.network, wiring.tokenizer)

    def of(self, network: Any, tokenizer: Tokenizer) -> Findings:
        """Of a network and its tokenizer, as far as these alone tell."""
        start, body = network.start_id, getattr(network, "body", None)
        configured = start if body is None else body.config.start_id
        if not 0 <= start < network.vocabulary:
            yield self.finding(f"the start token has the id {start}, the vocabulary {network.vocabulary} entries")
        elif start != configured:
            yield self.finding(f"training starts with the id {start}, the configuration says {configured}")
        elif start >= tokenizer.size or start in tokenizer.added:
            return  # what was added, such as a language, may well begin a target
        elif text := tokenizer.decode([start]).strip():
            yield self.finding(f"the start token (id {start}) is a piece of text, {text!r}", "warning")
        elif type(body) is Transformer and start != network.pad_id and start in (network.eos_id, tokenizer.unk_id):
            name = "end of text" if start == network.eos_id else "unknown token"
            evidence = f"the start token (id {start}) is the {name}; a T5 begins with its padding (id {network.pad_id})"
            yield self.finding(evidence, "warning")
