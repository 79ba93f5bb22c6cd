"""TF-IDF vectors of n-grams, and the nearest of many vectors by cosine.

N-grams are hashed, so that words, characters and codes of frames share one path and no vocabulary is kept. All of it is
array operations: 100,000 texts take seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from sourcewise.baselines.sparse import SparseRows, stacked, summed

Vectors: TypeAlias = Any  # SparseRows or numpy.ndarray of (examples, size), rows of length 1 or 0

BUCKETS = 2**20  # hashed n-grams
MIX = np.uint64(0x9E3779B97F4A7C15)  # Knuth's multiplicative hash, 2**64 over the golden ratio
ROWS = 20_000  # documents whose n-grams are counted at a time
QUERIES = 64  # queries that are held against all keys at a time
WEIGHTIEST = 40  # n-grams of a query that count: the others are the commonest ones, and say little


def ngrams(documents: Sequence[np.ndarray], orders: Sequence[int], salt: int = 0) -> SparseRows:
    """Counts of the hashed n-grams of documents of ids, (documents, BUCKETS); other salts give other buckets."""
    parts = [_counted(documents[i : i + ROWS], orders, salt) for i in range(0, len(documents), ROWS)]
    return stacked(parts, BUCKETS)


def _counted(documents: Sequence[np.ndarray], orders: Sequence[int], salt: int) -> SparseRows:
    sizes = [len(each) for each in documents]
    ids = np.concatenate(documents).astype(np.uint64) if sum(sizes) else np.zeros(0, np.uint64)
    owners = np.repeat(np.arange(len(documents)), sizes)
    rows, columns = [], []
    hashed = np.full(len(ids), salt, dtype=np.uint64) * MIX
    for order in range(1, max(orders) + 1):
        left = max(0, len(ids) - order + 1)
        hashed = _mixed(hashed[:left], ids[order - 1 :])
        if order in orders:
            inside = owners[:left] == owners[order - 1 :]  # not from one document into the next
            rows.append(owners[:left][inside])
            columns.append((hashed[inside] % np.uint64(BUCKETS)).astype(np.int64))
    owned = np.concatenate(rows)
    return summed(owned, np.concatenate(columns), np.ones(len(owned)), (len(documents), BUCKETS))


def _mixed(hashed: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The hash of an n-gram that goes on with these ids."""
    mixed = (hashed ^ (ids + np.uint64(1))) * MIX
    return np.asarray(mixed ^ (mixed >> np.uint64(29)))


def tf_idf(keys: SparseRows, queries: SparseRows) -> tuple[Vectors, Vectors]:
    """Counts as TF-IDF vectors of length 1: whether an n-gram is there, times how rare it is among the keys.

    How often it is there does not count: a sign that is held long is one sign. What all keys have, or none, weighs
    nothing: keys that are all alike give vectors of length 0.
    """
    found = np.bincount(keys.columns, minlength=BUCKETS)
    rarity = np.log((1 + len(keys)) / (1 + found)).astype(np.float32)
    rarity[found == 0] = 0
    return _weighed(keys, rarity), _weighed(queries, rarity)


def _weighed(counts: SparseRows, rarity: np.ndarray) -> SparseRows:
    """Entries that weigh nothing are left out."""
    weights = rarity[counts.columns]
    weighed: SparseRows = unit(counts.weighed(weights).only(weights > 0))
    return weighed


def unit(vectors: Vectors) -> Vectors:
    """Rows scaled to length 1; rows of zeros stay."""
    if isinstance(vectors, SparseRows):
        lengths = vectors.lengths()
        scale = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        return vectors.weighed(vectors.values * scale[vectors.owners])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def nearest(queries: Vectors, keys: Vectors, never: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(queries,) index of the nearest key, the first of equally near ones, and its cosine.

    `never` (queries,) is a key that is not taken, such as the query itself.
    """
    places = np.zeros(queries.shape[0], dtype=np.int64)
    cosines = np.zeros(queries.shape[0], dtype=np.float32)
    few = isinstance(queries, SparseRows)
    turned = keys.by_column() if few else keys.T
    if few:
        queries = _weightiest(queries)
    for start in range(0, len(places), QUERIES):
        stop = min(start + QUERIES, len(places))
        these = slice(start, stop)
        found = queries.products(turned, start, stop) if few else queries[these] @ turned
        if never is not None:
            found[np.arange(len(found)), never[these]] = -np.inf
        places[these] = found.argmax(1)
        cosines[these] = found.max(1)
    return places, cosines


def _weightiest(vectors: SparseRows) -> SparseRows:
    """The vectors with only their largest weights, which bounds the cost of a product."""
    if not len(vectors) or vectors.sizes.max() <= WEIGHTIEST:
        return vectors
    owners = vectors.owners
    order = np.lexsort((-vectors.values, owners))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(vectors.begins[:-1], vectors.sizes)
    return vectors.only(rank < WEIGHTIEST)
