"""A network with its tokenizer: encode once, generate often, stream, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import Notice, RequestError
from sourcewise.generation.model import Model, load
from sourcewise.runtime.device import choose_device
from tests.commands import Models
from tests.model.networks import DIMS, VOCABULARY, network

TEXTS = ["ba do ki", "lu", "me no ba do ki lu me", "ba", "no no no"]


@pytest.fixture(scope="module")
def model() -> Model:
    tokenizer = Tokenizer.train(["ba do ki lu me no one two"] * 3, VOCABULARY)
    assert tokenizer.size <= VOCABULARY
    made = Model(network(), tokenizer, "tiny")
    return Model(made.network, tokenizer, "tiny", generation=made.options(max_new_tokens=10, batch_tokens=16))


def test_sources_are_read_once_and_generated_from_often(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {beams: model.generate(TEXTS, beams=beams) for beams in (1, 3)}
    memories = model.encode(TEXTS)
    assert len(memories) == len(TEXTS) and len(memories.batches) > 1
    monkeypatch.setattr(model.network, "encode", lambda source: pytest.fail("read again"))
    for beams in (1, 3, 1):
        assert model.generate(memories, beams=beams) == expected[beams]
    assert model.generate(memories, sample=True, seed=3) == model.generate(memories, sample=True, seed=3)


def test_outputs_come_in_the_order_of_the_sources_whatever_their_lengths(model: Model) -> None:
    together = model.generate(TEXTS, beams=2)
    assert together == [model.generate(text, beams=2)[0] for text in TEXTS]
    assert model.generate(TEXTS[::-1], beams=2) == together[::-1]


@pytest.mark.parametrize("text", TEXTS)
def test_the_stream_joined_is_the_greedy_output(model: Model, text: str) -> None:
    assert "".join(model.stream(text)) == model.generate(text, beams=1)[0]
    assert "".join(model.stream(text, sample=True, seed=2)) == model.generate(text, sample=True, seed=2)[0]


def test_a_stream_that_ends_in_half_a_character_gives_it_all_the_same(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.tokenizer, "decode", lambda ids: "x" * (len(ids) - 1) + "\ufffd")
    pieces = list(model.stream("ba do", max_new_tokens=4, min_new_tokens=4))
    assert "".join(pieces) == "xxx\ufffd"


def test_progress_counts_every_source(model: Model) -> None:
    seen: list[tuple[int, int]] = []
    model.generate(TEXTS, beams=1, progress=lambda done, of: seen.append((done, of)))
    assert seen[-1] == (5, 5) and [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"beam": 3}, r"beam.*beams"),
        ({"beams": 0}, "beams"),
        ({"beams": "many"}, "beams"),
        ({"temperature": 0}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"min_new_tokens": 11}, "min_new_tokens 11 is above max_new_tokens 10"),
    ],
)
def test_a_wrong_option_is_named(model: Model, options: dict[str, object], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        model.generate("ba", **options)
    with pytest.raises(RequestError, match=told):
        next(model.stream("ba", **options))


def test_sources_of_another_kind_are_refused(model: Model) -> None:
    with pytest.raises(RequestError, match="no sources"):
        model.generate([])
    with pytest.raises(RequestError, match="features 4 wide; tiny reads text"):
        model.generate([np.zeros((3, 4), dtype=np.float32)])  # type: ignore[list-item]
    reader = Model(network("projection"), model.tokenizer, "reader")
    with pytest.raises(RequestError, match=f"are text; reader reads features {DIMS} wide"):
        reader.generate("ba")
    with pytest.raises(RequestError, match="features 4 wide"):
        reader.generate([np.zeros((3, 4), dtype=np.float32)])  # type: ignore[list-item]
    assert len(reader.generate([np.zeros((3, DIMS), dtype=np.float32)], max_new_tokens=3)) == 1  # type: ignore[list-item]


def test_a_precision_that_does_not_exist_is_named() -> None:
    with pytest.raises(RequestError, match="precision fp8: not one of fp32, bf16, int8, auto"):
        load("nowhere", precision="fp8")
    with pytest.raises(RequestError, match="beside int8: not one of fp32, bf16"):
        load("nowhere", precision="int8", beside="int8")


def test_a_device_that_is_not_there_is_named() -> None:
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(RequestError, match="device cuda:99: not available"):
        choose_device("cuda:99")


def test_on_an_accelerator_auto_is_bf16_and_told(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    def dtype(**options: Any) -> torch.dtype:
        return next(load(models.text, **options).network.parameters()).dtype

    assert dtype(precision="auto") == torch.float32
    monkeypatch.setattr("sourcewise.generation.model.computes_bf16", lambda device: True)
    with pytest.warns(Notice, match=r"^generation: in bf16 on cpu, where near ties may .*; precision fp32 is exact$"):
        assert dtype(precision="auto") == torch.bfloat16
    assert dtype() == torch.float32
