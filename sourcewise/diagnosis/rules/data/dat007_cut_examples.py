from collections import Counter
from collections.abc import Mapping

import numpy as np

from sourcewise.data.encoding import ExampleSet, Ids
from sourcewise.diagnosis.pairs import FEWEST, MOSTLY, Pairs, made_of_text, named, sample
from sourcewise.diagnosis.rule import Cure, Findings, Rule

WRITTEN = Cure("Export the texts again, from a column or field that keeps them whole (VARCHAR(255) does not).")


class CutExamples(Rule[Pairs]):
    """The share of examples longer than data.max_source, data.max_frames or data.max_target, and the share of all
    tokens or frames that is cut off; and of targets longer than generation.max_new_tokens lets outputs be. In a
    Trainer's data, which is ids already: sources of the largest length there is that lack the end of text, which the
    tokenizer gives each text, or have as many tokens as its model_max_length, or as it was last
    told to keep. And texts that were cut before: many have
    exactly the largest number of characters there is, as behind a column of a table that keeps so many.
    ## Why that is bad
    What is cut off a source cannot be told; a cut target teaches to stop in the middle of a sentence.
    ## Threshold and its origin
    Warning from {warning:%} of the examples, error where {error:words} of all tokens or frames are cut off. Ours. Of
    ids nobody knows how much is gone: there an error where {error:words} of the sources are cut, and shorter than an
    average target. Of characters a warning where {warning:%} of the texts or more, and {spike:words} times as many as
    have any of the {near:words} lengths next to it, have the largest length, and there are {lengths} lengths or more.
    What a tokenizer was told to keep counts where so many have the largest length, or all sources have one length and
    targets have several. Conversations are cut by turns, on purpose, and not counted on the source's side.
    """

    code, name, level = "DAT007", "sources or targets cut", "error"
    warning, error = 0.05, MOSTLY  # of the examples, and of all tokens or frames
    spike, near, lengths = 5, 3, 6  # times; lengths
    cures = Cure("Raise the limit to the longest, or leave long examples out:")

    def check(self, pairs: Pairs) -> Findings:
        if pairs.limits is not None:
            for part in pairs.parts:
                yield from self.of(part, pairs.limits)
            yield from self.of_outputs(pairs.valid or pairs.train, pairs.limits["max_new_tokens"])
        if pairs.ids is None:
            for part in pairs.parts:
                yield from self.of_characters(part)
        if pairs.cut is not None and pairs.cut.sources >= self.warning * pairs.cut.all:
            cut, share = pairs.cut, pairs.cut.sources / pairs.cut.all
            evidence = f"{100 * share:.0f} % of {cut.all} sources have {cut.tokens} tokens, {cut.why}"
            evidence = named(pairs.train, f"{evidence}; targets have {cut.target_tokens:.1f} on average")
            keep = Cure("Let the tokenizer keep more of a source:", "tokenizer(text, truncation=True, max_length=512)")
            yield self.finding(evidence, "error" if cut.mostly else "warning", keep)

    def of(self, part: ExampleSet, limits: Mapping[str, int]) -> Findings:
        """Of what is read."""
        task, dataset = part.dataset.task, part.dataset
        max_target, max_source = task.max_target or limits["max_target"], task.max_source or limits["max_source"]
        yield from self.of_texts(part, "targets", part.targets, part.target_lengths, max_target, "max_target")
        if dataset.dims:
            frames = np.array([example.frames for example in dataset])
            yield from self.of_lengths(part, "sources", frames, limits["max_frames"], "max_frames", "frames")
        elif part.sources is not None and not any(example.turns for example in dataset):
            yield from self.of_texts(part, "sources", part.sources, part.source_lengths, max_source, "max_source")

    def of_texts(self, part: ExampleSet, side: str, ids: Ids, lengths: np.ndarray, limit: int, option: str) -> Findings:
        """Only texts that fill the limit may have been cut: these are measured whole, up to a sample of them."""
        full = np.flatnonzero(lengths == limit)
        if len(full) < self.warning * len(part):
            return
        chosen = full[sample(len(full))]
        texts = [part.dataset[int(i)] for i in chosen]
        said = side == "targets"
        rows = part.tokenizer.encode_batch([e.target if said else e.source for e in texts], target=said)
        whole = lengths.astype(np.float64)
        whole[full] = np.resize([len(row) for row in rows], len(full)) if len(chosen) < len(full) else [*map(len, rows)]
        yield from self.of_lengths(part, side, whole, limit, option, "tokens")

    def of_lengths(
        self, part: ExampleSet, side: str, whole: np.ndarray, limit: int, option: str, units: str
    ) -> Findings:
        """`whole` (examples,) lengths before cutting."""
        over = whole > limit
        share, gone = over.mean(), float((whole[over] - limit).sum() / whole.sum())
        if share >= self.warning:
            longest = part.dataset[int(whole.argmax())].where
            evidence = (
                f"{100 * share:.0f} % of the {side} are longer than {option} {limit}, such as {longest} "
                f"({whole.max():.0f} {units}); {100 * gone:.0f} % of all {units} are cut off"
            )
            cure = Cure(self.cure, {f"data.{option}": int(whole.max())})
            yield self.finding(named(part, evidence), "error" if gone >= self.error else "warning", cure)

    def of_characters(self, part: ExampleSet) -> Findings:
        """Of texts that something cut before they were read."""
        chosen = [part.dataset[int(i)] for i in sample(len(part))]
        read = () if part.dataset.dims or made_of_text(part) else (("sources", [e.source for e in chosen]),)
        for side, texts in (*read, ("targets", [e.target for e in chosen])):
            counts = Counter(map(len, texts))
            longest, *below = sorted(counts, reverse=True)[: self.near + 1]
            usual = max((counts[length] for length in below), default=0)
            many = counts[longest] >= max(self.warning * len(texts), self.spike * usual, FEWEST)
            if many and len(counts) >= self.lengths:
                evidence = f"{100 * counts[longest] / len(texts):.0f} % of the {side} have exactly {longest} characters"
                evidence += f", the most there are; of the {self.near} lengths next to it none has more than "
                yield self.finding(named(part, f"{evidence}{100 * usual / len(texts):.0f} %"), "warning", WRITTEN)

    def of_outputs(self, examples: ExampleSet, limit: int) -> Findings:
        """Of what is generated: targets that are longer than an output may be."""
        if len(examples) < FEWEST or made_of_text(examples):
            return
        lengths = examples.target_lengths.astype(np.float64)
        over = lengths > limit
        gone = float((lengths[over] - limit).sum() / lengths.sum())
        if over.mean() >= self.warning:
            evidence = f"{100 * over.mean():.0f} % of {len(lengths)} targets are longer than generation.max_new_tokens"
            evidence += f" {limit}; outputs would lack {100 * gone:.0f} % of their tokens"
            cure = Cure(self.cure, {"generation.max_new_tokens": int(lengths.max())})
            yield self.finding(named(examples, evidence), "error" if gone >= self.error else "warning", cure)
