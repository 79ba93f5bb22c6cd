"""Somebody's pretrained encoder of sounds or images before the bridge: of transformers, or a class of one's own.

Sources of one length are computed together, without padding, so that a vector never depends on other examples.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sourcewise.data.formats.processors import is_prepared
from sourcewise.data.layout import Layout
from sourcewise.errors import RequestError, tell
from sourcewise.model.weights.weight_files import first_line, read_pickled, read_safetensors, some

RATE = 16_000  # samples a second of sounds
SAMPLES, SPECTRA, PIXELS = "input_values", "input_features", "pixel_values"
ADAPTER = ".lora_"  # in the names of peft's parameters
TOGETHER = 64  # images that are computed at once
CLASS = ("cls_token", "class_embedding")  # ends of the names of an image's own vector
UNUSED = ("pooler", "masked_spec_embed", "mask_token", "post_layernorm")  # weights that last_hidden_state needs not
SQUARE = "square ones unless they are stored as (time, channel, height, width)"
SPLIT = "features are (frames × height · width · channels), the channels last"


class SourceEncoder(nn.Module):
    """Features (batch, frames, dims) as they were read → the encoder's last hidden states, which may be fewer.

    Sounds are samples, 16,000 a second (dims 1), which the encoder's own processor prepares, or spectrograms of the
    encoder's width. Images are pixels (height × width × channels), one image a frame, one vector an image.
    """

    exact = True  # it needs the features in float32

    def __init__(self, model: nn.Module, processor: Any, origin: dict[str, Any], dims: int) -> None:
        """`origin` says where it is from, for a checkpoint: its `name`, or the arguments of `make_encoder`.

        It may have `image`, the size (height, width, channels) of its images; without it they are squares.
        """
        super().__init__()
        self.model, self.origin, self.dims = model, origin, dims
        self.name = str(origin.get("name") or origin.get("encoder"))
        self.processor, self.how, self.adapters = processor, "frozen", Adapted(None)
        self.layer: int | None = None  # whose states are the vectors, 0 before the first; None: the output
        self.reads = str(getattr(model, "main_input_name", "")) if hasattr(model, "config") else ""
        self.width = self._width()

    def train(self, mode: bool = True) -> SourceEncoder:
        """As torch; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.how == "frozen":
            self.model.eval()
        return self

    def settle(self, how: str, wrapper: Any = None) -> None:
        """Train all of its weights (`whole`), adapters of the peft model `wrapper` around it, or none (`frozen`)."""
        self.how, self.adapters = how, Adapted(wrapper)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(how == "whole" or (how == "adapters" and ADAPTER in name))

    def given(self) -> list[nn.Parameter]:
        """The parameters of the pretrained model itself, without adapters."""
        return [parameter for name, parameter in self.model.named_parameters() if ADAPTER not in name]

    def forward(self, x: Tensor, layout: Layout) -> tuple[Tensor, Layout]:
        """Features (batch, frames, dims) → (batch, positions, width), zero at padding, and their layout."""
        found: dict[int, Tensor] = {}
        for rows, length in _by_length(layout):
            found |= dict(zip(rows, self._encoded(x[rows, :length]), strict=True))
        positions = np.array([len(found[row]) for row in range(len(x))])
        out = nn.utils.rnn.pad_sequence([found[row] for row in range(len(x))], batch_first=True)
        return out, Layout(positions, out.shape[1])

    def positions(self, features: Tensor) -> int:
        """Number of vectors of one source, features (frames, dims)."""
        with torch.no_grad():
            return len(self._encoded(features[None])[0])

    def _encoded(self, x: Tensor) -> Tensor:
        """Sources of one length (batch, frames, dims) → (batch, positions, width)."""
        if not self.reads:
            out = self.model(x.to(self._dtype))
            return out if isinstance(out, Tensor) else out.last_hidden_state  # type: ignore[no-any-return]
        if self.reads == PIXELS:
            return self._images(x)
        if self.reads == SAMPLES or x.shape[2] == 1:
            return self._sounds(x)
        return self._spectra(x)

    @property
    def image(self) -> tuple[int, int, int]:
        """Height, width and channels of its images."""
        size = self.origin.get("image")
        return (int(size[0]), int(size[1]), int(size[2])) if size else _square(self.dims, self.model.config)

    @property
    def _dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.model.parameters()), torch.float32)

    def _sounds(self, x: Tensor) -> Tensor:
        samples = list(x[..., 0].numpy(force=True))
        if self.processor is None:
            return self._called({self.reads: x[..., 0]})
        given = self.processor(samples, sampling_rate=RATE, return_tensors="pt")
        states = self._called({name: tensor.to(x.device) for name, tensor in given.items()})
        longest = getattr(self.processor, "n_samples", None)  # Whisper's 30 seconds
        if longest is None:
            return states
        if x.shape[1] > longest:
            problem = f"a source of {x.shape[1] / RATE:.1f} s, {self.name} reads {longest / RATE:.0f}"
            raise RequestError(f"model.source_encoder: {problem}; set data.max_frames to {longest}")
        return states[:, : max(1, math.ceil(x.shape[1] / longest * states.shape[1]))]

    def _spectra(self, x: Tensor) -> Tensor:
        config: Any = self.model.config
        fixed = 2 * int(getattr(config, "max_source_positions", 0) or 0) if config.model_type == "whisper" else 0
        if not fixed:
            return self._called({self.reads: x})
        if x.shape[1] > fixed:
            problem = f"a source of {x.shape[1]} frames, {self.name} reads {fixed}"
            raise RequestError(f"model.source_encoder: {problem}; set data.max_frames")
        least = x.amin((1, 2), keepdim=True).expand(-1, fixed - x.shape[1], x.shape[2])
        states = self._called({self.reads: torch.cat((x, least), 1).transpose(1, 2)})
        return states[:, : math.ceil(x.shape[1] / 2)]

    def _images(self, x: Tensor) -> Tensor:
        images = x.flatten(0, 1).view(-1, *self.image)
        if self.processor is None:
            pixels = images.permute(0, 3, 1, 2)
        else:
            pixels = self._processed(list(images.clamp(0, 255).to(torch.uint8).numpy(force=True))).to(x.device)
        return self._vectors(pixels).view(*x.shape[:2], -1)

    def of_images(self, images: list[np.ndarray]) -> Tensor:
        """Images (height, width, channels) uint8 of any size → (images, width), prepared by the encoder's processor."""
        device = next(self.model.parameters()).device
        return self._vectors(self._processed(images).to(device))

    def _processed(self, images: list[np.ndarray]) -> Tensor:
        found: Tensor = self.processor(images, return_tensors="pt", input_data_format="channels_last")[PIXELS]
        return found

    def _vectors(self, pixels: Tensor) -> Tensor:
        """Pixels (images, channels, height, width) → one vector each: the model's own, or the mean of its patches."""
        own = any(name.endswith(CLASS) for name, _ in self.model.named_parameters())
        states = [self._called({PIXELS: part}) for part in pixels.split(TOGETHER)]
        return torch.cat([each[:, 0] if own else _mean(each) for each in states])

    def _called(self, given: dict[str, Tensor]) -> Tensor:
        typed = {name: each.to(self._dtype) if each.is_floating_point() else each for name, each in given.items()}
        if self.layer is None:
            return self.model(**typed, return_dict=True).last_hidden_state  # type: ignore[no-any-return]
        out = self.model(**typed, return_dict=True, output_hidden_states=True)
        return out.hidden_states[self.layer]  # type: ignore[no-any-return]

    def _width(self) -> int:
        """Width of its vectors, by a short source of zeros. Raises RequestError if it cannot read such features."""
        if self.reads in (SPECTRA, SAMPLES, PIXELS):
            _check_dims(self.model.config, self.reads, self.dims, self.processor, self.name, self.origin.get("image"))
        frames = RATE // 4 if self.dims == 1 and self.reads in (SAMPLES, SPECTRA) else 8
        try:
            with torch.no_grad():
                out = self.eval()._encoded(torch.zeros(1, frames, self.dims))
        except RequestError:
            raise
        except Exception as error:  # of any class
            problem = f"{self.name} cannot read features {self.dims} wide ({first_line(error)})"
            raise RequestError(f"model.source_encoder: {problem}") from None
        if out.ndim != 3:
            raise RequestError(
                f"model.source_encoder: {self.name} gives a tensor {tuple(out.shape)}, not (1, n, width)"
            )
        return int(out.shape[2])


def _mean(states: Tensor) -> Tensor:
    """(images, patches, width), or (images, width, height, width) of a convolution → (images, width)."""
    return states.mean(1) if states.ndim == 3 else states.flatten(2).mean(-1)


@dataclass(frozen=True)
class Adapted:
    """The peft model around an encoder's, if it learns by adapters; not a module of the network."""

    wrapper: Any


def _by_length(layout: Layout) -> Iterator[tuple[list[int], int]]:
    lengths = layout.lengths
    for length in np.unique(lengths):
        yield np.flatnonzero(lengths == length).tolist(), int(length)


def _square(dims: int, config: Any) -> tuple[int, int, int]:
    """Height, width and channels of square images of so many values."""
    channels = int(getattr(config, "num_channels", 3) or 3)
    side = math.isqrt(dims // channels)
    return side, side, channels


def _check_dims(config: Any, reads: str, dims: int, processor: Any, name: str, image: Sequence[int] | None) -> None:
    """Raises RequestError unless features of this width are something that the encoder reads."""
    problem = ""
    if reads == SAMPLES and dims != 1:
        problem = f"reads samples (dims 1, {RATE:,} a second)"
    elif reads == SPECTRA and dims != 1:
        width = getattr(config, "num_mel_bins", None) or getattr(config, "feature_projection_input_dim", None)
        problem = f"reads spectrograms {width} wide, or samples (dims 1)" if width and width != dims else ""
    elif reads == SPECTRA and processor is None:
        problem = "reads spectrograms, and has no preprocessor_config.json to make them from samples"
    elif reads == PIXELS:
        channels = _square(dims, config)[2]
        fits = image[2] == channels if image else math.prod(_square(dims, config)) == dims
        problem = "" if fits else f"reads images of {channels} channels, {SQUARE} ({SPLIT})"
    if processor is not None and getattr(processor, "sampling_rate", RATE) != RATE:
        problem = f"reads {processor.sampling_rate:,} samples a second, not {RATE:,}"
    if problem:
        raise RequestError(f"model.source_encoder: {name} {problem}; the features are {dims} wide")


def encoder_of(network: Any) -> SourceEncoder | None:
    """The pretrained encoder before a network's bridge, if it has one."""
    encoder = getattr(getattr(network, "bridge", None), "encoder", None)
    return encoder if isinstance(encoder, SourceEncoder) else None


def open_encoder(folder: Path, name: str, dims: int, image: Sequence[int] | None = None) -> SourceEncoder:
    """The encoder of a folder of Hugging Face, with its processor; raises RequestError if it is none.

    `image` is the size of the images that it will read: height, width, channels.
    """
    import transformers

    from sourcewise.model.families.huggingface import quiet

    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            kind: Any = transformers.CLIPVisionModel if config.model_type == "clip" else transformers.AutoModel
            model, found = kind.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
    except Exception as error:
        problem = f"transformers cannot open it as an encoder ({first_line(error)})"
        raise RequestError(f"model.source_encoder: {folder}: {problem}") from None
    missing = set(found["missing_keys"])
    if config.is_encoder_decoder:
        missing = {key.partition("encoder.")[2] for key in missing if key.startswith("encoder.")}
        model = model.get_encoder()
    elif hasattr(model, "vision_model") and hasattr(config, "text_config"):
        missing = {key.partition("vision_model.")[2] for key in missing if key.startswith("vision_model.")}
        model = model.vision_model
    left = sorted(key for key in missing if not any(part in key for part in UNUSED))
    if left:
        problem = f"{len(left)} weights of its encoder are missing ({some(left)})"
        raise RequestError(f"model.source_encoder: {folder}: {problem}; they would be random")
    _without_noise(model.config)
    origin = {"name": name, **({"image": list(image)} if image and model.main_input_name == PIXELS else {})}
    return SourceEncoder(model, _processor(folder, str(model.main_input_name)), origin, dims)


def _without_noise(config: Any) -> None:
    """Switch off masks and left-out layers that an encoder draws in training from streams that no run resumes."""
    for key, value in (("apply_spec_augment", False), ("layerdrop", 0.0), ("encoder_layerdrop", 0.0)):
        if hasattr(config, key):
            setattr(config, key, value)


def _processor(folder: Path, reads: str) -> Any:
    """What prepares an encoder's sources; None if the folder has none, which is told."""
    import transformers

    if not is_prepared(folder):
        said = {SAMPLES: "samples are read as they are", PIXELS: "pixels are read as they are"}
        if reads in said:
            tell(f"{folder}: has no preprocessor_config.json: {said[reads]}")
        return None
    kind = transformers.AutoImageProcessor if reads == PIXELS else transformers.AutoFeatureExtractor
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        file = folder / "preprocessor_config.json"
        raise RequestError(f"{file}: describes no processor of transformers ({first_line(error)})") from None


def make_encoder(path: str, options: dict[str, Any], weights: Path, dims: int) -> SourceEncoder:
    """An encoder of a class of one's own, `package.module:Class`, with its weights; nothing is unpickled.

    Its forward maps (batch, frames, dims) to (batch, positions, width). Raises RequestError.
    """
    where = "model.feature_encoder.encoder"
    module, _, name = path.partition(":")
    try:
        made = getattr(importlib.import_module(module), name)(**options)
    except Exception as error:  # of any code
        raise RequestError(f"{where}: {path} cannot be made ({type(error).__name__}: {first_line(error)})") from None
    if not isinstance(made, nn.Module):
        raise RequestError(f"{where}: {path} gives {type(made).__name__}, not a torch module")
    held = read_safetensors(weights) if weights.suffix == ".safetensors" else read_pickled(weights)
    wanted = made.state_dict()
    problem = _misfit(wanted, held)
    if problem:
        raise RequestError(f"{weights}: does not fit {path}: {problem}")
    made.load_state_dict(held)
    origin = {"encoder": path, "options": options, "weights": str(weights)}
    return SourceEncoder(made.float(), None, origin, dims)


def _misfit(wanted: dict[str, Tensor], held: dict[str, Tensor]) -> str:
    """Where the tensors of a file are not those of a module, in words."""
    missing, left = sorted(wanted.keys() - held.keys()), sorted(held.keys() - wanted.keys())
    for names, what in ((missing, "missing"), (left, "of another module")):
        if names:
            return f"{len(names)} tensors are {what} ({some(names)})"
    other = next((name for name, tensor in wanted.items() if tensor.shape != held[name].shape), None)
    if other is None:
        return ""
    return f"{other} has the shape {tuple(held[other].shape)}, not {tuple(wanted[other].shape)}"
