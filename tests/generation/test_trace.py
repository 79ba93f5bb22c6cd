"""The trace of a generation: what `generate` says, the network's own probabilities, transformers' own attention."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sourcewise
from sourcewise.config import DataConfig, GenerationConfig, ModelConfig
from sourcewise.data.examples import Dataset, Example
from sourcewise.data.open import open_sources
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError
from sourcewise.evaluation import verdict
from sourcewise.evaluation.source_bits import source_bits
from sourcewise.generation import trace as parts
from sourcewise.generation.model import Model
from sourcewise.generation.trace import COLUMNS, ROWS, UNIT, picture, slot_name, visible
from sourcewise.model.families.registry import FAMILIES
from sourcewise.model.network import Seq2Seq
from tests.model.families.test_huggingface_parity import hugging_face_model
from tests.model.networks import DIMS, VOCABULARY, network
from tests.model.test_adapter import folder_of

TEXTS = ["ba do ki", "lu", "me no ba do ki lu me", "ba", "no no no"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["ba do ki lu me no one two"] * 3, VOCABULARY)


def made(tokenizer: Tokenizer, bridge: str | None = None, **changes: Any) -> Model:
    options = GenerationConfig(max_new_tokens=10)
    return Model(network(bridge, **changes), tokenizer, "tiny", generation=options)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Model:
    return made(tokenizer)


def matrix(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((frames, DIMS)).astype(np.float32)


OPTIONS = [{"beams": 1}, {"beams": 3}, {"sample": True, "seed": 5}, {"beams": 2, "no_repeat_ngram": 2}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("index", range(len(TEXTS)))
def test_the_output_is_what_generate_says(model: Model, options: dict[str, Any], index: int) -> None:
    traced = sourcewise.trace(model, TEXTS, index, **options)
    assert traced.output == model.generate(TEXTS, **options)[index]
    assert traced.source == TEXTS[index]
    ids = [step.id for step in traced.steps]
    assert model.tokenizer.decode(ids) == traced.output
    assert traced.finished == (ids[-1] == model.network.eos_id)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@torch.inference_mode()
def test_probabilities_are_the_networks_own_step_by_step(model: Model, options: dict[str, Any]) -> None:
    traced = sourcewise.trace(model, TEXTS, 2, **options)
    memory = model.network.encode(model.lay_out(open_sources(TEXTS)).source([2]))
    cache = model.network.new_cache(memory, 1, 10)
    last = model.network.start_id
    for step in traced.steps:
        p = model.network.decode(torch.tensor([[last]]), memory, cache)[0, -1].softmax(-1)
        assert step.p == pytest.approx(float(p[step.id]), rel=1e-4)
        best = p.topk(5)
        assert [c.id for c in step.likeliest] == best.indices.tolist()
        assert [c.p for c in step.likeliest] == pytest.approx(best.values.tolist(), rel=1e-4)
        last = step.id


def test_a_trace_does_not_depend_on_what_is_traced_beside_it(model: Model) -> None:
    together = sourcewise.trace(model, TEXTS, 2, beams=2, against=["ba ki"])
    alone = sourcewise.trace(model, TEXTS[2], beams=2, against=["ba ki"])
    assert together.attention is not None and alone.attention is not None
    assert np.array_equal(together.attention, alone.attention)
    assert [s.bits for s in together.steps] == [s.bits for s in alone.steps]


def test_source_bits_are_those_of_evaluation(model: Model) -> None:
    """With one other source, the mean over the tokens is evaluation's figure for a set that pairs just these two."""
    traced = sourcewise.trace(model, ["ba do ki", "lu me no"], beams=1)
    examples = open_sources(["ba do ki", "lu me no"])
    encoded = model.lay_out(examples)
    ids = [step.id for step in traced.steps]
    encoded.targets = [ids, ids]
    encoded.target_lengths = np.array([len(ids)] * 2)
    found = source_bits(model.network, encoded)
    expected = (found.shuffled[0] - found.nats[0]) / math.log(2) / len(ids)
    assert traced.bits == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert traced.against == "another source of those given"


def test_source_bits_are_averaged_over_the_nearest_others(model: Model) -> None:
    pool = ["ba", "do", "ki", "lu", "me", "no", "one", "two", "ba do", "ba do ki lu me no one two"]
    traced = sourcewise.trace(model, "no do", against=pool)
    assert traced.against == "8 other sources of those given"
    ones = [sourcewise.trace(model, "no do", against=[text]) for text in near(model, "no do", pool)]
    for step, *each in zip(traced.steps, *(one.steps for one in ones), strict=True):
        assert step.bits == pytest.approx(sum(e.bits for e in each) / 8, abs=1e-4)
        assert step.made_up == (step.bits < verdict.SOURCE_BITS)


def near(model: Model, text: str, pool: list[str]) -> list[str]:
    length = {t: len(model.tokenizer.encode(t)) for t in (text, *pool)}
    return sorted(pool, key=lambda t: abs(length[t] - length[text]))[:8]


def test_the_bound_of_a_token_is_that_of_the_verdict() -> None:
    assert parts.NO_SOURCE == verdict.SOURCE_BITS


def test_others_are_the_runs_own_where_one_source_is_given(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = made(tokenizer)
    rows = "".join(f"{text}\tone\n" for text in [*TEXTS, "do me", "ba do ki"])
    (tmp_path / "t.tsv").write_text(f"source\ttarget\n{rows}")
    model.data = DataConfig.model_validate({"root": str(tmp_path), "test": {"pairs": "t.tsv"}})
    assert sourcewise.trace(model, "ba do ki").against == "5 other sources of t.tsv"  # those that differ
    (tmp_path / "t.tsv").unlink()
    assert sourcewise.trace(model, "ba do ki").against == "an empty source"
    model.data = DataConfig.model_validate({"test": {"pairs": "hub:some/set"}})  # would be fetched
    assert sourcewise.trace(model, "ba do ki").against == "an empty source"


def test_where_no_source_differs_bits_are_unknown(model: Model) -> None:
    traced = sourcewise.trace(model, "")
    assert math.isnan(traced.bits) and not any(step.made_up for step in traced.steps)
    assert traced.against == "no other source is at hand"
    assert traced.to_dict()["source_bits"]["mean"] is None
    still = sourcewise.trace(made(model.tokenizer, "projection"), [np.ones((6, DIMS), np.float32)])  # type: ignore[list-item]
    assert math.isnan(still.bits)
    moving = sourcewise.trace(made(model.tokenizer, "projection"), [matrix(6)])  # type: ignore[list-item]
    assert moving.against == "a still source: its own mean frame throughout" and not math.isnan(moving.bits)


@pytest.mark.parametrize("bridge", ["projection", "attention", "convolution"])
@pytest.mark.parametrize("route", ["encoder", "bypass"])
def test_slots_of_features_are_ranges_of_frames(tokenizer: Tokenizer, bridge: str, route: str) -> None:
    traced = sourcewise.trace(made(tokenizer, bridge, route=route), [matrix(8), matrix(5, 1)], beams=2)  # type: ignore[list-item]
    assert [slot.frames for slot in traced.slots] == [(0, 3), (3, 6), (6, 8)]
    assert traced.attention is not None and traced.attention.shape[-1] == 3
    assert np.array_equal(traced.features, matrix(8))  # type: ignore[arg-type]
    assert traced.against == "another source of those given"


def test_latents_have_no_frames(tokenizer: Tokenizer) -> None:
    traced = sourcewise.trace(made(tokenizer, "perceiver"), [matrix(8)])  # type: ignore[list-item]
    assert [(slot.kind, slot.frames) for slot in traced.slots] == [("latent", None)] * 5
    assert slot_name(traced.slots, 4) == "latent 5"


def test_a_prompt_stands_before_the_frames(tokenizer: Tokenizer) -> None:
    prompted = Dataset([Example("a", "", "ba do", 7)], "set", DIMS, lambda i: matrix(7))
    traced = sourcewise.trace(made(tokenizer, "projection"), prompted)
    kinds = [slot.kind for slot in traced.slots]
    assert kinds == ["prompt"] * (len(kinds) - 3) + ["frames"] * 3 and len(kinds) > 3
    assert traced.attention is not None and traced.attention.shape[-1] == len(kinds)


def test_what_is_cut_is_told(tokenizer: Tokenizer) -> None:
    model = made(tokenizer)
    model.data = DataConfig(max_source=4)
    whole = len(tokenizer.encode(TEXTS[2]))
    traced = sourcewise.trace(model, TEXTS[2])
    assert len(traced.slots) == 4 and traced.unread == whole - 4
    model = made(tokenizer, "projection")
    model.data = DataConfig(max_frames=6)
    traced = sourcewise.trace(model, [matrix(8)])  # type: ignore[list-item]
    assert traced.unread == 2 and traced.features is not None and len(traced.features) == 6


@pytest.mark.parametrize("family", ["t5 relu tied", "t5 gated untied", "bart", "mbart", "marian"])
def test_weights_are_those_of_transformers(family: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    if family.startswith("t5"):
        hugging_face_model(family).save_pretrained(tmp_path)
    else:
        folder_of(family, tmp_path)
    tokenizer.save(tmp_path)
    model = sourcewise.load(tmp_path)
    traced = sourcewise.trace(model, TEXTS[2], max_new_tokens=9, beams=2)
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    source, ids = tokenizer.encode(TEXTS[2]), [step.id for step in traced.steps]
    with torch.no_grad():
        out = theirs(
            input_ids=torch.tensor([source]),
            decoder_input_ids=torch.tensor([[model.network.start_id, *ids[:-1]]]),
            output_attentions=True,
        )
    expected = torch.cat(out.cross_attentions).numpy()  # (layers, heads, time, slots)
    assert traced.attention is not None
    assert np.abs(traced.attention - expected).max() < 1e-5
    packed = traced.to_dict()["attention"]
    assert np.abs(np.array(packed["weights"]) * packed["unit"] - expected).max() < 1e-5
    assert [step.p for step in traced.steps] == pytest.approx(
        out.logits[0].softmax(-1)[range(len(ids)), ids].tolist(), rel=1e-3
    )


def test_a_network_without_attention_is_traced_all_the_same(tokenizer: Tokenizer, monkeypatch: Any) -> None:
    model = made(tokenizer)
    monkeypatch.setattr(model.network, "cross_attention", lambda tokens, memory: None)
    traced = sourcewise.trace(model, TEXTS, 2)
    assert traced.attention is None and traced.weights() is None and traced.to_dict()["attention"] is None
    assert len(traced.slots) == len(tokenizer.encode(TEXTS[2])) and not math.isnan(traced.bits)


FAMILY_OPTIONS = [
    {"family": "bart"},
    {"family": "rnn"},
    {"family": "rnn", "attention": "none"},
    {"family": "decoder", "prefix": "full"},
]


@pytest.mark.parametrize("options", FAMILY_OPTIONS, ids=lambda options: "-".join(options.values()))
def test_every_family_is_traced(options: dict[str, str], tokenizer: Tokenizer) -> None:
    shape = {"d_model": 16, "d_ff": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}
    config = ModelConfig.model_validate({**shape, **options})
    torch.manual_seed(3)
    body = FAMILIES[config.family].make(config, tokenizer, False)
    model = Model(Seq2Seq(body).eval(), tokenizer, generation=GenerationConfig(max_new_tokens=6, min_new_tokens=3))
    traced = sourcewise.trace(model, TEXTS, 2, beams=2)
    assert traced.output == model.generate(TEXTS, beams=2)[2]
    assert (traced.attention is None) == (options.get("attention") == "none")
    assert [slot.text for slot in traced.slots] == tokenizer.pieces(tokenizer.encode(TEXTS[2]))
    score = sum(math.log(step.p) for step in traced.steps) / len(traced.steps)
    assert traced.score == pytest.approx(score, rel=1e-4)


def test_weights_are_chosen_or_averaged(model: Model) -> None:
    traced = sourcewise.trace(model, TEXTS[2])
    assert traced.attention is not None
    assert np.array_equal(traced.weights(1, 2), traced.attention[1, 2].astype(np.float64))  # type: ignore[arg-type]
    assert np.allclose(traced.weights(), traced.attention.mean((0, 1)))  # type: ignore[arg-type]
    assert np.allclose(traced.weights(layer=0), traced.attention[0].mean(0))  # type: ignore[arg-type]
    assert np.allclose(traced.weights(head=1), traced.attention[:, 1].mean(0))  # type: ignore[arg-type]
    assert np.allclose(traced.attention.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("beams", [2, 3, 5])
def test_the_beams_lead_to_the_results(model: Model, beams: int, penalty: float) -> None:
    for index in range(len(TEXTS)):
        traced = sourcewise.trace(model, TEXTS, index, beams=beams, length_penalty=penalty)
        assert traced.beams is not None
        ended = {}
        for t, step in enumerate(traced.beams):
            assert sum(not beam.ended for beam in step) <= beams
            for beam in step:
                above = traced.beams[t - 1][beam.parent] if t else None
                assert (above is None) == (beam.parent == -1)
                assert above is None or (above.score >= beam.score and not above.ended)
                if beam.rank is not None:
                    ended[beam.rank] = (t, beam)
                    assert beam.ended and beam.lived
        assert sorted(ended) == list(range(len(ended))) and 1 <= len(ended) <= beams
        scores = [beam.score / (t + 1) ** penalty for t, beam in (ended[rank] for rank in sorted(ended))]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] == pytest.approx(traced.score, rel=1e-5)
        path, (t, beam) = [], ended[0]
        while beam is not None:
            path.append(beam.id)
            t, beam = t - 1, traced.beams[t - 1][beam.parent] if t else None  # type: ignore[assignment]
        assert path[::-1] == [step.id for step in traced.steps]


def test_the_json_is_as_documented(model: Model) -> None:
    traced = sourcewise.trace(model, TEXTS, 2, beams=2, what_if=True)
    tree = json.loads(traced.to_json())
    assert tree == json.loads(json.dumps(traced.to_dict()))
    known = ["version", "model", "source", "output", "source_bits", "steps", "attention", "self_attention", "beams"]
    assert list(tree) == [*known, "what_if"]
    page = (Path(__file__).parents[2] / "docs" / "trace.md").read_text(encoding="utf-8")
    assert all(f'"{key}"' in page for key in keys_of(tree))
    weights = np.array(tree["attention"]["weights"]) * tree["attention"]["unit"]
    assert traced.attention is not None and np.abs(weights - traced.attention).max() <= UNIT / 2 + 1e-9
    features = sourcewise.trace(made(model.tokenizer, "projection"), [matrix(8)])  # type: ignore[list-item]
    assert all(f'"{key}"' in page for key in keys_of(json.loads(features.to_json())))


def keys_of(tree: Any) -> set[str]:
    if isinstance(tree, dict):
        return {*tree, *(key for value in tree.values() for key in keys_of(value))}
    return {key for value in tree for key in keys_of(value)} if isinstance(tree, list) else set()


@given(st.integers(1, 700), st.integers(1, 100), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_a_picture_is_small_and_grey(frames: int, dims: int, seed: int) -> None:
    features = np.random.default_rng(seed).standard_normal((frames, dims))
    drawn = picture(features)
    rows = np.array(drawn["rows"])
    assert rows.shape == (min(dims, ROWS), min(frames, COLUMNS))
    assert rows.min() >= 0 and rows.max() <= 255 and (drawn["frames"], drawn["dims"]) == (frames, dims)


def test_a_picture_keeps_places() -> None:
    features = np.zeros((2 * COLUMNS, 2))
    features[COLUMNS : COLUMNS + 40, 1] = 9.0
    rows = np.array(picture(features)["rows"])
    assert rows[0].max() == 0 and rows[1].argmax() == COLUMNS // 2 and (rows[1] > 0).sum() == 20


def test_texts_of_tokens_are_safe_to_look_at() -> None:
    assert visible(" the") == "the"
    assert visible("▁") == "␣" and visible("  ") == "␣" and visible("\n") == "⏎"
    assert visible("a\x1b[31mb\t") == "a·[31mb"


@pytest.mark.parametrize(
    ("options", "told"), [({"beam": 3}, r"beam.*beams"), ({"max_new_tokens": 0}, "max_new_tokens")]
)
def test_wrong_requests_are_refused(model: Model, options: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        sourcewise.trace(model, "ba", **options)
    with pytest.raises(RequestError, match="reads text"):
        sourcewise.trace(model, [matrix(3)])  # type: ignore[list-item]
    with pytest.raises(RequestError, match="no sources"):
        sourcewise.trace(model, [])
