from __future__ import annotations

import numpy as np

from sourcewise.data.readers.digits import SIZES, WORDS, _images_of, read_digits


def test_shape_and_target():
    dataset = read_digits("valid")
    assert len(dataset) == SIZES["valid"] and dataset.dims == 8
    for i in range(20):
        matrix, words = dataset.features(i), dataset[i].target.split()
        assert matrix.shape == (dataset[i].frames, 8) == (8 * len(words), 8)
        assert 3 <= len(words) <= 6 and set(words) <= set(WORDS)
        assert matrix.dtype == np.float32 and matrix.min() >= 0 and matrix.max() == 1


def test_splits_are_made_from_disjoint_images():
    sets = [set(_images_of(split, 1797).tolist()) for split in SIZES]
    assert sum(len(s) for s in sets) == len(set.union(*sets)) == 1797


def test_the_same_at_every_call():
    first, second = read_digits("test", limit=30), read_digits("test")
    assert len(first) == 30 and first.examples == second.examples[:30]
    assert all(np.array_equal(first.features(i), second.features(i)) for i in range(30))


def test_a_frame_is_a_column_of_the_image():
    from sklearn.datasets import load_digits

    dataset = read_digits("train", limit=1)
    first = dataset.features(0)[:8]
    assert any(np.array_equal(first.T * 16, image) for image in load_digits().images)


def test_a_matrix_is_the_callers_own():
    dataset = read_digits("test", limit=1)
    dataset.features(0)[:] = 7
    assert dataset.features(0).max() <= 1
