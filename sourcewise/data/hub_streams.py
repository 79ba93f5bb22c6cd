"""A set of the hub that is read one window after another, through `datasets`, and never downloaded as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from sourcewise.data.examples import Dataset
from sourcewise.data.readers.cells import ABSENT
from sourcewise.data.readers.pairs import HUB, in_memory, load_hub, pairs_of
from sourcewise.data.readers.tables import Table
from sourcewise.errors import RequestError
from sourcewise.runtime import hub

SEED = 29  # of the order of the set's files


class HubStream:
    """The pairs of `hub:NAME` in windows of `size` examples; `options` as of `pairs_of`.

    Files come in an order that is drawn anew in each pass, so a window is a function of its number. One that follows
    the last one is read on; for any other what stands before it is passed over. Raises RequestError for a set that
    cannot be loaded, or does not say how many examples it has.
    """

    def __init__(
        self, name: str, split: str, subset: str | None, size: int, limit: int | None = None, **options: Any
    ) -> None:
        self.name, self.size, self.options = f"{HUB}{name}", size, options
        read = load_hub(name, split, subset, streamed=True)
        known = (getattr(read.info, "splits", None) or {}).get(split)
        count = known.num_examples if known is not None else None
        if not count and not limit:
            problem = f"does not say how many examples {split!r} has, as a stream needs; set limit to that number"
            raise RequestError(f"{self.name}: {problem}")
        self.rows = min(each for each in (count, limit) if each)
        self.per_pass = -(-self.rows // size)
        self._read, self._next = read, 0
        self._rows: Iterator[dict[str, Any]] = iter(())

    def window(self, number: int) -> Dataset:
        """The examples of a window; those of `per_pass` windows are a pass. Raises RequestError."""
        once, place = divmod(number, self.per_pass)
        start, stop = place * self.size, min(self.rows, (place + 1) * self.size)
        if number != self._next or not place:
            order = self._read.shuffle(seed=SEED + once, buffer_size=1)  # of files; a window is shuffled when used
            self._rows = iter(order.skip(start))
        try:
            rows = list(islice(self._rows, stop - start))
        except Exception as error:  # the library raises many kinds, some from the network
            raise RequestError(f"{self.name}: examples from {start + 1:,} on: {hub.reason(error)}") from None
        self._next = number + 1
        if len(rows) < stop - start:
            problem = f"ends after {start + len(rows):,} of {self.rows:,} examples; set limit to that number"
            raise RequestError(f"{self.name}: {problem}")
        names = list(dict.fromkeys(name for row in rows for name in row))
        columns = {name: [row.get(name, ABSENT) for row in rows] for name in names}
        found = in_memory(pairs_of(Table(self.name, columns, range(start + 1, stop + 1)), **self.options))
        if "id" not in columns:
            found.examples = [replace(example, id=str(int(example.id) + start)) for example in found]
        return replace(found, per_pass=self.per_pass)
