from __future__ import annotations

import numpy as np
import pytest

from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.encoding import Encoded
from sourcewise.data.open import open_dataset, open_sources
from sourcewise.data.readers.digits import read_digits
from sourcewise.data.tokenizers.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["a cat and a dog sat on the mat", "sign: text 0 1 2"] * 5, 60)


def _data(**options):
    return DataConfig.model_validate(options)


def test_text(tokenizer):
    dataset = open_sources(["a cat", "", "a dog and a cat"])
    encoded = Encoded(dataset, tokenizer, _data(max_source=6))
    assert len(encoded) == 3 and encoded.dataset is dataset
    assert encoded.source_lengths.tolist() == [len(tokenizer.encode(e.source, 6)) for e in dataset]
    assert encoded.target_lengths.tolist() == [1, 1, 1]  # an empty target is its end
    batch = encoded.batch([2, 1])
    assert batch.indices == [2, 1] and batch.source.features is None
    assert batch.source.tokens.shape == (2, encoded.source_lengths[2]) and batch.source.token_lengths.tolist()[1] == 1
    assert batch.source.tokens[1].tolist() == [1] + [0] * (batch.source.tokens.shape[1] - 1)


def test_targets_are_cut_and_padded(write_jsonl, tokenizer):
    path = write_jsonl("x.jsonl", {"source": "a", "target": "the cat sat on the mat"}, {"source": "b", "target": "a"})
    encoded = Encoded(open_dataset(DatasetConfig(pairs=str(path))), tokenizer, _data(max_target=4))
    assert encoded.target_lengths.tolist() == [4, len(tokenizer.encode("a"))]
    labels = encoded.batch(np.array([0, 1])).labels
    assert labels[0].tolist() == tokenizer.encode("the cat sat on the mat", 4) and labels[0, -1] == tokenizer.eos_id
    assert labels[1].tolist() == [*tokenizer.encode("a"), *[-100] * (4 - len(tokenizer.encode("a")))]
    assert encoded.batch([0, 1]).target_tokens == encoded.target_lengths.sum()


def test_features_without_a_prompt(tokenizer):
    dataset = read_digits("test", limit=5)
    encoded = Encoded(dataset, tokenizer, _data(max_frames=30))
    assert encoded.source_lengths.tolist() == [min(e.frames, 30) for e in dataset]
    batch = encoded.batch([0, 3])
    assert batch.source.tokens is None and batch.source.features.shape[2] == 8
    assert batch.source.frames.tolist() == encoded.source_lengths[[0, 3]].tolist()
    for row, i in enumerate((0, 3)):
        frames = int(batch.source.frames[row])
        assert np.array_equal(batch.source.features[row, :frames].numpy(), dataset.features(i)[:frames])
        assert not batch.source.features[row, frames:].any()


def test_features_with_a_prompt(write_features, tokenizer):
    manifest = write_features((5, 8, 3))
    encoded = Encoded(open_dataset(DatasetConfig(manifest=str(manifest), prefix="sign:")), tokenizer, _data())
    batch = encoded.batch([0, 1])
    assert batch.source.tokens.tolist() == [tokenizer.encode("sign:")] * 2
    assert encoded.source_lengths.tolist() == [5, 8, 3]


def test_augment_sees_each_matrix_after_cutting(tokenizer):
    dataset = read_digits("test", limit=4)
    encoded = Encoded(dataset, tokenizer, _data(max_frames=30))
    seen = []

    def halve(matrix):
        seen.append(matrix.shape)
        return matrix[::2]

    batch = encoded.batch([0, 1], augment=halve)
    assert seen == [(min(dataset[i].frames, 30), 8) for i in (0, 1)]
    assert batch.source.frames.tolist() == [(shape[0] + 1) // 2 for shape in seen]
    assert not encoded.batch([0, 1]).source.features.equal(batch.source.features)
