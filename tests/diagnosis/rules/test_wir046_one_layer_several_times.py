"""WIR046: one layer several times."""

import pytest

from sourcewise.diagnosis.rules import RULES


@pytest.mark.skip(reason="TODO: plant the fault, and show that healthy ones have no finding")
def test_one_layer_several_times() -> None:
    assert RULES["WIR046"]
