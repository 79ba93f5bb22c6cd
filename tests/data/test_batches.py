from __future__ import annotations

import itertools

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from sourcewise.data.batches import (
    EXAMPLES,
    IGNORED,
    SHARE,
    Budget,
    Source,
    length_mask,
    pad,
    pad_features,
    shares,
    sorted_batches,
    training_batches,
)

lengths = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 30)), min_size=1, max_size=80)
budgets = st.builds(Budget, st.integers(20, 400), st.one_of(st.none(), st.integers(1, 9)))


def _columns(pairs):
    return np.array([s for s, _ in pairs]), np.array([t for _, t in pairs])


def _within(batch, source, target, budget):
    slots = len(batch) * (source[batch].max() + target[batch].max())
    return len(batch) == 1 or (slots <= budget.tokens and len(batch) <= (budget.examples or len(batch)))


@given(pairs=lengths, budget=budgets, seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_an_epoch_has_every_example_once_within_budget(pairs, budget, seed, epoch):
    source, target = _columns(pairs)
    batches = training_batches(source, target, budget, seed=seed, epoch=epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(pairs)))
    assert all(_within(batch, source, target, budget) for batch in batches)
    again = training_batches(source, target, budget, seed=seed, epoch=epoch)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


@given(pairs=lengths, count=st.integers(1, 5))
def test_shares_are_a_partition_of_about_equal_size(pairs, count):
    sizes = np.array([s + t for s, t in pairs])
    parts = shares(np.arange(len(pairs))[::-1], sizes, count)
    assert len(parts) <= count and sorted(np.concatenate(parts).tolist()) == list(range(len(pairs)))
    assert max(sizes[p].sum() for p in parts) <= sizes.sum() / count + (SHARE + 1) * sizes.max()
    ends = [(sizes[p].min(), sizes[p].max()) for p in parts]
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(ends))  # like with like


def test_batches_come_in_few_shapes():
    rng = np.random.default_rng(0)
    source, target = rng.integers(5, 30, (2, 5000))
    batches = training_batches(source, target, Budget(4096), seed=0, epoch=0)
    assert sum(len(b) % EXAMPLES != 0 for b in batches) <= 1
    for batch in batches:
        for part in shares(batch, source + target, 2):
            assert len(part) % SHARE == 0 or len(batch) % EXAMPLES
    assert pad([[1, 2, 3]], 0, 2)[0].shape == (1, 4) and pad_features([np.ones((9, 2))], 8)[0].shape == (1, 16, 2)


@given(pairs=lengths, budget=budgets)
def test_sorted_batches_begin_with_the_longest(pairs, budget):
    source, target = _columns(pairs)
    batches = sorted_batches(source, target, budget)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(pairs)))
    assert all(_within(batch, source, target, budget) for batch in batches)
    assert source[batches[0][0]] == source.max()
    flat = source[np.concatenate(batches)]
    assert (np.diff(flat) <= 0).all()


def test_epochs_differ():
    source = np.arange(1, 101)
    first, second = (training_batches(source, source, Budget(200), seed=0, epoch=e) for e in (0, 1))
    assert [b.tolist() for b in first] != [b.tolist() for b in second]


def test_weights_set_the_shares():
    source = np.full(10_000, 5)
    weights = np.where(np.arange(10_000) < 1000, 1 / 1000, 1 / 9000)  # two sets of equal share
    drawn = np.concatenate(training_batches(source, source, Budget(640), seed=0, epoch=0, weights=weights))
    assert len(drawn) == 10_000 and abs((drawn < 1000).mean() - 0.5) < 0.03


def test_padding():
    ids, counts = pad([[1, 2, 3], [4]], IGNORED)
    assert ids.tolist() == [[1, 2, 3], [4, -100, -100]] and counts.tolist() == [3, 1]
    features, frames = pad_features([np.ones((2, 3)), np.ones((1, 3))])
    assert features.shape == (2, 2, 3) and features[1, 1].abs().sum() == 0 and frames.tolist() == [2, 1]
    assert features.dtype == torch.float32
    assert length_mask(counts, 3).tolist() == [[True, True, True], [True, False, False]]
    source = Source(tokens=ids, token_lengths=counts, features=features, frames=frames)
    assert len(source) == 2 and source.frame_mask.tolist() == [[True, True], [True, False]]


def both() -> Source:
    """Features of 3 and 1 frames with prompts of 2 and 1 tokens beside them."""
    features, frames = pad_features([np.full((3, 2), 1.0, np.float32), np.full((1, 2), 2.0, np.float32)])
    return Source(*pad([[5, 1], [1]], 0), features, frames)


def test_a_source_says_what_is_read_of_it() -> None:
    source, text = both(), Source(*pad([[7, 8, 1], [9, 1]], 0))
    assert source.content is source.features and source.lengths.tolist() == [3, 1] and source.prompt == 2
    assert text.content is text.tokens and text.lengths.tolist() == [3, 2] and text.prompt == 0
    assert source.mask.tolist() == [[True] * 3, [True, False, False]]
    assert text.mask.tolist() == [[True] * 3, [True, True, False]]
    assert len(source) == len(text) == 2


def test_selected_rows_keep_their_width_and_what_is_beside_them() -> None:
    chosen = both().select(torch.tensor([1, 1, 0]))
    assert chosen.features is not None and chosen.features.shape == (3, 3, 2)
    assert chosen.lengths.tolist() == [1, 1, 3]
    assert chosen.tokens is not None and chosen.tokens.tolist() == [[1, 0], [1, 0], [5, 1]]


def test_an_exchanged_source_has_its_own_length_and_end_and_another_ones_content() -> None:
    text = Source(*pad([[7, 8, 1], [9, 1]], 0)).exchanged()
    assert text is not None and text.tokens is not None and text.tokens.tolist() == [[9, 9, 1], [7, 1, 0]]
    other = both().exchanged()
    assert other is not None and other.features is not None and other.tokens is not None
    assert other.features[:, :, 0].tolist() == [[2, 2, 2], [1, 0, 0]] and other.tokens.tolist() == [[5, 1], [1, 0]]
    assert Source(*pad([[7, 1], [7, 1]], 0)).exchanged() is None


def test_garbage_stands_where_nothing_is_read() -> None:
    source = both()
    other = source.with_garbage(50, 4, torch.Generator().manual_seed(0))
    assert other is not None and other.features is not None and other.tokens is not None
    assert other.features.shape == (2, 7, 2) and other.tokens.shape == (2, 6)
    assert torch.equal(other.features[:, :3][source.mask], both().features[source.mask])  # type: ignore[index]
    assert other.features[1, 1:].any() and other.tokens[1, 1:].any()
    assert other.lengths.tolist() == [3, 1]
    full = Source(*pad([[7, 1], [8, 1]], 0))
    assert full.with_garbage(50, 0, torch.Generator()) is None
