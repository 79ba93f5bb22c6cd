"""Recordings as Kaldi's filter banks and as samples, wherever recordings are read."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sourcewise.data.formats.audio import KINDS, AudioFile, filter_banks
from sourcewise.data.open import open_dataset, open_sources
from sourcewise.errors import RequestError
from tests.data.published import RECORDED

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("kaldi_native_fbank")


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(3).uniform(-0.5, 0.5, round(seconds * 16_000)).astype(np.float32)


def of_speech2text(samples: np.ndarray) -> np.ndarray:
    """Kaldi's filter banks as transformers computes them for models of fairseq S2T."""
    from transformers import Speech2TextFeatureExtractor

    extractor = Speech2TextFeatureExtractor(num_mel_bins=80, do_ceptral_normalize=False)
    return np.asarray(extractor(samples, sampling_rate=16_000, return_tensors="np")["input_features"][0])


@pytest.mark.parametrize("seconds", [0.025, 0.3, 1.017])
def test_filter_banks_are_those_of_fairseqs_models(seconds: float) -> None:
    samples = noise(seconds)
    np.testing.assert_allclose(filter_banks(samples), of_speech2text(samples), atol=2e-2, rtol=1e-3)


@pytest.mark.parametrize("count", [0, 1, 159, 160, 399, 400, 401, 559, 560, 1600, 16_001])
@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_known_from_the_header(kind: str, count: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.zeros(count, "float32"), 16_000)
    file = AudioFile(tmp_path / "x.wav").heard(kind)
    assert file.header("").shape == file.read("", slice(None)).shape


def test_samples_are_those_of_the_file(tmp_path: Path) -> None:
    samples = noise(0.5)
    soundfile.write(tmp_path / "x.wav", samples, 16_000, subtype="FLOAT")
    found = open_sources(str(tmp_path / "x.wav"), sounds="samples")
    np.testing.assert_array_equal(found.features(0)[:, 0], samples)
    part = AudioFile(tmp_path / "x.wav").heard("samples").read("0.1:0.2", slice(None))
    np.testing.assert_array_equal(part[:, 0], samples[1600:3200])


@pytest.mark.parametrize("layout", RECORDED)
@pytest.mark.parametrize("cache_gb", [1.0, 0.0])
def test_every_set_of_recordings(layout: str, cache_gb: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = RECORDED[layout](tmp_path)
    sets = {kind: _opened(words, kind, cache_gb) for kind in KINDS}
    assert [sets[kind].dims for kind in KINDS] == [80, 128, 80, 1]
    for i in range(len(sets["samples"])):
        samples = sets["samples"].features(i)[:, 0]
        for kind in KINDS:
            np.testing.assert_allclose(sets[kind].features(i), KINDS[kind].of(samples), atol=1e-4)
            assert len(sets[kind].features(i)) == sets[kind][i].frames


def test_recordings_inside_parquet_and_shards(tmp_path: Path) -> None:
    import io
    import tarfile

    import pyarrow
    import pyarrow.parquet

    sound = io.BytesIO()
    soundfile.write(sound, noise(0.3), 16_000, format="WAV", subtype="FLOAT")
    cells = [{"bytes": sound.getvalue(), "path": "a.wav"}]
    pyarrow.parquet.write_table(pyarrow.table({"audio": cells, "text": ["x"]}), tmp_path / "t.parquet")
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name, data in (("a.wav", sound.getvalue()), ("a.txt", b"x")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    for name in ("t.parquet", "t.tar"):
        found = _opened({"manifest": str(tmp_path / name)}, "fbank", 0.0)
        np.testing.assert_allclose(found.features(0), filter_banks(noise(0.3)), atol=1e-4)


def _opened(words: Any, kind: str, cache_gb: float) -> Any:
    from sourcewise.config import DataConfig, DatasetConfig

    data = DataConfig.model_validate({"sounds": kind, "cache_gb": cache_gb})
    return open_dataset(DatasetConfig.model_validate(words), data)


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaldi_native_fbank", None)
    soundfile.write(tmp_path / "x.wav", noise(0.3), 16_000)
    with pytest.raises(RequestError, match=r"x\.wav: as fbank takes kaldi-native-fbank, which is not installed"):
        open_sources(str(tmp_path / "x.wav"), sounds="fbank")
