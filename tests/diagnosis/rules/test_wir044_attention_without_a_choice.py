"""WIR044: attention without a choice."""

import pytest

from sourcewise.diagnosis.rules import RULES


@pytest.mark.skip(reason="TODO: plant the fault, and show that healthy ones have no finding")
def test_attention_without_a_choice() -> None:
    assert RULES["WIR044"]
