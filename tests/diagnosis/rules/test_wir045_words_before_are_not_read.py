"""WIR045: words before are not read."""

import pytest

from sourcewise.diagnosis.rules import RULES


@pytest.mark.skip(reason="TODO: plant the fault, and show that healthy ones have no finding")
def test_words_before_are_not_read() -> None:
    assert RULES["WIR045"]
