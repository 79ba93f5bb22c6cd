"""The form of matrices: frames that repeat themselves at the ends, and in which direction they are smooth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ALIKE = 1e-4  # of a matrix's deviation: rows that differ by less are one
FEWEST = 3  # rows in a row that are copies: two may be chance
MOST = 4096  # rows and columns of a matrix whose levels are kept


@dataclass(frozen=True, slots=True)
class Form:
    """Of one matrix (frames, dims): its rows, and how many of them at the beginning and at the end are one.

    `columns` and `sides` are the same across; `fill` is the number that the repeated rows hold, NaN where they hold
    several. `down` and `across` are correlations of each row, and of each column, with the next (NaN: nothing changes).
    """

    frames: int
    ends: tuple[int, int]
    fill: float
    columns: int
    sides: tuple[int, int]
    down: float
    across: float
    levels: tuple[np.ndarray, np.ndarray]


def form_of(matrix: np.ndarray) -> Form:
    """The form of a matrix (frames, dims)."""
    matrix = matrix.astype(np.float64)
    least = ALIKE * float(matrix.std())
    ends, sides = _copies(matrix, least), _copies(matrix.T, least)
    row = matrix[0 if ends[0] > ends[1] else -1]
    fill = float(row[0]) if any(ends) and np.ptp(row) <= least else float("nan")
    levels = (matrix.mean(1), matrix.mean(0)) if max(matrix.shape) <= MOST else (np.zeros(0), np.zeros(0))
    moving = matrix - matrix.mean(0) - matrix.mean(1, keepdims=True) + matrix.mean()
    return Form(len(matrix), ends, fill, matrix.shape[1], sides, _neighbours(moving), _neighbours(moving.T), levels)


def _copies(matrix: np.ndarray, least: float) -> tuple[int, int]:
    """Rows at the beginning and at the end that are one; 0 where few are, or where more are within the matrix."""
    steps = np.flatnonzero(np.abs(np.diff(matrix, axis=0)).max(1, initial=0) > least)
    if not len(steps):
        return 0, 0
    within = int(np.diff(steps).max(initial=1))
    first, last = int(steps[0]) + 1, len(matrix) - 1 - int(steps[-1])
    most = max(FEWEST - 1, within)
    return first if first > most else 0, last if last > most else 0


def _neighbours(moving: np.ndarray) -> float:
    """The correlation of rows with their successors; NaN where nothing changes. Rows and columns have no mean."""
    power = np.square(moving).sum()
    if len(moving) < FEWEST or power <= 1e-9:
        return float("nan")
    return float((moving[1:] * moving[:-1]).sum() / power * len(moving) / (len(moving) - 1))


@dataclass(frozen=True, slots=True)
class Padded:
    """Padding among the frames of a set: of `matrices` matrices `padded` have some; `share` of all frames are such."""

    matrices: int
    padded: int
    share: float
    lengths: int  # different numbers of frames
    whole: int  # different numbers of frames without padding
    most: int  # frames of the longest without padding
    longest: int  # frames of the longest as it is
    where: str
    fill: float | None


def padding(forms: Sequence[Form]) -> Padded | None:
    """The padding of a set; None where none is found, or where its matrices differ in length as what they hold does."""
    frames = np.array([form.frames for form in forms])
    ends = np.array([form.ends for form in forms])
    whole = frames - ends.sum(1)
    lengths, apart = len(np.unique(frames)), len(np.unique(whole))
    if 2 * lengths > apart:
        return None
    at = [bool(ends[:, side].any()) for side in (0, 1)]
    where = "begin and end" if all(at) else "begin" if at[0] else "end"
    fills = {form.fill for form in forms if any(form.ends)}
    fill = min(fills) if len(fills) == 1 and np.isfinite(min(fills)) else None
    share = float(ends.sum() / frames.sum())
    padded = int(ends.any(1).sum())
    return Padded(len(forms), padded, share, lengths, apart, int(whole.max()), int(frames.max()), where, fill)


@dataclass(frozen=True, slots=True)
class Turned:
    """What speaks for rows that are dims: one number of `rows` in all, medians of `down` and `across`.

    `of_rows` and `of_columns` are the shares of the variance of levels that are alike in all matrices, as those of
    dimensions are (0 where columns differ in number). `padded` is the share of matrices whose first or last columns are
    one, `different` how many different numbers of columns that are.
    """

    matrices: int
    rows: int
    down: float
    across: float
    of_rows: float
    of_columns: float
    padded: float
    different: int


def turning(forms: Sequence[Form]) -> Turned | None:
    """The directions of a set's matrices; None where they differ in their numbers of rows, or have too few."""
    if len({form.frames for form in forms}) > 1 or min(forms[0].frames, forms[0].columns) < FEWEST:
        return None
    both = np.array([(form.down, form.across) for form in forms])
    both = both[np.isfinite(both).all(1)]
    if not len(both):
        return None
    down, across = np.median(both, axis=0)
    sides = np.array([form.sides for form in forms])
    of_rows, of_columns = (_alike([form.levels[side] for form in forms]) for side in (0, 1))
    return Turned(
        len(forms),
        forms[0].frames,
        float(down),
        float(across),
        of_rows,
        of_columns,
        float(sides.any(1).mean()),
        len(np.unique(sides.sum(1))),
    )


def _alike(levels: Sequence[np.ndarray]) -> float:
    """The share of the variance of levels, around each matrix's own, that is the same in all."""
    if len({len(each) for each in levels}) > 1 or len(levels[0]) < FEWEST:
        return 0.0
    table = np.stack(levels)
    table -= table.mean(1, keepdims=True)
    whole = float(np.square(table).mean())
    return float(np.square(table.mean(0)).mean()) / whole if whole > 0 else 0.0
