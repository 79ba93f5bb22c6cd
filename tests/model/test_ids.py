"""The ids that start, end and fill up a text: from wherever a folder has them, and never guessed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import sourcewise
from sourcewise.errors import DataWarning, RequestError
from sourcewise.generation.model import load
from sourcewise.model.families.huggingface import HuggingFaceNetwork
from sourcewise.model.weights.checkpoint import load_network
from tests.generation.folders import IDS, SIZE, TOKENIZER, bert2bert, change, expected, found, t5, write_folder

START, PAD, EOS = "decoder_start_token_id", "pad_token_id", "eos_token_id"
FILES = ("config.json", "generation_config.json")


def told_by(folder: Path) -> tuple[Any, list[str]]:
    """The network in a folder, and the lines that are told of it."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        network = load_network(folder)
    return network, [str(each.message) for each in told if issubclass(each.category, DataWarning)]


def without(folder: Path, *keys: str, files: tuple[str, ...] = FILES, null: bool = False) -> None:
    for file in files:
        change(folder, file, **dict.fromkeys(keys, None if null else ...))


@pytest.mark.parametrize("kind", ["bert2bert", "t5", "bart"])
def test_ids_of_a_whole_folder_are_not_told(kind: str, tmp_path: Path) -> None:
    write_folder(kind, tmp_path)
    network, told = told_by(tmp_path)
    assert (network.eos_id, network.pad_id, network.defaults.ends, told) == (1, 0, (1,), [])


@pytest.mark.parametrize("file", FILES)
def test_either_file_may_have_them(file: str, tmp_path: Path) -> None:
    """EncoderDecoderModel's ids are set by hand, in the one or in the other."""
    model = write_folder("bert2bert", tmp_path)
    rows = expected(model, tmp_path, max_new_tokens=8, num_beams=3)
    without(tmp_path, START, PAD, EOS, files=(file,))
    network, told = told_by(tmp_path)
    assert (network.start_id, network.eos_id, network.pad_id) == (2, 1, 0)
    assert found(tmp_path, max_new_tokens=8, beams=3) == rows
    assert bool(told) == (file != "config.json")  # `generate` would not have found the end


def test_ids_that_only_the_decoder_has(tmp_path: Path) -> None:
    model = write_folder("bert2bert", tmp_path)
    rows = expected(model, tmp_path, max_new_tokens=8, num_beams=3)
    without(tmp_path, START, PAD, EOS)
    change(tmp_path, "config.json", decoder=model.config.decoder.to_dict() | {START: 2, EOS: 1, PAD: 0})
    network, told = told_by(tmp_path)
    assert (network.start_id, network.eos_id, network.pad_id) == (2, 1, 0)
    assert found(tmp_path, max_new_tokens=8, beams=3) == rows
    assert any("eos_token_id is missing: 1 of its decoder is taken" in line for line in told)


def test_ids_that_only_the_tokenizer_has(tmp_path: Path) -> None:
    write_folder("bert2bert", tmp_path)
    without(tmp_path, START, PAD, EOS)
    with pytest.raises(
        RequestError, match=r"config.json: decoder_start_token_id is missing \(.*\); add it|starts with"
    ):
        load_network(tmp_path)
    change(tmp_path, "tokenizer_config.json", cls_token="<unk>")  # a BERT's has one
    network, told = told_by(tmp_path)
    assert (network.start_id, network.eos_id, network.pad_id) == (2, 1, 0)
    assert any("decoder_start_token_id is missing: 2, the tokenizer's cls_token, is taken" in line for line in told)
    assert any("eos_token_id is missing: 1, the tokenizer's eos_token, is taken" in line for line in told)


def test_ids_that_are_nowhere_are_named(tmp_path: Path) -> None:
    write_folder("bert2bert", tmp_path)
    without(tmp_path, EOS)
    for file in tmp_path.glob("*token*"):
        file.unlink()
    with pytest.raises(RequestError, match=rf"{tmp_path}/config.json: eos_token_id is missing .* no text ever ends"):
        load_network(tmp_path)


def test_a_bert_that_reads_for_a_gpt2(tmp_path: Path) -> None:
    """GPT-2's own usual ids, 50256, are not in a small vocabulary: they are not taken."""
    bert = bert2bert().config.encoder
    shape = {"vocab_size": SIZE, "n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 64}
    gpt2 = transformers.GPT2Config(**shape, bos_token_id=2, eos_token_id=1)
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(bert, gpt2)
    model = transformers.EncoderDecoderModel(config).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, 0, 0.25)
    model.save_pretrained(tmp_path)
    TOKENIZER.save(tmp_path)
    change(tmp_path, **{START: 2, EOS: 1, PAD: 0})
    rows = expected(model, tmp_path, max_new_tokens=8, num_beams=2)
    without(tmp_path, START, EOS, PAD)
    network, _ = told_by(tmp_path)
    assert (network.start_id, network.eos_id) == (2, 1)
    assert found(tmp_path, max_new_tokens=8, beams=2) == rows
    without(tmp_path, "bos_token_id")
    change(tmp_path, "config.json", decoder=gpt2.to_dict() | {"bos_token_id": 50256, EOS: 50256})
    with pytest.raises(RequestError, match="decoder_start_token_id is missing"):
        load_network(tmp_path)


@pytest.mark.parametrize(("decoder", "refused"), [(SIZE - 8, True), (SIZE + 8, False)])
def test_a_decoder_with_another_number_of_ids(decoder: int, refused: bool, tmp_path: Path) -> None:
    """Targets are held against what the decoder says, sources against what the encoder embeds."""
    bert = bert2bert().config.encoder
    shape = {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 64, "bos_token_id": 2, "eos_token_id": 1}
    parts = (bert, transformers.GPT2Config(vocab_size=decoder, **shape))
    transformers.EncoderDecoderModel(
        transformers.EncoderDecoderConfig.from_encoder_decoder_configs(*parts)
    ).save_pretrained(tmp_path)
    TOKENIZER.save(tmp_path)
    change(tmp_path, **{START: 2, EOS: 1, PAD: 0})
    high = TOKENIZER.decode([max(range(SIZE - 8, TOKENIZER.size), key=lambda i: len(TOKENIZER.decode([i])))])
    ids = TOKENIZER.encode(high)
    assert max(ids) >= SIZE - 8
    opened = load(tmp_path)
    assert len(opened.generate([high], max_new_tokens=3)) == 1
    data = tmp_path / "set.tsv"
    data.write_text(f"source\ttarget\n{high}\t{high}\n")
    if refused:
        with pytest.raises(RequestError, match=f"gives a target the id {max(ids)}, its weights embed {decoder} for ta"):
            sourcewise.evaluate(opened, data)
    else:
        assert len(sourcewise.evaluate(opened, data, generation={"max_new_tokens": 3}).outputs) == 1


@pytest.mark.parametrize("null", [False, True])
def test_a_t5_without_its_ids(null: bool, tmp_path: Path) -> None:
    """T5's configuration leaves out what is usual; where null is written, the tokenizer knows."""
    write_folder("t5", tmp_path)
    without(tmp_path, START, PAD, EOS, null=null)
    network, told = told_by(tmp_path)
    assert (network.start_id, network.eos_id, network.pad_id) == (0, 1, 0)
    assert any("decoder_start_token_id is missing: 0, the padding, is taken, as T5 has it" in line for line in told)
    assert any("eos_token_id is missing" in line for line in told)


@pytest.mark.parametrize(("kind", "start"), [("bart", 2), ("marian", 0)])
def test_a_class_that_has_usual_ids(kind: str, start: int, tmp_path: Path) -> None:
    """What transformers' own class takes is taken, but never an id that is not in the vocabulary (Marian's 58100)."""
    write_folder(kind, tmp_path)
    without(tmp_path, START)
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path).config
    if kind == "bart":
        network, _ = told_by(tmp_path)
        assert network.start_id == theirs.decoder_start_token_id == start
    else:
        assert theirs.decoder_start_token_id == 58100
        with pytest.raises(RequestError, match="decoder_start_token_id is missing"):
            load_network(tmp_path)


def test_ends_in_the_config_alone_are_all_obeyed(tmp_path: Path) -> None:
    model = write_folder("t5", tmp_path)
    change(tmp_path, num_beams=1, max_length=14, eos_token_id=[1, 9, 12, 17])
    rows = expected(model, tmp_path)
    change(tmp_path, eos_token_id=...)
    change(tmp_path, "config.json", eos_token_id=[1, 9, 12, 17])
    network, told = told_by(tmp_path)
    assert network.defaults.ends == (1, 9, 12, 17) and found(tmp_path) == rows
    assert any(
        "generation_config.json: eos_token_id is missing: [1, 9, 12, 17] of config.json is taken" in x for x in told
    )


def test_two_starts_are_told(tmp_path: Path) -> None:
    model = write_folder("t5", tmp_path)
    change(tmp_path, decoder_start_token_id=6, num_beams=1, max_length=9)
    network, told = told_by(tmp_path)
    assert network.start_id == 6 and found(tmp_path) == expected(model, tmp_path)
    assert told == [
        f"{tmp_path}/config.json: decoder_start_token_id = 0 is not followed: generation_config.json has 6",
    ]


def test_t5gemma_without_padding(tmp_path: Path) -> None:
    part = {"vocab_size": SIZE, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "head_dim": 8}
    part |= {"num_attention_heads": 4, "num_key_value_heads": 2, "layer_types": ["full_attention"], **IDS}
    config = transformers.T5GemmaConfig(
        encoder=transformers.T5GemmaModuleConfig(**part, bos_token_id=2),
        decoder=transformers.T5GemmaModuleConfig(**part, bos_token_id=2),
        vocab_size=SIZE,
    )
    model = transformers.T5GemmaForConditionalGeneration(config).eval()
    torch.manual_seed(0)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, 0, 0.25)
    model.save_pretrained(tmp_path)
    TOKENIZER.save(tmp_path)
    change(tmp_path, **{EOS: 1, "bos_token_id": 2})
    rows = expected(model, tmp_path, max_new_tokens=8, num_beams=1)
    without(tmp_path, PAD, null=True)
    opened = load(tmp_path)
    assert (opened.network.start_id, opened.network.eos_id, opened.network.pad_id) == (2, 1, 0)
    assert found(opened, max_new_tokens=8, beams=1) == rows


def test_a_model_in_memory_has_the_ids_of_its_configuration() -> None:
    model = t5()
    model.generation_config.eos_token_id = [1, 9]
    network = HuggingFaceNetwork(model)
    assert (network.start_id, network.pad_id, network.defaults.ends) == (0, 0, (1, 9))
    model = bert2bert()
    for config in (model.config, model.generation_config):
        for key in (EOS, PAD):
            setattr(config, key, None)
    network = HuggingFaceNetwork(model)
    assert (network.start_id, network.eos_id, network.defaults.ends) == (2, -1, ())  # it knows of no end
    for config in (model.config, model.generation_config):
        setattr(config, START, None)
    model.config.decoder.pad_token_id = None
    with pytest.raises(RequestError, match="neither decoder_start_token_id nor bos_token_id nor pad_token_id"):
        HuggingFaceNetwork(model)
