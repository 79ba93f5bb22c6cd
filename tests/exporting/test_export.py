"""What `export` writes gives the greedy outputs of the model, in each program that reads it; what cannot is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import sourcewise
from sourcewise.cli import main
from sourcewise.errors import RequestError
from sourcewise.exporting import gguf as gguf_kind
from sourcewise.exporting.checking import SOURCES
from tests.commands import Models
from tests.generation.folders import IDS, KINDS, SIZE, TOKENIZER, change, write_folder

NEEDED = {"hf": (), "ctranslate2": ("ctranslate2",), "onnx": ("onnxruntime", "onnxscript"), "gguf": ("gguf",)}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 4}


def flan() -> Any:
    """A T5 1.1: gated, with a head of its own."""
    config = transformers.T5Config(
        vocab_size=SIZE,
        **T5,
        **IDS,
        decoder_start_token_id=0,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    config.scale_decoder_outputs = False
    return transformers.T5ForConditionalGeneration(config)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    KINDS["flan"] = flan
    found = {}
    for kind in ("t5", "flan", "bart", "marian"):
        found[kind] = folder = tmp_path_factory.mktemp(kind)
        model = write_folder(kind, folder)
        if kind == "marian":  # the decoder of a Marian begins with padding, whose vector is zero
            with torch.no_grad():
                model.get_input_embeddings().weight[0] = 0
            model.save_pretrained(folder)
        change(folder, max_new_tokens=10)
    del KINDS["flan"]
    return found


def needed(to: str) -> None:
    for module in NEEDED[to]:
        pytest.importorskip(module)


CASES = [
    *((kind, to) for kind in ("t5", "bart", "marian") for to in ("hf", "ctranslate2")),
    *(pytest.param(kind, "onnx", marks=pytest.mark.slow) for kind in ("t5", "bart", "marian")),
    *(("t5", "gguf"), ("flan", "gguf"), ("flan", "ctranslate2")),
]


@pytest.mark.parametrize(("kind", "to"), CASES)
def test_outputs_are_the_same(kind: str, to: str, folders: dict[str, Path], tmp_path: Path) -> None:
    needed(to)
    done = sourcewise.export(folders[kind], tmp_path / "out", to)
    assert (done.check.sources, done.check.same, done.check.first) == (SOURCES, SOURCES, "")
    assert (tmp_path / "out" / ("model.gguf" if to == "gguf" else "tokenizer.json")).is_file()


def test_settings_of_the_search_are_part_of_a_folder(folders: dict[str, Path], tmp_path: Path) -> None:
    change(folders["bart"], no_repeat_ngram_size=2, repetition_penalty=1.3, min_new_tokens=4)
    try:
        assert sourcewise.export(folders["bart"], tmp_path / "out").check.equal
        assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["no_repeat_ngram_size"] == 2
    finally:
        change(folders["bart"], no_repeat_ngram_size=..., repetition_penalty=..., min_new_tokens=...)


def test_ctranslate2_and_gguf_hold_the_whole_probabilities(folders: dict[str, Path], tmp_path: Path) -> None:
    """Greedy outputs would be the same with every logit divided."""
    needed("gguf")
    for kind in ("t5", "flan"):
        sourcewise.export(folders[kind], tmp_path / kind, "gguf")
        ours, body = sourcewise.load(folders[kind], "cpu").network, gguf_kind.read_back(tmp_path / kind / "model.gguf")
        again = type(ours)(body.eval())  # type: ignore[call-arg]
        source, tokens = torch.randint(3, 30, (2, 6)), torch.randint(3, 30, (2, 4))
        with torch.inference_mode():
            logits = [net.decode(tokens, net.encode(_source(source))) for net in (ours, again)]
        torch.testing.assert_close(*logits)


def _source(tokens: torch.Tensor) -> Any:
    from sourcewise.data.batches import Source

    return Source(tokens, torch.tensor([tokens.shape[1]] * len(tokens)))


def test_a_file_that_is_not_the_model_is_found(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needed("gguf")
    kept = gguf_kind._written
    monkeypatch.setattr(gguf_kind, "_written", lambda *given: ((n, t.flip(0)) for n, t in kept(*given)))
    assert main(["export", str(folders["t5"]), "--to", "gguf", "-o", str(tmp_path / "out"), "--json"]) == 1
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["same"] < SOURCES and found["first"].startswith("source ")
    assert f"{found['same']} of 100 greedy outputs are the same (made sources, by gguf's reader); source " in said.err


def test_given_sources(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.txt").write_text("ran mol\nsak\nfus gab hyl\n")
    words = ["export", str(folders["t5"]), "-o", str(tmp_path / "out"), "--check", str(tmp_path / "in.txt"), "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["sources"], found["same"], found["made"], found["by"]) == (3, 3, False, "transformers")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(RequestError, match=r"empty\.txt: no sources"):
        sourcewise.export(folders["t5"], tmp_path / "other", sources=tmp_path / "empty.txt")
    assert not (tmp_path / "other").exists()


def test_features_and_recurrent_networks_are_folders_of_ours(models: Models, tmp_path: Path) -> None:
    done = sourcewise.export(models.features, tmp_path / "out")
    assert done.check.equal and done.check.by == "sourcewise, from the folder"
    assert (tmp_path / "out" / "bridge.safetensors").is_file()


@pytest.mark.parametrize("to", ["ctranslate2", "onnx", "gguf"])
def test_features_are_refused_elsewhere(to: str, models: Models, tmp_path: Path) -> None:
    needed(to)
    with pytest.raises(RequestError, match=r"reads features, and .* tokens; --to hf holds every model"):
        sourcewise.export(models.features, tmp_path / "new" / "out", to)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("kind", "words", "line"),
    [
        ("bart", "--to gguf -o OUT", "and no T5, the one encoder–decoder that the library gguf describes"),
        ("t5", "--to tflite -o OUT", "--to tflite: not one of hf, ctranslate2, onnx, gguf"),
        ("t5", "--to onnx", "where to? name a folder, -o FOLDER, or a hub model, --push hub:NAME"),
        ("t5", "-o FULL", "something is there; name a folder that is new or empty"),
        ("t5", "-o OUT --features DIR", "--features goes with --check MANIFEST"),
        ("t5", "-o OUT --check nowhere.tsv", "nowhere.tsv: no such file"),
    ],
)
def test_what_cannot_be_is_one_line(
    kind: str, words: str, line: str, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needed("gguf")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    places = {"OUT": str(tmp_path / "out"), "FULL": str(tmp_path / "full")}
    assert main(["export", str(folders[kind]), *(places.get(word, word) for word in words.split())]) == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("to", "module"), [("ctranslate2", "ctranslate2"), ("onnx", "onnxruntime"), ("gguf", "gguf")])
def test_a_missing_library_is_named(
    to: str, module: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RequestError, match=rf"--to {to} takes {module}, which is not installed: pip install"):
        sourcewise.export(folders["t5"], tmp_path / "out", to)


def test_a_tokenizer_of_another_kind_has_no_place_in_gguf(folders: dict[str, Path], tmp_path: Path) -> None:
    needed("gguf")
    model = sourcewise.load(folders["t5"], "cpu")
    model.tokenizer = type(TOKENIZER).train(["ran mol tiv sak"], 48, "words")
    assert gguf_kind.KIND.why_not(model).startswith("has a tokenizer of kind WordLevel")
