"""Every tensor of a folder is accounted for: missing, left over, an adapter's, quantised, not finite."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sourcewise.cli import main
from sourcewise.data.batches import Source
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import Notice, RequestError
from sourcewise.model.weights.checkpoint import find_folder, load_network, save_network
from tests.model import networks
from tests.model.families.test_decoder_only import network as decoder_only
from tests.model.recurrent_networks import network as recurrent
from tests.model.test_embeddings import folder_of, ours, store, theirs

transformers = pytest.importorskip("transformers")
OTHERS = ("blenderbot", "prophetnet", "led", "m2m_100", "encoder-decoder")  # through the adapter, beside pegasus
KINDS = ("t5", "bart", "marian", "pegasus", *OTHERS)
OWN = ("recurrent", "decoder-only")
SIZES: dict[str, Any] = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
STACKS = {
    **{f"{p}_{n}": v for p in ("encoder", "decoder") for n, v in (("layers", 1), ("ffn_dim", 24))},
    **{f"{p}_attention_heads": 4 for p in ("encoder", "decoder")},
    "d_model": 16,
    "max_position_embeddings": 32,
    "decoder_start_token_id": 1,
}


def folder_with(kind: str, folder: Path) -> dict[str, torch.Tensor]:
    """A folder of one kind; its weights."""
    torch.manual_seed(0)
    if kind in OWN:
        save_network(decoder_only() if kind == "decoder-only" else recurrent("gru", "bahdanau"), folder)
    elif kind in OTHERS:
        other(kind).save_pretrained(folder)
    else:
        rest, names = folder_of(kind, folder)
        store(folder, {**rest, names[0]: torch.randn(40, 16) * 0.3})
    return load_file(folder / "model.safetensors")


def other(kind: str) -> Any:
    t = transformers
    if kind == "encoder-decoder":
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 24}
        bert = t.BertConfig(**SIZES, **shape, max_position_embeddings=32)
        config = t.EncoderDecoderConfig.from_encoder_decoder_configs(bert, bert)
        config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 1
        return t.EncoderDecoderModel(config)
    if kind == "prophetnet":
        shape = {f"num_{p}_{n}": v for p in ("encoder", "decoder") for n, v in (("layers", 1), ("attention_heads", 4))}
        shape |= {"hidden_size": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 32}
        return t.ProphetNetForConditionalGeneration(t.ProphetNetConfig(**SIZES, **shape, decoder_start_token_id=1))
    if kind == "led":
        places = {"max_encoder_position_embeddings": 32, "max_decoder_position_embeddings": 32, "attention_window": 4}
        shape = {k: v for k, v in STACKS.items() if k != "max_position_embeddings"}
        return t.LEDForConditionalGeneration(t.LEDConfig(**SIZES, **shape, **places))
    made = {"blenderbot": t.BlenderbotForConditionalGeneration, "m2m_100": t.M2M100ForConditionalGeneration}[kind]
    return made(made.config_class(**SIZES, **STACKS))


def inner(weights: dict[str, torch.Tensor]) -> str:
    """A matrix in a numbered layer."""
    return next(n for n, w in sorted(weights.items()) if w.ndim == 2 and any(part.isdigit() for part in n.split(".")))


@pytest.mark.parametrize("kind", [*KINDS, *OWN])
def test_missing_tensors_are_counted_and_named(kind: str, tmp_path: Path) -> None:
    weights = folder_with(kind, tmp_path)
    name = inner(weights)
    store(tmp_path, {key: w for key, w in weights.items() if key != name})
    short = name.removeprefix("model.") if kind in ("bart", "marian") else name
    with pytest.raises(RequestError, match=rf"model\.safetensors: the tensor {short} is missing$"):
        load_network(tmp_path)
    store(tmp_path, {f"module.{key}": w for key, w in weights.items()})  # as DDP names them
    with pytest.raises(RequestError, match=r"is missing, and \d+ more; its names begin with 'module\.', a wrapper's"):
        load_network(tmp_path)


@pytest.mark.parametrize("kind", [*KINDS, *OWN])
def test_other_parts_are_told_and_parts_of_another_network_refused(kind: str, tmp_path: Path) -> None:
    weights = folder_with(kind, tmp_path)
    heads = {f"extra_head.{name}": torch.zeros(2) for name in ("bias", "weight")}
    vision = {f"vision_tower.layers.{i}.weight": torch.zeros(2) for i in range(2)}
    store(tmp_path, {**weights, **heads, **vision})
    with pytest.warns(Notice) as caught:
        load_network(tmp_path)
    said = [str(each.message) for each in caught if each.category is Notice]
    assert len(said) == 1 and said[0].startswith(f"{tmp_path}/model.safetensors: 4 tensors (extra_head.bias, ")
    assert said[0].endswith("and 1 more) are of other parts, which are not used")
    name = inner(weights)
    digit = next(part for part in name.split(".") if part.isdigit())
    beyond = name.replace(f".{digit}.", ".7.", 1)
    for left in (beyond, name + "_extra"):
        store(tmp_path, {**weights, left: torch.zeros(2)})
        with pytest.raises(RequestError, match=r"model\.safetensors: .* is of no part of such a network; config\.json"):
            load_network(tmp_path)


@pytest.mark.parametrize("kind", ["t5", "pegasus", "encoder-decoder", "recurrent", "decoder-only"])
@pytest.mark.parametrize(
    ("ending", "line"),
    [
        ("lora_A.weight", "is of an adapter that is not merged"),
        ("lora_B.default.weight", "is of an adapter that is not merged"),
        ("base_layer.weight", "is of an adapter that is not merged"),
        ("ia3_l", "is of an adapter that is not merged"),
        ("modules_to_save.default.weight", "is of an adapter that is not merged"),
        ("adapters.mine.adapter_up.weight", "is of an adapter that is not merged"),
        ("qweight", "is of quantised weights"),
        ("SCB", "is of quantised weights"),
        ("weight.quant_state.bitsandbytes__nf4", "is of quantised weights"),
    ],
)
def test_tensors_of_adapters_and_quantised_ones_are_refused(kind: str, ending: str, line: str, tmp_path: Path) -> None:
    weights = folder_with(kind, tmp_path)
    store(tmp_path, {**weights, inner(weights).rpartition(".")[0] + "." + ending: torch.zeros(2)})
    with pytest.raises(RequestError, match=line):
        load_network(tmp_path)


@pytest.mark.parametrize("kind", ["t5", "bart", "m2m_100"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_weights_without_their_scale_are_refused(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    weights = folder_with(kind, tmp_path)
    name = inner(weights)
    store(tmp_path, {**weights, name: weights[name].to(dtype)})
    with pytest.raises(RequestError, match=r"is of (u?int8|float8_e4m3fn): quantised weights are not opened yet"):
        load_network(tmp_path)
    store(tmp_path, weights)
    for said in ({"quant_method": "gptq", "bits": 4}, {"load_in_8bit": True}):
        file = tmp_path / "config.json"
        config = json.loads(file.read_text())
        file.write_text(json.dumps({**config, "quantization_config": said}))
        with pytest.raises(RequestError, match=r"config\.json: weights quantised by (gptq|bitsandbytes) are"):
            load_network(tmp_path)
    file.write_text(json.dumps({**config, "quantization_config": None}))
    load_network(tmp_path)


# ── adapters in folders ───────────────────────────────────────────────────────────────────────────────────────────────

LORA = {"peft_type": "LORA", "base_model_name_or_path": "google/flan-t5-base", "r": 4}
PROMPT = {"peft_type": "PROMPT_TUNING", "base_model_name_or_path": "some/base", "num_virtual_tokens": 8}
HUB = {"config": {"architecture": "lora"}, "model_name": "t5-small", "model_type": "t5", "hidden_size": 16}
NOT_FOUND = r"adapter \((LORA|IA3)\) whose base is not found \(google/flan-t5-base: .*base_model_name_or_path"
UNNAMED = r"adapter of a model that it does not name"
ADAPTERS: dict[str, tuple[str, Any, str]] = {
    "LoRA": ("adapter_model.safetensors", LORA, NOT_FOUND),
    "an old LoRA": ("adapter_model.bin", LORA, NOT_FOUND),
    "IA3": ("adapter_model.safetensors", {**LORA, "peft_type": "IA3"}, NOT_FOUND),
    "prompts": ("adapter_model.safetensors", PROMPT, r"adapter \(PROMPT_TUNING\) of some/base.*cannot be merged"),
    "AdapterHub": ("pytorch_adapter.bin", HUB, r"adapter of AdapterHub of t5-small.*merge_adapter"),
    "no description": ("adapter_model.safetensors", None, UNNAMED + r"; its adapter_config\.json is missing"),
    "a spoilt description": ("adapter_model.safetensors", [1], UNNAMED + r".* no JSON object"),
    "no base": (
        "adapter_model.safetensors",
        {"peft_type": "LORA"},
        r"adapter \(LORA\) of a model that it does not name",
    ),
}


def write_adapter(folder: Path, case: str) -> None:
    name, config, _ = ADAPTERS[case]
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"base_model.model.q.lora_A.weight": torch.zeros(2)}, folder / name)
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("case", ADAPTERS)
def test_a_folder_of_an_adapter_is_named_as_one(case: str, tmp_path: Path) -> None:
    write_adapter(tmp_path / "alone", case)
    with pytest.raises(RequestError, match=r"alone: (is )?an " + ADAPTERS[case][2]):
        load_network(find_folder(tmp_path / "alone"))
    for kind in ("t5", "pegasus"):
        folder_with(kind, tmp_path / kind)
        load_network(tmp_path / kind)
        write_adapter(tmp_path / kind, case)
        with pytest.raises(
            RequestError, match=rf"{kind}: a model with an adapter.* of .* beside it.* or move adapter_"
        ):
            load_network(tmp_path / kind)


def test_adapters_in_folders_below(tmp_path: Path) -> None:
    write_adapter(tmp_path / "out" / "checkpoint-500", "LoRA")
    with pytest.raises(RequestError, match=r"out: the output folder of a Trainer; its checkpoints are checkpoint-500;"):
        find_folder(tmp_path / "out")
    with pytest.raises(
        RequestError, match=r"checkpoint-500: an adapter \(LORA\) whose base is not found \(google/flan"
    ):
        load_network(find_folder(tmp_path / "out" / "checkpoint-500"))
    write_adapter(tmp_path / "several" / "german", "LoRA")
    write_adapter(tmp_path / "several" / "french", "LoRA")
    with pytest.raises(
        RequestError, match=r"several: holds adapters \(french, german\) and no model; name one: .*french"
    ):
        find_folder(tmp_path / "several")
    folder_with("t5", tmp_path / "several")
    with pytest.warns(Notice, match=r"several: the model is opened without the adapters .*\(french, german\)"):
        load_network(find_folder(tmp_path / "several"))


# ── not finite ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kind", [*KINDS, *OWN])
def test_a_weight_that_is_not_finite_is_named(kind: str, value: float, tmp_path: Path) -> None:
    weights = folder_with(kind, tmp_path)
    name = inner(weights)
    spoilt = weights[name].clone()
    spoilt[0, 1] = value
    size = spoilt.numel()
    for dtype in (torch.float32, torch.float16):
        store(tmp_path, {**weights, name: spoilt.to(dtype)})
        short = name.removeprefix("model.") if kind in ("bart", "marian") else name
        line = rf"model\.safetensors: {short} is not finite \(1 of {size:,} values\); take an earlier"
        with pytest.raises(RequestError, match=line):
            load_network(tmp_path)
    store(tmp_path, {**weights, name: weights[name].double() * 1e300})  # beyond fp32
    with pytest.raises(RequestError, match=r"is not finite"):
        load_network(tmp_path)
    large = weights[name].clone()
    large[0, :2] = 3e38  # finite, though their sum is not
    store(tmp_path, {**weights, name: large})
    load_network(tmp_path)


def test_the_shard_of_a_weight_that_is_not_finite_is_named(tmp_path: Path) -> None:
    weights = folder_with("t5", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    halves = sorted(weights)[::2], sorted(weights)[1::2]
    for number, names in enumerate(halves):
        held = {n: torch.full_like(weights[n], float("nan")) if number else weights[n] for n in names}
        save_file(held, tmp_path / f"part-{number}.safetensors")
    placed = {name: f"part-{number}.safetensors" for number, names in enumerate(halves) for name in names}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    with pytest.raises(RequestError, match=rf"part-1\.safetensors: .* nor are {len(halves[1]) - 1} other tensors"):
        load_network(tmp_path)


@pytest.mark.parametrize("kind", ["bart", "marian", "pegasus"])
def test_a_bias_of_the_logits_may_bar_tokens(kind: str, tmp_path: Path) -> None:
    weights = folder_with(kind, tmp_path)
    bias = torch.randn(1, 40)
    bias[0, 5:9] = -torch.inf
    store(tmp_path, {**weights, "final_logits_bias": bias})
    found = ours(tmp_path)
    assert found[..., 5:9].isneginf().all() and found[..., 9:].isfinite().all()
    torch.testing.assert_close(found, theirs(tmp_path)[0], atol=1e-4, rtol=0)
    for value in (torch.nan, torch.inf):
        bias[0, 3] = value
        store(tmp_path, {**weights, "final_logits_bias": bias})
        with pytest.raises(RequestError, match=r"final_logits_bias is not finite \(1 of 40 values\)"):
            load_network(tmp_path)


def test_a_bias_of_another_head_may_bar_tokens(tmp_path: Path) -> None:
    weights = folder_with("encoder-decoder", tmp_path)
    name = "decoder.cls.predictions.bias"
    weights[name] = weights[name].clone()
    weights[name][5] = -torch.inf
    store(tmp_path, weights)
    assert ours(tmp_path)[..., 5].isneginf().all()


@pytest.mark.parametrize("bridge", ["projection", "perceiver"])
def test_a_bridge_that_is_not_finite_is_named(bridge: str, tmp_path: Path) -> None:
    save_network(networks.network(bridge), tmp_path / "net")
    file = tmp_path / "net" / "bridge.safetensors"
    weights = load_file(file)
    name = next(n for n, w in weights.items() if w.ndim == 2)
    weights[name][0, 0] = float("nan")
    save_file(weights, file)
    with pytest.raises(RequestError, match=rf"bridge\.safetensors: {name} is not finite"):
        load_network(tmp_path / "net")
    (tmp_path / "net" / "sourcewise.json").unlink()
    with pytest.raises(RequestError, match=r"sourcewise\.json: missing; it describes the bridge"):
        load_network(tmp_path / "net")


@pytest.mark.filterwarnings("ignore::sourcewise.errors.Notice")
def test_a_bridge_goes_into_a_model_that_transformers_computes(tmp_path: Path) -> None:
    save_network(networks.network("projection"), tmp_path / "net")
    file = tmp_path / "net" / "model.safetensors"
    weights = load_file(file)
    source = Source(None, None, torch.randn(2, 6, networks.DIMS), torch.tensor([6, 4]))
    expected = load_network(tmp_path / "net").encode(source)
    save_file({**weights, "decoder.embed_tokens.weight": weights["shared.weight"] * 2}, file)
    found = load_network(tmp_path / "net").encode(source)
    torch.testing.assert_close(found.states[found.mask], expected.states[expected.mask], atol=1e-5, rtol=1e-5)


def test_buffers_that_old_versions_stored_are_no_part(tmp_path: Path) -> None:
    for kind, names in (
        ("encoder-decoder", ("encoder.embeddings.position_ids", "decoder.bert.encoder.layer.0.attention.attn.bias")),
        ("bart", ("encoder.version", "model.decoder.version")),
        ("t5", ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)),
    ):
        weights = folder_with(kind, tmp_path / kind)
        expected = ours(tmp_path / kind)
        store(tmp_path / kind, {**weights, **{name: torch.ones(1, 3, dtype=torch.long) for name in names}})
        with warnings.catch_warnings():
            warnings.simplefilter("error", Notice)
            assert torch.equal(ours(tmp_path / kind), expected)


def test_sinusoids_that_are_not_stored_are_computed(tmp_path: Path) -> None:
    weights = folder_with("pegasus", tmp_path)
    expected = ours(tmp_path)
    store(tmp_path, {name: w for name, w in weights.items() if "embed_positions" not in name})
    assert torch.equal(ours(tmp_path), expected)


# ── command lines ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_command_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.tsv").write_text("source\ttarget\nba do\tone two\nki\tthree\nlu me no\tfour\n")
    weights = folder_with("t5", Path("good"))
    Tokenizer.train(["ba do ki lu me no", "one two three four five six"] * 9, 40).save(Path("good"))
    shutil.copytree("good", "bad")
    name = inner(weights)
    store(Path("bad"), {**weights, name: weights[name] * torch.nan})
    store(Path("good"), {**weights, "extra_head.weight": torch.zeros(2)})
    commands = (
        "generate {} good.tsv -o out.txt",
        "evaluate {} good.tsv -o out",
        "diagnose {} good.tsv",
        "trace {} ba -o trace.html",
        "serve {}",
        "train --name new --model {} --data.train.pairs good.tsv --train.steps 1 --train.preflight false",
    )
    capsys.readouterr()
    for command in commands:
        assert main(command.format("bad").split()) == 2, command
        said = capsys.readouterr().err
        assert said.startswith(f"sourcewise: error: bad/model.safetensors: {name} is not finite"), command
        assert said.count("\n") == 1 and "Traceback" not in said
        if command.split()[0] not in ("serve", "diagnose"):
            assert main(command.format("good").split()) in (0, 1), command
            told = "sourcewise: good/model.safetensors: extra_head.weight is of other parts, which are not used\n"
            assert capsys.readouterr().err.count(told) == 1, command
