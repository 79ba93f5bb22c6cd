"""Every option of a search that transformers' `generate` has gives its outputs and scores, for models of many classes.

T5, BART, Marian and mBART are computed by our own networks, the others through the generic body.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.generation.tokenized import KINDS, Pair, pair

pytestmark = pytest.mark.filterwarnings("ignore::sourcewise.errors.DataWarning", "ignore::sourcewise.errors.Notice")
COUNT, TOKENS, SEED = 4, 10, 3
Both = tuple[dict[str, Any], dict[str, Any]]  # ours, theirs


def same(**options: Any) -> Both:
    return options, options


SEARCHES: dict[str, Both] = {
    "plain": same(),
    "length penalty 2": same(length_penalty=2.0),
    "length penalty 0": same(length_penalty=0.0),
    "length penalty -1": same(length_penalty=-1.0),
    "early stopping": same(early_stopping=True),
    "no early stopping": same(early_stopping=False),
    "never stopping early": same(early_stopping="never"),
    "never stopping early, shorter is better": same(early_stopping="never", length_penalty=-0.5),
    "early stopping, longer is better": same(early_stopping=True, length_penalty=3.0),
    "least length": same(min_new_tokens=5),
    "most length": same(max_new_tokens=3),
    "least is most": same(min_new_tokens=6, max_new_tokens=6),
    "repetition penalty": same(repetition_penalty=1.6),
    "repetition liked": same(repetition_penalty=0.7),
    "encoder repetition penalty": same(encoder_repetition_penalty=1.8),
    "n-grams of 1": ({"no_repeat_ngram": 1}, {"no_repeat_ngram_size": 1}),
    "n-grams of 2": ({"no_repeat_ngram": 2}, {"no_repeat_ngram_size": 2}),
    "n-grams of the source": ({"encoder_no_repeat_ngram": 1}, {"encoder_no_repeat_ngram_size": 1}),
    "several": (
        {"repetition_penalty": 1.3, "no_repeat_ngram": 2, "length_penalty": 0.6, "min_new_tokens": 3},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "length_penalty": 0.6, "min_new_tokens": 3},
    ),
}
DRAWN: dict[str, dict[str, Any]] = {
    "all": {"top_k": 0},
    "temperature": {"temperature": 0.6, "top_k": 0},
    "hot": {"temperature": 3.0, "top_k": 0},
    "top k": {"top_k": 5},
    "top p": {"top_p": 0.7, "top_k": 0},
    "min p": {"min_p": 0.2, "top_k": 0},
    "typical": {"typical_p": 0.4, "top_k": 0},
    "epsilon": {"epsilon_cutoff": 0.02, "top_k": 0},
    "eta": {"eta_cutoff": 0.05, "top_k": 0},
    "several": {"temperature": 1.4, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.3, "min_new_tokens": 3},
}


def allowed(index: int, ids: torch.Tensor) -> list[int]:
    """Every third of the ids from one on that the length says, so that an end is rare."""
    return list(range(len(ids) % 3, 50, 3))


def asked_of(both: Pair, name: str, sources: list[str]) -> Both:
    """The options of a search, those that hold words of the tokenizer among them."""
    tokenizer = both.ours.tokenizer
    if name == "suppressed words":
        words = [tokenizer.inner(text) for word in ("cat", "2") for text in (word, f" {word}")]
        return {"suppress": ["cat", "2"]}, {"bad_words_ids": words}
    if name == "a target prefix":
        begun = [both.ours.network.start_id, *tokenizer.opening_of_target, *tokenizer.inner("a cat")]
        opening = {"decoder_input_ids": torch.tensor([begun] * len(sources)), "length_penalty": 1.5}
        return {"target_prefix": "a cat", "length_penalty": 1.5}, opening
    if name == "allowed tokens":
        return {"allowed_tokens": allowed}, {"prefix_allowed_tokens_fn": allowed}
    return SEARCHES[name]


def compare(both: Pair, outputs: Any, rows: list[list[int]], scores: list[float] | None) -> None:
    assert len(outputs.best_first) == len(rows)
    for number, (output, row) in enumerate(zip(outputs.best_first, rows, strict=True)):
        ids = list(output.ids)
        assert row[: len(ids)] == ids and set(row[len(ids) :]) <= both.neutral
        if scores is not None:
            assert output.score == pytest.approx(scores[number], abs=5e-5, rel=2e-5)


def is_tie(outputs: Any, scores: list[float]) -> bool:
    """Whether other outputs were found with scores that are none the worse.

    Of ten thousands of lists it is one: -27.651993 and -27.651995 are the fourth and the fifth beam of a step.
    """
    return all(output.score >= score - 5e-5 for output, score in zip(outputs.best_first, scores, strict=True))


def check_search(both: Pair, name: str, groups: list[list[str]]) -> None:
    """Four beams with their scores, and greedily. One list of all may have been decided by a tie in float32."""
    ties = 0
    for sources in groups:
        ours, theirs = asked_of(both, name, sources)
        ours, theirs = {"max_new_tokens": TOKENS, **ours}, {"max_new_tokens": TOKENS, **theirs}
        told = both.generate(
            sources,
            num_beams=COUNT,
            num_return_sequences=COUNT,
            output_scores=True,
            return_dict_in_generate=True,
            **theirs,
        )
        found = both.ours.generate(sources, n_best=COUNT, beams=COUNT, **ours).of
        said = told.sequences[:, 1:].view(len(sources), COUNT, -1).tolist()
        scores = told.sequences_scores.view(len(sources), COUNT).tolist()
        for outputs, rows, several in zip(found, said, scores, strict=True):
            try:
                compare(both, outputs, rows, several)
            except AssertionError:
                ties += 1
                if ties > 1 or not is_tie(outputs, several):
                    raise
        of_beams = ("early_stopping", "length_penalty")
        greedy = {key: value for key, value in theirs.items() if key not in of_beams}
        lines = both.generate(sources, num_beams=1, **greedy)[:, 1:].tolist()
        for outputs, line in zip(both.ours.generate(sources, beams=1, **ours).of, lines, strict=True):
            compare(both, outputs, [line], None)


def check_drawn(
    both: Pair, options: dict[str, Any], groups: list[list[str]], count: int, patch: pytest.MonkeyPatch
) -> None:
    """`count` samples of each source, where transformers draws by our random numbers."""
    for sources in groups:
        streams = [
            np.random.default_rng([SEED, index, *([number] if number else [])])
            for index in range(len(sources))
            for number in range(count)
        ]

        def drawn(p: torch.Tensor, num_samples: int, streams: list[np.random.Generator] = streams) -> torch.Tensor:
            assert num_samples == 1
            mass = p.double().cumsum(-1)
            wanted = torch.tensor([stream.random() for stream in streams], dtype=torch.float64)[:, None] * mass[:, -1:]
            return torch.searchsorted(mass, wanted, right=True).clamp(max=p.shape[-1] - 1)

        patch.setattr(torch, "multinomial", drawn)
        rows = both.generate(
            sources, do_sample=True, num_beams=1, num_return_sequences=count, max_new_tokens=TOKENS, **options
        )
        patch.undo()
        found = both.ours.generate(sources, n_best=count, sample=True, seed=SEED, max_new_tokens=TOKENS, **options).of
        for outputs, several in zip(found, rows[:, 1:].view(len(sources), count, -1).tolist(), strict=True):
            compare(both, outputs, several, None)


@pytest.fixture(scope="module", params=KINDS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair(request.param, tmp_path_factory.mktemp(request.param))


NAMES = [*SEARCHES, "suppressed words", "a target prefix", "allowed tokens"]


def test_searches_of_a_few_sources(both: Pair) -> None:
    for name in NAMES:
        check_search(both, name, [both.groups[0][:4]])


def test_samples_of_a_few_sources(both: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    for options in DRAWN.values():
        check_drawn(both, options, [both.groups[0][:6]], 2, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_searches_of_200_sources(both: Pair, name: str) -> None:
    check_search(both, name, both.groups)


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWN)
def test_samples_of_200_sources(both: Pair, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_drawn(both, DRAWN[name], both.groups, 3, monkeypatch)
