"""Embeddings stored under any of their names, alike or not: the logits are those that transformers gives."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sourcewise.data.batches import Source
from sourcewise.errors import Notice, RequestError
from sourcewise.model.families.huggingface import HuggingFaceNetwork
from sourcewise.model.weights.checkpoint import load_network

transformers = pytest.importorskip("transformers")
SIZE = 40
T5 = {
    "vocab_size": SIZE,
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 24,
    "num_layers": 1,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
BART = {
    "vocab_size": SIZE,
    "d_model": 16,
    **{f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in (("layers", 1), ("ffn_dim", 24))},
    **{f"{part}_attention_heads": 4 for part in ("encoder", "decoder")},
    "max_position_embeddings": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "decoder_start_token_id": 1,
    "forced_eos_token_id": 1,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5ForConditionalGeneration", T5),
    "t5 unscaled": ("T5ForConditionalGeneration", {**T5, "tie_word_embeddings": False}),
    "mt5": ("MT5ForConditionalGeneration", T5),
    "umt5": ("UMT5ForConditionalGeneration", T5),
    "bart": ("BartForConditionalGeneration", BART),
    "mbart": ("MBartForConditionalGeneration", {**BART, "scale_embedding": True}),
    "marian": ("MarianMTModel", BART),
    "pegasus": ("PegasusForConditionalGeneration", BART),
}
NAMES = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")


def folder_of(kind: str, folder: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """A random model, saved; its weights without an embedding, and the names of the four."""
    name, shape = KINDS[kind]
    torch.manual_seed(3)
    made = getattr(transformers, name)
    model = made(made.config_class(**shape))
    for key, parameter in model.named_parameters():
        if parameter.ndim > 1 and "embed_positions" not in key:
            torch.nn.init.normal_(parameter, 0, 0.3)
    model.save_pretrained(folder)
    prefix = "" if "t5" in kind else "model."
    names = [name if name.startswith("lm_head") else prefix + name for name in NAMES]
    weights = load_file(folder / "model.safetensors")
    return {key: weight for key, weight in weights.items() if key not in names}, names


def store(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    save_file({k: w.clone().contiguous() for k, w in weights.items()}, folder / "model.safetensors", {"format": "pt"})


def changed(folder: Path, **keys: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randint(3, SIZE, (2, 5), generator=draw), torch.randint(3, SIZE, (2, 4), generator=draw)


def theirs(folder: Path) -> tuple[Any, dict[str, Any]]:
    model, found = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True)
    source, targets = inputs()
    with torch.inference_mode():
        return model.float().eval()(input_ids=source, decoder_input_ids=targets).logits, found


def ours(folder: Path) -> torch.Tensor:
    source, targets = inputs()
    with torch.inference_mode():
        network = load_network(folder)
        return network.decode(targets, network.encode(Source(source, torch.full((2,), 5))))


@pytest.mark.filterwarnings("ignore::sourcewise.errors.Notice")
@pytest.mark.parametrize("kind", KINDS)
def test_any_of_the_names_gives_the_logits_of_transformers(kind: str, tmp_path: Path) -> None:
    rest, names = folder_of(kind, tmp_path)
    matrices = [torch.randn(SIZE, 16) * 0.3 for _ in names]
    for count in range(1, 5):
        for stored in itertools.combinations(range(4), count):
            store(tmp_path, {**rest, **{names[i]: matrices[i] for i in stored}})
            expected, found = theirs(tmp_path)
            assert not found["missing_keys"]
            torch.testing.assert_close(ours(tmp_path), expected, atol=1e-4, rtol=0, msg=f"{stored}")
    same = {names[i]: matrices[0] for i in range(4)}
    store(tmp_path, {**rest, **same})
    own = not isinstance(load_network(tmp_path), HuggingFaceNetwork)
    assert own == (kind not in ("umt5", "pegasus"))  # one matrix, four names
    store(tmp_path, rest)
    with pytest.raises(RequestError, match="weight is missing"):
        load_network(tmp_path)


@pytest.mark.parametrize("kind", ["bart", "mbart", "marian", "pegasus"])
def test_a_head_that_is_not_tied_must_be_there(kind: str, tmp_path: Path) -> None:
    rest, names = folder_of(kind, tmp_path)
    changed(tmp_path, tie_word_embeddings=False)
    embedding, head = torch.randn(SIZE, 16), torch.randn(SIZE, 16)
    every = {names[0]: embedding, names[1]: embedding, names[2]: embedding}
    store(tmp_path, {**rest, **every, names[3]: head})
    torch.testing.assert_close(ours(tmp_path), theirs(tmp_path)[0], atol=1e-4, rtol=0)
    expected = ours(tmp_path)
    store(tmp_path, {**rest, **every})
    with pytest.raises(RequestError, match=r"lm_head\.weight is missing"):
        load_network(tmp_path)
    if kind != "pegasus":  # older versions of transformers stored one matrix for both stacks
        store(tmp_path, {**rest, names[0]: embedding, names[3]: head})
        torch.testing.assert_close(ours(tmp_path), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["t5", "bart", "marian"])
def test_a_head_of_its_own_under_a_tied_configuration_is_told(kind: str, tmp_path: Path) -> None:
    rest, names = folder_of(kind, tmp_path)
    store(tmp_path, {**rest, names[0]: torch.randn(SIZE, 16), names[3]: torch.randn(SIZE, 16)})
    with pytest.warns(Notice, match=r"model\.safetensors: lm_head\.weight is not the embedding, though"):
        load_network(tmp_path)


@pytest.mark.parametrize("kind", ["t5", "bart", "marian"])
def test_what_comes_through_the_adapter_says_why_it_is_not_trained(kind: str, tmp_path: Path) -> None:
    rest, names = folder_of(kind, tmp_path)
    store(tmp_path, {**rest, names[0]: torch.randn(SIZE, 16), names[2]: torch.randn(SIZE, 16)})
    network = load_network(tmp_path)
    assert isinstance(network, HuggingFaceNetwork)
    assert "embeds sources and targets by different matrices" in network.kind


@pytest.mark.parametrize(
    "said",
    [
        {"tie_word_embeddings": True, "scale_decoder_outputs": False},
        {"tie_word_embeddings": False, "scale_decoder_outputs": True},
        {"tie_word_embeddings": None},
        {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu", "is_gated_act": True},
        {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new"},
        {"feed_forward_proj": "gelu", "dense_act_fn": "relu"},
        {"feed_forward_proj": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["t5", "mt5"])
def test_the_flags_of_a_t5_mean_what_they_mean_to_transformers(kind: str, said: dict[str, Any], tmp_path: Path) -> None:
    gated = said.get("feed_forward_proj", "relu") in ("gated-gelu", None) and (kind == "mt5" or "dense_act_fn" in said)
    torch.manual_seed(5)
    made = getattr(transformers, KINDS[kind][0])
    made(made.config_class(**T5, feed_forward_proj="gated-gelu" if gated else "relu")).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    config = {k: v for k, v in config.items() if k not in ("dense_act_fn", "is_gated_act", "scale_decoder_outputs")}
    file.write_text(json.dumps({k: v for k, v in {**config, **said}.items() if v is not None}))
    torch.testing.assert_close(ours(tmp_path), theirs(tmp_path)[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["t5", "mt5", "bart", "marian", "umt5"])
def test_weights_of_other_precisions_are_computed_in_fp32(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    rest, names = folder_of(kind, tmp_path)
    changed(tmp_path, dtype=str(dtype).removeprefix("torch."))
    store(tmp_path, {k: w.to(dtype) for k, w in {**rest, names[0]: torch.randn(SIZE, 16)}.items()})
    found = ours(tmp_path)
    store(tmp_path, {k: w.float() for k, w in load_file(tmp_path / "model.safetensors").items()})
    changed(tmp_path, dtype="float32")
    torch.testing.assert_close(found, theirs(tmp_path)[0], atol=1e-4, rtol=0)


def test_positions_of_a_marian_that_are_no_sinusoids_are_read(tmp_path: Path) -> None:
    rest, names = folder_of("marian", tmp_path)
    shared, places = torch.randn(SIZE, 16), "model.encoder.embed_positions.weight"
    store(tmp_path, {**rest, names[0]: shared})
    plain = ours(tmp_path)
    table = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path).model.encoder.embed_positions.weight.detach()
    for stored in (table, table.half(), table.bfloat16()):  # as .bin files of old versions hold them
        store(tmp_path, {**rest, names[0]: shared, places: stored})
        assert not isinstance(load_network(tmp_path), HuggingFaceNetwork)
        assert torch.equal(ours(tmp_path), plain)
    store(tmp_path, {**rest, names[0]: shared, places: table.flip(0)})
    torch.testing.assert_close(ours(tmp_path), theirs(tmp_path)[0], atol=1e-5, rtol=0)
    assert not torch.allclose(ours(tmp_path), plain, atol=1e-2)
