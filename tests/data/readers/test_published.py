"""Feature sets as other people publish them are read as they are, and train like the same data as .npy."""

from __future__ import annotations

import numpy as np
import pytest

from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.open import config_for, open_dataset, open_sources
from tests.data.published import LAYOUTS, TEXTS, matrices


@pytest.mark.parametrize("cache_gb", [1.0, 0.0])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_set_is_read_as_it_is(layout, cache_gb, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = LAYOUTS[layout](tmp_path)
    found = open_dataset(DatasetConfig.model_validate(words), DataConfig(cache_gb=cache_gb))
    assert [example.target for example in found] == list(TEXTS)
    for i, matrix in enumerate(matrices().values()):
        assert found[i].frames == len(matrix) and np.array_equal(found.features(i), matrix)
    assert len({example.id for example in found}) == len(TEXTS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_commands_read_it_by_its_name(layout, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = LAYOUTS[layout](tmp_path)
    like = DatasetConfig.model_validate(words)
    again = open_dataset(config_for(words["manifest"], words.get("features"), like))
    sources = open_sources(words["manifest"], words.get("features"), file=words.get("file"))
    for i, matrix in enumerate(matrices().values()):
        assert np.array_equal(again.features(i), matrix) and np.array_equal(sources.features(i), matrix)
