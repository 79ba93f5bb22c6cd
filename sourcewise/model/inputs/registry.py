"""The table of bridges by kind, which plug-ins add to, and the doors that make one for a recipe."""

from __future__ import annotations

import functools
from typing import Any

from sourcewise.config import BridgeConfig, FeatureEncoderConfig
from sourcewise.config.model import BRIDGES as GROUP
from sourcewise.config.model import bridge_kinds
from sourcewise.errors import RequestError
from sourcewise.model.inputs.bridges import (
    AttentionPooling,
    Bridge,
    Convolution,
    FeatureEncoder,
    Perceiver,
    Projection,
    Units,
)
from sourcewise.model.inputs.per_stream import PerStream
from sourcewise.runtime.plugins import plugins

BRIDGES: dict[str, type[Bridge]] = {
    "projection": Projection,
    "attention": AttentionPooling,
    "perceiver": Perceiver,
    "convolution": Convolution,
    "units": Units,
}


@functools.cache
def bridges() -> dict[str, type[Bridge]]:
    """Kind → bridge class, those of plug-ins (`sourcewise.bridges`) last."""
    return BRIDGES | {bridge.kind: bridge for bridge in plugins(GROUP, _taken)}


def _taken(found: object) -> type[Bridge]:
    """A plug-in's bridge. Raises TypeError or ValueError if it is no bridge, or if its kind is taken."""
    if not (isinstance(found, type) and issubclass(found, Bridge)):
        raise TypeError(f"it is no subclass of sourcewise.model.inputs.bridges.Bridge but {found!r}")
    kind = getattr(found, "kind", None)
    if not isinstance(kind, str) or kind in BRIDGES or kind not in bridge_kinds():
        raise ValueError(f"its kind is {kind!r}: it should be the name of its entry point, and none of ours")
    return found


def build_bridge(
    config: BridgeConfig, dims: int, d_model: int, p: float, encoder: FeatureEncoderConfig | None = None
) -> Bridge:
    """The bridge of a recipe, behind a feature encoder if that has layers.

    Raises RequestError for the bridge of a plug-in that cannot be loaded, and for options that do not fit.
    """
    if encoder is None or not encoder.layers:
        kind = _kind(config)
        return PerStream(kind, config, dims, d_model, p) if config.per_stream else kind(config, dims, d_model, p)
    if _kind(config).exact:
        problem = f"{encoder.layers}, but a bridge of kind {config.kind} reads the features as they are"
        raise RequestError(f"model.feature_encoder.layers: {problem}; set 0")
    return behind(FeatureEncoder(encoder, dims, p), config, d_model, p)


def behind(encoder: Any, config: BridgeConfig, d_model: int, p: float) -> Bridge:
    """The bridge of a recipe behind an encoder of the features. Raises RequestError as `build_bridge`."""
    if _kind(config).exact:
        problem = "reads the features as they are; leave the encoder before it out, or take another bridge"
        raise RequestError(f"model.bridge.kind: {config.kind} {problem}")
    if config.per_stream:
        problem = "true, but the encoder before the bridge reads all streams at once"
        raise RequestError(f"model.bridge.per_stream: {problem}; leave it out, or set this to false")
    bridge = _kind(config)(config, encoder.width, d_model, p)
    bridge.encoder, bridge.dims = encoder, encoder.dims
    bridge.mean, bridge.deviation = bridge.mean.new_zeros(bridge.dims), bridge.deviation.new_ones(bridge.dims)
    return bridge


def _kind(config: BridgeConfig) -> type[Bridge]:
    known = bridges()
    if config.kind not in known:
        raise RequestError(f"model.bridge.kind: {config.kind}: its plug-in cannot be loaded")
    return known[config.kind]
