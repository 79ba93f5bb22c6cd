"""Pretrained encoders of sounds and images before a bridge: as transformers reads; trained, saved, opened again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sourcewise.data.layout import Layout
from sourcewise.errors import RequestError
from sourcewise.generation.model import load
from sourcewise.model.inputs.source_encoder import SourceEncoder, open_encoder
from sourcewise.model.weights.checkpoint import save_network
from sourcewise.training.learner import Learner
from sourcewise.training.setup import set_up
from tests.model.families.zoo import WORDS
from tests.training.test_huggingface import folder_of, recipe, right
from tests.training.test_huggingface import learned as _learned

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
CONVOLUTIONS = {"conv_dim": (16, 16), "conv_kernel": (10, 4), "conv_stride": (8, 4), "num_feat_extract_layers": 2}
SOUNDS = {**SMALL, **CONVOLUTIONS, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
IMAGES = {**SMALL, "image_size": 8, "patch_size": 4, "num_channels": 3}
WHISPER = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
WHISPER |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 80}
WHISPER |= {"vocab_size": 20, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "decoder_start_token_id": 2}


def sounds_folder(folder: Path, kind: str, **more: Any) -> Path:
    """A tiny random encoder of a kind, with its processor."""
    torch.manual_seed(0)
    t = transformers
    if kind in ("Wav2Vec2", "Hubert"):
        model = getattr(t, f"{kind}Model")(getattr(t, f"{kind}Config")(**{**SOUNDS, **more}))
        t.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    elif kind == "Wav2Vec2Bert":
        shape = {**SMALL, "feature_projection_input_dim": 160, "conv_depthwise_kernel_size": 3, **more}
        model = t.Wav2Vec2BertModel(t.Wav2Vec2BertConfig(**shape))
        t.SeamlessM4TFeatureExtractor().save_pretrained(folder)
    elif kind == "Whisper":
        model = t.WhisperModel(t.WhisperConfig(**{**WHISPER, **more}))
        t.WhisperFeatureExtractor().save_pretrained(folder)
    else:
        made = {"ViT": t.ViTModel, "Dinov2": t.Dinov2Model, "CLIPVision": t.CLIPVisionModel}[kind]
        model = made(made.config_class(**{**IMAGES, **more}))
        for parameter in model.parameters():  # else an image's own vector hardly depends on the image
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, 0, 0.25)
        size = {"height": 8, "width": 8}
        t.ViTImageProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def draw(dims: int, frames: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dims == 1:
        return rng.standard_normal((frames, 1)).astype("float32")
    return rng.integers(0, 256, (frames, dims)).astype("float32")


def of_transformers(folder: Path, kind: str, source: np.ndarray) -> torch.Tensor:
    """What a user of transformers gets for one source."""
    t = transformers
    model = (t.CLIPVisionModel if kind == "CLIPVision" else t.AutoModel).from_pretrained(folder).eval()
    if source.shape[1] == 1:
        given = t.AutoFeatureExtractor.from_pretrained(folder)(source[:, 0], sampling_rate=16000, return_tensors="pt")
        model = model.get_encoder() if kind == "Whisper" else model
    else:
        images = [frame.reshape(8, 8, 3).astype("uint8") for frame in source]
        given = t.AutoImageProcessor.from_pretrained(folder)(images, return_tensors="pt")
    with torch.no_grad():
        states = model(**given).last_hidden_state
    return states[:, 0] if source.shape[1] > 1 else states[0]


@pytest.mark.parametrize("kind", ["Wav2Vec2", "Hubert", "Wav2Vec2Bert", "ViT", "Dinov2", "CLIPVision"])
def test_an_encoder_reads_as_its_own_processor_and_class_do_whatever_else_is_in_the_batch(
    kind: str, tmp_path: Path
) -> None:
    dims = 192 if kind in ("ViT", "Dinov2", "CLIPVision") else 1
    folder = sounds_folder(tmp_path, kind)
    encoder = open_encoder(folder, "x", dims).eval()
    lengths = (3, 5) if dims > 1 else (2400, 4000)
    sources = [draw(dims, length, i) for i, length in enumerate(lengths)]
    batch = np.zeros((2, lengths[1], dims), np.float32)
    for i, source in enumerate(sources):
        batch[i, : len(source)] = source
    with torch.no_grad():
        out, layout = encoder(torch.from_numpy(batch), Layout(lengths, lengths[1]))
    for i, source in enumerate(sources):
        expected = of_transformers(folder, kind, source)
        assert layout.lengths[i] == len(expected) == encoder.positions(torch.from_numpy(source))
        assert torch.allclose(out[i, : len(expected)], expected, atol=1e-4)
        assert not out[i, len(expected) :].any()


def test_whisper_reads_half_a_minute_and_gives_the_positions_of_the_sound(tmp_path: Path) -> None:
    folder = sounds_folder(tmp_path, "Whisper")
    encoder = open_encoder(folder, "x", 1).eval()
    source = draw(1, 16_000)
    with torch.no_grad():
        out, layout = encoder(torch.from_numpy(source[None]), Layout([16_000], 16_000))
    assert layout.lengths.tolist() == [50]  # a second
    assert torch.allclose(out[0], of_transformers(folder, "Whisper", source)[:50], atol=1e-4)
    with pytest.raises(RequestError, match=r"a source of 30\.1 s, .* reads 30; set data\.max_frames to 480000"):
        encoder(torch.zeros(1, 481_600, 1), Layout([481_600], 481_600))


def sounds(folder: Path) -> dict[str, Any]:
    """Tones: each target word has a pitch."""
    (folder / "raw").mkdir()
    lines, rng = ["id\tn_frames\ttext"], np.random.default_rng(0)
    for i in range(WORDS):
        length = 640 + 32 * (i % 4)
        wave = np.sin(np.arange(length) * (0.05 + 0.07 * i)) + 0.01 * rng.standard_normal(length)
        np.save(folder / "raw" / f"{i}.npy", wave.astype("float32")[:, None])
        lines.append(f"{i}\t{length}\tt{i} t{(3 * i + 1) % WORDS}")
    (folder / "raw.tsv").write_text("\n".join(lines) + "\n")
    return {"manifest": str(folder / "raw.tsv"), "features": str(folder / "raw")}


def images(folder: Path) -> dict[str, Any]:
    """Clips of random images of one colour each: the colour of the target."""
    (folder / "clips").mkdir()
    lines, rng = ["id\tn_frames\ttext"], np.random.default_rng(0)
    for i in range(WORDS):
        colours = rng.integers(0, 256, 192)
        clip = np.clip(colours + rng.integers(-3, 4, (4, 192)), 0, 255)
        np.save(folder / "clips" / f"{i}.npy", clip.astype("float32"))
        lines.append(f"{i}\t4\tt{i} t{(3 * i + 1) % WORDS}")
    (folder / "clips.tsv").write_text("\n".join(lines) + "\n")
    return {"manifest": str(folder / "clips.tsv"), "features": str(folder / "clips")}


def training(folder: Path, kind: str, train: str, **more: Any) -> Any:
    """The setup of a tiny T5 behind an encoder, on raw sounds or images."""
    name = sounds_folder(folder / "encoder", kind)
    folder_of("t5", folder)
    data = images(folder) if kind in ("ViT", "Dinov2", "CLIPVision") else sounds(folder)
    bridge = {"kind": "projection", "stride": 1 if kind == "ViT" else 2}
    model = {"source_encoder": {"name": str(name), "train": train}, "bridge": bridge}
    return set_up(recipe(folder, {"train": data}, {"learning_rate": 3e-3, **more}, **model))


CASES = [("Wav2Vec2", "whole", 3e-3, 150), ("ViT", "frozen", 1e-2, 250)]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "train", "rate", "steps"), CASES)
def test_a_small_task_is_learned_through_an_encoder(
    kind: str, train: str, rate: float, steps: int, tmp_path: Path
) -> None:
    setup = training(tmp_path, kind, train, learning_rate=rate)
    model = _learned(setup, steps)
    assert right(model, setup) >= 0.9
    save_network(setup.network, tmp_path / "out", setup.tokenizer, setup.recipe.generation)
    again = load(tmp_path / "out")
    assert right(again, setup) >= 0.9


@pytest.mark.parametrize("train", ["frozen", "adapters", "whole"])
def test_what_learns_is_saved_and_what_is_frozen_stays(train: str, tmp_path: Path) -> None:
    more = {"lora": {"rank": 2}} if train == "adapters" else {}
    setup = training(tmp_path, "Hubert", train, **more)
    encoder = setup.network.bridge.encoder
    assert isinstance(encoder, SourceEncoder)
    before = {name: p.detach().clone() for name, p in encoder.model.named_parameters()}
    learner = Learner(setup)
    for _ in range(3):
        learner.learn([np.arange(len(setup.train))])
    for name, parameter in encoder.model.named_parameters():
        learns = train == "whole" or (train == "adapters" and "lora_" in name)
        assert learns == parameter.requires_grad, name
        if not learns:
            assert torch.equal(parameter, before[name]), name
    changed = [name for name, p in encoder.model.named_parameters() if not torch.equal(p, before[name])]
    assert bool(changed) == (train != "frozen")
    network = setup.network.eval()
    save_network(network, tmp_path / "out", setup.tokenizer, setup.recipe.generation)
    again = load(tmp_path / "out").network
    source = setup.train.batch([0, 1, 5]).source
    with torch.no_grad():
        assert torch.allclose(again.encode(source).states, network.encode(source).states, atol=1e-4)


class Mine(nn.Module):
    """An encoder of somebody's own: two frames a vector."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.inner = nn.Conv1d(8, width, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.transpose(1, 2)).transpose(1, 2)


@pytest.mark.parametrize("ending", [".safetensors", ".pt"])
def test_a_class_of_ones_own_brings_its_checkpoint(ending: str, tmp_path: Path) -> None:
    from tests.model.families.zoo import task

    torch.manual_seed(1)
    mine, file = Mine(10), tmp_path / f"mine{ending}"
    state = {name: tensor.contiguous() for name, tensor in mine.state_dict().items()}
    save_file(state, file) if ending == ".safetensors" else torch.save(state, file)
    folder_of("t5", tmp_path)
    own: dict[str, Any] = {"encoder": f"{__name__}:Mine", "options": {"width": 10}, "weights": str(file)}
    data = {"train": task(tmp_path, "sounds")}
    setup = set_up(recipe(tmp_path, data, feature_encoder=own))
    assert torch.equal(setup.network.bridge.encoder.model.inner.weight, mine.inner.weight)
    save_network(setup.network.eval(), tmp_path / "out", setup.tokenizer)
    source = setup.train.batch([0, 1]).source
    with torch.no_grad():
        states = load(tmp_path / "out").network.encode(source).states
        assert torch.allclose(states, setup.network.encode(source).states, atol=1e-5)
    for wrong, line in (
        ({**own, "options": {"width": 4}}, r"mine\.\w+: does not fit .*Mine: inner\.\w+ has the shape"),
        ({**own, "encoder": "no.such:Thing"}, r"feature_encoder\.encoder: no\.such:Thing cannot be made"),
        ({**own, "encoder": f"{__name__}:sounds"}, r"sounds cannot be made \(TypeError"),
    ):
        with pytest.raises(RequestError, match=line):
            set_up(recipe(tmp_path, data, feature_encoder=wrong))


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    from tests.model.families.zoo import task

    folder_of("t5", tmp_path)
    torch.save(Mine(), tmp_path / "whole.pt")
    own = {"encoder": f"{__name__}:Mine", "weights": str(tmp_path / "whole.pt")}
    with pytest.raises(RequestError, match=r"whole\.pt: .*never loaded"):
        set_up(recipe(tmp_path, {"train": task(tmp_path, "sounds")}, feature_encoder=own))
    assert sys.modules[__name__]


def test_features_that_an_encoder_does_not_read_are_refused_in_a_line(tmp_path: Path) -> None:
    wav, vit = sounds_folder(tmp_path / "wav", "Wav2Vec2"), sounds_folder(tmp_path / "vit", "ViT")
    for folder, dims, line in (
        (wav, 80, r"reads samples \(dims 1, 16,000 a second\); the features are 80 wide"),
        (vit, 190, r"reads images of 3 channels, .*; the features are 190 wide"),
        (vit, 75, r"cannot read features 75 wide|reads square"),
    ):
        if dims == 75:  # its own processor makes the images smaller or larger
            assert open_encoder(folder, "x", dims).width == 24
            continue
        with pytest.raises(RequestError, match=line) as refused:
            open_encoder(folder, "x", dims)
        assert "\n" not in str(refused.value)
    (wav / "preprocessor_config.json").write_text(
        '{"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 8000}'
    )
    with pytest.raises(RequestError, match=r"reads 8,000 samples a second, not 16,000"):
        open_encoder(wav, "x", 1)


def test_an_encoder_without_some_of_its_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = sounds_folder(tmp_path, "Hubert")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(weights) if "attention.q_proj.weight" in name)
    save_file({k: v for k, v in weights.items() if k != name}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RequestError, match=r"1 weights of its encoder are missing \(.*q_proj\.weight\)"):
        open_encoder(folder, "x", 1)
