from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sourcewise.config import DataConfig, DatasetConfig
from sourcewise.data.noise.denoising import MODES, UL2, Denoiser, corrupt, most_spans, special_tokens

T5 = Denoiser(3, 0.15)
SENTINELS = np.arange(-1, -1001, -1)  # in the order of use; no token is below 0
regular = st.builds(Denoiser, st.floats(1, 70), st.floats(0.01, 0.9))


def merged(source: list[int], target: list[int]) -> list[int]:
    """The piece again: what follows a sentinel in the target goes where it is in the source."""
    spans: dict[int, list[int]] = {}
    for token in target:
        if token < 0:
            spans[last := token] = []
        else:
            spans[last].append(token)
    return [each for token in source for each in (spans[token] if token < 0 else [token])]


def draw(denoiser: Denoiser, tokens: int, seed: int = 0) -> tuple[list[int], list[int]]:
    dropped, spans = denoiser.drops(tokens)
    source, target = corrupt(np.arange(tokens), dropped, spans, SENTINELS, np.random.default_rng(seed))
    return source.tolist(), target.tolist()


# What T5's random_spans_helper and random_spans_noise_mask come to, worked out by hand from their formulas:
# budget, density, mean span → tokens, dropped = round(tokens × density), spans = round(dropped / mean), target
PUBLISHED = [
    (512, 0.15, 3, 568, 85, 28, 114),  # as T5 was trained
    (256, 0.15, 3, 284, 43, 14, 58),  # 284 − 43 + 14 + 1 = 256
    (1024, 0.15, 3, 1137, 171, 57, 229),  # 1137 − 171 + 57 + 1 = 1024
    (512, 0.15, 8, 588, 88, 11, 100),  # 588 − 88 + 11 + 1 = 512
    (512, 0.15, 64, 600, 90, 1, 92),  # 600 − 90 + 1 + 1 = 512
    (512, 0.5, 3, 766, 383, 128, 512),  # 383 + 128 + 1 = 512; one more would make a target of 513
    (512, 0.5, 8, 908, 454, 57, 512),
    (512, 0.5, 64, 1006, 503, 8, 512),
]


@pytest.mark.parametrize(("budget", "density", "mean", "tokens", "dropped", "spans", "target"), PUBLISHED)
def test_published_lengths(
    budget: int, density: float, mean: float, tokens: int, dropped: int, spans: int, target: int
) -> None:
    denoiser = Denoiser(mean, density)
    assert denoiser.piece(budget) == tokens
    assert denoiser.drops(tokens) == (dropped, spans)
    assert denoiser.lengths(tokens) == (budget, target)
    first, second = draw(denoiser, tokens)
    assert (len(first) + 1, len(second) + 1) == (budget, target)


@given(denoiser=regular, tokens=st.integers(2, 700), seed=st.integers(0, 2**32))
def test_source_and_target_merge_to_the_piece(denoiser: Denoiser, tokens: int, seed: int) -> None:
    source, target = draw(denoiser, tokens, seed)
    assert merged(source, target) == list(range(tokens))
    used = [token for token in source if token < 0]
    assert used == [token for token in target if token < 0] == SENTINELS[: len(used)].tolist()  # each once, in order
    assert (len(source) + 1, len(target) + 1) == denoiser.lengths(tokens)
    assert source[0] == 0 and source[-1] < 0 and target[0] < 0 <= target[-1]  # kept first, dropped last
    assert not any(a < 0 and b < 0 for a, b in pairwise(target))  # no span is empty
    assert (source, target) == draw(denoiser, tokens, seed)


@given(denoiser=regular, tokens=st.integers(100, 2000))
def test_shares_and_spans_are_as_asked(denoiser: Denoiser, tokens: int) -> None:
    dropped, spans = denoiser.drops(tokens)
    assert abs(dropped - tokens * denoiser.density) <= 0.5 or dropped == 1
    assert spans == max(1, min(round(dropped / denoiser.mean_span), tokens - dropped))


@given(mean=st.floats(1, 70), density=st.floats(0.01, 0.5, exclude_max=True), budget=st.integers(8, 1200))
def test_the_source_fills_the_budget_exactly(mean: float, density: float, budget: int) -> None:
    denoiser = Denoiser(mean, density)
    tokens = denoiser.piece(budget)
    assert denoiser.lengths(tokens)[0] == budget
    assert denoiser.lengths(tokens + 1)[0] > budget  # and no longer piece would do


def test_every_choice_of_spans_is_as_likely() -> None:
    """6 tokens, 3 of them in 2 spans: 2 ways to part the kept ones, 2 the dropped ones."""
    rng = np.random.default_rng(0)
    seen = Counter(tuple(corrupt(np.arange(6), 3, 2, SENTINELS, rng)[0].tolist()) for _ in range(4000))
    assert set(seen) == {(0, -1, 2, 3, -2), (0, -1, 3, 4, -2), (0, 1, -1, 3, -2), (0, 1, -1, 4, -2)}
    assert all(900 < count < 1100 for count in seen.values())


def test_the_seven_of_ul2() -> None:
    """Tay et al. 2023, Table 1."""
    by_mode = {mode: [(d.mean_span, d.density) for d in UL2 if d.mode == mode] for mode in MODES}
    assert by_mode["[NLU]"] == [(3, 0.15), (8, 0.15)]
    assert by_mode["[NLG]"] == [(3, 0.5), (8, 0.5), (64, 0.15), (64, 0.5)]
    assert by_mode["[S2S]"] == [(0.25, 0.25)] and len(UL2) == 7
    assert [d.mode for d in UL2 if d.sequential] == ["[S2S]"]


def test_a_sequential_piece_is_a_prefix_and_what_follows() -> None:
    source, target = corrupt(np.arange(10), 3, 0, SENTINELS, np.random.default_rng(0))
    assert (source.tolist(), target.tolist()) == (list(range(7)), [7, 8, 9])
    prefix = UL2[-1]
    tokens = prefix.piece(512)
    assert tokens == 511 and prefix.drops(tokens) == (128, 0)  # a quarter, on average
    assert prefix.lengths(tokens) == (511, 255)  # at least 1 dropped; at most 254, and the end of text


def test_how_many_sentinels_a_tokenizer_gets() -> None:
    data = DataConfig(max_source=512)
    span = DatasetConfig(text="x.txt")
    assert most_spans(span, data) == 28
    names = special_tokens(span, data)
    assert names[:3] == list(MODES) and names[3] == "<extra_id_99>" and names[-1] == "<extra_id_0>"
    assert len(special_tokens(DatasetConfig(text="x.txt", denoise="ul2"), data)) == 3 + 128  # more than T5 has
    assert len(special_tokens(DatasetConfig(text="x.txt", denoise="ul2", max_source=64), data)) == 3 + 100
