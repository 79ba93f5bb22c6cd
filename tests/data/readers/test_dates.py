from __future__ import annotations

from datetime import date, timedelta

import numpy as np
from babel.dates import format_date

from sourcewise.data.readers.dates import FIRST_DAY, LAST_DAY, LOCALES, SIZES, STYLES, days_of, read_dates


def test_pairs():
    dataset = read_dates("test")
    assert len(dataset) == SIZES["test"] and dataset.dims == 0
    for example in dataset:
        place, written = example.source.split(": ", 1)
        day = date.fromisoformat(example.target)
        assert written in {format_date(day, style, locale=place) for style in STYLES}
    assert {e.source.split(":")[0] for e in dataset} == set(LOCALES) and len(LOCALES) == 20


def test_no_day_is_in_two_splits():
    splits = [set(days_of(split)) for split in SIZES]
    assert sum(map(len, splits)) == len(set.union(*splits)) == (LAST_DAY - FIRST_DAY).days + 1
    trained = {e.target for e in read_dates("train", limit=3000)}
    assert not trained & {e.target for split in ("valid", "test") for e in read_dates(split)}


def test_a_text_means_one_day():
    """In any locale: the years span a hundred, so two digits tell the century."""
    assert LAST_DAY.year - FIRST_DAY.year == 99
    rng = np.random.default_rng(0)
    for offset in rng.integers(0, 365 * 75, 40):
        day = FIRST_DAY + timedelta(days=int(offset))
        others = [day + timedelta(days=d) for d in (1, 30, 31, 365, 366, 3653, 9131)]
        others += [date(day.year, day.day, day.month)] if day.day <= 12 and day.day != day.month else []
        for place in LOCALES:
            for style in STYLES:
                written = format_date(day, style, locale=place)
                assert all(format_date(other, style, locale=place) != written for other in others if other != day)


def test_the_same_at_every_call():
    assert read_dates("valid", limit=50).examples == read_dates("valid").examples[:50]
