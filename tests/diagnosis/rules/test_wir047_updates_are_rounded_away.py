"""WIR047: updates are rounded away."""

import pytest

from sourcewise.diagnosis.rules import RULES


@pytest.mark.skip(reason="TODO: plant the fault, and show that healthy ones have no finding")
def test_updates_are_rounded_away() -> None:
    assert RULES["WIR047"]
