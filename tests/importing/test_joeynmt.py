"""Configurations of JoeyNMT become recipes; what is not carried over is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from sourcewise.cli import main
from sourcewise.config.files import load_recipe
from sourcewise.errors import RequestError
from sourcewise.importing import Imported, imported
from sourcewise.importing.tables import write_table

OLD = """\
name: "an experiment"
data: {src: de, trg: en, train: toy/train, dev: toy/dev, test: toy/test, level: word, lowercase: True,
  max_sent_length: 30, src_voc_min_freq: 1, src_voc_limit: 101, trg_voc_limit: 102}
testing: {beam_size: 5, alpha: 1.0}
training: {random_seed: 42, optimizer: adam, adam_betas: [0.9, 0.98], learning_rate: 0.001, learning_rate_min: 1.0e-6,
  learning_rate_factor: 0.5, learning_rate_warmup: 1000, weight_decay: 0., batch_size: 250, batch_type: token,
  normalization: batch, scheduling: noam, epochs: 10, validation_freq: 100, eval_metric: bleu,
  early_stopping_metric: loss, model_dir: models/transformer, overwrite: True, use_cuda: False, max_output_length: 31,
  label_smoothing: 0.1}
model:
  initializer: xavier
  tied_softmax: True
  encoder: {type: transformer, num_layers: 3, num_heads: 4, embeddings: {embedding_dim: 64, scale: True},
    hidden_size: 64, ff_size: 128, dropout: 0.1}
  decoder: {type: transformer, num_layers: 2, num_heads: 4, embeddings: {embedding_dim: 64}, hidden_size: 64,
    ff_size: 256, dropout: 0.1}
"""
NEW = """\
joeynmt_version: "2.0.0"
model_dir: out/gru
use_cuda: True
fp16: True
random_seed: 7
data:
  train: corpus/train
  dev: corpus/dev
  dataset_type: tsv
  src: {lang: de, level: bpe, lowercase: False, max_length: 40, voc_limit: 400, tokenizer_type: sentencepiece,
    tokenizer_cfg: {model_file: joint.model}}
  trg: {lang: en, level: bpe, lowercase: False, max_length: 50, voc_limit: 400, tokenizer_type: sentencepiece,
    tokenizer_cfg: {model_file: joint.model}}
testing: {beam_size: 4, beam_alpha: -1, n_best: 1, eval_metrics: [chrf], no_repeat_ngram_size: 3,
  sacrebleu_cfg: {tokenize: intl}}
training: {optimizer: sgd, learning_rate: 0.005, clip_grad_norm: 1.0, batch_size: 16, batch_multiplier: 2,
  scheduling: plateau, patience: 5, updates: 100, odd_key: 3}
model:
  initializer: normal
  encoder: {type: recurrent, rnn_type: gru, hidden_size: 32, num_layers: 1, bidirectional: True, freeze: True,
    embeddings: {embedding_dim: 16}}
  decoder: {type: recurrent, rnn_type: gru, hidden_size: 32, num_layers: 1, attention: luong, input_feeding: True,
    embeddings: {embedding_dim: 32}}
"""


def made(text: str, folder: Path) -> Imported:
    (folder / "theirs.yaml").write_text(text)
    return imported(folder / "theirs.yaml", folder / "ours.yaml")


def changed(text: str, section: str, **keys: Any) -> str:
    """The configuration with other keys in a section; None takes one away."""
    tree = yaml.safe_load(text)
    tree[section] = {name: value for name, value in {**tree[section], **keys}.items() if value is not None}
    return str(yaml.safe_dump(tree))


def test_a_transformer_of_version_1(tmp_path: Path) -> None:
    found = made(OLD, tmp_path)
    tree = found.tree
    assert tree["model"] == {
        "family": "t5", "d_model": 64, "d_ff": 128, "heads": 4, "encoder_layers": 3, "decoder_layers": 2,
        "dropout": 0.1, "initialization": "xavier", "tied": True,
    }  # fmt: skip
    train = tree["train"]
    assert train["schedule"] == "inverse_sqrt" and train["warmup_steps"] == 1000
    assert train["learning_rate"] == pytest.approx(0.5 * 64**-0.5 * 1000**-0.5, rel=1e-5)  # the peak of Noam's
    assert (train["beta1"], train["beta2"], train["clip"], train["best"]) == (0.9, 0.98, 0, "loss")
    assert (train["device"], train["precision"], train["batch_tokens"]) == ("cpu", "fp32", 500)
    assert (
        tree["data"]["train"]["lowercase"] and tree["data"]["valid"]["lowercase"] and tree["data"]["max_source"] == 31
    )
    assert (tree["output"], tree["name"], tree["seed"]) == ("models", "transformer", 42)
    assert tree["generation"] == {"beams": 5, "length_penalty": 1.0, "max_new_tokens": 31}
    assert found.tables[str(tmp_path / "ours.train.jsonl")] == ("toy/train.de", "toy/train.en")
    told = "\n".join(found.told)
    for key in (
        "normalization 'batch'",
        "learning_rate_min",
        "model.decoder.ff_size 256",
        "max_source 31",
        "tied_embed",
    ):
        assert key in told
    assert "scheduling" not in told and "optimizer" not in told


def test_a_recurrent_network_of_version_2(tmp_path: Path) -> None:
    found = made(NEW, tmp_path)
    tree = found.tree
    assert (tree["model"]["family"], tree["model"]["cell"], tree["model"]["attention"]) == ("rnn", "gru", "bahdanau")
    assert tree["data"]["train"] == {"pairs": "corpus/train.tsv", "source": "de", "target": "en"} and not found.tables
    assert tree["data"]["tokenizer"] == "joint.model" and tree["train"]["freeze"] == ["encoder"]
    assert (tree["train"]["steps"], tree["train"]["accumulate"], tree["train"]["best"]) == (100, 2, "chrf")
    assert (tree["train"]["schedule"], tree["train"]["learning_rate"], tree["train"]["clip"]) == (
        "constant",
        0.005,
        1.0,
    )
    assert tree["train"]["precision"] == "bf16" and tree["evaluation"] == {"bleu_tokenize": "intl"}
    assert tree["generation"] == {"beams": 4, "length_penalty": 0.0, "no_repeat_ngram": 3} and tree["name"] == "gru"
    told = "\n".join(found.told)
    for key in (
        "optimizer 'sgd'",
        "scheduling 'plateau'",
        "patience 5",
        "attention 'luong'",
        "odd_key",
        "embedding_dim 16",
    ):
        assert key in told
    assert "initializer 'normal'" in told and "tokenizer" not in told


@pytest.mark.parametrize("section", ["data", "training", "testing", "model"])
def test_no_key_is_dropped_in_silence(section: str, tmp_path: Path) -> None:
    found = made(changed(OLD, section, not_known_to_anybody=1), tmp_path)
    assert f"{section}.not_known_to_anybody" in found.told[-1]


@pytest.mark.parametrize(
    ("section", "keys", "told"),
    [
        ("training", {"clip_grad_val": 1.0}, "training.clip_grad_val 1.0"),
        ("training", {"updates": 500}, "training.epochs and training.updates"),
        ("training", {"load_model": "best.ckpt"}, "training.load_model 'best.ckpt'"),
        ("training", {"shuffle": False}, "training.shuffle False"),
        ("training", {"optimizer": "adadelta"}, "training.optimizer 'adadelta'"),
        ("training", {"early_stopping_metric": "eval_metric", "eval_metric": "token_accuracy"}, "token_accuracy"),
        ("testing", {"n_best": 5}, "testing.n_best 5"),
        ("data", {"src_voc_min_freq": 3}, "data.src_voc_min_freq 3"),
        ("data", {"src_vocab": "vocab.txt"}, "data.src_vocab 'vocab.txt'"),
    ],
)
def test_what_is_not_as_it_was_is_told(section: str, keys: dict[str, Any], told: str, tmp_path: Path) -> None:
    assert told in "\n".join(made(changed(OLD, section, **keys), tmp_path).told)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("data: {}\nmodel: {}\n", "has no section training"),
        ("- 1\n", "has no section data"),
        ("a: [\n", "is no YAML"),
        (changed(OLD, "data", src=None), "data.src.lang and data.trg.lang"),
        (changed(OLD, "data", level="morphemes"), "morphemes"),
        (changed(OLD, "training", batch_size="many"), "training.batch_size"),
        (changed(OLD, "training", label_smoothing=3), "label_smoothing"),
        (changed(OLD, "data", dataset_type="speech"), "speech"),
    ],
)
def test_what_is_no_such_configuration_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=problem):
        made(text, tmp_path)


def test_lines_become_pairs_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes('ein "Wort"\ttab\n\n Leer \u2028Zeichen\r\n'.encode())
    (tmp_path / "t").write_bytes(b'a "word"\nb\nc')
    assert write_table(tmp_path / "t.jsonl", tmp_path / "s", tmp_path / "t") == 3
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text(encoding="utf-8").split("\n") if line]
    assert [row["source"] for row in rows] == ['ein "Wort"\ttab', "", " Leer \u2028Zeichen"]
    (tmp_path / "t").write_text("a\nb\nc\nd\n")
    with pytest.raises(RequestError, match=r"3 lines and .* 4"):
        write_table(tmp_path / "new.jsonl", tmp_path / "s", tmp_path / "t")
    assert not (tmp_path / "new.jsonl").exists()


def test_the_command_writes_a_recipe_that_can_be_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy").mkdir()
    for split in ("train", "dev", "test"):
        for language in ("de", "en"):
            Path(f"toy/{split}.{language}").write_text("".join(f"{language} {i}\n" for i in range(4)))
    Path("joey.yaml").write_text(OLD)
    assert main(["import", "joeynmt", "joey.yaml", "-o", "mine.yaml"]) == 0
    said = capsys.readouterr().out
    assert "table\tmine.train.jsonl\t4 rows" in said and "next\tsourcewise train mine.yaml" in said
    recipe = load_recipe("mine.yaml")
    assert recipe.model.d_model == 64 and Path(recipe.data.sets("train")[0].pairs or "").is_file()
    assert main(["train", "mine.yaml", "--train.steps", "1", "--train.preflight", "false"]) == 0
    capsys.readouterr()
    for words, told in (
        (["joey.yaml", "-o", "joey.yaml"], "is the configuration itself"),
        (["joey.yaml", "-o", "mine.json"], "a recipe is a .yaml file"),
        (["none.yaml", "-o", "mine.yaml"], "none.yaml: No such file"),
    ):
        assert main(["import", "joeynmt", *words]) == 2
        assert told in capsys.readouterr().err
    assert main(["import", "marian", "joey.yaml", "-o", "mine.yaml"]) == 2
