from collections import Counter

import numpy as np

from sourcewise.data.batches import IGNORED
from sourcewise.diagnosis.asked import Asking, Said
from sourcewise.diagnosis.rule import Cure, Findings, Rule


class WordsNeverSaid(Rule[Asking]):
    """How many references have a token that the search may not say (suppress_tokens, bad_words_ids). In plain PyTorch,
    where the search is not known: tokens that the network has at more than even odds behind the true tokens before
    them, and that no output has.
    ## Why that is bad
    What is suppressed is replaced by the next best, and what follows goes astray. Such lists stay in a folder from its
    former task, or were made with another tokenizer's ids.
    ## Threshold and its origin
    Error from {error:%} of the references, warning from {warning:%}. A token that stands in the same place of every
    reference is a code that the search itself forces, and does not count. Of tokens that the network knows: there
    {least} times or more, known in {known:%} of the places, and together {error:%} of all tokens for an error. Healthy
    outputs have what the network is so sure of.
    """

    code, name, level, rank = "OUT018", "words that references need are never said", "error", 0.15
    learned = False
    error, warning = 0.1, 0.02  # of the references, or of their tokens
    least, known = 10, 0.8  # times; of the places
    explains = "OUT00* OUT011 OUT016 OUT017 TRN011"
    cures = Cure(
        "Let them be said, in the call and in generation_config.json:",
        "network.generation_config.suppress_tokens = network.generation_config.bad_words_ids = None",
    )

    def check(self, asking: Asking) -> Findings:
        if asking.suppressed:
            yield from self.of_settings(asking)
        elif asking.said is not None:
            yield from self.of_outputs(asking.said)

    def of_settings(self, asking: Asking) -> Findings:
        """By what the search is told."""
        rows = [[i for i in np.asarray(ids).tolist() if i != IGNORED] for ids in asking.encoded.targets]
        places = Counter((place, i) for row in rows for place, i in enumerate(row))
        forced = {i for (_, i), times in places.items() if times == len(rows) > 1}
        needed = Counter(i for row in rows for i in set(row) if i in asking.suppressed and i not in forced)
        lost = sum(any(i in needed for i in row) for row in rows)
        if level := self.from_on(lost / max(1, len(rows))):
            tokenizer = asking.encoded.tokenizer
            common = ", ".join(f'{i} "{tokenizer.decode([i])}" in {times}' for i, times in needed.most_common(3))
            where = asking.suppressed[needed.most_common(1)[0][0]]
            yield self.finding(
                f"{lost} of {len(rows)} references have a token that {where} suppresses: {common}", level
            )

    def of_outputs(self, said: Said) -> Findings:
        """By what the outputs lack."""
        every = sum(times for _, times, _, _ in said.tokens)
        lost = [
            (times, i)
            for i, times, known, outputs in said.tokens
            if not outputs and times >= self.least and known >= self.known * times
        ]
        if lost and said.outputs and sum(outputs for *_, outputs in said.tokens):
            level = "error" if sum(times for times, _ in lost) >= self.error * every else "warning"
            words = ", ".join(f"{i} ({times} times)" for times, i in sorted(lost, reverse=True)[:3])
            evidence = f"no output has {words}, which references have and the network is sure of behind true tokens"
            yield self.finding(evidence, level)  # type: ignore[arg-type]
