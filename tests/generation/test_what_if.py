"""What if a part of the source were not there: against the same source written without it; and self-attention."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

import sourcewise
from sourcewise.config import GenerationConfig
from sourcewise.data.batches import Source, pad
from sourcewise.data.open import open_sources
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.generation.model import Model
from sourcewise.generation.what_if import MOST, STRETCHES, parts_of
from tests.generation.folders import KINDS, TOKENIZER
from tests.model.networks import DIMS, VOCABULARY, network

TEXT = "me no ba do ki"
OPTIONS: list[dict[str, Any]] = [{"beams": 1}, {"beams": 3}, {"sample": True, "seed": 5}]


@pytest.fixture(scope="module")
def model() -> Model:
    tokenizer = Tokenizer.train(["ba do ki lu me no one two"] * 3, VOCABULARY)
    return Model(network(), tokenizer, "tiny", generation=GenerationConfig(max_new_tokens=10))


def clip(frames: int = 20) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((frames, DIMS)).astype(np.float32)


def own_log2(model: Model, ids: list[int], token_ids: list[int]) -> list[float]:
    """log2 p of the tokens of an output, given these ids as a source: computed by hand."""
    network_ = model.network
    memory = network_.encode(Source(*pad([token_ids], model.tokenizer.pad_id)))
    inputs = torch.tensor([[network_.start_id, *ids[:-1]]])
    log_p = network_.decode(inputs, memory)[0].double().log_softmax(-1)
    return [float(log_p[t, token] / np.log(2)) for t, token in enumerate(ids)]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_word_is_taken_away(model: Model, options: dict[str, Any]) -> None:
    traced = sourcewise.trace(model, TEXT, what_if=True, **options)
    assert traced.what_if is not None and [each.part.text for each in traced.what_if] == TEXT.split()
    source, said = model.tokenizer.encode(TEXT), [step.id for step in traced.steps]
    with torch.inference_mode():
        whole = own_log2(model, said, source)
        for each in traced.what_if:
            rest = source[: each.part.start] + source[each.part.stop :]
            assert len(rest) < len(source)
            lost = np.array(whole) - own_log2(model, said, rest)
            assert np.abs(lost - each.bits).max() < 1e-4
            without = " ".join(word for word in TEXT.split() if word != each.part.text)
            if model.tokenizer.encode(without) == rest:
                assert each.output == model.generate([without], **options)[0]


def test_the_parts_cover_the_text_once_and_leave_its_end(model: Model) -> None:
    for text in (TEXT, "ba", " ".join(["ba do"] * 60)):
        encoded = model.lay_out(open_sources([text]))
        ids, parts = list(encoded.sources[0]), parts_of(encoded, 0)
        covered = [i for part in parts for i in range(part.start, part.stop)]
        assert len(parts) <= MOST and covered == list(range(len(ids) - 1))


def test_one_word_is_taken_apart_by_tokens(model: Model) -> None:
    traced = sourcewise.trace(model, "bado", what_if=True, beams=1)
    assert traced.what_if is not None
    ids = model.tokenizer.encode("bado")
    assert len(traced.what_if) == len(ids) - 1 > 1


def test_stretches_of_frames_are_made_still() -> None:
    tokenizer = Tokenizer.train(["ba do ki lu me no one two"] * 3, VOCABULARY)
    model = Model(network("convolution"), tokenizer, "tiny", generation=GenerationConfig(max_new_tokens=10))
    traced = sourcewise.trace(model, [clip(80)], what_if=True, beams=1)
    assert traced.what_if is not None and len(traced.what_if) == STRETCHES
    assert traced.what_if[0].part.start == 0 and traced.what_if[-1].part.stop == 80
    each = traced.what_if[3]
    still = clip(80)
    still[each.part.start : each.part.stop] = clip(80).mean(0)
    assert each.output == model.generate([still], beams=1)[0]
    few = sourcewise.trace(model, [clip(9)], what_if=True).what_if
    assert few is not None and [each.part.name for each in few] == ["frames 0–3", "frames 4–8"]


def test_json_has_it_where_it_was_asked_for(model: Model) -> None:
    tree = json.loads(sourcewise.trace(model, TEXT, what_if=True).to_json())
    assert [part["text"] for part in tree["what_if"]] == TEXT.split()
    assert all(len(part["bits"]) == len(tree["steps"]) for part in tree["what_if"])
    assert json.loads(sourcewise.trace(model, TEXT).to_json())["what_if"] is None


@pytest.mark.parametrize("name", KINDS)
def test_self_attention_is_that_of_transformers(name: str, tmp_path: Any) -> None:
    theirs = KINDS[name]().eval()
    theirs.save_pretrained(tmp_path)
    TOKENIZER.save(tmp_path)
    model = sourcewise.load(tmp_path, precision="fp32")
    traced = sourcewise.trace(model, "ran mol tiv", beams=1, max_new_tokens=6)
    theirs.set_attn_implementation("eager")
    source = torch.tensor([model.tokenizer.encode("ran mol tiv")])
    inputs = torch.tensor([[model.network.start_id, *[step.id for step in traced.steps][:-1]]])
    out = theirs(input_ids=source, decoder_input_ids=inputs, output_attentions=True)
    for stack, weights in (("encoder", out.encoder_attentions), ("decoder", out.decoder_attentions)):
        wanted = torch.stack(weights)[:, 0].detach().numpy()
        found = traced.self_attention[stack]
        assert found.shape == wanted.shape and np.abs(found - wanted).max() < 1e-3
        assert np.abs(found.sum(-1) - 1).max() < 1e-4


def test_watching_leaves_a_network_as_it_was(model: Model) -> None:
    before = model.generate([TEXT], beams=1)
    traced = sourcewise.trace(model, TEXT, beams=1)
    assert set(traced.self_attention) == {"encoder", "decoder"}
    assert model.generate([TEXT], beams=1) == before
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.network.modules())
    upper = np.triu(np.ones((len(traced.steps),) * 2, bool), 1)
    assert np.abs(traced.self_attention["decoder"][..., upper]).max() < 1e-6  # nothing of what comes later
