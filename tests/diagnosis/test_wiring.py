"""The wiring rules: faults planted in healthy small networks are found, the cause first; healthy networks have none."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sourcewise.config import Recipe
from sourcewise.data.batches import IGNORED, Batch
from sourcewise.data.layout import Layout
from sourcewise.data.mixtures import encode_training, join
from sourcewise.data.open import open_sets
from sourcewise.diagnosis import ours
from sourcewise.diagnosis.borrowing import borrowed
from sourcewise.diagnosis.finding import Finding
from sourcewise.diagnosis.measures import wiring
from sourcewise.diagnosis.ranking import ranked
from sourcewise.diagnosis.rules import look
from sourcewise.diagnosis.wiring import Wiring, one_batch
from sourcewise.model import attention
from sourcewise.model.attention import MASKED
from sourcewise.model.builder import build_network
from sourcewise.model.families.huggingface import HuggingFaceNetwork
from sourcewise.model.loss import LinearCrossEntropy
from sourcewise.training.setup import TrainingSetup, open_tokenizer

DIGITS = {"data__train": {"builtin": "digits", "limit": 60}}
HEALTHY: dict[str, dict[str, Any]] = {
    "t5": {},
    "t5 untied": {"model__tied": False, "model__activation": "gated-gelu"},
    "t5 larger": {"model__d_model": 128, "model__heads": 4, "model__encoder_layers": 6},
    "bart": {"model__family": "bart"},
    "rnn": {"model__family": "rnn"},
    "rnn fixed": {"model__family": "rnn", "model__attention": "none", "model__cell": "lstm"},
    "decoder": {"model__family": "decoder"},
    **{f"{kind} bridge": DIGITS | {"model__bridge__kind": kind} for kind in ("projection", "attention", "perceiver")},
    "digits": DIGITS,
    "digits behind a feature encoder": DIGITS | {"model__feature_encoder__layers": 2},
    "digits bart": DIGITS | {"model__family": "bart"},
    "digits rnn": DIGITS | {"model__family": "rnn"},
    "digits decoder": DIGITS | {"model__family": "decoder"},
}


def wiring_findings(training: TrainingSetup) -> list[Finding]:
    return list(look(ours.before(training)[1], codes="WIR* -WIR015..WIR020").findings)


def check_network(network: Any, batch: Batch, begins: int | None = None) -> list[Finding]:
    return list(look(Wiring(network, batch, begins=begins)).findings)


def prepared(**changes: Any) -> TrainingSetup:
    """A small training about to begin; `changes` are dotted keys with __ for dots."""
    tree: dict[str, Any] = {
        "name": "tiny",
        "data": {"train": {"builtin": "dates", "limit": 60}, "vocabulary": 64},
        "model": {"d_model": 32, "d_ff": 64, "heads": 2, "encoder_layers": 2, "decoder_layers": 2},
        "train": {"steps": 300, "threads": 1},
    }
    for key, value in changes.items():
        *sections, last = key.split("__")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
    recipe = Recipe.model_validate(tree)
    sets = open_sets(recipe.data, "train")
    tokenizer = open_tokenizer(recipe, sets)
    torch.manual_seed(recipe.seed)
    network = build_network(recipe.model, tokenizer, join(sets))
    return TrainingSetup(recipe, tokenizer, network, encode_training(sets, tokenizer, recipe.data, recipe.seed))


def codes(training: TrainingSetup) -> list[str]:
    """What is found, ranked, notes left out."""
    return [finding.code for finding in ranked(wiring_findings(training)) if finding.level != "note"]


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_found_on_healthy_networks(name: str) -> None:
    assert wiring_findings(prepared(**HEALTHY[name])) == []


@pytest.mark.parametrize("layers", [0, 2])
def test_a_bypass_that_was_asked_for_is_a_note(layers: int) -> None:
    (found,) = wiring_findings(prepared(**DIGITS, model__route="bypass", model__feature_encoder__layers=layers))
    assert (found.code, found.level) == ("WIR004", "note")


def test_measuring_changes_nothing() -> None:
    training = prepared(**DIGITS, model__dropout=0.3)
    network = training.network.train()
    weights = {name: (p.data_ptr(), p.clone()) for name, p in network.named_parameters()}
    torch.manual_seed(5)
    wiring_findings(training)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert network.training and all(module.training for module in network.modules())
    for name, parameter in network.named_parameters():
        pointer, kept = weights[name]
        assert parameter.data_ptr() == pointer and torch.equal(parameter, kept)
        assert parameter.grad is None and parameter.requires_grad


def test_a_failure_gives_borrowed_weights_back() -> None:
    network = prepared().network.to(torch.bfloat16)
    with pytest.raises(ZeroDivisionError), borrowed(network):
        assert {p.dtype for p in network.parameters()} == {torch.float32}
        raise ZeroDivisionError
    assert {p.dtype for p in network.parameters()} == {torch.bfloat16}


def test_bf16_networks_are_measured_in_full() -> None:
    training = prepared()
    assert check_network(training.network.to(torch.bfloat16), one_batch(training.train)) == []


def test_other_content_and_garbage_keep_what_they_should() -> None:
    training = prepared()
    source = one_batch(training.train).source
    assert source.tokens is not None and source.token_lengths is not None
    other, padded = source.exchanged(), source.with_garbage(training.network.vocabulary, 8, torch.Generator())
    assert other is not None and other.tokens is not None and padded is not None and padded.tokens is not None
    for row, length in enumerate(source.token_lengths.tolist()):
        assert other.tokens[row, length - 1] == training.tokenizer.eos_id
        assert torch.equal(other.tokens[row, length:], source.tokens[row, length:])
        assert torch.equal(padded.tokens[row, :length], source.tokens[row, :length])
    assert not torch.equal(other.tokens, source.tokens) and padded.tokens.shape[1] > source.tokens.shape[1]


def test_alike_sources_are_not_taken_for_a_cut_path() -> None:
    training = prepared()
    batch = one_batch(training.train.select([0] * 12))
    assert batch.source.exchanged() is None
    assert check_network(training.network, batch) == []


# ── planted faults ────────────────────────────────────────────────────────────────────────────────────────────────────


def detached(network: Any) -> None:
    """The decoder reads nothing of the source: its cross-attention is projected to zero."""
    for block in network.body.decoder:
        block.cross.out.weight.data.zero_()


def blind_bridge(network: Any) -> None:
    for parameter in network.bridge.norm.parameters():
        parameter.data.zero_()


def true_bypass(network: Any) -> None:
    network.body.encode = network.body.bypass


def unmasked(layout: Layout, device: torch.device) -> None:
    return None


def inverted(layout: Layout, device: torch.device) -> torch.Tensor:
    mask = layout.on(device).mask
    return torch.zeros(mask.shape).masked_fill_(mask, MASKED)[:, None, None]


def tell_future(network: Any) -> None:
    network.body.future = lambda time: torch.zeros(time, time, dtype=torch.bool)


def tell_next(network: Any) -> None:
    """The mask is one position off."""
    network.body.future = lambda time: torch.ones(time, time, dtype=torch.bool).triu(2)


def nan(network: Any) -> None:
    next(iter(network.body.decoder.parameters())).data[0] = float("nan")


@pytest.mark.parametrize(
    ("code", "plant", "changes"),
    [
        ("WIR001", nan, {}),
        ("WIR004", true_bypass, {}),
        ("WIR004", true_bypass, DIGITS),
        ("WIR004", true_bypass, {"model__family": "rnn"}),
        ("WIR006", tell_future, {}),
        ("WIR006", tell_next, {}),
        ("WIR006", tell_future, {"model__family": "bart"}),
        ("WIR011", detached, {}),
        ("WIR011", blind_bridge, DIGITS),
    ],
)
def test_cut_and_leaking_paths_are_found(code: str, plant: Any, changes: dict[str, Any]) -> None:
    training = prepared(**changes)
    plant(training.network)
    assert codes(training) == [code]


@pytest.mark.parametrize("changes", [{}, DIGITS, {"model__family": "bart"}])
@pytest.mark.parametrize(("bias", "said"), [(unmasked, "moves the logits"), (inverted, "inverted")])
def test_padding_that_is_read_is_found(
    bias: Any, said: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = prepared(**changes)
    monkeypatch.setattr(attention, "padding_bias", bias)
    (found,) = wiring_findings(training)
    assert found.code == "WIR005" and said in found.evidence


def test_cross_attention_that_sees_no_slot_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every slot masked: the softmax is even, over padding too."""
    training = prepared()
    blind = torch.full((1, 1, 1, 1), MASKED)
    monkeypatch.setattr(attention, "padding_bias", lambda layout, device: blind)
    assert codes(training)[0] == "WIR005"


def labelled(training: TrainingSetup, change: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is found where the training set lays out other labels."""
    usual = type(training.train).batch

    def batch(self: Any, *args: Any, **kwargs: Any) -> Batch:
        made = usual(self, *args, **kwargs)
        made.labels = change(made.labels, training.network)
        return made

    monkeypatch.setattr(type(training.train), "batch", batch)
    return codes(training)


def without_end(labels: torch.Tensor, network: Any) -> torch.Tensor:
    return labels.masked_fill(labels == network.eos_id, IGNORED)


def counted_padding(labels: torch.Tensor, network: Any) -> torch.Tensor:
    return labels.masked_fill(labels == IGNORED, network.pad_id)


def begun(labels: torch.Tensor, network: Any) -> torch.Tensor:
    return torch.cat((torch.full_like(labels[:, :1], network.start_id), labels), dim=1)


@pytest.mark.parametrize(("code", "change"), [("WIR009", without_end), ("WIR008", counted_padding), ("WIR007", begun)])
@pytest.mark.parametrize("family", ["t5", "rnn"])
def test_wrong_labels_are_found(code: str, change: Any, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert labelled(prepared(**DIGITS, model__family=family), change, monkeypatch)[0] == code


@pytest.mark.parametrize(
    ("begins", "cut", "level"), [(True, False, "note"), (False, False, "error"), (True, True, "error")]
)
def test_a_start_token_of_the_tokenizer_itself_is_no_fault(begins: bool, cut: bool, level: str) -> None:
    """BERT2BERT and TrOCR are trained so; what has lost its end of text was shifted by hand."""
    training = prepared(**DIGITS)
    batch, network = one_batch(training.train), training.network
    batch.labels = begun(batch.labels, network)
    if cut:
        batch.labels = batch.labels.masked_fill(batch.labels == network.eos_id, IGNORED)
    found = check_network(network, batch, begins=network.start_id if begins else None)
    assert [f.level for f in found if f.code == "WIR007"] == [level]


def unshifted(labels: torch.Tensor, start_id: int, pad_id: int) -> torch.Tensor:
    return labels.masked_fill(labels == IGNORED, pad_id)


def shifted_twice(labels: torch.Tensor, start_id: int, pad_id: int) -> torch.Tensor:
    tokens = labels.roll(2, dims=1)
    tokens[:, :2] = start_id
    return tokens.masked_fill(tokens == IGNORED, pad_id)


def started_wrongly(labels: torch.Tensor, start_id: int, pad_id: int) -> torch.Tensor:
    tokens = labels.roll(1, dims=1)
    tokens[:, 0] = 3
    return tokens.masked_fill(tokens == IGNORED, pad_id)


@pytest.mark.parametrize(
    ("code", "shift", "said"),
    [
        ("WIR007", unshifted, "not shifted"),
        ("WIR007", shifted_twice, "shifted twice"),
        ("WIR010", started_wrongly, "3 as the start token"),
    ],
)
@pytest.mark.parametrize("where", ["sourcewise.model.network", "sourcewise.training.decoder_inputs"])
@pytest.mark.parametrize("family", ["t5", "bart", "rnn"])
def test_what_the_decoder_is_fed_is_found_out_by_the_loss(
    code: str, shift: Any, said: str, where: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = prepared(model__family=family)
    monkeypatch.setattr(f"{where}.shift_right", shift)
    (found,) = wiring_findings(training)
    assert found.code == code and said in found.evidence


def test_a_loss_over_padding_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    training = prepared()
    usual = LinearCrossEntropy.forward

    def counting(self: Any, states: Any, matrix: Any, labels: torch.Tensor, *options: Any) -> Any:
        return usual(self, states, matrix, labels.masked_fill(labels == IGNORED, training.network.pad_id), *options)

    monkeypatch.setattr(LinearCrossEntropy, "forward", counting)
    assert codes(training) == ["WIR008"]


@pytest.mark.parametrize(("summed", "like"), [(4.26e-4, None), (0.42, "")])
def test_what_a_certain_model_has_of_loss_is_rounding(
    summed: float, like: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = prepared()
    monkeypatch.setattr(wiring, "_nats", lambda *_: 4.2e-4)
    batch = one_batch(training.train)
    assert int((batch.labels != IGNORED).sum()) > 20
    assert wiring.measure_loss(training.network, batch, lambda _: summed).like == like


def test_a_start_token_out_of_place_is_found() -> None:
    training = prepared()
    training.network.start_id = 40
    assert codes(training) == ["WIR010"]


@pytest.mark.parametrize("family", ["t5", "bart", "rnn"])
@pytest.mark.parametrize("scale", [0.0, 100.0])
def test_zero_and_huge_weights_are_found(family: str, scale: float) -> None:
    training = prepared(model__family=family)
    for parameter in training.network.parameters():
        parameter.data *= scale
    assert codes(training)[0] == "WIR002"


def test_hugging_face_networks_are_measured_too() -> None:
    transformers = pytest.importorskip("transformers")
    training = prepared()
    shape = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
    config = transformers.T5Config(vocab_size=training.network.vocabulary, tie_word_embeddings=False, **shape)
    torch.manual_seed(0)
    network = HuggingFaceNetwork(transformers.T5ForConditionalGeneration(config).eval())
    batch = one_batch(training.train)
    assert check_network(network, batch) == []
    for block in network.model.decoder.block:
        block.layer[1].EncDecAttention.o.weight.data.zero_()
    assert [found.code for found in check_network(network, batch)] == ["WIR011"]


@pytest.mark.parametrize("family", ["t5", "bart", "decoder"])
@pytest.mark.parametrize("scale", [100.0, 10_000.0])
def test_padding_stays_hidden_from_weights_that_ran_away(family: str, scale: float) -> None:
    """Scores of attention reach 1e13 there: what is added to hide padding must be more."""
    training = prepared(model__family=family)
    with torch.no_grad():
        for parameter in training.network.parameters():
            parameter.mul_(scale)
    paths = ours.before(training)[1].paths
    assert paths.padding == 0 and paths.future == 0


def test_a_network_that_rounding_moves_is_not_said_to_read_what_it_may_not() -> None:
    training = prepared(model__family="rnn")
    with torch.no_grad():
        for parameter in training.network.parameters():
            parameter.mul_(10)
    paths = ours.before(training)[1].paths
    assert paths.slight > 1e-3 and paths.leak == wiring.CHAOTIC * paths.slight
    assert ours.before(prepared(model__family="rnn"))[1].paths.leak == wiring.LEAK
