from sourcewise.data.readers.doubtful import ALL, DOUBTS
from sourcewise.diagnosis.pairs import Pairs, made_of_text, named, quoted, sample
from sourcewise.diagnosis.rule import CannotTell, Cure, Findings, Rule


class DamagedTexts(Rule[Pairs]):
    """The share of sources, and of targets, that were damaged before they were read: UTF-8 that was taken for another
    encoding (KÃ¤se), characters that a decoder could not read (U+FFFD), ISO-2022. Texts as they stand in the files.
    ## Why that is bad
    The same word comes in two spellings, of which one is rubbish: what is learned of one is not known of the other, and
    damaged targets teach to say rubbish.
    ## Threshold and its origin
    Of either side: warning from {warning:%}, error from {error:%} of the texts. A warning, too, where {marks:%} of them
    hold characters as HTML or JSON write them (&amp; or a backslash, u and four digits; a backslash and n), special
    tokens of a tokenizer as text ([CLS] in front, </s> at the end, <pad>; within a text they may part its fields),
    control characters or byte order marks, or are bytes as Python writes them (b'…'); or where {mostly:%} are lists of
    one (['…']). Ours. Real texts hardly ever look so.
    """

    code, name, level, rank = "DAT031", "texts that were damaged", "error", 2.2
    warning, error = 0.005, 0.1  # of the texts
    marks, mostly = 0.05, ALL  # of the texts, with marks of another program
    explains = "DAT006 DAT023 DAT026 OUT011 OUT018"
    cures = Cure(
        "Read the files again as what they are, or mend the texts that were read wrong:",
        'text.encode("cp1252").decode("utf-8")  # where that was UTF-8 read as cp1252',
    )

    def check(self, pairs: Pairs) -> Findings:
        if pairs.ids is not None:
            raise CannotTell("whether texts were damaged", "texts are ids already")
        for part in pairs.parts:
            chosen = [part.dataset[int(i)] for i in sample(len(part))]
            read = () if part.dataset.dims or made_of_text(part) else (("sources", [e.source for e in chosen]),)
            for side, texts in (*read, ("targets", [e.target for e in chosen])):
                for doubt in DOUBTS:
                    found = [text for text in texts if doubt.does(text)]
                    level = self.from_on(len(found) / len(texts))
                    if not doubt.damaged:  # as another program writes them
                        least = self.mostly if doubt.mostly else self.marks
                        level = "warning" if len(found) >= least * len(texts) else None
                    if found and level:
                        evidence = f"{100 * len(found) / len(texts):.1f} % of the {side}, such as {quoted(found[0])}"
                        yield self.finding(named(part, f"{evidence}, {doubt.what}"), level)
