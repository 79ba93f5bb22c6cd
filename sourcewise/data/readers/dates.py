"""The embedded set `dates`: dates in the formats of twenty locales → ISO 8601.

    de_DE: Dienstag, 3. März 1987  →  1987-03-03

Babel's CLDR patterns give four formats per locale. The years span exactly a hundred, so that two digits of a year
determine the century; no day of training occurs in valid or test.
"""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np

from sourcewise.data.examples import Dataset, Example
from sourcewise.errors import RequestError

LOCALES = (
    *("cs_CZ", "da_DK", "de_DE", "el_GR", "en_GB", "en_US", "es_ES", "fi_FI", "fr_FR", "hu_HU"),
    *("it_IT", "ja_JP", "nb_NO", "nl_NL", "pl_PL", "pt_BR", "ru_RU", "sv_SE", "tr_TR", "zh_CN"),
)
STYLES = ("short", "medium", "long", "full")
FIRST_DAY, LAST_DAY = date(1950, 1, 1), date(2049, 12, 31)
SIZES = {"train": 24_000, "valid": 400, "test": 800}
HELD_OUT = {"test": 2_000, "valid": 1_000}  # days set aside


def read_dates(split: str = "train", limit: int | None = None) -> Dataset:
    """Text pairs such as ("en_US: Mar 3, 1987", "1987-03-03").

    Every call gives the same pairs. Raises RequestError for an unknown split, or if Babel is not installed.
    """
    if split not in SIZES:
        raise RequestError(f"dates: no split {split!r}; it has: {', '.join(SIZES)}")
    try:
        from babel import Locale
        from babel.dates import format_date
    except ImportError:
        raise RequestError("dates: needs Babel; pip install 'sourcewise[demo]'") from None
    locales = [Locale.parse(name) for name in LOCALES]
    days = days_of(split)
    count = SIZES[split] if limit is None else min(limit, SIZES[split])
    rng = np.random.default_rng([20, list(SIZES).index(split)])
    examples = []
    for i, (day, place, style) in enumerate(rng.integers([len(days), len(LOCALES), len(STYLES)], size=(count, 3))):
        written = format_date(days[day], format=STYLES[style], locale=locales[place])
        source = f"{LOCALES[place]}: {written}"
        examples.append(Example(f"{split}_{i:05d}", days[day].isoformat(), source, where=f"dates {split}:{i + 1}"))
    return Dataset(examples, name=f"dates {split}")


def days_of(split: str) -> list[date]:
    """The days of a split; those of different splits are disjoint."""
    every = (LAST_DAY - FIRST_DAY).days + 1
    order = np.random.default_rng(20).permutation(every)
    test, valid = HELD_OUT["test"], HELD_OUT["valid"]
    chosen = {"test": order[:test], "valid": order[test : test + valid], "train": order[test + valid :]}[split]
    return [FIRST_DAY + timedelta(days=int(n)) for n in chosen]
