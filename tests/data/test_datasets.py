from __future__ import annotations

import numpy as np
import pytest

from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.datasets import config_for, open_dataset, open_sources, open_training
from sourcewise.errors import RequestError


def _data(**options):
    return DataConfig.model_validate(options)


@pytest.fixture
def pairs(write_text):
    return write_text("sets/x.tsv", "source\ttarget\nA Cat\tEine Katze\nA Dog\tEin Hund\n")


def test_root_prefix_lowercase_and_limit(pairs, tmp_path):
    config = DatasetConfig(pairs="sets/x.tsv", prefix="To German: ", lowercase=True, limit=1)
    dataset = open_dataset(config, _data(root=str(tmp_path)))
    assert [(e.source, e.target) for e in dataset] == [("To German: a cat", "eine katze")]
    assert open_dataset(DatasetConfig(pairs=str(pairs)), _data(root="/elsewhere"))[1].target == "Ein Hund"


def test_the_prefix_is_the_prompt_beside_features(write_features):
    manifest = write_features((2, 3), hint=["a", "b"])
    assert [e.source for e in open_dataset(DatasetConfig(manifest=str(manifest), prefix="sign: "))] == ["sign: "] * 2
    config = DatasetConfig(manifest=str(manifest), prefix="sign: ", prompt="hint")
    assert [e.source for e in open_dataset(config)] == ["sign: a", "sign: b"]


def test_embedded_sets_take_the_split_they_are_used_for():
    assert open_dataset(DatasetConfig(builtin="dates"), split_default="valid").name == "dates valid"
    assert open_dataset(DatasetConfig(builtin="dates", split="test"), split_default="valid").name == "dates test"
    assert open_training(_data(train={"builtin": "digits", "limit": 3})).name == "digits train"


def test_a_mixture_gives_each_set_its_share(pairs, write_text):
    other = write_text("y.tsv", "source\ttarget\n" + "q\ta\n" * 10)
    data = _data(train=[{"pairs": str(pairs), "weight": 3, "prefix": "x: "}, {"pairs": str(other)}])
    dataset = open_training(data)
    weights = np.array(dataset.weights)
    assert len(dataset) == 12 and dataset[0].source == "x: A Cat" and dataset[2].source == "q"
    assert weights[:2].sum() == pytest.approx(3 * weights[2:].sum())
    assert open_training(_data(train={"pairs": str(pairs)})).weights == []


def test_a_mixture_of_features_reads_the_right_matrix(write_features):
    first, second = write_features((2, 3), name="a"), write_features((4, 5), name="b")
    dataset = open_training(_data(train=[{"manifest": str(first)}, {"manifest": str(second)}]))
    assert [len(dataset.features(i)) for i in range(4)] == [2, 3, 4, 5] == [e.frames for e in dataset]
    assert dataset.select([3, 0]).features(0).shape == (5, 4)


def test_sets_of_a_mixture_must_be_alike(pairs, write_features):
    features = {"manifest": str(write_features((2, 3), dims=4))}
    wider = {"manifest": str(write_features((2, 3), dims=5, name="wide"))}
    with pytest.raises(RequestError, match=r"4 wide, .*x\.tsv is text; sets of a mixture must be alike"):
        open_training(_data(train=[features, {"pairs": str(pairs)}]))
    with pytest.raises(RequestError, match=r"4 wide, .*wide\.tsv is features 5 wide"):
        open_training(_data(train=[features, wider]))


def test_no_training_set():
    with pytest.raises(RequestError, match=r"data\.train: missing"):
        open_training(DataConfig())


def test_config_for_a_bare_path(pairs, write_features, write_jsonl):
    manifest = write_features((2,), caption=["Two"])
    assert config_for("digits").builtin == "digits"
    assert config_for("hub:wmt/wmt16").pairs == "hub:wmt/wmt16"
    assert config_for(str(pairs)).pairs == str(pairs)
    assert config_for(str(manifest)).manifest == str(manifest)
    assert config_for(str(manifest), features="f").features == "f"
    like = DatasetConfig(manifest="other.tsv", target="caption", prompt="none such", prefix="p ", lowercase=True)
    found = config_for(str(manifest), like=like)
    assert (found.target, found.prompt, found.prefix, found.lowercase) == ("caption", None, "p ", True)
    named = config_for(str(write_jsonl("x.jsonl", {"q": "a"})), like=DatasetConfig(pairs="t.jsonl", source="q"))
    assert named.source == "q" and named.target is None


def test_a_table_with_ids_and_sources_is_no_manifest(write_text):
    path = write_text("x.tsv", "id\tsource\ttarget\n7\ta\tb\n")
    assert config_for(str(path)).pairs and open_sources(path)[0].id == "7"


def test_sources_from_lines_and_files(write_text, pairs):
    assert [e.source for e in open_sources(["one", "", "three"], prefix="p ")] == ["p one", "p ", "p three"]
    lines = open_sources(write_text("x.txt", "one\n\nthree\n"))
    assert [(e.source, e.target, e.id) for e in lines] == [("one", "", "1"), ("", "", "2"), ("three", "", "3")]
    assert [e.source for e in open_sources(pairs, lowercase=True)] == ["a cat", "a dog"]
    assert [e.source for e in open_sources(str(pairs), source="target")] == ["Eine Katze", "Ein Hund"]


def test_sources_from_features(write_features, tmp_path):
    manifest = write_features((2, 3))
    stripped = "\n".join(line.split("\t")[0] for line in manifest.read_text().splitlines())
    manifest.write_text(stripped)
    dataset = open_sources(manifest)
    assert [(e.frames, e.target) for e in dataset] == [(2, ""), (3, "")] and dataset.features(1).shape == (3, 4)
    assert open_sources(tmp_path / "features/train/clip1.npy").features(0).shape == (3, 4)
    matrices = open_sources([np.ones((2, 3)), np.zeros((4, 3))])
    assert matrices.dims == 3 and [e.frames for e in matrices] == [2, 4]
    with pytest.raises(RequestError, match="source 2: has shape"):
        open_sources([np.ones((2, 3)), np.ones((2, 4))])


def test_no_sources(write_text):
    with pytest.raises(RequestError, match="no sources"):
        open_sources(write_text("x.txt", ""))
    with pytest.raises(RequestError, match=r"no column 'source'; it has: sauce"):
        open_sources(write_text("x.tsv", "sauce\na\n"))
