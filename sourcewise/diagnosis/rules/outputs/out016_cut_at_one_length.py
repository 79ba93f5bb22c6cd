from collections import Counter

from sourcewise.diagnosis.outputs import Outputs
from sourcewise.diagnosis.rule import Cure, Findings, Rule
from sourcewise.metrics.texts import words


class CutAtOneLength(Rule[Outputs]):
    """How many outputs have as many words as the longest of them, how many of their references are longer, and how much
    of these outputs is what their reference begins with.
    ## Why that is bad
    The limit of generation ends them, not the model: what it would have said is lost, and BLEU's brevity penalty takes
    the rest. Generation of Hugging Face ends after 20 tokens unless it is told; loops of one's own often have a number
    in them.
    ## Threshold and its origin
    At least {many:words} of the outputs as long as the longest, {longer:%} of their references longer and not all of
    one length, and {right:words} of their words right, place by place, so that an undertrained model is none of these.
    Outputs that are known to have reached the limit are told by OUT007.
    """

    code, name, level, rank = "OUT016", "outputs are cut at one length", "error", 0.2
    explains = "OUT005 OUT007 OUT009 OUT011 TRN011"
    many, longer, right = 0.5, 0.7, 0.5  # of the outputs, of their references, of their words
    cures = Cure(
        "Raise the limit above the longest reference:",
        {"generation.max_new_tokens": 128},
        "network.generate(**inputs, max_new_tokens=128)",
    )

    def check(self, outputs: Outputs) -> Findings:
        pairs = [
            (words(output), words(reference))
            for output, reference in zip(outputs.outputs, outputs.references, strict=True)
        ]
        lengths = Counter(len(said) for said, _ in pairs)
        longest = max(lengths)
        cut = [(said, wanted) for said, wanted in pairs if len(said) == longest]
        beyond = sum(len(wanted) > longest for _, wanted in cut)
        if outputs.cut or len({len(wanted) for _, wanted in cut}) == 1:
            return  # OUT007 tells; and one word too few of every output may be anything
        if not longest or len(cut) < self.many * len(pairs) or beyond < self.longer * len(cut):
            return
        same = sum(a == b for said, wanted in cut for a, b in zip(said, wanted, strict=False))
        if same < self.right * longest * len(cut):
            return
        evidence = (
            f"{len(cut)} of {len(pairs)} outputs have {longest} words, and none has more; {beyond} of their references"
        )
        evidence += f" do. {100 * same / (longest * len(cut)):.0f} % of their words are right"
        yield self.finding(f"{evidence}: max_new_tokens (max_length) of the generation ends them")
