"""Every network says which part, and which layer, each of its parameters belongs to: ours, and anybody's."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

from sourcewise.config import BridgeConfig, FeatureEncoderConfig
from sourcewise.model.families.huggingface import HuggingFaceNetwork, parts_of, stacks_of
from sourcewise.model.inputs.registry import build_bridge
from sourcewise.model.network import Seq2Seq
from sourcewise.model.parts import OTHER, PARTS
from tests.model.networks import network
from tests.model.recurrent_networks import network as recurrent

SMALL: dict[str, Any] = {"d_model": 16, "vocab_size": 40, "pad_token_id": 0, "eos_token_id": 1}


def t5() -> Any:
    return hf.T5ForConditionalGeneration(
        hf.T5Config(d_kv=4, d_ff=8, num_layers=2, num_heads=4, decoder_start_token_id=0, **SMALL)
    )


def bart(kind: str = "Bart") -> Any:
    sizes = {f"{stack}_{name}": n for stack in ("encoder", "decoder") for name, n in (("layers", 2), ("ffn_dim", 8))}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = getattr(hf, f"{kind}Config")(**SMALL, **sizes, **heads, decoder_start_token_id=1)
    return getattr(hf, "MarianMTModel" if kind == "Marian" else f"{kind}ForConditionalGeneration")(config)


def whisper() -> Any:
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    mels = {"num_mel_bins": 4, "max_source_positions": 8, "bos_token_id": 1, "decoder_start_token_id": 1}
    return hf.WhisperForConditionalGeneration(
        hf.WhisperConfig(**SMALL, **heads, **mels, encoder_layers=2, decoder_layers=2, suppress_tokens=None)
    )


def bert() -> Any:
    of = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 40}
    return hf.BertConfig(**of)


def bert_to_gpt() -> Any:
    gpt = hf.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50)
    return hf.EncoderDecoderModel(hf.EncoderDecoderConfig.from_encoder_decoder_configs(bert(), gpt))


def vit_to_bert() -> Any:
    of = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    vit = hf.ViTConfig(**of, image_size=8, patch_size=4)
    return hf.VisionEncoderDecoderModel(hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vit, bert()))


@pytest.mark.parametrize(
    "make", [t5, bart, lambda: bart("MBart"), lambda: bart("Marian"), whisper, bert_to_gpt, vit_to_bert]
)
def test_a_stranger_is_asked_for_its_encoder_its_decoder_and_its_tables(make: Any) -> None:
    model = make()
    infos = {info.name: info for info in parts_of(model)}
    assert list(infos) == [name for name, _ in model.named_parameters()]
    known = {id(p): "decoder" for p in model.get_decoder().parameters()}
    known |= {id(p): "encoder" for p in model.get_encoder().parameters()}
    for info in infos.values():
        expected = "embedding" if 0 in info.parameter.shape or len(info.parameter) in (40, 50) else None
        assert info.part == (expected or known[id(info.parameter)]), info.name
    layers = Counter(info.layer for info in infos.values())
    assert {layer for layer in layers if layer} == {(stack, n) for stack in ("encoder", "decoder") for n in (0, 1)}
    assert {len(blocks) for blocks in stacks_of(model).values()} == {2}


class Wrapped(nn.Module):
    """What an adapter of low rank puts around a layer."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.Linear(base.in_features, 2, bias=False)
        self.lora_B = nn.Linear(2, base.out_features, bias=False)


class Base(nn.Module):
    """What stands around a whole model then: attributes that it lacks are the model's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.base_model = model

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_model"), name)


def test_names_that_a_wrapper_changes_do_not_matter() -> None:
    model = t5()
    for stack in (model.encoder, model.decoder):
        for block in stack.block:
            block.layer[0].SelfAttention.q = Wrapped(block.layer[0].SelfAttention.q)
    infos = list(parts_of(Base(Base(model))))
    added = [info for info in infos if "lora_" in info.name]
    assert [(info.part, info.layer) for info in added] == [
        (stack, (stack, n)) for stack in ("encoder", "decoder") for n in (0, 1) for _ in range(2)
    ]
    assert all(info.name.startswith("base_model.base_model.") for info in infos)
    assert {info.part for info in infos} == {"embedding", "encoder", "decoder"}


def test_the_adapter_gives_the_names_of_its_own_parameters() -> None:
    wrapped = HuggingFaceNetwork(t5())
    assert {info.name: info.parameter for info in wrapped.parts()} == dict(wrapped.named_parameters())


@pytest.mark.parametrize("make", [network, lambda: recurrent("gru", "bahdanau")])
def test_ours_know_their_parts(make: Any) -> None:
    made: Seq2Seq = make()
    made.bridge = build_bridge(BridgeConfig(), 8, made.body.config.d_model, 0.0, FeatureEncoderConfig(layers=1))
    made.register_parameter("more", nn.Parameter(torch.zeros(3)))
    infos = list(made.parts())
    assert [info.name for info in infos] == [name for name, _ in made.named_parameters()]
    assert {info.part for info in infos} == {*PARTS, OTHER}
    assert {info.name for info in infos if info.part == "features"} == {
        f"bridge.encoder.{name}"
        for name, _ in made.bridge.encoder.named_parameters()  # type: ignore[union-attr]
    }
    for stack, blocks in made.stacks.items():
        for place, block in enumerate(blocks):
            own = {id(parameter) for parameter in block.parameters()}
            assert {info.layer for info in infos if id(info.parameter) in own} == {(stack, place)}
