"""N-best lists, scores and options of a search: those of transformers' `generate`, source by source."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import sourcewise
from sourcewise.errors import Notice, RequestError
from sourcewise.generation.forced import continuing, met
from sourcewise.generation.model import Model, load
from tests.generation.folders import SOURCES, TOKENIZER, WORDS, change, write_folder

KINDS = ("t5", "bart", "marian", "bert2bert")  # the last two are computed by transformers' own classes
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # name → ours, theirs
    "plain": ({}, {}),
    "length penalty 2": ({"length_penalty": 2.0}, {"length_penalty": 2.0}),
    "length penalty 0": ({"length_penalty": 0.0}, {"length_penalty": 0.0}),
    "length penalty -1": ({"length_penalty": -1.0}, {"length_penalty": -1.0}),
    "stops early": ({"early_stopping": True}, {"early_stopping": True}),
    "goes on": ({"early_stopping": False}, {"early_stopping": False}),
    "never stops early": ({"early_stopping": "never"}, {"early_stopping": "never"}),
    "repetition penalty": ({"repetition_penalty": 1.4}, {"repetition_penalty": 1.4}),
    "n-grams": ({"no_repeat_ngram": 2}, {"no_repeat_ngram_size": 2}),
    "least length": ({"min_new_tokens": 4}, {"min_new_tokens": 4}),
    "several": (
        {"repetition_penalty": 0.8, "no_repeat_ngram": 3, "length_penalty": 0.6, "min_new_tokens": 2},
        {"repetition_penalty": 0.8, "no_repeat_ngram_size": 3, "length_penalty": 0.6, "min_new_tokens": 2},
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Model, Path]:
    path = tmp_path_factory.mktemp(request.param)
    model = write_folder(request.param, path)
    change(path, eos_token_id=[1, 9, 12])  # so that outputs end before the limit
    return model, load(path), path


@torch.inference_mode()
def theirs(model: Any, path: Path, source: str, count: int, **asked: Any) -> tuple[list[list[int]], list[float]]:
    """Ids without the start, and `sequences_scores`, of transformers' n best of one source."""
    model.generation_config = transformers.GenerationConfig.from_pretrained(path)
    ids = torch.tensor([TOKENIZER.encode(source)])
    how = {"num_beams": count, "num_return_sequences": count, "max_new_tokens": 10, "output_scores": True}
    found = model.generate(ids, return_dict_in_generate=True, **{**how, **asked})
    return [row[1:] for row in found.sequences.tolist()], found.sequences_scores.tolist()


def same(ours: sourcewise.generation.outputs.Outputs, rows: list[list[int]], scores: list[float], pad: int) -> None:
    assert len(ours.best_first) == len(rows)
    for output, row, score in zip(ours.best_first, rows, scores, strict=True):
        ids = list(output.ids)
        assert row[: len(ids)] == ids and set(row[len(ids) :]) <= {pad, 1}
        assert output.score == pytest.approx(score, abs=2e-5, rel=1e-5)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_n_best_and_their_scores_are_those_of_generate(pair: tuple[Any, Model, Path], name: str) -> None:
    model, opened, path = pair
    ours, asked = OPTIONS[name]
    found = opened.generate(SOURCES, n_best=4, beams=4, max_new_tokens=10, **ours)
    for outputs, source in zip(found.of, SOURCES, strict=True):
        same(outputs, *theirs(model, path, source, 4, **asked), opened.network.pad_id)


def two_hundred() -> dict[int, list[str]]:
    """200 sources by their number of tokens, so that transformers needs no padding."""
    draw, alike = random.Random(5), dict[int, list[str]]()
    for _ in range(200):
        source = " ".join(draw.choices(WORDS, k=draw.randint(1, 6)))
        alike.setdefault(len(TOKENIZER.encode(source)), []).append(source)
    return alike


def allowed(index: int, ids: torch.Tensor) -> list[int]:
    """Every third token from one on that the length says, or the end."""
    return [1, *range(10 + len(ids) % 3, 40, 3)]


def _bad_words(model: Any, words: Sequence[str]) -> list[list[int]]:
    spelt = [TOKENIZER.inner(text) for word in words for text in (word, f" {word}")]
    return (getattr(model.generation_config, "bad_words_ids", None) or []) + spelt


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("name", [*OPTIONS, "suppressed words", "a target prefix", "allowed tokens"])
def test_the_n_best_of_200_sources(pair: tuple[Any, Model, Path], name: str) -> None:
    model, opened, path = pair
    model.generation_config = transformers.GenerationConfig.from_pretrained(path)
    ours, asked = OPTIONS.get(name, ({}, {}))
    if name == "suppressed words":
        ours, asked = {"suppress": ["mol", "gab"]}, {"bad_words_ids": _bad_words(model, ["mol", "gab"])}
    elif name == "allowed tokens":
        ours, asked = {"allowed_tokens": allowed}, {"prefix_allowed_tokens_fn": allowed}
    elif name == "a target prefix":
        ours = {"target_prefix": "ran mol", "length_penalty": 1.5}
    how = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 10, "output_scores": True}
    for sources in two_hundred().values():
        if name == "a target prefix":
            begun = torch.tensor([[opened.network.start_id, *TOKENIZER.inner("ran mol")]] * len(sources))
            asked = {"decoder_input_ids": begun, "length_penalty": 1.5}
        found = opened.generate(sources, n_best=4, beams=4, max_new_tokens=10, **ours).of
        ids = torch.tensor([TOKENIZER.encode(source) for source in sources])
        told = model.generate(ids, return_dict_in_generate=True, **how, **asked)
        said, scores = told.sequences[:, 1:].view(len(sources), 4, -1), told.sequences_scores.view(len(sources), 4)
        for outputs, several, their in zip(found, said.tolist(), scores.tolist(), strict=True):
            same(outputs, several, their, opened.network.pad_id)


def test_suppressed_words_are_their_bad_words(pair: tuple[Any, Model, Path]) -> None:
    model, opened, path = pair
    words = ["mol", "gab", "hyl"]
    found = opened.generate(SOURCES, n_best=3, beams=3, max_new_tokens=10, suppress=words)
    own = opened.generate(SOURCES, n_best=3, beams=3, max_new_tokens=10)
    assert [each.best.ids for each in found.of] != [each.best.ids for each in own.of]
    bad = _bad_words(model, words)
    for outputs, source in zip(found.of, SOURCES, strict=True):
        same(outputs, *theirs(model, path, source, 3, bad_words_ids=bad), opened.network.pad_id)


def test_a_target_prefix_is_their_decoder_input(pair: tuple[Any, Model, Path]) -> None:
    """Neither its score nor its length counts, and outputs begin with it."""
    model, opened, path = pair
    prefix = TOKENIZER.inner("ran mol")
    options: dict[str, Any] = {"length_penalty": 1.5, "min_new_tokens": 2}
    found = opened.generate(SOURCES, n_best=3, beams=3, max_new_tokens=8, target_prefix="ran mol", **options)
    begun = torch.tensor([[opened.network.start_id, *prefix]])
    for outputs, source in zip(found.of, SOURCES, strict=True):
        rows, scores = theirs(model, path, source, 3, decoder_input_ids=begun, max_new_tokens=8, **options)
        same(outputs, rows, scores, opened.network.pad_id)
        assert all(each.text.startswith("ran mol") for each in outputs.best_first)
    greedy = opened.generate(SOURCES, beams=1, max_new_tokens=8, target_prefix="ran mol")
    assert all(text.startswith("ran mol") for text in greedy)


def test_what_ends_by_a_stop_text_has_not_reached_its_limit(tmp_path: Path) -> None:
    write_folder("t5", tmp_path)
    opened = load(tmp_path)
    free = opened.generate(SOURCES, beams=1, max_new_tokens=12)
    stop = next(text for text in (free[0][i : i + 2] for i in range(2, len(free[0]))) if text.strip() == text)
    for beams in (1, 3):
        found = opened.generate(SOURCES, beams=beams, max_new_tokens=12, stop=[stop])
        assert beams > 1 or any(stop in text for text in found)
        for text, outputs in zip(found, found.of, strict=True):
            assert outputs.best.finished or stop not in text
            assert outputs.best.text.count(stop) <= 1


def test_an_allowed_tokens_function_is_their_prefix_allowed_tokens_fn(pair: tuple[Any, Model, Path]) -> None:
    model, opened, path = pair
    for beams in (1, 3):
        found = opened.generate(SOURCES, beams=beams, max_new_tokens=8, allowed_tokens=allowed)
        for outputs, source in zip(found.of, SOURCES, strict=True):
            how = {"num_beams": beams, "num_return_sequences": 1, "max_new_tokens": 8, "output_scores": beams > 1}
            model.generation_config = transformers.GenerationConfig.from_pretrained(path)
            ids = torch.tensor([TOKENIZER.encode(source)])
            rows = model.generate(ids, prefix_allowed_tokens_fn=allowed, **how)
            rows = rows if isinstance(rows, torch.Tensor) else rows.sequences
            assert rows[0, 1 : 1 + len(outputs.best.ids)].tolist() == list(outputs.best.ids)


def test_each_source_has_its_own_allowed_tokens(pair: tuple[Any, Model, Path]) -> None:
    opened = pair[1]
    found = opened.generate(SOURCES, beams=2, max_new_tokens=4, allowed_tokens=lambda index, ids: [13 + index])
    assert [set(each.best.ids[:3]) for each in found.of] == [{13 + i} for i in range(len(SOURCES))]
    with pytest.raises(RequestError, match="allowed_tokens: nothing is allowed after"):
        opened.generate(SOURCES, beams=2, allowed_tokens=lambda index, ids: [])
    with pytest.raises(RequestError, match="allowed_tokens: no token has the id 4000; the model has"):
        opened.generate(SOURCES, beams=2, allowed_tokens=lambda index, ids: [3, 4000])


def test_samples_are_several_and_the_first_is_the_one_drawn_alone(pair: tuple[Any, Model, Path]) -> None:
    opened = pair[1]
    how: dict[str, Any] = {"sample": True, "seed": 3, "max_new_tokens": 8}
    found, alone = opened.generate(SOURCES, n_best=5, **how), opened.generate(SOURCES, **how)
    assert list(found) == list(alone)
    assert all(len(each.best_first) == 5 for each in found.of)
    assert max(len({output.ids for output in each.best_first}) for each in found.of) == 5
    apart = [opened.generate(SOURCES[i], n_best=5, first=i, **how).of[0] for i in range(len(SOURCES))]
    assert [[o.ids for o in each.best_first] for each in apart] == [[o.ids for o in e.best_first] for e in found.of]


def test_more_outputs_than_beams_are_refused_if_beams_are_named(pair: tuple[Any, Model, Path]) -> None:
    opened = pair[1]
    assert len(opened.generate(SOURCES[0], n_best=9).of[0].best_first) == 9
    with pytest.raises(RequestError, match="n_best 9 is above beams 4; set beams 9 or more, or sample"):
        opened.generate(SOURCES[0], n_best=9, beams=4)
    with pytest.raises(RequestError, match="n_best should be an integer from 1"):
        opened.generate(SOURCES[0], n_best=0)


def test_what_is_wrong_with_words_is_said(pair: tuple[Any, Model, Path]) -> None:
    opened = pair[1]
    for options, line in (
        ({"suppress": ["☃"]}, "'☃': the tokenizer cannot spell this word"),
        ({"suppress": [" "]}, "suppress has an empty text"),
        ({"stop": [""]}, "stop has an empty text"),
        ({"mbr": "chrf", "beams": 1}, "mbr chooses among several outputs: set beams above 1, or sample"),
        ({"mbr": "meteor"}, "mbr should be 'none', 'chrf', 'bleu' or 'comet', not 'meteor'"),
        ({"early_stopping": "soon"}, "early_stopping"),
    ):
        with pytest.raises(RequestError, match=line):
            opened.generate(SOURCES[0], **options)


@pytest.fixture(scope="module", params=KINDS)
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """With one end of text, which is no word."""
    path = tmp_path_factory.mktemp(f"plain-{request.param}")
    write_folder(request.param, path)
    return load(path)


def test_forced_words_come_in_every_output(plain: Model) -> None:
    opened = plain
    words = ["fus", "ran"]
    free = opened.generate(SOURCES, beams=6, max_new_tokens=16)
    assert not all(word in text for text in free for word in words)
    found = opened.generate(SOURCES, beams=6, n_best=3, max_new_tokens=16, force=words)
    assert all(word in each.text for outputs in found.of for each in outputs.best_first for word in words)
    with pytest.raises(RequestError, match="force is for a beam search"):
        opened.generate(SOURCES, beams=1, force=words)


def test_how_far_forced_words_have_got() -> None:
    words = (((5, 6, 7), (8, 6, 7)), ((9,),))  # the first in two spellings
    for ids, count, after in (
        ([], 0, [5, 8, 9]),
        ([1, 8], 1, [5, 6, 9]),
        ([1, 8, 6], 2, [5, 7, 9]),
        ([1, 8, 6, 7], 3, [9]),
        ([1, 8, 6, 2], 0, [5, 8, 9]),  # it broke off
        ([9, 5, 6, 7, 1], 4, []),
    ):
        assert (met(ids, words), continuing(ids, words)) == (count, after)


def test_what_was_asked_of_words_and_did_not_come_is_told(plain: Model) -> None:
    opened = plain
    with pytest.warns(Notice, match="1 of 1 outputs lack a forced word"):
        opened.generate(SOURCES[0], beams=2, max_new_tokens=1, force="fus ran")
