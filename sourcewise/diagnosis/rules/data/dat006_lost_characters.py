from sourcewise.data.encoding import ExampleSet
from sourcewise.diagnosis.finding import Level
from sourcewise.diagnosis.measures.characters import (
    SAMPLE,
    SHOWN,
    TARGETS,
    Unsaid,
    cures_of,
    form_known,
    lost_characters,
    named,
    only_blanks,
    spread,
    told,
    unsaid_targets,
)
from sourcewise.diagnosis.measures.likely_unknown import FREQUENT, KINDS
from sourcewise.diagnosis.pairs import Ids, Pairs
from sourcewise.diagnosis.pairs import named as named_of
from sourcewise.diagnosis.rule import Cure, Findings, Rule

SIDES = Cure(
    "Take a tokenizer that knows this language, and encode targets as targets: some have two vocabularies (Marian), "
    "and tokenizer(target) without text_target= takes the wrong one:",
    "tokenizer(source, text_target=target)",
)


def other_form(side: str, form: str) -> Cure:
    """What to do where texts are in another Unicode form than the vocabulary."""
    words = f"Write the {side} in the Unicode form of the vocabulary, {form}, in training and in use"
    line = f'text = unicodedata.normalize("{form}", text)'
    if side == "sources":
        return Cure(f"{words}:", {"data.train.source_form": form}, instead=f"{words}: {line}")
    return Cure(f"{words}:", line)


class LostCharacters(Rule[Pairs]):
    """The share of characters that do not come back when texts are turned into ids and read again (case, spaces and
    Unicode's compatible forms apart), and the share of unknown tokens, of sources and of targets, up to {texts}. Of up
    to {targets} targets also how many do not come back exactly as written: line breaks, indents, joiners, other forms.
    And whether they would come back in the other Unicode form, composed (NFC) or decomposed (NFD).
    Of the training set, and of the validation set. Of texts that are there as ids only, the unknown tokens;
    where their id is not known, one that stands in {frequent:%} of the places of sources of {kinds} different ids or
    more, and behind itself as often as elsewhere.
    ## Why that is bad
    What the tokenizer does not know can neither be read nor said, however long the training; and no output can equal a
    reference that the tokenizer changes.
    ## Threshold and its origin
    Of either side: warning from {warning:%} of the characters, error from {error:%}. Ours. A vocabulary of whole words
    leaves its rarest words out by design: there the bounds are {warning_of_words:points} and {error_of_words:%}.
    Targets that do not come back are a warning from {few:%} of them, else a note; so are those of one line that lose
    nothing but spaces at their ends or doubled ones. Of the validation set there is no error: it is not learned from.
    """

    code, name, level = "DAT006", "texts lost in the tokenizer", "error"
    explained_by = "DAT015"
    explains = "DAT002:warning DAT009 DAT010"
    warning, error = 0.02, 0.2  # of the characters
    warning_of_words, error_of_words = 0.2, 0.5  # the same, of a vocabulary of whole words
    few = 0.01  # of the targets
    texts, targets = SAMPLE, TARGETS
    frequent, kinds = FREQUENT, KINDS
    cures = Cure(
        "Take a tokenizer that was trained on this language, train one here (leave data.tokenizer out), or add what is "
        "lacking:",
        {"data.add_tokens": ["ß", "ä"]},
        instead="Take a tokenizer that was trained on this language, or add what is lacking: tokenizer.add_tokens(…).",
    )

    def check(self, pairs: Pairs) -> Findings:
        if pairs.ids is not None:
            for part in pairs.parts:
                yield from self.of_ids(part, pairs.ids)
        pairs.check_written()
        for part in pairs.parts:
            yield from self.of(part, pairs.whole_words)
        trained = {part.dataset.name for part in pairs.train.parts}
        for part in pairs.valid.parts if pairs.valid is not None else ():
            if not part.drawn and part.dataset.name not in trained:
                yield from self.of(part, pairs.whole_words, learned=False)

    def of(self, part: ExampleSet, words: bool, *, learned: bool = True) -> Findings:
        """Of the texts of a set, whose tokenizer has whole `words` or not. Milder if it is not `learned`."""
        chosen = [part.dataset[int(i)] for i in spread(len(part), self.texts)]
        for side, texts in (("targets", [e.target for e in chosen]), ("sources", [e.source for e in chosen])):
            lost, total, unknown = lost_characters(part.tokenizer, texts, side == "targets")
            share = sum(lost.values()) / total if total else 0.0
            level, evidence = self.of_words(share) if words else self.from_on(share), list[str]()
            other: tuple[Cure, ...] = ()
            unsaid = unsaid_targets(part) if side == "targets" else []
            if level is not None:
                shown = " ".join(f"{named(character)} ({count})" for character, count in lost.most_common(SHOWN))
                evidence.append(
                    f"{100 * share:.1f} % of the characters of {len(texts)} {side} do not come back: {shown}"
                )
                evidence.append(f"{100 * unknown:.1f} % of their tokens are unknown")
                if form := form_known(part.tokenizer, texts, side == "targets", share):
                    kinds = {"NFC": "decomposed (NFD)", "NFD": "composed (NFC)"}
                    evidence.append(f"they are {kinds[form]}, the vocabulary is not: in {form} they come back")
                    other = (other_form(side, form),)
            if unsaid:
                evidence.append(told(part, unsaid))
                level = level or self.of_texts(unsaid, min(len(part), self.targets), words)
            if level is not None:
                if not learned and level != "note":  # a training goes well all the same
                    level = "warning" if level == "error" or side == "targets" else "note"
                text = f"{part.dataset.name}: {'; '.join(evidence)}"
                yield self.finding(text, level, *(other or (cures_of(part, unsaid) if unsaid else ())))

    def of_ids(self, part: ExampleSet, known: Ids) -> Findings:
        """Of texts that are there as ids only: the unknown ones."""
        guessed = known.unknown is None
        sides = (("targets", part.targets, known.unknown), ("sources", part.sources, known.likely or known.unknown))
        for side, rows, sought in sides:
            if sought is None:
                continue
            said = [[i for i in row if i not in known.ends] for row in rows or ()]
            total, unknown = sum(map(len, said)), sum(i == sought for row in said for i in row)
            share = unknown / max(1, total)
            level = self.of_words(share) if known.whole_words or guessed else self.from_on(share)
            if level is not None:
                whole = sum(bool(row) and all(i == sought for i in row) for row in said)
                which = f"id {sought}, which looks like that of unknown words" if guessed else f"unknown (id {sought})"
                evidence = f"{100 * share:.1f} % of the tokens of {len(said)} {side} are {which}"
                yield self.finding(named_of(part, f"{evidence}; {whole} {side} are nothing else"), level, SIDES)

    def of_words(self, share: float) -> Level | None:
        """How grave it is that so many characters are lost of whole words, of which the rarest are, by design."""
        return "error" if share >= self.error_of_words else "warning" if share >= self.warning_of_words else None

    def of_texts(self, unsaid: list[Unsaid], looked: int, words: bool) -> Level:
        """A warning where more than blanks of some is lost; but rare words are left out by a vocabulary of words."""
        many = sum(not only_blanks(each) for each in unsaid) >= self.few * looked
        return "warning" if many and not words else "note"
