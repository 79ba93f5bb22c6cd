"""Rows for new entries: the mean of the others, in embedding and head, and the same network in transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import sourcewise
from sourcewise.config import ModelConfig
from sourcewise.data.examples import Dataset, Example
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError
from sourcewise.model.builder import build_network, embed_new
from sourcewise.model.network import Seq2Seq
from sourcewise.model.weights.checkpoint import load_network, save_network
from tests.data.tokenizers.t5_tokenizers import fast_t5_folder, opened, t5_folder
from tests.model.networks import FAMILIES, VOCABULARY, network
from tests.training.recipes import recipe
from tests.training.stopping import Stops

NEW = ["{", "}", "\n", "\t"]
JSON = '{"name": "cat"}\n\t{1}'
PAIRS = Dataset([Example("1", JSON, "the cat")], "pairs.tsv")


def hugging_face_t5(folder: Path, spare: int = 0, *, tied: bool = True) -> Path:
    """A random T5 with its tokenizer in a folder as on the hub; so many of its rows are of no entry."""
    transformers = pytest.importorskip("transformers")
    rows = Tokenizer.load((t5_folder if tied else fast_t5_folder)(folder)).size + spare
    shape = {
        "d_model": 24,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 1,
        "num_heads": 3,
        "decoder_start_token_id": 0,
        "dropout_rate": 0.0,
    }
    config = transformers.T5Config(vocab_size=rows, **shape, tie_word_embeddings=tied)
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(config)
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.3)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("spare", [0, 2, 30])
def test_new_rows_are_the_mean_of_the_known(tmp_path: Path, spare: int, tied: bool) -> None:
    folder = hugging_face_t5(tmp_path, spare, tied=tied)
    tokenizer = Tokenizer.load(folder)
    known, rows = tokenizer.size, tokenizer.size + spare
    before = load_network(folder)
    made = build_network(ModelConfig(weights=str(folder)), tokenizer.add(NEW), PAIRS)
    assert isinstance(before, Seq2Seq)
    assert made.vocabulary == made.body.config.vocabulary == (rows if spare > 4 else -(-(known + 4) // 8) * 8)
    for name in ("embedding", "head"):
        if tied and name == "head":
            continue
        old, new = (getattr(each.body, name).weight for each in (before, made))
        assert torch.equal(new[:known], old[:known])
        mean = old[:known].mean(0)
        filled = known + 4 if spare > 4 else len(new)  # of rows to spare those that nobody asked for stay
        torch.testing.assert_close(new[known:filled], mean.expand(filled - known, -1))
        assert torch.equal(new[filled:], old[filled:])


def test_a_run_with_new_entries_is_the_same_in_transformers(tmp_path: Path) -> None:
    folder = hugging_face_t5(tmp_path / "t5", 2)
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"source": "the cat", "target": "{\\"name\\": \\"cat\\"}\\n\\t{1}"}\n' * 8)
    data = {"train": {"pairs": str(pairs)}, "valid": {"pairs": str(pairs)}, "add_tokens": NEW}
    options = {"train__steps": 240, "train__evaluate_every": 240, "train__learning_rate": 1e-2}
    run = sourcewise.train(recipe(tmp_path, data=data, model={"weights": str(folder)}, **options))
    model = sourcewise.load(run.last)
    tokenizer, theirs = opened(run.last), _theirs(run.last)
    assert theirs.config.vocab_size == 144
    ids = model.tokenizer.encode(JSON)
    assert tokenizer(JSON)["input_ids"] == ids and tokenizer.decode(ids, skip_special_tokens=True) == JSON
    tokens = torch.tensor([ids])
    source = model.lay_out(Dataset([Example("1", "", JSON)], "x")).batch([0]).source
    with torch.inference_mode():
        mine = model.network.decode(tokens, model.network.encode(source))
        torch.testing.assert_close(mine, theirs(input_ids=tokens, decoder_input_ids=tokens).logits, atol=1e-4, rtol=0)
        said = theirs.generate(**tokenizer("the cat", return_tensors="pt"), num_beams=2, max_new_tokens=30)
    expected = tokenizer.decode(said[0], skip_special_tokens=True)
    assert model.generate("the cat", beams=2, max_new_tokens=30) == [expected]
    assert "{" in expected  # it has learnt to say a new entry

    again = sourcewise.train(recipe(tmp_path, name="on", data=data, model={"weights": str(run.folder)}, train__steps=2))
    assert sourcewise.load(again.last).network.vocabulary == 144
    assert Tokenizer.load(again.last).size == model.tokenizer.size  # nothing was new to it


def _theirs(folder: Path) -> Any:
    from transformers import AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM.from_pretrained(folder).eval()


def test_a_stopped_run_with_new_entries_goes_on(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = hugging_face_t5(tmp_path / "t5")
    data = {"train": {"pairs": str(tmp_path / "p.jsonl")}, "add_tokens": NEW}
    (tmp_path / "p.jsonl").write_text('{"source": "the cat", "target": "{1}"}\n' * 8)
    made = recipe(tmp_path, name="whole", data=data, model={"weights": str(folder)}, train__steps=6)
    whole = sourcewise.train(made)
    stopped = made.model_copy(update={"name": "parts", "train": made.train.model_copy(update={"save_every": 3})})

    with pytest.raises(MemoryError):
        sourcewise.train(stopped, listeners=[Stops(4)])
    parts = sourcewise.train(tmp_path / "runs" / "parts", resume=True)
    first, second = (load_file(run.last / "model.safetensors") for run in (whole, parts))
    assert first["shared.weight"].shape == (144, 24)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("family", ["t5", *FAMILIES])
def test_every_family_grows_and_stays_what_it_was(family: str, tmp_path: Path) -> None:
    made = network(family=family)
    before = {name: weight.clone() for name, weight in made.state_dict().items()}
    embed_new(made, VOCABULARY + 3, range(VOCABULARY, VOCABULARY + 3))
    assert made.vocabulary == VOCABULARY + 8
    for name, weight in made.state_dict().items():
        assert torch.equal(weight[: len(before[name])], before[name]), name
        if len(weight) > len(before[name]):
            torch.testing.assert_close(weight[VOCABULARY:], before[name].mean(0).expand_as(weight[VOCABULARY:]))
    save_network(made, tmp_path)
    again = load_network(tmp_path)
    assert again.vocabulary == VOCABULARY + 8


def test_a_larger_tokenizer_that_adds_nothing_is_refused(tmp_path: Path) -> None:
    save_network(network(), tmp_path)
    larger = Tokenizer.train(["".join(chr(0x4E00 + i) for i in range(100))], 200)
    with pytest.raises(RequestError, match="use the model's own"):
        build_network(ModelConfig(weights=str(tmp_path)), larger.add(["<table>"]), PAIRS)
