"""Remarks on texts that are scored: what makes a figure another than the one that people publish."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sourcewise.metrics.counting import Counting, References, bleu_tokenizer
from sourcewise.metrics.texts import UNSPACED_LETTER

SHARE = 0.5  # of the texts that have to look so
_BY_CHARACTER = ("zh", "char", "ja-mecab", "ko-mecab")
_TOKENISED_ENDS = (" .", " ?", " !")


def remarks(
    references: References, outputs: Sequence[Sequence[str]], counting: Counting, keys: Iterable[str]
) -> list[str]:
    """What a reader of these scores should know; `outputs` are those of every system."""
    texts = [text for each in references for text in each]
    said = [text for each in outputs for text in each]
    asked = set(keys)
    return [
        *_unspaced(references, texts, counting, asked),
        *_tokenised(texts, counting, asked),
        *_case(texts, said, counting),
    ]


def wer_says_little(references: References, counting: Counting) -> str:
    """Why WER by spaces says little of these references; empty if it does not."""
    texts = [text for each in references for text in each]
    alone = sum(len(text.split()) for text in texts) < 2 * len(texts)
    if counting.wer_words != "spaces" or not alone or not _mostly_unspaced(texts):
        return ""
    way = "publish cer, or set wer_words to characters"
    return f"wer: words stand between spaces, and these references are written without: {way}"


def _mostly_unspaced(texts: Iterable[str]) -> bool:
    """Whether most letters are of a script that is written without spaces."""
    text = "".join("".join(each.split()) for each in texts)
    return len(text) > 0 and 2 * len(UNSPACED_LETTER.findall(text)) > len(text)


def _unspaced(references: References, texts: Sequence[str], counting: Counting, asked: set[str]) -> list[str]:
    if not _mostly_unspaced(texts):
        return []
    unfit = wer_says_little(references, counting)
    found = [unfit] if "wer" in asked and unfit else []
    if "bleu" in asked and counting.bleu_tokenize in ("13a", "intl", "none"):
        chosen, better = counting.bleu_tokenize, bleu_tokenizer(texts)
        found.append(f"bleu_tokenize {chosen} does not split these references into words; {better} does")
    if "ter" in asked and not (counting.ter_asian and counting.ter_normalized):
        found.append("ter: words stand between spaces; ter_normalized with ter_asian splits Han and kana")
    return found


def _tokenised(texts: Sequence[str], counting: Counting, asked: set[str]) -> list[str]:
    ends = sum(text.rstrip().endswith(_TOKENISED_ENDS) for text in texts)
    if ends <= SHARE * len(texts) or "bleu" not in asked or counting.bleu_tokenize in ("none", *_BY_CHARACTER):
        return []
    where = f"{ends:,} of {len(texts):,} references end in a mark of its own, as tokenised text does"
    return [f"{where}; figures of raw text are others, and so are those with bleu_tokenize none"]


def _case(texts: Sequence[str], said: Sequence[str], counting: Counting) -> list[str]:
    if counting.lowercase:
        return []
    sides = {"references": texts, "outputs": said}
    lower = {name: sum(text != text.lower() for text in each) / max(1, len(each)) for name, each in sides.items()}
    for one, other in (("references", "outputs"), ("outputs", "references")):
        if lower[one] == 0 and lower[other] > SHARE:
            return [f"the {one} have no capitals, the {other} have: lowercase compares them without"]
    return []
