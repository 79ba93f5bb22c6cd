import numpy as np

from sourcewise.diagnosis.measures.vocabulary import alike, source_table
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.diagnosis.wiring import Wiring

FROZEN = Cure(
    "Train the embeddings of the words that were added, beside the adapters:",
    "LoraConfig(…, trainable_token_indices=[the new ids])  # or modules_to_save=['embed_tokens', 'lm_head']",
    "model.get_input_embeddings().weight.requires_grad_(True)",
)


STANDING = (
    Cure(
        "Train the table, or at least the rows of words that no vector was loaded for; or draw these at random:",
        "embedding.weight.requires_grad_(True)  # and give it to the optimizer",
        "torch.nn.init.normal_(embedding.weight.data[without], std=embedding.weight.data[known].std())",
    ),
)


class TokensLookAlike(Rule[Wiring]):
    """How many of the tokens in a batch of sources are looked up as zeros, or as the same vector as another token.
    ## Why that is bad
    Tokens with one vector are one token to the network: what they mean cannot be told, whatever is trained after them.
    ## Threshold and its origin
    Error from {error:%} of the tokens, warning from {warning:%}, and {least:words} of them at least. Random and trained
    tables have none; a table that was resized with zeros, cut, or filled with its mean has many. The padding does not
    count. A warning where a training may still move them apart. In a loop of one's own: of tables that never learn, the
    ids that a step looks up.
    """

    code, name, level = "WIR023", "tokens that look alike", "error"
    explained_by = "WIR001"
    explains = "OUT00* SRC* MEM* TRN003..TRN005 WIR011"
    warning, error, least = 0.02, 0.1, 2  # of the tokens; tokens
    cures = Cure(
        "Look where the embedding of the source is made or loaded: new rows of a resized table need random values "
        "(or the mean plus noise), padding_idx should be the padding, and a folder's weights should hold the table. "
        "Rows that are equal at the start stay equal, unless something else tells them apart."
    )

    def check(self, wiring: Wiring) -> Findings:
        for each in wiring.observed.tables if wiring.observed is not None else ():
            lost = each.zero + each.equal
            level = self.from_on(lost / max(1, each.ids))
            if level is not None and lost >= self.least:
                evidence = f"of {each.ids} tokens that {each.name} looks up in a step, {each.zero} are zero and "
                evidence += f"{each.equal} share their vector with another one; it never learns, so that they stay so"
                yield self.finding(evidence, level, *STANDING)
        if wiring.network is None or wiring.batch is None or wiring.batch.source.tokens is None:
            return
        table = source_table(wiring.network, wiring.batch)
        if table is None:
            return
        known = np.unique(wiring.batch.source.tokens.cpu().numpy())
        ids = [int(i) for i in known if i != wiring.network.pad_id and 0 <= i < len(table)]
        found = alike(table, ids)
        lost = len(found.zero) + sum(map(len, found.equal))
        level = self.from_on(lost / max(1, len(ids)))
        if level is None or lost < self.least:
            return
        said = [f"{len(found.zero)} are zero"] if found.zero else []
        said += [f"{sum(map(len, found.equal))} share their vector with another one"] if found.equal else []
        evidence = f"of {len(ids)} tokens in a batch of sources {' and '.join(said)}"
        if wiring.plan is not None and not table.requires_grad:
            evidence += "; the embedding is frozen, so that they stay so, as words do that were added before adapters"
            yield self.finding(evidence, level, FROZEN)
        elif wiring.plan is not None:
            yield self.finding(f"{evidence}; they are trained, and may come apart", "warning")
        else:
            yield self.finding(evidence, level)
