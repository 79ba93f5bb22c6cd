"""What a callback could not look at is said once a kind, whatever numbers are in it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sourcewise.integrations.telling import Told


def test_numbers_make_no_new_kind(capsys: pytest.CaptureFixture[str]) -> None:
    told = Told()
    told.state = state = SimpleNamespace(global_step=0, log_history=[])
    for state.global_step in range(1, 40):
        told.problem("the evaluation", f"RuntimeError: shape [{state.global_step}, 7] at {state.global_step}")
    told.problem("the evaluation", "RuntimeError: out of memory")
    assert len(told.problems) == len(state.log_history) == len(capsys.readouterr().err.splitlines()) == 2
