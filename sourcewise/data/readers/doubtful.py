"""Texts that are read as they stand, but are hardly what was meant: wrong encodings, marks, control characters.

Nothing is changed; each kind is told once per column or file, with its count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sourcewise.data.examples import Note
from sourcewise.data.sequences import blocks

_LEAD = "".join(map(chr, range(0xC2, 0xF5)))  # first bytes of characters in UTF-8, read as Latin letters
_REST = "".join(map(chr, range(0x80, 0xC0))) + bytes(set(range(0x80, 0xA0)) - {0x81, 0x8D, 0x8F, 0x90, 0x9D}).decode(
    "cp1252"
)
_CODED_TWICE = re.compile(f"[{_LEAD}][{_REST}]")
_SURELY = re.compile("[ÃÂ][\xa0-\xbf]|â€")  # no words end so, as AMANHÃ… and SÉ… do
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x7f]")  # \t to \r end lines and pages, \x1b shifts, \x1c to \x1f part
_SHIFTS = re.compile(r"\x1b[$(][@-Z]")  # of ISO-2022, as e-mail in Japanese has them
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|[aouAOUszeic][a-z]{2,5}|#\d{2,5}|#x[0-9A-Fa-f]{2,5});")
_ESCAPED = re.compile(r"\\u[0-9A-Fa-f]{4}|=[C-F][0-9A-F]=[89AB][0-9A-F]")
_BYTES = re.compile(r"""^\s*b(['"]).*\1\s*$""")
_LIST_OF_ONE = re.compile(r"""^\s*[\[(]\s*(['"])(?:(?!\1\s*,\s*['"]).)*\1\s*,?\s*[\])]\s*$""")
_BEGINS, _ENDS = r"<(?:s|bos|sos|go)>|\[(?:CLS|BOS)\]", r"</s>|<eos>|\[(?:SEP|EOS)\]|<\|endoftext\|>"
_PADS = r"<(?:pad|unk)>|\[(?:PAD|UNK)\]"
_SPECIAL = re.compile(f"{_BEGINS}|{_ENDS}|{_PADS}", re.I)
_SPECIAL_AT_EDGES = re.compile(rf"^\s*(?:{_BEGINS})|(?:{_ENDS})\s*$|{_PADS}", re.I)  # within, they may part fields
_LINES = re.compile(r"\\[nrt](?=[A-Z0-9\s\"']|$)")
_TIMES = re.compile(r"\s*(?:\d+:)?\d\d:\d\d[.,]\d+ --> (?:\d+:)?\d\d:\d\d[.,]\d+")
_DOCUMENT = re.compile(r"\s*(?:<\?xml\b|<!DOCTYPE\b|<html\b|<[A-Za-z][\w:.-]*(?:\s[^<>]*)?>\s*$)")
ALL = 0.95  # of the texts, that are so where it is doubtful that all are
_NOT_ENDS = ("\x85", "\u2028", "\u2029", "\x1e", "\x0c", "\x0b")  # separators of other systems


@dataclass(frozen=True, slots=True)
class Doubt:
    """A kind of text: whether a joined block may hold it, whether one text does, and what to say of so many."""

    may: Callable[[str], object]
    does: Callable[[str], object]
    what: str
    mostly: bool = False  # whether single texts may well be so: it is doubtful where nearly all are
    damaged: bool = False  # whether the text itself is not what was meant, not a mark in it


def is_coded_twice(text: str) -> bool:
    """Whether a text is UTF-8 that was read as a Western encoding of Windows (`KÃ¤se` for `Käse`)."""
    if len(_CODED_TWICE.findall(text)) < (1 if _SURELY.search(text) else 2):
        return False
    data = bytearray()
    for char in text:
        try:
            data += char.encode("cp1252")
        except UnicodeEncodeError:
            if ord(char) > 0xFF:
                return False
            data.append(ord(char))  # the five bytes that cp1252 leaves free
    try:
        return data.decode("utf-8") != text
    except UnicodeDecodeError:
        return False


DOUBTS = (
    Doubt(
        lambda block: "\ufffd" in block,
        lambda text: "\ufffd" in text,
        "hold \ufffd (U+FFFD): a decoder could not read what stood there; write them again from what they were made of",
        damaged=True,
    ),
    Doubt(
        _CODED_TWICE.search,
        is_coded_twice,
        "are UTF-8 that was read as another encoding (as Käse becomes KÃ¤se): text.encode('cp1252').decode('utf-8')",
        damaged=True,
    ),
    Doubt(
        lambda block: "\ufeff" in block,
        lambda text: "\ufeff" in text,
        "hold a byte order mark (U+FEFF), kept: were files joined?",
    ),
    Doubt(
        _SHIFTS.search,
        _SHIFTS.search,
        "are ISO-2022 (ESC $ B …), not UTF-8: iconv -f ISO-2022-JP -t UTF-8",
        damaged=True,
    ),
    Doubt(
        _CONTROL.search,
        _CONTROL.search,
        "hold control characters such as NUL, kept; are they damaged, or of another encoding?",
    ),
    Doubt(
        _ENTITY.search,
        _ENTITY.search,
        "hold characters as HTML writes them (&amp; &quot; &#39;), kept: html.unescape(text)",
    ),
    Doubt(
        _ESCAPED.search,
        _ESCAPED.search,
        "hold characters as numbers (\\u00e4, or =C3=A4 as in e-mail), kept: were they written by another program?",
    ),
    Doubt(
        lambda block: "b'" in block or 'b"' in block,
        _BYTES.search,
        "are bytes as Python writes them (b'…'), kept: write value.decode()",
    ),
    Doubt(
        lambda block: "[" in block or "(" in block,
        _LIST_OF_ONE.search,
        "are lists of one text as Python writes them (['…']), kept: write value[0]",
        mostly=True,
    ),
    Doubt(
        _SPECIAL.search,
        _SPECIAL_AT_EDGES.search,
        "hold special tokens as text (</s>, [CLS], <pad>), kept: take them out, a tokenizer puts its own there",
    ),
    Doubt(
        _LINES.search,
        _LINES.search,
        "hold ends of lines as two characters (a backslash and n), kept: were they written by another program?",
    ),
)


def doubts(texts: Sequence[str], called: str) -> Iterator[tuple[int, str]]:
    """Yields (index of the first text, remark) for each kind that occurs; the texts are `called` "lines", say."""
    rows: dict[Doubt, list[int]] = {}
    for start, block in blocks(texts):
        joined = "\n".join(block)
        for doubt in (each for each in DOUBTS if each.may(joined)):
            rows.setdefault(doubt, []).extend(start + i for i, text in enumerate(block) if doubt.does(text))
    for doubt, found in rows.items():
        if found:
            if doubt.mostly and len(found) < ALL * len(texts):
                continue
            yield found[0], f"{len(found):,} {called} {doubt.what}"


def other_ends(lines: Sequence[str]) -> str:
    """A remark on a file of one line that another system's line ends divide; "" for any other."""
    if len(lines) != 1:
        return ""
    for mark in _NOT_ENDS:
        count = lines[0].rstrip(mark).count(mark)
        if count > 1:
            return (
                f"one line, in which {count:,} times U+{ord(mark):04X} stands: are these line ends? Write \\n for them"
            )
    return ""


def not_lines(lines: Sequence[str]) -> str:
    """A remark on a file whose lines are not texts, but parts of a document: subtitles, XML, JSON; "" for others."""
    times = sum(_TIMES.match(line) is not None for line in lines)
    if times > 1 or (times and lines[0].lstrip("\ufeff").startswith("WEBVTT")):
        return f"{times:,} lines are times of subtitles, read as texts like all others; write the texts alone"
    beginning = next((line for line in lines if line.strip()), "")
    if _DOCUMENT.match(beginning):
        return f"begins as XML or HTML ({beginning.strip()[:40]}): tags are read as texts; write the texts alone"
    if beginning.startswith('{"') and beginning.rstrip().endswith("}"):
        return "lines are JSON, read as texts with their braces; let the name of such a file end in .jsonl"
    return ""


def damage(what: str) -> str:
    """The kind of damaged texts that a note tells of; empty if it tells of something else."""
    return next((doubt.what for doubt in DOUBTS if doubt.damaged and what.endswith(doubt.what)), "")


def notes_on(lines: Sequence[str], name: str) -> list[Note]:
    """Notes on the lines of a file that is no table."""
    found = [Note(name, f"line {place + 1}", what) for place, what in doubts(lines, "lines")]
    return found + [Note(name, "line 1", what) for what in (other_ends(lines), not_lines(lines)) if what]
