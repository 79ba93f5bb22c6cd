"""What a message quotes of files and names cannot break its line, nor hide what it says."""

from __future__ import annotations

import pytest

from sourcewise.errors import FaultyData, RequestError, printable


@pytest.mark.parametrize(
    "text, shown",
    [
        ("a\tb\nc\rd", r"a\tb\nc\rd"),
        ("red \x1b[31m and bell \x07", r"red \x1b[31m and bell \x07"),
        ("\x00\x7f\x85\x9b", r"\x00\x7f\x85\x9b"),
        ("line\u2028and\u2029par", r"line\u2028and\u2029par"),
        ("turned \u202egnp.exe\u2066", r"turned \u202egnp.exe\u2066"),
        ("marked \ufeffsource", r"marked \ufeffsource"),
        ("Käse, 你好, 😀, a\\b", "Käse, 你好, 😀, a\\b"),
    ],
)
def test_control_characters_are_escaped(text, shown):
    assert printable(text) == str(RequestError(text)) == str(FaultyData(text)) == shown
    assert printable(shown) == shown


def test_errors_know_their_kind():
    assert RequestError("x.tsv:2: is 3 wide", "another width").kind == "another width"
    assert FaultyData("x").kind == "x" and isinstance(FaultyData("x"), RequestError)
