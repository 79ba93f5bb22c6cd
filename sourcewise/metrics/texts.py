"""Texts as the metrics read them: normalised for comparison, and split into words.

Words are separated by spaces; in scripts written without spaces (Han, kana, Thai, Lao, Khmer, Burmese) every character
is a word.
"""

from __future__ import annotations

import re
import unicodedata

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f"
_OTHER_UNSPACED = "\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9d\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff"
_LINE_END = re.compile(r"\r\n?|\n")
_WORD = re.compile(rf"[{_HAN}{_OTHER_UNSPACED}]|[^\s{_HAN}{_OTHER_UNSPACED}]+")
HAN_LETTER = re.compile(f"[{_HAN}]")
UNSPACED_LETTER = re.compile(f"[{_HAN}{_OTHER_UNSPACED}]")


def plain(text: str) -> str:
    """A text normalised for exact comparison: Unicode NFC, single spaces, none at the ends.

    Texts of several lines, such as code, keep their lines and indents.
    """
    lines = [line for line in _LINE_END.split(unicodedata.normalize("NFC", text)) if line.strip()]
    indents = [line[: len(line) - len(line.lstrip())] if len(lines) > 1 else "" for line in lines]
    return "\n".join(indent + " ".join(line.split()) for indent, line in zip(indents, lines, strict=True))


def words(text: str) -> list[str]:
    """Words between spaces; single characters in scripts written without spaces."""
    return _WORD.findall(text)
