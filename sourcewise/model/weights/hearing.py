"""What recordings are read as for a model: samples or log-mel features, as its first layers take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sourcewise.config import ModelConfig
from sourcewise.config.data import OWN, SOUNDS, Sounds
from sourcewise.data.formats.processors import extractor_of, is_prepared
from sourcewise.errors import RequestError
from sourcewise.model.families.differences import SAMPLES, TOKENS, of_type, value_at
from sourcewise.model.families.registry import of_model_type
from sourcewise.model.weights.checkpoint import find_folder, model_folder
from sourcewise.model.weights.weight_files import read_json

WHISPERS = {"n_fft": 400, "hop_length": 160, "dither": 0.0, "do_normalize": 0}  # as OpenAI's
PLAIN = ("Wav2Vec2FeatureExtractor", "SpeechT5FeatureExtractor")  # classes that take samples as they are, or scaled
FILTER_BANKS = ("speech_to_text",)  # types whose own extractor computes Kaldi's filter banks


def sounds_of_width(dims: int) -> Sounds | None:
    """What recordings are read as for frames of this width; None: the usual log-mel features."""
    return next((name for name, width in SOUNDS.items() if width == dims), None)


def sounds_for(model: ModelConfig) -> Sounds | None:
    """The same for the model of a recipe, before it is opened; None if it does not say.

    Raises RequestError if a folder is not found.
    """
    if model.source_encoder.name:
        return _of_encoder(find_folder(model.source_encoder.name))
    if not model.weights:
        return None
    return sounds_of(find_folder(model.weights))


def sounds_of(folder: Path) -> Sounds | None:
    """The same for the model in a folder."""
    for place in (folder, model_folder(folder)):
        if (place / "sourcewise.json").is_file():
            return sounds_of_width(int(read_json(place / "sourcewise.json").get("dims") or 0))
    config = _config(model_folder(folder))
    return None if config is None else _of_body(config, model_folder(folder))


def _of_encoder(folder: Path) -> Sounds | None:
    """What a source encoder reads: samples, also where its own processor makes spectrograms from them; Whisper's own.

    Whisper's spectrograms are those that recordings become anyway, and shorter than samples.
    """
    config = _config(folder)
    reads = "" if config is None else _input(config)
    if config is not None and config.model_type == "whisper":
        return sounds_of_width(config.num_mel_bins)
    return "samples" if reads == SAMPLES or (is_prepared(folder) and reads == "input_features") else None


def placed(sounds: Sounds | None, folder: Path) -> Sounds | None:
    """What a recipe's recordings are read as for the model in a folder: by its own processor, if it has one."""
    of_model = model_folder(folder) if sounds and sounds.startswith(OWN) else folder
    return f"{OWN}{of_model}" if sounds and sounds.startswith(OWN) and is_prepared(of_model) else sounds


def _of_body(config: Any, folder: Path) -> Sounds | None:
    """What a model of transformers reads that has an encoder of sounds itself: as its processor prepares it."""
    encoder = getattr(config, "encoder", None) if config.model_type == "speech-encoder-decoder" else config
    reads = _input(encoder)
    if reads in (TOKENS, ""):
        return None
    if is_prepared(folder):
        return _as_prepared(folder) or f"{OWN}{folder}"
    if config.model_type in FILTER_BANKS:
        return "fbank"
    if reads == SAMPLES:
        return "samples"
    width = int(value_at(config, of_type(config).width) or 0)
    return sounds_of_width(width) if config.model_type == "whisper" else f"{OWN}{folder}"


def _as_prepared(folder: Path) -> Sounds | None:
    """The name of what a folder's processor makes of recordings, where we make the same; else None."""
    try:
        extractor = extractor_of(folder)
    except ValueError:  # told when a recording is read
        return None
    if type(extractor).__name__ == "WhisperFeatureExtractor":
        usual = all((getattr(extractor, name, None) or 0) == value for name, value in WHISPERS.items())
        return sounds_of_width(int(extractor.feature_size)) if usual else None
    plain = type(extractor).__name__ in PLAIN and not getattr(extractor, "do_normalize", False)
    return "samples" if plain else None


def _config(folder: Path) -> Any:
    """The configuration of a folder that may hear; None if transformers knows none, which is told when it is opened.

    None of our own families hears, and to ask transformers takes seconds.
    """
    if of_model_type(read_json(folder / "config.json").get("model_type")):
        return None
    import transformers

    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception:
        return None


def _input(config: Any) -> str:
    """The name of what a model of this configuration reads; "" if transformers knows no such model."""
    import transformers

    speech = transformers.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING
    classes = (known[type(config)] for known in (speech, transformers.MODEL_MAPPING) if type(config) in known)
    kind: Any = next(classes, None)
    kind = kind[0] if isinstance(kind, tuple) else kind
    return str(getattr(kind, "main_input_name", ""))


def refuse_images(asked: tuple[int, int, int] | None, has: tuple[int, int, int] | None, name: str) -> None:
    """Raises RequestError if a set has images of another size than a model was trained with."""
    if asked and has and asked != has:
        sizes = (" × ".join(map(str, each)) for each in (has, asked))
        raise RequestError(
            f"{name}: its images are {next(sizes)} (height × width × channels), the model's {next(sizes)}"
        )
