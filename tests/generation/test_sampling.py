"""Sampling and the rules every search obeys: what may be drawn, how often, and on whose behalf."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sourcewise.config import GenerationConfig
from sourcewise.generation.rules import Rules
from sourcewise.generation.sampling import Draws, Hypothesis, filter_logits
from sourcewise.model.generation_defaults import GenerationDefaults
from tests.generation.searching import beam_search, greedy_or_sample
from tests.model.networks import VOCABULARY, network, rows, text_source

NETWORK = network()
EOS = NETWORK.eos_id


def options(**changes: object) -> GenerationConfig:
    return GenerationConfig.model_validate({"max_new_tokens": 12, **changes})


def search(changes: GenerationConfig, lengths: tuple[int, ...] = (3, 7, 1)) -> list[Hypothesis]:
    with torch.inference_mode():
        memory = NETWORK.encode(text_source(list(lengths)))
        if changes.beams > 1 and not changes.sample:
            return [h for beams in beam_search(NETWORK, memory, changes) for h in beams]
        return greedy_or_sample(NETWORK, memory, changes, list(range(len(lengths))))


def random_logits(seed: int, count: int = 4, size: int = 9) -> Tensor:
    return 3 * torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 500), k=st.integers(1, 12))
def test_top_k_keeps_the_k_top_one(seed: int, k: int) -> None:
    logits = random_logits(seed)
    kept = filter_logits(logits, options(top_k=k)).isfinite()
    assert kept.sum(1).tolist() == [min(k, 9)] * 4
    assert bool((logits.masked_fill(~kept, math.inf).amin(1) >= logits.masked_fill(kept, -math.inf).amax(1)).all())


@given(seed=st.integers(0, 500), p=st.floats(0.01, 1.0))
def test_top_p_keeps_the_fewest_tokens_that_hold_the_mass(seed: int, p: float) -> None:
    logits = random_logits(seed)
    kept = filter_logits(logits, options(top_p=p)).isfinite()
    for row, mask in zip(logits.softmax(-1), kept, strict=True):
        held = row[mask].sort(descending=True).values
        assert float(held.sum()) >= p - 1e-5
        assert float(held[:-1].sum()) <= p + 1e-5  # without the least of them it would be too little
        assert bool((row[~mask] <= held[-1] + 1e-7).all())


def test_temperature_tempers() -> None:
    logits = random_logits(1)
    warm = filter_logits(logits, options(temperature=2.0)).softmax(-1)
    torch.testing.assert_close(warm, (logits / 2).softmax(-1))
    torch.testing.assert_close(
        filter_logits(logits, options(temperature=1e6)).softmax(-1), torch.full_like(logits, 1 / 9), atol=1e-4, rtol=0
    )
    for cold in (1e-3, 1e-30, 1e-40):
        one_hot = filter_logits(logits, options(temperature=cold)).softmax(-1)
        assert torch.equal(one_hot, torch.nn.functional.one_hot(logits.argmax(-1), 9).float())


@pytest.mark.parametrize("limits", [{"temperature": 1e-40}, {"top_k": 1}, {"top_p": 1e-6}])
def test_sampling_at_its_limits_is_greedy(limits: dict[str, float]) -> None:
    greedy = search(options(beams=1))
    assert [h.ids for h in search(options(sample=True, **limits))] == [h.ids for h in greedy]


def test_draws_come_as_often_as_they_are_likely() -> None:
    p = torch.tensor([0.0, 0.5, 0.2, 0.3, 0.0])
    draws = Draws(5)
    picked = draws.pick(p.log().repeat(3000, 1), torch.arange(3000))
    torch.testing.assert_close(picked.bincount(minlength=5) / 3000, p, atol=0.03, rtol=0)
    assert not {0, 4} & set(picked.tolist())


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), order=st.permutations(range(4)))
def test_a_draw_belongs_to_the_example_not_to_its_batch(seed: int, order: list[int]) -> None:
    source, drawn = text_source([4, 2, 9, 6]), options(sample=True, seed=seed, temperature=1.5)
    with torch.inference_mode():
        together = greedy_or_sample(NETWORK, NETWORK.encode(source), drawn, [0, 1, 2, 3])
        shuffled = greedy_or_sample(NETWORK, NETWORK.encode(rows(source, order)), drawn, order)
    assert [h.ids for h in shuffled] == [together[i].ids for i in order]


def test_another_seed_or_another_example_draws_otherwise() -> None:
    first, again, other = (search(options(sample=True, seed=s)) for s in (1, 1, 2))
    assert [h.ids for h in first] == [h.ids for h in again] != [h.ids for h in other]
    with torch.inference_mode():
        memory = NETWORK.encode(text_source([5]))
        ids = [greedy_or_sample(NETWORK, memory, options(sample=True), [i])[0].ids for i in range(5)]
    assert len({tuple(row) for row in ids}) > 1


@pytest.mark.parametrize("kind", [{"beams": 1}, {"beams": 3}, {"sample": True}], ids=str)
@pytest.mark.parametrize("least", [1, 5, 12])
def test_no_output_is_shorter_than_asked(kind: dict[str, object], least: int) -> None:
    assert all(len(h.ids) >= least for h in search(options(min_new_tokens=least, **kind)))


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 4),
    kind=st.sampled_from([{"beams": 1}, {"beams": 3}, {"sample": True, "temperature": 0.3}]),
    lengths=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_no_n_gram_comes_twice(n: int, kind: dict[str, object], lengths: tuple[int, int]) -> None:
    for found in search(options(no_repeat_ngram=n, **kind), lengths):
        ids = [NETWORK.start_id, *found.ids]
        grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
        assert len(grams) == len(set(grams))


@given(
    history=st.lists(st.lists(st.integers(3, 6), min_size=5, max_size=5), min_size=1, max_size=4), n=st.integers(1, 4)
)
def test_exactly_what_would_repeat_is_barred(history: list[list[int]], n: int) -> None:
    rules = Rules(NETWORK, options(no_repeat_ngram=n))
    logits = rules(torch.zeros(len(history), 9), torch.tensor(history), torch.zeros(len(history)))
    for row, tokens in zip(logits, history, strict=True):
        past = [NETWORK.start_id, *tokens]
        grams = {tuple(past[i : i + n]) for i in range(len(past) - n + 1)}
        suppressed = [t for t in range(9) if (*past[len(past) - n + 1 :], t) in grams]
        assert (row == -math.inf).nonzero().flatten().tolist() == suppressed


@pytest.mark.parametrize("kind", [{"beams": 1}, {"beams": 3}, {"sample": True}], ids=str)
def test_where_everything_is_barred_the_text_ends(kind: dict[str, object]) -> None:
    """Every token once, and no end before there are more than there are tokens: it cannot be."""
    wanted = options(no_repeat_ngram=1, min_new_tokens=VOCABULARY + 20, max_new_tokens=VOCABULARY + 20, **kind)
    for found in search(wanted):
        assert len(found.ids) == VOCABULARY - 2  # all but the start and the end
        assert found.finished and math.isfinite(found.score)


def test_more_beams_than_tokens_give_hypotheses_that_exist() -> None:
    with torch.inference_mode():
        found = beam_search(NETWORK, NETWORK.encode(text_source([4, 2])), options(beams=50, max_new_tokens=1))
    assert [len(beams) for beams in found] == [VOCABULARY] * 2
    assert all(h.score > -1e4 for beams in found for h in beams)


def test_barred_ids_are_never_said(monkeypatch: pytest.MonkeyPatch) -> None:
    favourites = {i for h in search(options(beams=1)) for i in h.ids}
    monkeypatch.setattr(NETWORK, "defaults", GenerationDefaults((EOS,), suppressed=tuple(favourites)))
    for kind in ({"beams": 1}, {"beams": 3}, {"sample": True}):
        assert not favourites & {i for h in search(options(**kind)) for i in h.ids}


def test_room_for_many_tokens_is_made_as_they_come() -> None:
    with torch.inference_mode():
        memory = NETWORK.encode(text_source([4, 2]))
        cache = NETWORK.new_cache(memory, 1, 1_000_000)  # all at once would be terabytes
        tokens = torch.randint(3, VOCABULARY, (2, 300), generator=torch.Generator().manual_seed(0))
        whole = NETWORK.decode(tokens, memory)
        parts = [NETWORK.decode(part, memory, cache) for part in tokens.split((1, 62, 2, 100, 1, 134), dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-4, rtol=1e-4)
    assert cache.room < 1000
