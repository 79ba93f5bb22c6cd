"""Our BART, mBART and Marian against Hugging Face's own classes: logits, searches, cross-attention, round trips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sourcewise.config import GenerationConfig
from sourcewise.data.batches import IGNORED, Batch, Source, length_mask
from sourcewise.errors import RequestError
from sourcewise.model.families import bart
from sourcewise.model.families.bart import Bart
from sourcewise.model.families.huggingface import HuggingFaceNetwork
from sourcewise.model.network import Seq2Seq
from sourcewise.model.weights.checkpoint import load_network, save_network
from sourcewise.model.weights.huggingface_folders import load_huggingface_network
from sourcewise.model.weights.weight_files import Weights
from sourcewise.training.freezing import freeze
from tests.generation.searching import beam_search, greedy_or_sample
from tests.model.networks import loss

transformers = pytest.importorskip("transformers")
SIZE, SOURCES, LONGEST, STEPS = 80, 60, 20, 12
LAYERS: dict[str, Any] = {
    "vocab_size": SIZE,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 24,
}
MARIAN = {"pad_token_id": 79, "eos_token_id": 0, "decoder_start_token_id": 79, "scale_embedding": True}
# Name → (architecture, its configuration beside LAYERS, what its generation_config.json says)
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "bart": ("Bart", {}, {}),  # must end at the last step
    "bart with a first token": ("Bart", {}, {"forced_bos_token_id": 0}),
    "bart with a head and a bias": (
        "Bart",
        {"tie_word_embeddings": False, "activation_function": "relu"},
        {"forced_eos_token_id": None},
    ),
    "mbart": ("MBart", {"scale_embedding": True, "decoder_start_token_id": 2}, {"forced_bos_token_id": 7}),
    "mbart that starts by its generation": ("MBart", {}, {"decoder_start_token_id": 5}),
    "marian": ("Marian", {**MARIAN, "activation_function": "swish"}, {"bad_words_ids": [[79]]}),
    "marian of an odd width": ("Marian", {**MARIAN, "d_model": 35, "encoder_attention_heads": 5}, {}),
}


def hugging_face_model(name: str) -> Any:
    """A random model; every tensor matters, and searches end at various lengths."""
    architecture, changes, generation = MODELS[name]
    kind = "MarianMTModel" if architecture == "Marian" else f"{architecture}ForConditionalGeneration"
    shape = LAYERS | changes
    shape["decoder_attention_heads"] = shape["encoder_attention_heads"]
    torch.manual_seed(sum(map(ord, name)))
    model = getattr(transformers, kind)(getattr(transformers, f"{architecture}Config")(**shape))
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            mean = 1.0 if "norm" in key and "weight" in key else 0.0
            torch.nn.init.normal_(parameter, mean, 0.25)
    with torch.no_grad():  # the end as likely as others: some outputs end by themselves
        model.lm_head.weight[model.config.eos_token_id] = model.lm_head.weight[10:40].sum(0) / 3
    if "bias" in name or architecture == "Marian":
        model.final_logits_bias.normal_(0, 0.5)
    if "head" in name:
        for stack in (model.model.encoder, model.model.decoder):
            stack.embed_tokens.weight.data.copy_(model.model.shared.weight)
    for key, value in generation.items():
        setattr(model.generation_config, key, value)
    return model.eval()


@pytest.fixture(params=MODELS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Seq2Seq, Path]:
    """Hugging Face's model, ours from its folder, and the folder."""
    theirs = hugging_face_model(request.param)
    theirs.save_pretrained(tmp_path / "hf")
    ours = load_network(tmp_path / "hf")
    assert isinstance(ours, Seq2Seq) and isinstance(ours.body, Bart)
    return theirs, ours, tmp_path / "hf"


def random_source(pad: int, *, padded: bool) -> Source:
    draw = torch.Generator().manual_seed(3)
    lengths = torch.full((SOURCES,), LONGEST)
    if padded:
        lengths = torch.randint(1, LONGEST + 1, (SOURCES,), generator=draw)
        lengths[0] = LONGEST
    tokens = torch.randint(3, SIZE - 1, (SOURCES, LONGEST), generator=draw)
    return Source(tokens.masked_fill_(~length_mask(lengths, LONGEST), pad), lengths)


def random_targets(count: int = SOURCES, time: int = 9) -> torch.Tensor:
    return torch.randint(3, SIZE - 1, (count, time), generator=torch.Generator().manual_seed(4))


def forward(model: Any, source: Source, targets: torch.Tensor, **options: Any) -> Any:
    return model(input_ids=source.tokens, attention_mask=source.token_mask.long(), decoder_input_ids=targets, **options)


def found_by(network: Any, source: Source, beams: int, ngram: int) -> list[list[int]]:
    memory = network.encode(source)
    options = GenerationConfig(beams=beams, max_new_tokens=STEPS, no_repeat_ngram=ngram)
    if beams == 1:
        found = greedy_or_sample(network, memory, options, list(range(memory.batch)))
    else:
        found = [best[0] for best in beam_search(network, memory, options)]
    return [h.ids + [network.eos_id] * h.finished for h in found]


@pytest.mark.parametrize("padded", [False, True])
@torch.inference_mode()
def test_logits_and_searches_are_those_of_transformers(pair: tuple[Any, Seq2Seq, Path], padded: bool) -> None:
    theirs, ours, folder = pair
    source, targets = random_source(ours.pad_id, padded=padded), random_targets()
    torch.testing.assert_close(
        ours.decode(targets, ours.encode(source)), forward(theirs, source, targets).logits, atol=1e-4, rtol=0
    )
    adapted = load_huggingface_network(folder)
    said: set[tuple[int, ...]] = set()
    for beams, ngram in ((1, 0), (1, 2), (4, 0), (4, 2)):  # a random network says the same again and again
        expected = theirs.generate(
            input_ids=source.tokens,
            attention_mask=source.token_mask.long(),
            num_beams=beams,
            no_repeat_ngram_size=ngram,
            do_sample=False,
            max_new_tokens=STEPS,
            max_length=None,
            length_penalty=1.0,
            early_stopping=False,
        )
        rows = [row[1 : row.index(ours.eos_id, 1) + 1 if ours.eos_id in row[1:] else None] for row in expected.tolist()]
        assert found_by(ours, source, beams, ngram) == rows
        assert found_by(adapted, source, beams, ngram) == rows
        said |= {tuple(row) for row in rows}
    assert len(said) > 10


@torch.inference_mode()
def test_cross_attention_is_that_of_transformers(pair: tuple[Any, Seq2Seq, Path]) -> None:
    theirs, ours, _ = pair
    source, targets = random_source(ours.pad_id, padded=True), random_targets()
    theirs.set_attn_implementation("eager")
    expected = forward(theirs, source, targets, output_attentions=True).cross_attentions
    found = ours.cross_attention(targets, ours.encode(source))
    assert found is not None
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_a_folder_of_ours_is_to_the_bit_that_of_transformers(pair: tuple[Any, Seq2Seq, Path]) -> None:
    theirs, ours, folder = pair
    save_network(ours, folder.parent / "ours")
    saved, first = (load_file(each / "model.safetensors") for each in (folder, folder.parent / "ours"))
    assert saved.keys() == first.keys() and all(torch.equal(saved[name], first[name]) for name in saved)
    back, report = type(theirs).from_pretrained(folder.parent / "ours", output_loading_info=True)
    assert not any(report.values())
    source, targets = random_source(ours.pad_id, padded=True), random_targets()
    assert torch.equal(forward(back.eval(), source, targets).logits, forward(theirs, source, targets).logits)
    for key in ("forced_bos_token_id", "forced_eos_token_id", "bad_words_ids", "eos_token_id", "pad_token_id"):
        assert getattr(back.generation_config, key) == getattr(theirs.generation_config, key), key
    back.save_pretrained(folder.parent / "again")
    again = load_network(folder.parent / "again")
    assert isinstance(again, Seq2Seq) and again.body.config == ours.body.config
    assert again.defaults == ours.defaults
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), ours.parameters(), strict=True))


@torch.inference_mode()
def test_without_generation_config_the_configuration_says_what_is_forced(tmp_path: Path) -> None:
    hugging_face_model("bart").save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    network = load_network(tmp_path)
    assert (network.defaults.forced_bos, network.defaults.forced_eos) == ((), (2,))


@torch.inference_mode()
def test_weights_of_the_bare_model_are_the_same(tmp_path: Path) -> None:
    theirs = hugging_face_model("bart")
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("model."): w for name, w in weights.items() if name != "final_logits_bias"}
    save_file(bare, tmp_path / "model.safetensors", metadata={"format": "pt"})
    ours, source = load_network(tmp_path), random_source(1, padded=True)
    targets = random_targets()
    torch.testing.assert_close(
        ours.decode(targets, ours.encode(source)), forward(theirs, source, targets).logits, atol=1e-4, rtol=0
    )


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "Bart", "decoder_ffn_dim": 64},
        {"architecture": "Bart", "activation_function": "tanh"},
        {"architecture": "MBart", "tie_word_embeddings": False},  # encoder and decoder embed apart
        {"architecture": "Marian", "share_encoder_decoder_embeddings": False, "tie_word_embeddings": False, **MARIAN},
    ],
    ids=str,
)
def test_what_we_do_not_compute_comes_through_the_adapter(change: dict[str, Any], tmp_path: Path) -> None:
    changes = dict(change)
    architecture = changes.pop("architecture")
    kind = "MarianMTModel" if architecture == "Marian" else f"{architecture}ForConditionalGeneration"
    config = getattr(transformers, f"{architecture}Config")(**LAYERS | changes)
    getattr(transformers, kind)(config).save_pretrained(tmp_path)
    assert isinstance(load_network(tmp_path), HuggingFaceNetwork)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"encoder_layers": 3}, "encoder.layers.2.self_attn_layer_norm.weight is missing"),
        ({"d_model": 64}, "shared.weight has the shape"),
        ({"max_position_embeddings": 9}, "encoder.embed_positions.weight has the shape"),
        ({"vocab_size": None}, "describes no network that can be made"),
        ({"encoder_layers": "two"}, "describes no network that can be made"),
        ({"activation_function": ["gelu"]}, "describes no network that can be made"),
    ],
)
def test_a_damaged_folder_is_named(change: dict[str, Any], line: str, tmp_path: Path) -> None:
    hugging_face_model("bart").save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(RequestError, match=line):
        load_network(tmp_path)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_bias_of_the_logits_is_in_the_loss_and_never_learns(precision: torch.dtype, smoothing: float) -> None:
    torch.manual_seed(0)
    theirs = hugging_face_model("marian")
    config = theirs.config
    body = bart.read(config.to_dict(), Weights(theirs.state_dict(), Path("memory")))
    network = Seq2Seq(body).to(precision).eval()
    source, labels = random_source(79, padded=True), random_targets()
    labels[1, 4:] = IGNORED
    nats, count = loss(network, Batch(source, labels, list(range(SOURCES))), smoothing)
    freeze(network, ["embedding"])
    assert body.logits_bias is not None and not body.logits_bias.requires_grad
    (nats / count).backward()
    mine = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    shifted = torch.cat((torch.full((SOURCES, 1), 79), labels[:, :-1].clamp(min=0)), dim=1)
    logits = network.decode(shifted, network.encode(source)).flatten(0, 1).float()
    expected = torch.nn.functional.cross_entropy(logits, labels.flatten(), label_smoothing=smoothing)
    expected.backward()
    exact = precision == torch.float32
    assert float(nats.detach()) / count == pytest.approx(float(expected.detach()), rel=1e-4 if exact else 2e-2)
    if exact:
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                torch.testing.assert_close(mine[name], parameter.grad, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("name", ["bart", "mbart", "marian"])
def test_gradients_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    theirs = hugging_face_model(name)
    theirs.save_pretrained(tmp_path)
    ours = load_network(tmp_path)
    assert isinstance(ours, Seq2Seq)
    source, labels = random_source(ours.pad_id, padded=True), random_targets()
    shifted = torch.cat((torch.full((SOURCES, 1), ours.start_id), labels[:, :-1]), dim=1)
    logits = forward(theirs, source, shifted).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
    nats, count = loss(ours, Batch(source, labels, list(range(SOURCES))))
    (nats / count).backward()
    body = ours.body
    assert isinstance(body, Bart)
    block, same = body.decoder[1], theirs.model.decoder.layers[1]
    for embedding in (body.embedding.weight, theirs.model.shared.weight):  # theirs learns no row of padding it reads
        assert embedding.grad is not None
        embedding.grad[ours.pad_id] = 0
    for mine, other in (
        (body.embedding.weight, theirs.model.shared.weight),
        (block.feedforward.wi.weight, same.fc1.weight),
        (block.feedforward.wo.bias, same.fc2.bias),
        (block.cross.q.weight, same.encoder_attn.q_proj.weight),
        (block.cross_norm.weight, same.encoder_attn_layer_norm.weight),
        (block.attention_norm.bias, same.self_attn_layer_norm.bias),
    ):
        assert mine.grad is not None and other.grad is not None
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-5, rtol=1e-3)
