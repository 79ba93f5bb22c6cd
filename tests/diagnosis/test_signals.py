"""What runs through a network: healthy ones show nothing, each fault its own finding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sourcewise.diagnosis import ours
from sourcewise.diagnosis.answer import Piece
from sourcewise.diagnosis.measures import signals as measured
from sourcewise.diagnosis.rules import RULES, look
from sourcewise.model.network import Seq2Seq
from sourcewise.training.setup import TrainingSetup
from tests.diagnosis.test_wiring import DIGITS, HEALTHY, prepared


def looked(training: TrainingSetup) -> Piece:
    return look(ours.before(training)[1], codes="WIR015..WIR019")


def found(training: TrainingSetup) -> list[tuple[str, str]]:
    return [(finding.code, finding.level) for finding in looked(training).findings]


@pytest.mark.parametrize("name", ["t5", "t5 untied", "bart", "rnn", "decoder", "digits", "perceiver bridge"])
def test_healthy_networks_show_nothing(name: str) -> None:
    assert found(prepared(**HEALTHY[name])) == []


def test_looking_leaves_the_network_as_it_was() -> None:
    training = prepared(**DIGITS, model__dropout=0.6)
    kept = {name: p.clone() for name, p in training.network.named_parameters()}
    training.network.train()
    torch.manual_seed(3)
    looked(training)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1)) and training.network.training
    assert all(torch.equal(kept[name], p) and p.grad is None for name, p in training.network.named_parameters())


@pytest.mark.parametrize(("factor", "level"), [(8.0, "warning"), (10_000.0, "error"), (1e-4, "warning")])
def test_activations_far_from_one(factor: float, level: str) -> None:
    training = prepared()
    with torch.no_grad():
        for name, parameter in training.network.named_parameters():
            if "norm" not in name:
                parameter *= factor if parameter.ndim > 1 else 1
    assert [lv for code, lv in found(training) if code == "WIR016"] == [level]


def test_pretrained_blocks_may_be_large(tmp_path: Path) -> None:
    training = prepared()
    with torch.no_grad():
        training.network.body.embedding.weight.mul_(1000)  # type: ignore[attr-defined]
    recipe = training.recipe.model_copy(update={"model": training.recipe.model.model_copy(update={"weights": "x"})})
    trained = TrainingSetup(recipe, training.tokenizer, training.network, training.train)
    assert "WIR016" not in [code for code, _ in found(trained)]


@pytest.mark.parametrize(("rate", "level"), [(0.9, "error"), (0.6, "warning"), (0.3, None)])
def test_dropout(rate: float, level: str | None) -> None:
    assert [lv for code, lv in found(prepared(model__dropout=rate)) if code == "WIR018"] == [level][: level is not None]


def long_sources(folder: Path, words: int) -> dict[str, Any]:
    path = folder / "long.tsv"
    rows = [" ".join(f"w{(i * j) % 17}" for j in range(1, words)) + f"\tone two three t{i % 9} four" for i in range(30)]
    path.write_text("source\ttarget\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return {"data": {"train": {"pairs": str(path)}, "vocabulary": 64, "unit": "words", "max_source": 1024}}


def test_the_blocks_of_a_decoder_only_stack_are_seen() -> None:
    training = prepared(model__family="decoder")
    sizes = measured.measure_activations(training.network, measured.long_batch(training.train))
    assert {stack: len(each) for stack, each in sizes.items()} == {"decoder": len(training.network.body.decoder)}  # type: ignore[attr-defined]
    with torch.no_grad():
        training.network.body.decoder[1].feedforward.wo.weight.mul_(1000)  # type: ignore[attr-defined]
    larger = measured.measure_activations(training.network, measured.long_batch(training.train))["decoder"]
    assert larger[0] == sizes["decoder"][0] and larger[1] > 50 > sizes["decoder"][1]
    assert "WIR016" in [code for code, _ in found(training)]


def test_one_vector_for_a_long_source(tmp_path: Path) -> None:
    assert ("WIR019", "note") in found(prepared(**HEALTHY["rnn fixed"]))
    assert ("WIR019", "note") in found(prepared(**DIGITS, model__family="rnn", model__attention="none"))
    pooled = {**DIGITS, "model__bridge__kind": "perceiver", "model__bridge__latents": 1}
    assert ("WIR019", "warning") in found(prepared(**pooled))


def test_gradients_that_fade_along_a_long_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "TRIAL_FLOPS", 0.0)
    data = long_sources(tmp_path, 400)
    recurrent = {"model__family": "rnn", "model__attention": "none"}
    assert ("WIR015", "warning") in found(prepared(**data, **recurrent))
    monkeypatch.setattr(type(RULES["WIR015"]), "error", 0.0)
    assert ("WIR015", "note") in found(prepared(**data, **recurrent))  # as the recipe asks
    monkeypatch.setattr(Seq2Seq, "attends", True)
    assert ("WIR015", "warning") in found(prepared(**data, **recurrent))
    assert "WIR015" not in [code for code, _ in found(prepared(**data))]


def test_gradients_are_those_of_the_real_slots_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source whose vectors are told the less the later they stand."""
    training = prepared()
    encode = training.network.body.encode

    def weaker(vectors: torch.Tensor, layout: Any) -> Any:
        share = (10.0 ** (-6 * torch.arange(vectors.shape[1]) / layout.longest))[None, :, None]
        return encode(vectors.detach() + share * (vectors - vectors.detach()), layout)

    monkeypatch.setattr(training.network.body, "encode", weaker)
    fading = measured.measure_fading(training.network, measured.long_batch(training.train))
    assert fading is not None
    assert all(early > late for early, late in zip(fading.eighths, fading.eighths[1:], strict=False))


def test_what_cannot_be_learned_by_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    training = prepared()
    assert ("WIR017", "error") not in found(training)
    projection = Seq2Seq.projection
    with monkeypatch.context() as patched:  # the states reach the output matrix without a gradient, and all alike
        patched.setattr(
            Seq2Seq,
            "projection",
            lambda *given, **how: (0 * (out := projection(*given, **how))[0] + 1e-3, out[1].detach(), out[2]),
        )
        assert ("WIR017", "error") in found(training)


def test_what_is_too_large_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    training = prepared()
    assert looked(training).not_checked == []
    monkeypatch.setattr(measured, "TRIAL_FLOPS", 1.0)
    assert "WIR017" in " ".join(looked(training).not_checked)
    assert "WIR017" not in [code for code, _ in found(training)]
    monkeypatch.undo()
    monkeypatch.setattr(measured, "TRIAL_SECONDS", 0.0)
    learning = ours.before(training)[1].learning
    assert learning is not None
    assert measured.learn_by_heart(training.network, measured.long_batch(training.train), learning) is None
