"""The pretrained encoder that makes features: one vector a frame of a video, or a hop of a recording."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sourcewise.data.formats.audio import RATE
from sourcewise.errors import RequestError
from sourcewise.model.inputs.source_encoder import PIXELS, SAMPLES, SPECTRA, TOGETHER, SourceEncoder, open_encoder
from sourcewise.model.weights.checkpoint import find_folder
from sourcewise.model.weights.weight_files import read_json

WHAT = {"sound": "recordings", "video": "videos"}


class Encoder:
    """An encoder of `sound` or `video`, in evaluation mode, with what its record says of it."""

    def __init__(self, name: str, kind: str, layer: int | None) -> None:
        """Raises RequestError if the model does not read this kind, or has no such layer."""
        folder = find_folder(name)
        self.encoder = open_encoder(folder, name, _dims(folder, kind, name))
        self.name, self.kind = name, kind
        if self.encoder.reads not in (PIXELS, SAMPLES, SPECTRA):
            raise RequestError(f"--with {name}: reads neither pictures nor sounds, as far as its class says")
        if kind == "video" and self.encoder.processor is None:
            raise RequestError(f"--with {name}: has no preprocessor_config.json, which says how pictures are scaled")
        self.encoder.layer = _checked_layer(self.encoder, layer, name)
        self.encoder.eval()

    @torch.inference_mode()
    def of_sound(self, samples: np.ndarray) -> tuple[np.ndarray, int]:
        """Samples (n,) → vectors (hops, width) float32, and the number of windows: Whisper reads 30 s at a time."""
        longest = getattr(self.encoder.processor, "n_samples", None) or len(samples)
        windows = [samples[i : i + longest] for i in range(0, len(samples), longest)]
        if len(windows) > 1 and len(windows[-1]) < RATE // 50:
            windows.pop()  # less than one frame
        states = [self.encoder._encoded(torch.from_numpy(window)[None, :, None])[0] for window in windows]
        return torch.cat(states).float().numpy(), len(windows)

    @torch.inference_mode()
    def of_images(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """Images (height, width, 3) uint8 → one vector each, (frames, width) float32."""
        given = iter(images)
        parts = [self.encoder.of_images(some) for some in iter(lambda: list(islice(given, TOGETHER)), [])]
        if not parts:
            raise ValueError("has no pictures")
        return torch.cat(parts).float().numpy()

    def record(self) -> dict[str, Any]:
        """What makes these features what they are: model, digest of its weights, processor, layer."""
        processor = self.encoder.processor
        return {
            "reads": self.kind,
            "model": self.name,
            "digest": _digest(self.encoder.model),
            "processor": None if processor is None else _plain(processor),
            "layer": "last" if self.encoder.layer is None else self.encoder.layer,
            "dims": self.encoder.width,
        }


def _dims(folder: Path, kind: str, name: str) -> int:
    """Width of the sources that the encoder is opened for: samples, or square pictures of its own size.

    Raises RequestError if it reads the other kind.
    """
    config = read_json(folder / "config.json")
    config = config.get("vision_config") or config
    side: Any = config.get("image_size")
    side, channels = side[0] if isinstance(side, list) and side else side, int(config.get("num_channels") or 3)
    pictures = type(side) is int
    if pictures != (kind == "video"):
        raise RequestError(f"--with {name}: reads {'pictures' if pictures else 'no pictures'}; these are {WHAT[kind]}")
    return side * side * channels if type(side) is int else 1


def _checked_layer(encoder: SourceEncoder, layer: int | None, name: str) -> int | None:
    if layer is None:
        return None
    config: Any = encoder.model.config
    stated: Any = getattr(config, "encoder_layers", None) or getattr(config, "num_hidden_layers", None)
    count = int(stated or 0)
    if not 0 <= layer <= count:
        raise RequestError(f"--layer {layer}: {name} has the layers 1 to {count}, and 0 before them")
    return layer


def _digest(model: torch.nn.Module) -> str:
    """A digest of all weights, equal wherever they are equal."""
    digest = hashlib.blake2b(digest_size=16)
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().float().contiguous().numpy().data)
    return digest.hexdigest()


def _plain(processor: Any) -> dict[str, Any]:
    """The settings of a processor, without those that only say where it is from."""
    found = processor.to_dict()
    left_out = ("_processor_class", "processor_class", "name_or_path", "mel_filters", "window")
    return {key: found[key] for key in sorted(found) if key not in left_out and _is_plain(found[key])}


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, int, float, bool, list, dict, type(None)))
