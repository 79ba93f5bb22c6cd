"""Sparse rows give what dense matrices give."""

from __future__ import annotations

import numpy as np
import pytest

from sourcewise.baselines.sparse import SparseRows, stacked, summed
from sourcewise.baselines.vectors import nearest, unit


def dense(rows: SparseRows) -> np.ndarray:
    found = np.zeros(rows.shape, dtype=np.float32)
    np.add.at(found, (rows.owners, rows.columns), rows.values)
    return found


def drawn(seed: int, rows: int = 40, width: int = 25, entries: int = 300) -> tuple[SparseRows, np.ndarray]:
    """Random entries, some of them in one place, as sparse rows and as a matrix."""
    rng = np.random.default_rng(seed)
    owners, columns = rng.integers(0, rows, entries), rng.integers(0, width, entries)
    values = rng.integers(1, 9, entries).astype(np.float32)
    matrix = np.zeros((rows, width), dtype=np.float32)
    np.add.at(matrix, (owners, columns), values)
    return summed(owners, columns, values, (rows, width)), matrix


@pytest.mark.parametrize("entries", [0, 1, 30, 300, 3000])
@pytest.mark.parametrize("seed", [0, 1])
def test_they_are_the_matrix(seed: int, entries: int) -> None:
    rows, matrix = drawn(seed, entries=entries)
    other, second = drawn(seed + 7, entries=entries)
    assert (dense(rows) == matrix).all()
    for row in range(len(rows)):
        columns = rows.columns[rows.begins[row] : rows.begins[row + 1]]
        assert (np.diff(columns) > 0).all()
    assert (dense(rows + other) == matrix + second).all()
    assert (dense(rows.by_column()) == matrix.T).all()
    assert (dense(stacked([rows, other], 25)) == np.concatenate([matrix, second])).all()
    assert (dense(rows.only(rows.values > 3)) == np.where(matrix > 3, matrix, 0)).all()
    assert np.allclose(rows.lengths(), np.linalg.norm(matrix, axis=1))
    chosen = np.array([3, 3, 0, 39])
    assert (dense(rows[chosen]) == matrix[chosen]).all()
    assert (rows.products(other.by_column(), 5, 12) == matrix[5:12] @ second.T).all()


@pytest.mark.parametrize("seed", range(4))
def test_the_nearest_is_that_of_the_matrix(seed: int) -> None:
    (keys, dense_keys), (queries, dense_queries) = drawn(seed, 150), drawn(seed + 9, 70)
    places, cosines = nearest(unit(queries), unit(keys))
    products = unit(dense_queries) @ unit(dense_keys).T
    assert np.allclose(cosines, products.max(1), atol=1e-6)
    assert np.allclose(products[np.arange(70), places], products.max(1), atol=1e-6)
    own = np.arange(150)
    assert (nearest(unit(keys), unit(keys), own)[0] != own).all()


def test_no_rows_at_all() -> None:
    nothing = stacked([], 5)
    assert nothing.shape == (0, 5) and len(nothing.by_column()) == 5
