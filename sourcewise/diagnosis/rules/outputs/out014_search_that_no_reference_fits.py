from collections.abc import Sequence

import numpy as np

from sourcewise.data.batches import IGNORED
from sourcewise.diagnosis.asked import OF_SOURCE, PENALTY, TWICE, Asking
from sourcewise.diagnosis.rule import Cure, Findings, Rule

LOOSER = Cure(
    "Let outputs repeat what references repeat, in the call and in generation_config.json:",
    "network.generation_config.update(no_repeat_ngram_size=0, encoder_no_repeat_ngram_size=0, repetition_penalty=1.0)",
)


class SearchThatNoReferenceFits(Rule[Asking]):
    """The shortest and longest outputs that the search allows (min_new_tokens and max_new_tokens, or min_length and
    max_length of a folder's generation_config.json; generation_max_length of a Trainer, or 20 tokens), beside the
    lengths of the references in tokens. And references that repeat as many tokens in a row as no_repeat_ngram_size
    bars, or have as many from their source as encoder_no_repeat_ngram_size does.
    ## Why that is bad
    Where the end of text is forbidden until after a reference ends, every output is too long, and what fills it is made
    up. Where it is cut before, none can be complete. Such settings stay in a folder from its former task.
    ## Threshold and its origin
    Error where {error:words} of the references or more are shorter than the shortest output, or longer than the longest
    one, or have what is barred; warning from {warning:words}. A warning too for a repetition_penalty from {penalty} on,
    where {error:words} of the references have a token twice (1.1 to 1.3 are in use).
    """

    code, name, level, rank = "OUT014", "outputs are asked for that no reference fits", "error", 0.1
    learned = False
    error, warning = 0.5, 0.1  # of the references
    penalty = 2
    explains = "OUT00* TRN011"
    cures = Cure(
        "Set the lengths of this task, beside or in generation_config.json:",
        {"generation.min_new_tokens": 0, "generation.max_new_tokens": 128},
        instead="Set min_new_tokens (min_length) and max_new_tokens (max_length) for this task, in the call or in "
        "generation_config.json.",
    )

    def check(self, asking: Asking) -> Findings:
        lengths = np.asarray(asking.encoded.target_lengths)
        bounds = [
            ("min_new_tokens", asking.shortest, lengths < asking.shortest, "shorter"),
            ("max_new_tokens", asking.longest, lengths > asking.longest, "longer"),
        ]
        for key, bound, beyond, words in bounds:
            share = float(beyond.mean())
            if level := self.from_on(share):
                said = asking.told or f"{key} is {bound} (min_length or max_length of a folder, where it has that)"
                rest = f"{100 * share:.0f} % of the references are {words}, their median is {int(np.median(lengths))}"
                yield self.finding(f"{said}; {rest} tokens", level)
        yield from self.of_barred(asking)

    def of_barred(self, asking: Asking) -> Findings:
        """What the search may not say again, or not of the source."""
        targets, sources = asking.encoded.targets, asking.encoded.sources
        n, of_source = int(asking.barred.get(TWICE, 0)), int(asking.barred.get(OF_SOURCE, 0))
        found = [(TWICE, n, [len(set(rows)) < len(rows) for rows in (grams(ids, n) for ids in targets)])] if n else []
        if of_source and sources is not None:
            pairs = zip(targets, sources, strict=True)
            shared = [bool(set(grams(ids, of_source)) & set(grams(source, of_source))) for ids, source in pairs]
            found.append((OF_SOURCE, of_source, shared))
        for name, size, lost in found:
            if level := self.from_on(sum(lost) / max(1, len(lost))):
                why = (
                    "have so many tokens in a row twice"
                    if name == TWICE
                    else "share so many in a row with their source"
                )
                evidence = f"{name} is {size}; {100 * sum(lost) / len(lost):.0f} % of the references {why}"
                yield self.finding(f"{evidence}, and cannot be said", level, LOOSER)
        again = [len(set(ids)) < len(ids) for ids in (grams(ids, 1) for ids in targets)]
        if asking.barred.get(PENALTY, 0) >= self.penalty and sum(again) >= self.error * len(again):
            evidence = (
                f"{PENALTY} is {asking.barred[PENALTY]:g}; {100 * sum(again) / len(again):.0f} % of the references"
            )
            yield self.finding(f"{evidence} have a token twice", "warning", LOOSER)


def grams(ids: Sequence[int] | np.ndarray, n: int) -> list[tuple[int, ...]]:
    """All runs of so many tokens."""
    row = [int(i) for i in ids if i != IGNORED]
    return [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]
