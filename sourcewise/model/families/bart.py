"""BART (Lewis et al. 2020), mBART and Marian: the Transformer with LayerNorm, biases and absolute positions.

Here are their shapes from a recipe, and the conversion of configurations and weights from Hugging Face's names to ours
and back. BART is post-norm, mBART pre-norm; Marian has sinusoidal positions and no norm of embeddings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sourcewise.config import ModelConfig
from sourcewise.data.layout import Layout
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError
from sourcewise.model import attention
from sourcewise.model.attention import MASKED
from sourcewise.model.blocks.positions import Positions
from sourcewise.model.families.transformer import Transformer, TransformerConfig
from sourcewise.model.network import options_of
from sourcewise.model.weights import interchange
from sourcewise.model.weights.interchange import BIAS, EMBEDDED, HEAD, SHARED
from sourcewise.model.weights.own import IDS
from sourcewise.model.weights.weight_files import Weights

MODEL_TYPES = ("bart", "mbart", "marian")  # of config.json
CLASSES = ("BartForConditionalGeneration", "MBartForConditionalGeneration", "MarianMTModel")
ARCHITECTURES = dict(zip(MODEL_TYPES, CLASSES, strict=True))
ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "silu": "silu", "swish": "silu"}  # Hugging Face's name → ours
LAYERS = {name: name for name in ("encoder_layers", "decoder_layers")}
NAMES = {"vocabulary": "vocab_size", "d_ff": "encoder_ffn_dim"} | LAYERS | IDS  # of our shape → in config.json
DEFAULTS = {"dropout": 0.1, "attention_dropout": 0.0, "init_std": 0.02}  # of what has the same name in both
PLACES = ("encoder.embed_positions.weight", "decoder.embed_positions.weight")
SPARE = (*EMBEDDED, HEAD, BIAS, *PLACES)  # tensors that may be unused: other names of the embedding, zeros, sinusoids
EPS = 1e-5  # LayerNorm's default


@dataclass(frozen=True)
class BartConfig(TransformerConfig):
    """The shape of a BART, an mBART or a Marian."""

    positions: int = 1024  # the longest source or target
    learned: bool = True  # positions; else sinusoids
    output_bias: bool = False  # added to the logits; never trained
    init_std: float = 0.02  # of fresh matrices
    bos_id: int | None = None  # first token of a text in its tokenizer


class Bart(Transformer):
    """Embedding, encoder, decoder and head, with positions as vectors that are added to inputs."""

    config: BartConfig
    logits_bias: Tensor | None  # (vocabulary,)

    def __init__(self, config: BartConfig) -> None:
        super().__init__(config)
        self.positions = config.positions
        self.register_buffer("logits_bias", torch.zeros(config.vocabulary) if config.output_bias else None)

    @property
    def output_bias(self) -> Tensor | None:
        """Bias (vocabulary,) of the logits, if the weights have one."""
        return None if self.logits_bias is None else self.logits_bias.to(self.embedding.weight.dtype)

    def positions_of(self, stack: Literal["encoder", "decoder"]) -> Positions:
        """The absolute positions of a stack."""
        return Positions(self.config.positions, self.config.d_model, learned=self.config.learned)

    def reset_parameters(self) -> None:
        """BART's initialisation: matrices N(0, init_std²), biases 0, the embedding of padding 0."""
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=self.config.init_std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        with torch.no_grad():
            self.embedding.weight[self.config.pad_id] = 0

    def run_encoder(self, vectors: Tensor, layout: Layout) -> tuple[Layout, Tensor]:
        """See Transformer; only the first `positions` of each example are read."""
        return super().run_encoder(vectors, layout.cut(self.config.positions))

    def place_source(self, vectors: Tensor, layout: Layout) -> Tensor:
        """Positions count from the beginning of an example, since a prompt beside features is padded on the left."""
        simple = layout.width <= self.config.positions and not layout.begins.any()
        places = None if simple else layout.on(vectors.device).positions
        return self.encoder_positions(vectors, places=places)  # type: ignore[no-any-return]

    def place_target(self, vectors: Tensor, start: int | Tensor) -> Tensor:
        """See Transformer."""
        return self.decoder_positions(vectors, start)  # type: ignore[no-any-return]

    def encoder_bias(self, layout: Layout) -> Tensor | None:
        """Bias that masks padding: (batch, 1, 1, width)."""
        return None if layout.packed else attention.padding_bias(layout, self.embedding.weight.device)

    def decoder_bias(self, time: int) -> Tensor:
        """Causal mask (1, time, time), the same for all heads."""
        future = self.future(time)
        return torch.zeros(future.shape, device=future.device).masked_fill_(future, MASKED)[None]


def make(model: ModelConfig, tokenizer: Tokenizer, features: bool) -> Bart:
    """A new BART for a recipe; targets start with the end of text. Raises RequestError."""
    given = {"activation": model.activation, "d_kv": model.d_kv, "decoder_positions": model.decoder_positions}
    right = {
        "activation": tuple(ACTIVATIONS)[:3],
        "d_kv": (None, model.d_model // model.heads),
        "decoder_positions": (None, True),
    }
    for name, value in given.items():
        if value not in right[name]:
            known = " or ".join(str(each) for each in right[name] if each is not None)
            raise RequestError(f"model.{name}: {str(value).lower()} is not for the family bart; {known.lower()} is")
    if model.d_model % model.heads:
        raise RequestError(f"model.d_model: {model.d_model} is not a multiple of heads {model.heads}, as bart needs")
    shape = options_of(BartConfig, model, tokenizer) | _sizes(model.d_model, model.heads)
    shape |= {"activation_dropout": model.dropout, "start_id": tokenizer.eos_id, "decoder_positions": False}
    return Bart(BartConfig(**shape, norm_first=False, embedding_norm=True, final_norm=False))


def foreign(config: dict[str, Any], weights: Weights) -> str:
    """Features of a folder that our code does not compute, in words; the Hugging Face adapter runs it. Empty: none."""
    weights = _tied(config, weights)
    kind = f"a {config['model_type']}"
    if config.get("share_encoder_decoder_embeddings") is False or interchange.embeds_apart(weights):
        return f"{kind} that embeds sources and targets by different matrices"
    for each in ("attention_heads", "ffn_dim"):
        if config.get(f"encoder_{each}") != config.get(f"decoder_{each}"):
            return f"{kind} whose encoder and decoder have different {each}"
    if config.get("activation_function", "gelu") not in ACTIVATIONS:
        return f"{kind} with the activation_function {config['activation_function']}"
    if config["model_type"] == "marian" and not all(_is_sinusoids(weights[name]) for name in PLACES if name in weights):
        return f"{kind} whose positions are no sinusoids"
    return ""


def read(config: dict[str, Any], weights: Weights) -> Bart:
    """A network from Hugging Face's configuration and weights. Raises RequestError with the reason."""
    weights, where = _tied(config, weights), f"{weights.folder}/config.json"
    interchange.check_embedding(weights, config.get("vocab_size"), config.get("d_model"), where)
    try:
        bart = Bart(_from_huggingface(config, weights))
    except KeyError as missing:
        raise RequestError(f"{where}: the key {missing} of a BART configuration is missing") from None
    if config.get("tie_word_embeddings") is not False:
        interchange.tell_untied(weights)
    interchange.fill(_pairs(bart), weights, SPARE)
    return bart


def _tied(config: dict[str, Any], weights: Weights) -> Weights:
    tie = config.get("tie_word_embeddings") is not False
    return interchange.tied(weights.without("model."), (HEAD, *reversed(EMBEDDED)) if tie else EMBEDDED, tie=tie)


def _is_sinusoids(stored: Tensor) -> bool:
    """Whether positions (count, width) equal Marian's sinusoids, in the precision of their file."""
    if stored.ndim != 2 or not stored.is_floating_point():
        return False
    ours, near = Positions(*stored.shape, learned=False).weight, max(1e-5, torch.finfo(stored.dtype).eps)
    return torch.allclose(stored.float(), ours, atol=near, rtol=0)


def write(bart: Bart) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and fp32 weights in transformers' format."""
    weights = interchange.copies(_pairs(bart))
    if not bart.config.tied:  # else transformers would initialise them at random
        weights |= {name: weights[SHARED].clone() for name in EMBEDDED}
    weights = {name if name in (HEAD, BIAS) else f"model.{name}": w for name, w in weights.items()}
    weights.setdefault(BIAS, torch.zeros(1, bart.config.vocabulary))
    return _to_huggingface(bart.config), weights


def named(bart: Bart) -> Iterator[tuple[str, Tensor]]:
    """(Hugging Face's name, our tensor or a part of it) of every tensor."""
    for name, tensor in _pairs(bart):
        yield name if name in (HEAD, BIAS) else f"model.{name}", tensor


def _sizes(d_model: int, heads: int) -> dict[str, Any]:
    """Options that follow from width and heads, and those that all these models share."""
    d_kv = d_model // heads
    same = {"scaled": False, "layer_norm": True, "biases": True, "final_dropout": False, "eps": EPS}
    return {"d_model": d_model, "heads": heads, "d_kv": d_kv, "attention_scale": d_kv**-0.5, **same}


def _from_huggingface(c: dict[str, Any], weights: Weights) -> BartConfig:
    kind, bias = c["model_type"], weights.get(BIAS)
    return BartConfig(
        **{ours: c[theirs] for ours, theirs in NAMES.items()},
        **{name: c.get(name, default) for name, default in DEFAULTS.items()},
        **_sizes(c["d_model"], c["encoder_attention_heads"]),
        activation=ACTIVATIONS[c.get("activation_function", "gelu")],
        tied=interchange.is_tied(weights),
        activation_dropout=c.get("activation_dropout", 0.0),
        positions=c.get("max_position_embeddings", 1024),
        learned=kind != "marian",
        norm_first=kind == "mbart",
        embedding_norm=kind != "marian",
        final_norm=kind == "mbart",
        embedding_scale=math.sqrt(c["d_model"]) if c.get("scale_embedding") else 1.0,
        output_bias=bias is not None and bool(bias.any()),
        bos_id=c.get("bos_token_id"),
    )


def _to_huggingface(c: BartConfig) -> dict[str, Any]:
    kind = "mbart" if c.norm_first else "bart" if c.learned else "marian"
    config = {
        "architectures": [ARCHITECTURES[kind]],
        "model_type": kind,
        "is_encoder_decoder": True,
        **{theirs: getattr(c, ours) for ours, theirs in NAMES.items()},
        **{name: getattr(c, name) for name in DEFAULTS},
        "d_model": c.d_model,
        "max_position_embeddings": c.positions,
        **{f"{stack}_attention_heads": c.heads for stack in ("encoder", "decoder")},
        "decoder_ffn_dim": c.d_ff,
        "activation_function": c.activation,
        "activation_dropout": c.dropout if c.activation_dropout is None else c.activation_dropout,
        "scale_embedding": c.embedding_scale != 1,
        "tie_word_embeddings": c.tied,
        "bos_token_id": c.bos_id,
        "forced_eos_token_id": None,  # forced tokens are in generation_config.json
        "use_cache": True,
    }
    return config | ({"decoder_vocab_size": c.vocabulary} if kind == "marian" else {})


def _pairs(bart: Bart) -> Iterator[tuple[str, Tensor]]:
    """(Hugging Face's name without `model.`, our tensor or a part of it) of every tensor."""
    c = bart.config
    yield SHARED, bart.embedding.weight
    if not c.tied:
        yield HEAD, bart.head.weight
    if bart.logits_bias is not None:
        yield BIAS, bart.logits_bias[None]
    for stack, blocks, positions, entering, leaving in (
        ("encoder", bart.encoder, bart.encoder_positions, bart.encoder_embedding_norm, bart.encoder_norm),
        ("decoder", bart.decoder, bart.decoder_positions, bart.decoder_embedding_norm, bart.decoder_norm),
    ):
        if c.learned:
            yield f"{stack}.embed_positions.weight", positions.weight
        if c.embedding_norm:
            yield from _both(f"{stack}.layernorm_embedding", entering)
        if c.final_norm:
            yield from _both(f"{stack}.layer_norm", leaving)
        for i, block in enumerate(blocks):
            yield from _block_pairs(f"{stack}.layers.{i}", block, cross=stack == "decoder")


def _block_pairs(prefix: str, block: Any, *, cross: bool) -> Iterator[tuple[str, Tensor]]:
    yield from _both(f"{prefix}.self_attn_layer_norm", block.attention_norm)
    yield from _parts(f"{prefix}.self_attn", "qkv", block.attention.qkv)
    yield from _both(f"{prefix}.self_attn.out_proj", block.attention.out)
    if cross:
        yield from _both(f"{prefix}.encoder_attn_layer_norm", block.cross_norm)
        yield from _parts(f"{prefix}.encoder_attn", "q", block.cross.q)
        yield from _parts(f"{prefix}.encoder_attn", "kv", block.cross.kv)
        yield from _both(f"{prefix}.encoder_attn.out_proj", block.cross.out)
    yield from _both(f"{prefix}.final_layer_norm", block.feedforward_norm)
    yield from _both(f"{prefix}.fc1", block.feedforward.wi)
    yield from _both(f"{prefix}.fc2", block.feedforward.wo)


def _both(name: str, module: Any) -> Iterator[tuple[str, Tensor]]:
    yield f"{name}.weight", module.weight
    yield f"{name}.bias", module.bias


def _parts(prefix: str, letters: str, linear: nn.Linear) -> Iterator[tuple[str, Tensor]]:
    """(name, part) of Hugging Face's projections that are one matrix here."""
    for tensor, kind in ((linear.weight, "weight"), (linear.bias, "bias")):
        for letter, part in zip(letters, tensor.chunk(len(letters)), strict=True):
            yield f"{prefix}.{letter}_proj.{kind}", part
