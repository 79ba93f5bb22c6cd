"""Models that are unknown, damaged or of another kind: one line, exit status 2, nothing left and nothing unpickled."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sourcewise.cli import main
from sourcewise.errors import RequestError
from sourcewise.model.weights.checkpoint import find_folder
from tests.commands import Bomb, Models

# ── models ────────────────────────────────────────────────────────────────────────────────────────────────────────────

MODEL_COMMANDS = ("generate {} good.tsv -o o", "evaluate {} good.tsv -o o", "diagnose {} good.tsv")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("./nowhere", "nowhere: no such folder; give a run, a Hugging Face folder or a hub name"),
        ("a/b/c", "a/b/c: no such folder"),
        ("features", "features: neither a run nor a Hugging Face folder"),
        ("no-such-model", "no-such-model: no folder of this name here, and the hub "),
        ("nobody/no-such-model", "nobody/no-such-model: no folder of this name here, and the hub "),
        ("what?", "what?: no folder of this name here, nor is it a hub name"),
    ],
)
def test_an_unknown_model(name: str, line: str, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for command in (*MODEL_COMMANDS, "train --name new {{tiny}} --data.train.pairs good.tsv --model {}"):
        assert refused(command.format(name)).startswith(line.replace("here, nor", "here, and nor")), command


@pytest.mark.parametrize("marker", ["recipe.yaml", "config.json"])
def test_a_folder_of_models_names_them(marker: str, tmp_path: Path) -> None:
    for name in ("second", "first", "notes"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    for name in ("second", "first"):
        (tmp_path / "runs" / name / marker).touch()
    with pytest.raises(RequestError) as error:
        find_folder(tmp_path / "runs")
    assert str(error.value).endswith(f"; it holds first, second: name one: {tmp_path / 'runs' / 'first'}")


def test_an_unknown_data_set_of_the_hub(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sourcewise.runtime.hub._answers", lambda name: False)
    for command in ("train --name new {tiny} --data.train.pairs hub:no/such", "evaluate {text} hub:no/such -o o"):
        assert "hub:no/such: split 't" in refused(command)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def changed(**keys: object) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def dropped(key: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))


CHECKPOINTS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "truncated weights": ("model.safetensors", half, "truncated or not safetensors"),
    "empty weights": ("model.safetensors", lambda p: p.write_bytes(b""), "truncated or not safetensors"),
    "no weights": ("model.safetensors", Path.unlink, "no weights (model.safetensors or pytorch_model.bin)"),
    "weights of another shape": ("config.json", changed(d_ff=128), "has the shape"),
    "weights of another width": ("config.json", changed(d_model=10**9), "shared.weight has the shape ("),
    "a layer too many": ("config.json", changed(num_layers=2), "is missing"),
    "a configuration cut off": ("config.json", half, "not a JSON object"),
    "a configuration of another kind": ("config.json", lambda p: p.write_text("[1, 2]"), "not a JSON object"),
    "a configuration without a key": (
        "config.json",
        dropped("d_kv"),
        "the key 'd_kv' of a T5 configuration is missing",
    ),
    "a configuration of wrong types": ("config.json", changed(num_layers="two"), "describes no network"),
    "an unknown architecture": ("config.json", changed(model_type="nope"), "transformers cannot open it"),
    "no tokenizer": ("tokenizer.json", Path.unlink, "no tokenizer"),
    "a tokenizer cut off": ("tokenizer.json", half, "not a tokenizer.json"),
    "a bridge cut off": ("bridge.safetensors", half, "truncated or not safetensors"),
    "no bridge": ("bridge.safetensors", Path.unlink, "missing"),
    "a bridge of another shape": ("sourcewise.json", changed(dims=9), "does not fit the bridge of sourcewise.json"),
    "a bridge of no kind": ("sourcewise.json", changed(bridge={"kind": "glue"}), "a bridge of kind 'glue'"),
    "a bridge not described": (
        "sourcewise.json",
        dropped("bridge"),
        "describes no network that can be made (no 'bridge')",
    ),
    "an unknown route": ("sourcewise.json", changed(route="detour"), "describes no network"),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_damaged_checkpoint(case: str, here: Path, models: Models, refused: Callable[..., str]) -> None:
    file, spoil, problem = CHECKPOINTS[case]
    of_features = file in ("bridge.safetensors", "sourcewise.json")
    shutil.copytree((models.features if of_features else models.text) / "checkpoints" / "best", here / "model")
    spoil(here / "model" / file)
    data, training = ("m.tsv", "manifest m.tsv") if of_features else ("good.tsv", "pairs good.tsv")
    for command in (
        f"generate model {data} -o o",
        f"evaluate model {data} -o o",
        f"diagnose model {data}",
        f"train --name new {{tiny}} --data.train.{training} --model model",
    ):
        line = refused(command)
        assert line.startswith("model") and problem in line, command


def test_a_damaged_run(here: Path, models: Models, refused: Callable[..., str]) -> None:
    shutil.copytree(models.text, here / "run")
    half(here / "run" / "state" / "state.pt")
    assert refused("train run --resume", begun=True).startswith("run/state/state.pt: damaged")
    half(here / "run" / "metrics.json")
    for command in ("report run", "diagnose run"):
        assert re.match(r"run/metrics\.json:\d+: not JSON", refused(command))
    (here / "run" / "recipe.yaml").write_text("train: 5\n")
    for command in ("generate run good.tsv", "train run --resume"):
        assert refused(command).startswith("run/recipe.yaml: train should be a section")


# ── models of Hugging Face ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def blenderbot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Blenderbot of 48 positions: of no family of ours, so it comes through the adapter."""
    import transformers

    from sourcewise.data.tokenizers.tokenizer import Tokenizer

    folder = tmp_path_factory.mktemp("hf") / "blenderbot"
    sizes = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in SIZES.items()}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1}
    config = transformers.BlenderbotConfig(vocab_size=64, d_model=16, max_position_embeddings=48, **sizes, **ids)
    transformers.BlenderbotForConditionalGeneration(config).save_pretrained(folder)
    Tokenizer.train(["ba do ki lu me no", "one two three four five six"] * 9, 48).save(folder)
    return folder


SIZES = {"layers": 1, "ffn_dim": 16, "attention_heads": 2}
ADAPTED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "truncated weights": ("model.safetensors", half, "truncated or not safetensors"),
    "weights of another shape": (
        "config.json",
        changed(d_model=32),
        "the configuration says",
    ),
    "a layer too many": ("config.json", changed(decoder_layers=2), "the tensor model.decoder.layers.1."),
    "no seq2seq model": ("config.json", changed(model_type="bert"), "transformers cannot open it as a seq2seq model"),
    "code of its own": (
        "config.json",
        changed(model_type="x", auto_map={"AutoConfig": "bomb.C", "AutoModelForSeq2SeqLM": "bomb.M"}),
        "it needs code of its own, which is never run",
    ),
    "pickled weights": (
        "model.safetensors",
        lambda p: (p.unlink(), torch.save({"a": Bomb()}, p.with_name("pytorch_model.bin"))),
        "holds more than plain tensors, which is never loaded",
    ),
    "no tokenizer": (
        "tokenizer.json",
        lambda p: [p.with_name(n).unlink() for n in (p.name, "tokenizer_config.json", "special_tokens_map.json")],
        "its tokenizer has no vocabulary",
    ),
}


@pytest.mark.parametrize("case", ADAPTED)
def test_a_damaged_folder_of_another_architecture(
    case: str, here: Path, blenderbot: Path, refused: Callable[..., str]
) -> None:
    file, spoil, problem = ADAPTED[case]
    shutil.copytree(blenderbot, here / "model")
    (here / "model" / "bomb.py").write_text("import os; os.mkdir('unpickled')")
    spoil(here / "model" / file)
    line = refused("generate model good.tsv -o o")
    assert line.startswith(("model: ", "model/")) and problem in line
    assert not Path("unpickled").exists()


def test_another_architecture_within_its_positions(
    here: Path, blenderbot: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "long.tsv").write_text(f"source\ttarget\n{'ba do ' * 200}\t{'one ' * 200}\nki\tthree\n")
    assert main(["evaluate", str(blenderbot), "long.tsv", "--beams", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == 2
    assert main(["diagnose", str(blenderbot), "long.tsv", "--json"]) in (0, 1)
    assert refused(f"generate {blenderbot} good.tsv --max-new-tokens 49") == (
        f"generation: max_new_tokens is 49, {blenderbot} has 48 positions"
    )
    assert refused(f"generate {blenderbot} m.tsv").startswith("m.tsv: its sources are features 4 wide")


def test_a_tokenizer_larger_than_the_embedding(here: Path, blenderbot: Path, refused: Callable[..., str]) -> None:
    from sourcewise.data.tokenizers.tokenizer import Tokenizer

    shutil.copytree(blenderbot, here / "model")
    Tokenizer.train(["".join(map(chr, range(0x4E00, 0x4E64)))], 200).save(here / "model")
    (here / "wide.txt").write_text("".join(map(chr, range(0x4E00, 0x4E64))))
    assert re.match(
        r"model: its tokenizer gives a source the id \d+, its weights embed 64", refused("generate model wide.txt")
    )
