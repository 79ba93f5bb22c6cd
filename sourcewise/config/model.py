"""Options of the network: bridge, family, shape."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from sourcewise.config import presets
from sourcewise.config.options import Choice, Count, Options, Positive, Rate
from sourcewise.runtime.plugins import names

BRIDGES = "sourcewise.bridges"  # group of entry points of plug-in bridges; an entry's name is the bridge's kind


def bridge_kinds() -> list[str]:
    """Names of all kinds of bridges, those of plug-ins last."""
    return ["projection", "attention", "perceiver", "convolution", "units", *names(BRIDGES)]


Quantization = Literal["none", "8bit", "4bit"]


class BridgeConfig(Options):
    """The bridge (adapter, projector): features (frames × dims) → memory positions of encoder width."""

    kind: Annotated[str, Choice(bridge_kinds)] = Field(
        "convolution", description="projection, attention (pooling), perceiver, convolution, units, or a plug-in's"
    )
    stride: Positive = Field(4, description="frames per memory position (not for perceiver and units)")
    latents: Positive = Field(64, description="memory positions of the perceiver")
    layers: Positive = Field(2, description="cross-attention blocks of the perceiver")
    kernel: Positive = Field(3, description="frames a convolution sees")
    units: Positive = Field(4096, description="most units of a stream (units)")
    link: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="units that follow one another in this share of cases (above a half) are one; 0: off (units)"
    )
    streams: list[Positive] = Field(
        default_factory=list,
        description="widths of the parts of a frame that have units of their own (units), or a bridge each; default: "
        "one part, or the set's named streams",
    )
    per_stream: bool = Field(False, description="a bridge for each stream; a slot is the sum of theirs")
    positions: bool = Field(True, description="add sinusoidal positions to the memory positions")
    normalize: bool = Field(True, description="standardise each dimension with the training set's mean and deviation")

    @field_validator("link")
    @classmethod
    def _follows_one_unit(cls, share: float) -> float:
        if 0 < share <= 0.5:
            raise ValueError(f"{share}: a unit may be followed so often by two others; give more than a half, or 0")
        return share


class FeatureEncoderConfig(Options):
    """An encoder of the features before the bridge: residual convolutions in time."""

    layers: Count = Field(0, description="convolutions; 0: no such encoder")
    width: Positive = Field(256, description="output dimensions")
    kernel: Positive = Field(5, description="frames a convolution sees")
    weights: str | None = Field(
        None, description="start from the feature encoder of this run; or, with `encoder`, from this file"
    )
    encoder: str | None = Field(
        None, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="a class of your own, package.module:Class"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="arguments of that class")
    train: Literal["frozen", "whole"] = Field("frozen", description="whether the weights of that class learn")

    @model_validator(mode="after")
    def _class_has_weights(self) -> FeatureEncoderConfig:
        if self.encoder and not self.weights:
            raise ValueError("encoder names a class; name the file of its weights, too (.safetensors or .pt)")
        if self.options and not self.encoder:
            raise ValueError("options are those of a class; name it in encoder")
        return self


class SourceEncoderConfig(Options):
    """A pretrained encoder of sounds or images before the bridge: a model of Hugging Face with last_hidden_state."""

    name: str | None = Field(None, description="its folder or hub name: wav2vec2, HuBERT, Whisper, ViT, CLIP, DINOv2")
    train: Literal["frozen", "adapters", "whole"] = Field(
        "frozen", description="nothing of it learns; adapters, as train.lora says; or all of it"
    )

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class ModelConfig(Options):
    """The network: pretrained weights, or a shape to train from scratch."""

    weights: str | None = Field(None, description="start from this run, Hugging Face folder or hub name")
    quantization: Quantization = Field(
        "none", description="linear layers of the weights in 8 or 4 bits beside adapters (train.lora), on CUDA"
    )
    preset: str | None = Field(None, description=f"a published shape; options beside it win: {presets.TOLD}")
    family: Literal["t5", "bart", "rnn", "decoder"] = Field(
        "t5", description="architecture to train from scratch; with weights: theirs"
    )
    d_model: Positive = Field(256, description="width")
    d_kv: Positive | None = Field(None, description="width of a head (default: d_model / heads)")
    d_ff: Positive = Field(1024, description="inner width of the feed-forward")
    heads: Positive = Field(4, description="attention heads")
    encoder_layers: Positive = Field(4, description="encoder blocks")
    decoder_layers: Positive = Field(4, description="decoder blocks")
    activation: Literal["relu", "gelu", "silu", "gated-gelu", "gated-silu"] = Field(
        "relu", description="feed-forward activation (default of bart: gelu)"
    )
    initialization: Literal["own", "xavier", "he", "t5"] = Field(
        "own", description="of matrices trained from scratch: the family's own, or one of these schemes"
    )
    tied: bool = Field(True, description="share the embedding with the projection to the vocabulary")
    dropout: Rate = Field(0.1, description="dropout of embeddings, attention outputs and feed-forwards")
    attention_dropout: Rate = Field(0.0, description="dropout of attention weights")
    relative_buckets: Annotated[int, Field(ge=4)] = Field(32, description="T5's relative position buckets")
    relative_distance: Positive = Field(128, description="distance from which all positions share a bucket")
    decoder_positions: bool | None = Field(
        None, description="sinusoidal positions in the decoder too (default: for features from scratch); not a T5 then"
    )
    cell: Literal["gru", "lstm"] = Field("gru", description="recurrent cell (family rnn)")
    attention: Literal["bahdanau", "none"] = Field(
        "bahdanau", description="additive attention over the source, or one fixed vector for it (family rnn)"
    )
    positions: Positive = Field(1024, description="longest source or target, in positions (family bart)")
    prefix: Literal["causal", "full"] = Field(
        "causal", description="source tokens attend to those before them, or to all (family decoder)"
    )
    same_size: bool = Field(
        False, description="as many parameters as t5 has with these options: sets layers and d_ff (family decoder)"
    )
    route: Literal["encoder", "bypass"] = Field(
        "encoder", description="bridge → encoder → decoder, or bridge → decoder"
    )
    bridge: BridgeConfig = Field(default_factory=BridgeConfig, description="how features enter (feature sets only)")
    feature_encoder: FeatureEncoderConfig = Field(
        default_factory=FeatureEncoderConfig, description="convolutions over the features before the bridge"
    )
    source_encoder: SourceEncoderConfig = Field(
        default_factory=SourceEncoderConfig, description="a pretrained encoder of sounds or images before the bridge"
    )

    @model_validator(mode="before")
    @classmethod
    def _shorthand(cls, value: Any) -> Any:
        return {"weights": value} if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, value: Any) -> Any:
        """Fills in a preset's shape and a family's own activation where the recipe sets none."""
        if not isinstance(value, dict):
            return value
        name = value.get("preset")
        shape = presets.shape(name) if isinstance(name, str) else {}
        family = value.get("family", shape.get("family"))
        return {**({"activation": "gelu"} if family == "bart" else {}), **shape, **value}

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelConfig:
        if self.source_encoder.name and (self.feature_encoder.layers or self.feature_encoder.weights):
            raise ValueError("source_encoder and feature_encoder are both before the bridge; leave one out")
        if self.quantization != "none" and not self.weights:
            raise ValueError(f"quantization {self.quantization} is of pretrained weights; name them in weights")
        if self.preset and self.weights:
            raise ValueError("preset is a shape to train from scratch, weights bring their own; leave one out")
        if self.family == "rnn" and self.d_model % 2:
            raise ValueError(f"d_model {self.d_model} is odd; an encoder of family rnn has half of it a direction")
        if self.family != "rnn" and self.d_kv is None and self.d_model % self.heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of heads {self.heads}; set d_kv")
        if 2 * self.relative_distance <= self.relative_buckets:  # the decoder gives half of them to single distances
            raise ValueError(f"relative_distance {self.relative_distance} is not above half of relative_buckets")
        if self.same_size and self.family != "decoder":
            raise ValueError(f"same_size goes with family decoder, not {self.family}")
        return self
