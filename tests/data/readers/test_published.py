"""Feature sets as other people publish them are read as they are, and train like the same data as .npy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sourcewise
from sourcewise.cli import main
from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.open import config_for, open_dataset, open_sources
from tests.commands import TINY as TINY_WORDS
from tests.commands import NoPages
from tests.data.published import LAYOUTS, PUBLISHED, RECORDED, TEXTS, Words, matrices, npy, recorded


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


PAGE = (Path(__file__).parents[3] / "docs" / "features.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("layout", PUBLISHED)
def test_the_page_has_the_words(layout, tmp_path):
    words = {**LAYOUTS, **RECORDED}[layout](tmp_path)
    line = ", ".join(f"`{name}: {value}`" for name, value in words.items())
    assert f"| {line} |" in PAGE


@pytest.mark.parametrize("layout", RECORDED)
def test_recordings_give_whispers_features(layout, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "same").mkdir()
    monkeypatch.chdir(tmp_path / "same")
    same = open_dataset(DatasetConfig.model_validate(recorded(tmp_path / "same")))
    expected = [same.features(i) for i in range(len(same))]
    monkeypatch.chdir(tmp_path)
    found = open_dataset(DatasetConfig.model_validate(RECORDED[layout](tmp_path)))
    assert [example.target for example in found] == list(TEXTS)
    for i, matrix in enumerate(expected):
        assert found[i].frames == len(matrix) and np.array_equal(found.features(i), matrix)


@pytest.mark.parametrize("layout", ["neccam/slt", "Kaldi", "WebDataset", "HDF5"])
def test_every_command_takes_it(layout, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = LAYOUTS[layout](tmp_path)
    options = [f"--data.train.{name}={value}" for name, value in words.items()]
    assert main(["train", "--name", "x", *TINY_WORDS.split(), *options, "--data.vocabulary", "40"]) == 0
    given = [words["manifest"], *(["--features", words["features"]] if "features" in words else [])]
    capsys.readouterr()
    assert main(["generate", "runs/x", *given, "-o", "out.txt"]) == 0
    assert len((tmp_path / "out.txt").read_text().splitlines()) == len(TEXTS)
    assert main(["evaluate", "runs/x", *given, "-o", "results"]) == 0
    named = open_sources(words["manifest"], words.get("features"))[1].id
    assert main(["trace", "runs/x", *given, "--id", named, "-o", "trace.html"]) == 0
    assert "bug of sourcewise" not in capsys.readouterr().err


TINY = {
    **{f"model.{name}": 8 for name in ("d_model", "d_ff")},
    **{f"model.{name}": 1 for name in ("heads", "encoder_layers", "decoder_layers")},
    "train.steps": 2,
    "train.preflight": False,
    "data.vocabulary": 40,
    "data.unit": "characters",
    "train.device": "cpu",
}


def _outputs(folder: Path, words: Words) -> list[str]:
    """What a model says that was trained on a set, for the set's own sources."""
    options = {**TINY, **{f"data.train.{name}": value for name, value in words.items()}, "output": str(folder / "runs")}
    run = sourcewise.train(None, {**options, "name": "x"})
    model = sourcewise.load(run.folder)
    sources = open_sources(words["manifest"], words.get("features"), file=words.get("file"))
    return model.generate([sources.features(i) for i in range(len(sources))], max_new_tokens=12, beams=1)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Outputs of models trained on the same data as .npy: of matrices, and of recordings."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sourcewise.api.LiveReport", NoPages)
        for write in (npy, recorded):
            folder = tmp_path_factory.mktemp("npy")
            patch.chdir(folder)
            found[write] = _outputs(folder, write(folder))
    return found


@pytest.mark.parametrize("layout", [*LAYOUTS, *RECORDED])
def test_training_on_it_equals_training_on_npy(layout, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write, same = (LAYOUTS[layout], npy) if layout in LAYOUTS else (RECORDED[layout], recorded)
    assert _outputs(tmp_path, write(tmp_path)) == expected[same]
