from __future__ import annotations

import numpy as np
import pytest

from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.open import choose_task, config_for, open_dataset, open_sets, open_sources
from sourcewise.data.spelling import Spelling
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
    assert open_sets(_data(train={"builtin": "digits", "limit": 3}), "train")[0].name == "digits train"
    assert open_sets(_data(), "valid") == []


def test_a_set_knows_its_task(pairs):
    config = {"pairs": str(pairs), "prefix": "x: ", "metric": "wer", "max_source": 9}
    first, second = open_sets(_data(train=[config, {**config, "name": "other", "max_target": 5}]), "train")
    assert (first.task.name, first.task.metric, first.task.max_source, first.task.max_target) == ("x", "wer", 9, None)
    assert (second.task.name, second.task.max_target) == ("other", 5)
    assert first[0].source == "x: A Cat"
    assert _data(train={"builtin": "digits", "split": "test"}).sets("train")[0].task == "digits-test"
    assert _data(train={"pairs": "hub:wmt/wmt16", "subset": "de-en"}).sets("train")[0].task == "wmt16-de-en"


def test_sets_of_a_mixture_must_be_alike(pairs, write_features):
    features = {"manifest": str(write_features((2, 3), dims=4))}
    wider = {"manifest": str(write_features((2, 3), dims=5, name="wide"))}
    with pytest.raises(RequestError, match=r"4 wide, .*x\.tsv is text; sets of a mixture must be alike"):
        open_sets(_data(train=[features, {"pairs": str(pairs)}]), "train")
    with pytest.raises(RequestError, match=r"data\.valid: .*4 wide, .*wide\.tsv is features 5 wide"):
        open_sets(_data(valid=[features, wider]), "valid")


def test_no_training_set():
    with pytest.raises(RequestError, match=r"data\.train: missing"):
        open_sets(DataConfig(), "train")


def test_of_one_set_each_the_test_set_shows_how_sources_look():
    sets = {use: {"pairs": f"{use}.tsv", "prefix": f"{use}: "} for use in ("train", "valid", "test")}
    assert choose_task(_data(**sets), "x.tsv").prefix == "test: "
    del sets["test"]
    assert choose_task(_data(**sets)).prefix == "valid: "
    assert choose_task(_data(train=sets["train"])).prefix == "train: "
    assert choose_task(_data()) is None


def test_of_a_mixture_the_task_is_named_or_told_by_its_file():
    german = {"pairs": "a/de.tsv", "prefix": "to German: "}
    french = {"pairs": "b/fr.tsv", "prefix": "to French: ", "name": "french"}
    data = _data(train=[german, french], valid=[{**german, "pairs": "valid.tsv"}])
    assert choose_task(data, "elsewhere/fr.tsv").prefix == "to French: "
    assert choose_task(data, "test.tsv", task="french").prefix == "to French: "
    assert choose_task(data, "valid.tsv").prefix == "to German: "
    assert choose_task(data, "test.tsv", prefix="to Danish: ") is not None
    with pytest.raises(RequestError, match=r"^test\.tsv: of which task\? the model knows valid, french; name it with"):
        choose_task(data, "test.tsv")
    with pytest.raises(RequestError, match=r"^--task dutch: the model has no such task; it knows valid, de, french$"):
        choose_task(data, "test.tsv", task="dutch")
    alike = _data(train=[german, {"pairs": "b/de2.tsv", "prefix": "to German: "}, {"text": "plain.txt"}])
    assert choose_task(alike, "test.tsv").prefix == "to German: "


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
    assert [e.source for e in open_sources(["one", "", "three"], spelling=Spelling("p "))] == ["p one", "p ", "p three"]
    lines = open_sources(write_text("x.txt", "one\n\nthree\n"))
    assert [(e.source, e.target, e.id) for e in lines] == [("one", "", "1"), ("", "", "2"), ("three", "", "3")]
    assert [e.source for e in open_sources(pairs, spelling=Spelling(lowercase=True))] == ["a cat", "a dog"]
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
    for matrix, problem in (
        (np.full((2, 3), 1e39), r"source 2: has float64 numbers that float32 cannot hold, first in frame 0: 1e\+39"),
        (np.ones((2, 3), complex), "source 2: holds complex128, not numbers"),
        ([[1.0, 2.0], [3.0]], "source 2: is no matrix: its rows are of several lengths"),
        (np.array([[1.0, np.nan, 2.0]] * 2), "source 2: has NaN or infinity, first in frame 0"),
    ):
        with pytest.raises(RequestError, match=problem):
            open_sources([np.ones((2, 3)), matrix])


def test_no_sources(write_text):
    with pytest.raises(RequestError, match="no sources"):
        open_sources(write_text("x.txt", ""))
    with pytest.raises(RequestError, match=r"no column 'source'; it has: sauce"):
        open_sources(write_text("x.tsv", "sauce\na\n"))
