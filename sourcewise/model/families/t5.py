"""The T5 family: shapes from a recipe, and the conversion of configurations and weights to and from Hugging Face's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from sourcewise.config import ModelConfig
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError
from sourcewise.model.families.transformer import Transformer, TransformerConfig
from sourcewise.model.network import options_of
from sourcewise.model.weights import interchange
from sourcewise.model.weights.interchange import EMBEDDED, HEAD, SHARED
from sourcewise.model.weights.own import IDS
from sourcewise.model.weights.weight_files import Weights

POSITIONED = "sourcewise-t5"  # a T5 with decoder positions, under another name so that it is not opened as a plain T5
MODEL_TYPES = ("t5", "mt5", POSITIONED)  # of config.json
# Tensors that may be unused: other names of the embedding, and tensors that early T5s stored.
SPARE = (*EMBEDDED, HEAD, "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight")
SIZES = {"vocabulary": "vocab_size", "heads": "num_heads", "encoder_layers": "num_layers"}
NAMES = SIZES | {name: name for name in ("d_model", "d_kv", "d_ff")} | IDS  # of our shape → in config.json
OPTIONAL = {  # the same, where both have the same defaults; of two that are one there, the last is written
    "attention_dropout": "dropout_rate",
    "dropout": "dropout_rate",
    "relative_buckets": "relative_attention_num_buckets",
    "relative_distance": "relative_attention_max_distance",
    "eps": "layer_norm_epsilon",
}
ACTIVATIONS = {  # Hugging Face's feed_forward_proj → ours
    **{name: name for name in ("relu", "gelu", "silu", "gated-relu", "gated-gelu", "gated-silu")},
    "swish": "silu",
    "gated-gelu_new": "gated-gelu",
    "gated-swish": "gated-silu",
}


def make(model: ModelConfig, tokenizer: Tokenizer, features: bool) -> Transformer:
    """A new network for a recipe."""
    shape = shape_options(TransformerConfig, model, tokenizer)
    shape["decoder_positions"] = features if model.decoder_positions is None else model.decoder_positions
    return Transformer(TransformerConfig(**shape))


def shape_options(shape: type, model: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """Options of a stack of T5's blocks, of an encoder–decoder or a decoder alone."""
    d_kv = model.d_kv or model.d_model // model.heads
    return {**options_of(shape, model, tokenizer), "d_kv": d_kv, "scaled": model.tied}


def foreign(config: dict[str, Any], weights: Weights) -> str:
    """Features of a folder that our code does not compute, in words; the Hugging Face adapter runs it. Empty: none."""
    if interchange.embeds_apart(_tied(weights)):
        return "a T5 that embeds sources and targets by different matrices"
    said = _activation(config)
    gated = said.startswith("gated-")
    function = "gelu_new" if said == "gated-gelu" else said.removeprefix("gated-")
    stored = config.get("is_gated_act", gated), config.get("dense_act_fn", function)  # transformers uses these
    if stored != (gated, function):
        return f"a T5 of feed_forward_proj {said} whose is_gated_act and dense_act_fn say otherwise"
    return ""


def read(config: dict[str, Any], weights: Weights) -> Transformer:
    """A network from Hugging Face's configuration and weights. Raises RequestError with the reason."""
    weights = _tied(weights)
    transformer = Transformer(config_from_huggingface(config, weights, f"{weights.folder}/config.json"))
    if transformer.config.scaled:  # as if the head were the embedding
        interchange.tell_untied(weights)
    interchange.fill(named(transformer), weights, SPARE)
    return transformer


def _activation(config: dict[str, Any]) -> str:
    return str(config.get("feed_forward_proj", "gated-gelu" if config.get("model_type") == "mt5" else "relu"))


def _tied(weights: Weights) -> Weights:
    return interchange.tied(weights.without("transformer."), (*EMBEDDED, HEAD))


def write(transformer: Transformer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and fp32 weights in transformers' format."""
    return config_to_huggingface(transformer.config), to_huggingface(transformer)


def config_from_huggingface(c: dict[str, Any], weights: Weights, where: str) -> TransformerConfig:
    """Hugging Face's config.json and weights → our shape. Raises RequestError for unsupported features."""
    activation = _activation(c)
    if activation not in ACTIVATIONS:
        raise RequestError(f"{where}: feed_forward_proj {activation!r} is not one of {', '.join(ACTIVATIONS)}")
    interchange.check_embedding(weights, c.get("vocab_size"), c.get("d_model"), where)
    try:
        return TransformerConfig(
            **{ours: c[theirs] for ours, theirs in NAMES.items()},
            **{ours: c[theirs] for ours, theirs in OPTIONAL.items() if theirs in c},
            decoder_layers=c.get("num_decoder_layers") or c["num_layers"],
            activation=ACTIVATIONS[activation],
            tied=interchange.is_tied(weights),
            scaled=c.get("model_type") != "mt5"
            and c.get("scale_decoder_outputs", c.get("tie_word_embeddings") is not False),
            decoder_positions=c.get("model_type") == POSITIONED,
        )
    except KeyError as missing:
        raise RequestError(f"{where}: the key {missing} of a T5 configuration is missing") from None


def config_to_huggingface(c: TransformerConfig) -> dict[str, Any]:
    """Our shape → the config.json that transformers and CTranslate2 read."""
    gated = c.activation.startswith("gated-")
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": POSITIONED if c.decoder_positions else "t5",
        "is_encoder_decoder": True,
        **{theirs: getattr(c, ours) for ours, theirs in (NAMES | OPTIONAL).items()},
        "num_decoder_layers": c.decoder_layers,
        "feed_forward_proj": c.activation,
        "is_gated_act": gated,
        "dense_act_fn": "gelu_new" if c.activation == "gated-gelu" else c.activation.removeprefix("gated-"),
        "tie_word_embeddings": c.scaled,
        "scale_decoder_outputs": c.scaled,
        "initializer_factor": 1.0,
        "use_cache": True,
    }


def to_huggingface(transformer: Transformer) -> dict[str, Tensor]:
    """Our weights with Hugging Face's names, as contiguous fp32 copies on the CPU."""
    c = transformer.config
    weights = interchange.copies(named(transformer))
    if c.tied and not c.scaled:  # older transformers would initialise the head of an untied configuration at random
        weights[HEAD] = weights[SHARED].clone()
    return weights


def named(t: Transformer) -> Iterator[tuple[str, Tensor]]:
    """(Hugging Face's name, our tensor or a part of it) of every tensor."""
    yield SHARED, t.embedding.weight
    if not t.config.tied:
        yield HEAD, t.head.weight
    for stack, blocks, positions, norm in (
        ("encoder", t.encoder, t.encoder_positions, t.encoder_norm),
        ("decoder", t.decoder, t.decoder_positions, t.decoder_norm),
    ):
        yield f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight", positions.table.weight
        yield f"{stack}.final_layer_norm.weight", norm.weight
        for i, block in enumerate(blocks):
            yield from _block_pairs(f"{stack}.block.{i}.layer", block, cross=stack == "decoder")


def _block_pairs(prefix: str, block: Any, *, cross: bool) -> Iterator[tuple[str, Tensor]]:
    yield f"{prefix}.0.layer_norm.weight", block.attention_norm.weight
    for letter, part in zip("qkv", block.attention.qkv.weight.chunk(3), strict=True):
        yield f"{prefix}.0.SelfAttention.{letter}.weight", part
    yield f"{prefix}.0.SelfAttention.o.weight", block.attention.out.weight
    if cross:
        yield f"{prefix}.1.layer_norm.weight", block.cross_norm.weight
        yield f"{prefix}.1.EncDecAttention.q.weight", block.cross.q.weight
        for letter, part in zip("kv", block.cross.kv.weight.chunk(2), strict=True):
            yield f"{prefix}.1.EncDecAttention.{letter}.weight", part
        yield f"{prefix}.1.EncDecAttention.o.weight", block.cross.out.weight
    last = f"{prefix}.{2 if cross else 1}"
    yield f"{last}.layer_norm.weight", block.feedforward_norm.weight
    wi = block.feedforward.wi.weight
    if block.feedforward.inner.gated:
        gate, value = wi.chunk(2)
        yield f"{last}.DenseReluDense.wi_0.weight", gate
        yield f"{last}.DenseReluDense.wi_1.weight", value
    else:
        yield f"{last}.DenseReluDense.wi.weight", wi
    yield f"{last}.DenseReluDense.wo.weight", block.feedforward.wo.weight
