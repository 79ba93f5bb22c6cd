"""Decodes text files into lines: byte order marks, encodings, line ends of other systems, errors in one line."""

from __future__ import annotations

import codecs
import contextlib
import itertools
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from sourcewise.errors import RequestError

_MARKS = (  # longer ones first, since the mark of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PACKED = {
    b"\x1f\x8b": "compressed (gzip); unpack it first: gunzip",
    b"PK\x03\x04": "a zip archive, as spreadsheets are; unpack it, or export a .csv",
    b"BZh91AY": "compressed (bzip2); unpack it first: bunzip2",
    b"\xfd7zXZ\x00": "compressed (xz); unpack it first: unxz",
    b"\x28\xb5\x2f\xfd": "compressed (zstd); unpack it first: unzstd",
    b"\xd0\xcf\x11\xe0": "a workbook of Excel (.xls); export a .csv",
    b"%PDF": "a PDF; export its text",
    b"{\\rtf": "a rich text; save it as plain text, in UTF-8",
    b"SQLite format 3": "a database of SQLite; export the table as a .csv",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself; fetch it with: git lfs pull",
    b"PAR1": "a Parquet file; let its name end in .parquet",
    b"\x93NUMPY": "an .npy of features; let its name end in .npy",
}
_UNMARKED = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
_JAVAS = re.compile(rb"\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf]|\xc0\x80")
_LINE_OF_NULS = re.compile(rb"(?:\A|\n)(\0+)\r?(?:\n|\Z)")
_END_OF_DOS = "\x1a"  # Ctrl-Z, after the last line


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file. Raises RequestError if it is missing or cannot be read."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise RequestError(f"{path}: no such file") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from None


@contextlib.contextmanager
def open_binary(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file to read in parts. Raises RequestError if it is missing or cannot be opened."""
    try:
        stream = Path(path).open("rb")  # noqa: SIM115 - what it is used for must not be caught here
    except FileNotFoundError:
        raise RequestError(f"{path}: no such file") from None
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from None
    with stream:
        yield stream


def read_lines(path: str | Path, *, nul: bool = False) -> list[str]:
    """The lines of a text file without line ends; with `nul`, lines may hold NULs. Raises RequestError."""
    return decode_lines(read_bytes(path), str(path), nul=nul)


def line_windows(stream: BinaryIO, name: str, size: int) -> Iterator[list[str]]:
    """Yields the lines of a stream, `size` at a time, decoded as by `decode_lines`, so that a set of any length fits.

    NULs among other characters are kept, since every line gets an output.
    """
    return (read() for _, _, read in raw_windows(stream, name, size))


def raw_windows(stream: BinaryIO, name: str, size: int) -> Iterator[tuple[bytes, int, Callable[[], list[str]]]]:
    """Yields the same windows as bytes, number of lines, and a function that decodes them; it raises RequestError."""
    before = 0
    while raw := list(itertools.islice(stream, size)):
        data = b"".join(raw)
        if not before and not line_ends_are_plain(data):
            lines = decode_lines(data + stream.read(), name, nul=True)
            for some in (lines[i : i + size] for i in range(0, len(lines), size)):
                yield "\n".join(some).encode(errors="surrogatepass"), len(some), partial(list, some)
            return
        yield data, len(raw), partial(decode_lines, data, name, before, nul=True)
        before += len(raw)


def line_ends_are_plain(data: bytes) -> bool:
    """Whether a binary stream splits lines correctly: UTF-8 with no line ends but \\n and \\r\\n."""
    return not marked(data) and data.count(b"\r") == data.count(b"\r\n")


def marked(data: bytes) -> bool:
    """Whether bytes begin with the byte order mark of UTF-16 or UTF-32."""
    return any(data.startswith(mark) for mark, _ in _MARKS)


def decode_lines(data: bytes, name: str, before: int = 0, *, nul: bool = False) -> list[str]:
    """Bytes → lines without line ends, by `decode_text` and `split_lines`; `before` is the number of earlier lines.

    Raises RequestError with the line that is no text, or has another line end than the rest.
    """
    return split_lines(decode_text(data, name, before, nul=nul), name, before)


def decode_text(data: bytes, name: str, before: int = 0, *, nul: bool = False) -> str:
    """The text of UTF-8 bytes, or of UTF-16 and UTF-32 with a byte order mark; the mark is removed.

    Raises RequestError that names the line and byte of invalid UTF-8, an encoding without its mark, a NUL byte (with
    `nul`, only a line of nothing else), or another kind of file. `before` is the number of earlier lines; if it is not
    0, the bytes do not begin a file.
    """
    if not before:
        packed = next((what for start, what in _PACKED.items() if data.startswith(start)), None)
        if packed:
            raise RequestError(f"{name}: is {packed}")
        encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)
        if encoding:
            return _decoded(data, encoding, name).lstrip("\ufeff")
    if b"\0" in data:
        _check_nul(data, name, before, nul)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(data, error, name, before) from None
    return text if before else text.lstrip("\ufeff")


def split_lines(text: str, name: str, before: int = 0) -> list[str]:
    """The lines of a text without line ends: \\n, \\r\\n, and those that `with_newlines` converts.

    Other separators of Unicode occur inside real text and end no line. A Ctrl-Z after the last line is DOS' end of
    file. Raises RequestError for a \\r inside a line that ends in \\n, since its meaning is ambiguous.
    """
    if "\r" in text:
        text = with_newlines(text).replace("\r\n", "\n")
        _check_no_returns(text, name, before)
    lines = text.split("\n")
    if lines[-1] in ("", _END_OF_DOS):
        lines.pop()
    return lines


def with_newlines(text: str) -> str:
    """The text with other line ends as \\n: \\r or \\n\\r if all lines end so, and \\r\\r\\n; \\r\\n is kept."""
    returns, newlines = text.count("\r"), text.count("\n")
    if not returns:
        return text
    if not newlines:
        return text.replace("\r", "\n")
    if text.count("\r\n") < returns and text.count("\n\r") == returns == newlines:
        return text.replace("\n\r", "\n")
    if text.count("\r\r\n") == newlines:  # \r\n, written by a system that turns \n into \r\n
        return text.replace("\r\r\n", "\n")
    return text


def _check_no_returns(text: str, name: str, before: int) -> None:
    alone = text.count("\r")
    if alone:
        line = before + text.count("\n", 0, text.index("\r")) + 1
        raise RequestError(
            f"{name}:{line}: a carriage return (\\r) within a line; {alone:,} stand alone beside "
            f"{text.count(chr(10)):,} lines that end in \\n; are they line ends, or part of a text? "
            "Let each line end in \\n, and take out the others"
        )


def _decoded(data: bytes, encoding: str, name: str) -> str:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        problem = f"has the mark of {encoding.upper()}, but cannot be read so at byte {error.start}"
        raise RequestError(f"{name}: {problem}; is it cut off? Save it as UTF-8") from None
    if "\0" in text:
        raise _nul(text.count("\n", 0, text.index("\0")) + 1, text.count("\0"), name)
    return text


def _check_nul(data: bytes, name: str, before: int, nul: bool) -> None:
    """Raises RequestError for bytes with NULs, which have another encoding or are damaged."""
    for encoding in [] if before else _UNMARKED:
        width = 4 if "32" in encoding else 2
        text = data[: len(data) // width * width].decode(encoding, errors="replace")
        ends = max(text.count("\n"), text.count("\r"))
        plain = "\0" not in text and "\ufffd" not in text and (ends or 3 * data.count(b"\0") > len(data))
        if plain and 2 * ends >= max(data.count(b"\n"), data.count(b"\r")):  # line ends at the places of characters
            shown = encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
            cure = f"save it as UTF-8: iconv -f {shown} -t UTF-8 {name} > NEW"
            raise RequestError(f"{name}: is {shown} without a byte order mark, not UTF-8; {cure}")
    alone = _LINE_OF_NULS.search(data)
    if alone or not nul:
        place = alone.start(1) if alone else data.index(b"\0")
        raise _nul(before + data.count(b"\n", 0, place) + 1, data.count(b"\0"), name)


def _nul(line: int, count: int, name: str) -> RequestError:
    which = "a NUL byte" if count == 1 else f"the first of {count:,} NUL bytes"
    return RequestError(f"{name}:{line}: {which}; no text has one: the file is damaged, or no text; write it again")


def _not_utf8(data: bytes, error: UnicodeDecodeError, name: str, before: int) -> RequestError:
    line = before + data.count(b"\n", 0, error.start) + 1
    byte = error.start - data.rfind(b"\n", 0, error.start)
    wrong = sum(_is_not_utf8(part) for part in data.split(b"\n"))
    count = f"; {wrong:,} lines are not" if wrong > 1 else ""
    return RequestError(
        f"{name}:{line}: not UTF-8 text at byte {byte} of the line (0x{data[error.start]:02x}){count}; " + _cure(data)
    )


def _cure(data: bytes) -> str:
    """How to save as UTF-8 what is in another encoding, which its writer knows."""
    if _JAVAS.search(data):
        return "Java or Oracle wrote it in its own form of UTF-8 (CESU-8); save it as UTF-8"
    return (
        "save it as UTF-8: iconv -f ENCODING -t UTF-8, where ENCODING is its writer's (of Windows: CP1252 in Western "
        "Europe, CP1251 Cyrillic, GB18030 and BIG5 Chinese, CP932 Japanese, CP949 Korean)"
    )


def _is_not_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False
