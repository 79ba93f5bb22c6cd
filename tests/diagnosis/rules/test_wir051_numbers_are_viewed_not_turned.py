"""WIR051: numbers are viewed not turned."""

import pytest

from sourcewise.diagnosis.rules import RULES


@pytest.mark.skip(reason="TODO: plant the fault, and show that healthy ones have no finding")
def test_numbers_are_viewed_not_turned() -> None:
    assert RULES["WIR051"]
