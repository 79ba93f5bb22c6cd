"""What differs between the encoder–decoders of transformers: one entry per real difference, the rest is found out.

The name of the source's input is the class's own; `input_ids` are tokens, all others are features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sourcewise.errors import RequestError

TOKENS, SAMPLES = "input_ids", "input_values"


@dataclass(frozen=True, slots=True)
class Difference:
    """How a model type differs from a text encoder with an attention mask and a plain cross-entropy."""

    width: str = ""  # path in the configuration to the width of the features that it reads
    turned: bool = False  # features are (batch, dims, frames)
    frames: str = ""  # path to half of the number of frames that it always reads; shorter sources are padded
    block: str = ""  # path in its encoder to the number of samples of which it reads whole multiples
    maskless: bool = False  # the encoder has no mask of padding
    changes: bool = False  # the decoder adds to the encoder's output in place
    asks_tokens: bool = False  # without a cache, the decoder masks its future only if the call has `input_ids`
    edges: bool = False  # convolutions of the encoder read some of the padding behind a source
    streams: bool = False  # attention has the main stream, then those that predict, as scores before the softmax
    untrained: str = ""  # parts of its own loss beside the cross-entropy, which are not trained
    refused: str = ""  # why it cannot be used


EXPERTS = Difference(untrained="the losses that balance its experts")
SEAMLESS = Difference(width="feature_projection_input_dim", edges=True)
DIFFERENCES = {
    "whisper": Difference(width="num_mel_bins", turned=True, frames="max_source_positions", maskless=True),
    "speech_to_text": Difference(width="input_feat_per_channel", edges=True),
    "speecht5": Difference(edges=True),
    "seamless_m4t": SEAMLESS,
    "seamless_m4t_v2": SEAMLESS,
    "cohere_asr": Difference(width="encoder_config.num_mel_bins"),
    "canary": Difference(width="encoder_config.num_mel_bins"),
    "nllb-moe": EXPERTS,
    "switch_transformers": EXPERTS,
    "moonshine_streaming": Difference(changes=True, block="embedder.frame_len"),
    "fsmt": Difference(asks_tokens=True),
    "prophetnet": Difference(streams=True, untrained="the n-gram predictions of its loss (as with disable_ngram_loss)"),
    "dia": Difference(refused="it writes sound, not text"),
    "pop2piano": Difference(refused="it writes the notes of a piano, not text"),
}
PLAIN = Difference()


def of_type(config: Any) -> Difference:
    """The differences of a configuration's model type."""
    return DIFFERENCES.get(config.model_type, PLAIN)


def why_refused(config: Any) -> str:
    """Why a configuration of transformers cannot be used, in words; empty if it can."""
    if not config.is_encoder_decoder:
        return f"a {config.model_type} is a language model that finds its source in its prompt: it has no decoder apart"
    return of_type(config).refused and f"a {config.model_type}: {of_type(config).refused}"


def input_of(model: Any) -> str:
    """The name of what a model's encoder reads."""
    name = str(model.main_input_name)
    return name if name != "inputs" else str(model.get_encoder().main_input_name)  # of a pair, it is the encoder's


def width_of(model: Any) -> int:
    """Width of the features that a model's encoder reads; 0: it reads tokens."""
    name = input_of(model)
    if name == TOKENS:
        return 0
    if name == SAMPLES:
        return 1
    for config in (model.config, getattr(model.config, "encoder", None)):
        found = value_at(config, of_type(config).width if config is not None else "")
        if found:
            return int(found)
    return int(value_at(model.config, "encoder.feature_projection_input_dim") or 0) or _unknown(model)


def _unknown(model: Any) -> int:
    raise RequestError(f"a {model.config.model_type}: the width of its {input_of(model)} is not known")


def fixed_frames(model: Any) -> int:
    """The number of frames that a model always reads; 0: any."""
    return 2 * int(value_at(model.config, of_type(model.config).frames) or 0)


def shaped(model: Any, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Features (batch, frames, dims) and their mask, which is on the host, as a model's encoder reads them.

    A fixed number of frames is filled with each source's least value, which is silence in a log-mel spectrogram, and
    blocks of samples with zeros, as processors do.
    """
    difference, longest = of_type(model.config), fixed_frames(model)
    block = int(value_at(model.get_encoder(), difference.block) or 1)
    features, mask = (F.pad(each, (0, 0) * (each.ndim - 2) + (0, -each.shape[1] % block)) for each in (features, mask))
    if longest:
        more = longest - features.shape[1]
        if more < 0 and bool(mask[:, longest:].any()):
            more_than = f"a source has {int(mask.sum(1).max())} frames"
            raise RequestError(f"{more_than}, a {model.config.model_type} reads {longest}; set data.max_frames")
        features, mask = (features[:, :longest], mask[:, :longest]) if more < 0 else (features, mask)
        features, mask = F.pad(features, (0, 0, 0, max(more, 0))), F.pad(mask, (0, max(more, 0)))
        real = mask.to(features.device, non_blocking=True)[..., None]
        least = features.masked_fill(~real, torch.inf).amin((1, 2), keepdim=True)
        features = torch.where(real, features, least)
    if input_of(model) == SAMPLES:
        features = features.squeeze(-1)
    return features.transpose(1, 2) if difference.turned else features, mask


def shortened(mask: Tensor, width: int) -> Tensor:
    """The mask (batch, width) of an output that has fewer positions than what was read, in proportion."""
    lengths = -(-mask.sum(1) * width // mask.shape[1])
    return torch.arange(width, device=mask.device) < lengths[:, None]


def value_at(config: Any, path: str) -> Any:
    """A value in a configuration, or a module, and its sections; None if there is none."""
    for name in path.split("."):
        config = getattr(config, name, None)
    return config
