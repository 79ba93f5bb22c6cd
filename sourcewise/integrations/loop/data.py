"""The examples that pass in a loop, as a set that the rules over data look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from sourcewise.data.batches import IGNORED
from sourcewise.diagnosis.measures.likely_unknown import likely_unknown
from sourcewise.diagnosis.measures.within import counted
from sourcewise.diagnosis.pairs import FEWEST, SAMPLE, Ids, Pairs
from sourcewise.diagnosis.rules.data.dat028_same_batches import SameBatches
from sourcewise.diagnosis.wiring import Within
from sourcewise.errors import RequestError
from sourcewise.integrations.collated import LABELS, MASK, NOBODY, TEXT, VECTORS, Collated, Speaker
from sourcewise.integrations.coming import Stream
from sourcewise.integrations.features import projected
from sourcewise.integrations.loop.batches import Named, examples_in
from sourcewise.integrations.loop.matrices import Matrices
from sourcewise.integrations.loop.understood import Understood

BATCHES = 400  # that are kept at most
MOSTLY = 0.9  # of the rows, that end or begin with one id


class Passed:
    """The first batches of a training, as many as hold enough examples."""

    def __init__(self) -> None:
        self.kept: list[Named] = []
        self.matrices = Matrices()
        self.examples = 0  # at least
        self.looked = 0  # examples at the last look
        self.last = False  # whether there was a look at all of them

    @property
    def full(self) -> bool:
        """Whether no more are wanted."""
        return self.examples >= SAMPLE or len(self.kept) >= BATCHES

    @property
    def more(self) -> bool:
        """Whether there is four times as much as at the last look."""
        return self.examples >= max(FEWEST, 4 * self.looked) or (self.full and not self.last)

    def add(self, named: Named, whole: Named | None = None) -> None:
        """Keep a batch, on the CPU; `whole` is it with all dimensions of its matrices."""
        if named and not self.full:
            self.matrices.add(whole or {})
            self.kept.append(named)
            self.examples += examples_in(named)

    def pairs(self, understood: Understood, model: Iterable[nn.Module] = ()) -> Pairs:
        """What has passed, as pairs of ids. Raises RequestError where it cannot be read."""
        collations, problem = [], ""
        for named in self.kept:
            try:
                collations.append(understood.collation(named))
            except (IndexError, KeyError, RuntimeError) as error:  # a batch of another shape
                problem = f"{type(error).__name__}: {error}"
        if not collations:
            raise RequestError(f"no batch that passed can be read as the first: {problem}")
        speaker = speaker_of(collations, understood.pad)
        new = once(collations)
        found = Collated([_without_begin(each) for each in new], speaker, "training data", counted=True)
        self.looked, self.last = self.examples, self.full
        rows = [[int(i) for i in row] for row in (() if found.sources is None else found.sources)]
        forms = self.matrices.forms(understood, model)
        return Pairs(found, ids=Ids((), None, likely=likely_unknown(_bare(rows, understood.pad))), passed=forms)


def _bare(rows: list[list[int]], pad: int | None) -> list[list[int]]:
    """Without padding, and without an id that nearly all end with."""
    rows = [[i for i in row if i != pad] for row in rows]
    end = _end_of(rows)
    return [row[:-1] if row and row[-1] == end else row for row in rows]


def _end_of(rows: Iterable[list[int]]) -> int:
    """The id that nearly all rows end with; NOBODY where there is none."""
    lasts = [row[-1] for row in rows if row]
    (last, times) = Counter(lasts).most_common(1)[0] if lasts else (NOBODY, 0)
    return last if times >= MOSTLY * len(lasts) and len(lasts) > 1 else NOBODY


def once(collations: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Batches without the examples of earlier ones: a loop goes through its set again and again, or draws from it."""
    known: set[bytes] = set()
    out = []
    for each in collations:
        content = each[TEXT] if TEXT in each else each[VECTORS]
        keys = [_key(content[i][each[MASK][i]], each[LABELS][i]) for i in range(len(each[LABELS]))]
        rows = torch.tensor([i for i, key in enumerate(keys) if key not in known], dtype=torch.long)
        known.update(keys)
        if len(rows):
            out.append({name: table[rows] for name, table in each.items()} if len(rows) < len(keys) else each)
    return out


def _key(source: Tensor, labels: Tensor) -> bytes:
    return source.numpy().tobytes() + b"|" + labels[labels != IGNORED].numpy().tobytes()


def speaker_of(collations: list[dict[str, Tensor]], pad: int | None) -> Speaker:
    """Ids as words; most rows end with the end of text, where they do."""
    end = _end_of(row[row != IGNORED].tolist() for each in collations for row in each[LABELS])
    return Speaker(None, SimpleNamespace(pad_id=NOBODY if pad is None else pad, eos_id=end))  # type: ignore[arg-type]


def _without_begin(collation: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the id that all rows of sources begin with: it tells nothing of any."""
    if TEXT not in collation or collation[TEXT].shape[1] < 3 or len(collation[TEXT]) < 3:
        return collation
    first = collation[TEXT][:, 0]
    if not bool((first == first[0]).all()):
        return collation
    cut = {name: collation[name][:, 1:] for name in (TEXT, MASK)}
    return {**collation, **cut}


def within_of(kept: Sequence[Named], understood: Understood) -> Within | None:
    """Padding between words of the batches that have passed; None where no id is known to be padding."""
    pad = understood.pad
    if pad is None or understood.source is None or understood.labels is None:
        return None
    sides: tuple[list[Tensor], list[Tensor]] = [], []
    for named in kept:
        try:
            tables = understood.source.of(named), understood.labels.of(named)
        except (IndexError, KeyError, RuntimeError):  # a batch of another shape
            continue
        for side, table, turned in zip(
            sides, tables, (understood.source_turned, understood.labels_turned), strict=True
        ):
            if table.ndim == 2 and not table.is_floating_point():
                table = table.masked_fill(table == IGNORED, pad)  # what was filled in behind
                side.append(table.transpose(0, 1) if turned else table)
    (rows, sources), (others, targets) = (counted(side, pad) for side in sides)
    return Within(max(rows, others), sources, targets, pad, understood.hides_pad)


class Waiting(Stream):
    """A stream of batches that nobody can read yet, as of those that came before it was known how."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[tuple[int, Named]] = []  # steps and their batches

    def take_in(self, step: int, named: Named, understood: Understood | None) -> None:
        """A batch, of which figures are taken once it is known how it is read."""
        self._waiting.append((step, named))
        self.read(understood)

    def read(self, understood: Understood | None) -> None:
        """Figures of the batches that wait; none of one that is shaped otherwise than the first."""
        if understood is None:
            self._waiting = self._waiting[-SameBatches.first :]
            return
        waited, self._waiting = self._waiting, []
        for step, named in waited:
            try:
                batch = understood.collation(named)
            except (IndexError, KeyError, RuntimeError):
                continue
            self.add(step, batch[TEXT if TEXT in batch else VECTORS], batch[MASK], batch[LABELS])


def flat(named: Named, asked: object = None) -> Named:
    """Tensors on the CPU; of features a few mixtures of their dimensions."""
    return {
        path: (projected(each.detach()) if each.ndim > 2 and each.is_floating_point() else each.detach()).cpu().clone()
        for path, each in named.items()
    }
