"""WIR041: how far the rate comes, beside what its schedule would bring it to, or what the optimizer was made for."""

from __future__ import annotations

import pytest

from sourcewise.diagnosis.observed import Observed, Rates
from sourcewise.diagnosis.plan import Plan, Reached
from sourcewise.diagnosis.rules.wiring.wir041_rate_never_at_its_peak import RateNeverAtItsPeak
from sourcewise.diagnosis.wiring import Wiring


def level(wiring: Wiring) -> str | None:
    found = list(RateNeverAtItsPeak().check(wiring))
    return found[0].level if found else None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("reached", "said"),
    [((1e-4, 5e-3), "error"), ((2e-3, 5e-3), "warning"), ((5e-3, 5e-3), None), ((0.0, 0.0), None)],
)
def test_as_far_as_the_schedule_tells(reached: tuple[float, float], said: str | None) -> None:
    assert level(Wiring(plan=Plan(reached=Reached(*reached, steps=300)))) == said


@pytest.mark.parametrize(
    ("rates", "total", "said"),
    [
        (Rates(1e-2, 5e-4, 95, 94, 0, rising=True, known=True), 100, "error"),
        (Rates(1e-2, 4e-3, 95, 94, 0, rising=True, known=True), 100, "warning"),
        (Rates(1.0, 4e-3, 95, 94, 0, rising=True), 100, "warning"),  # of a factor nobody knows the peak
        (Rates(1e-2, 8e-3, 95, 94, 0, rising=True, known=True), 100, None),
        (Rates(1e-2, 5e-4, 50, 49, 0, rising=True, known=True), 100, None),  # it is on its way
        (Rates(1e-2, 5e-4, 95, 94, 0, rising=True, known=True), 0, None),
        (Rates(1.0, 4e-3, 95, 94, 1), 100, None),  # it was at its peak
    ],
)
def test_as_far_as_the_steps_of_a_loop_tell(rates: Rates, total: int, said: str | None) -> None:
    assert level(Wiring(plan=Plan(steps=total), observed=Observed(rates=rates))) == said
