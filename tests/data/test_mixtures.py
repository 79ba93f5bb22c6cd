from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sourcewise.config import DataConfig
from sourcewise.data.batches import Budget, training_batches
from sourcewise.data.mixtures import EncodedMixture, encode_sets, encode_training, join, mixing_rates, spread
from sourcewise.data.open import open_sets
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError

SIZES = st.lists(st.integers(1, 100_000), min_size=1, max_size=6)


def _data(**options):
    return DataConfig.model_validate(options)


@pytest.fixture(scope="module")
def tokenizer():
    special = [f"<extra_id_{i}>" for i in reversed(range(100))]
    return Tokenizer.train(["to German: a cat sat on the mat", "eine Katze", "count: 1 2 3"] * 5, 80, special=special)


@pytest.fixture
def two(write_text):
    """A set of 2 and one of 10 examples, each with a task of its own."""
    first = write_text("de.tsv", "source\ttarget\na cat sat\teine Katze\na mat\teine\n")
    second = write_text("count.tsv", "source\ttarget\n" + "".join(f"{i} {i + 1}\t1 2 3\n" for i in range(10)))
    return [
        {"pairs": str(first), "prefix": "to German: ", "max_source": 5},
        {"pairs": str(second), "prefix": "count: ", "max_target": 3, "metric": "exact_match_pct"},
    ]


def test_equal_rates_are_the_weights():
    assert mixing_rates([5, 500], [1, 1], _data()).tolist() == [0.5, 0.5]
    assert mixing_rates([5, 500, 7], [3, 1, 4], _data()).tolist() == [3 / 8, 1 / 8, 4 / 8]


def test_proportional_rates_by_hand():
    """Three tasks of 100, 1,000 and 10,000 examples, K = 2,000 (Raffel et al. 2020, §3.5.2)."""
    sizes, equal = [100, 1000, 10_000], [1, 1, 1]
    assert mixing_rates(sizes, equal, _data(rates="proportional")) == pytest.approx([100 / 11_100, 1 / 11.1, 10 / 11.1])
    capped = _data(rates="proportional", rate_cap=2000)
    assert mixing_rates(sizes, equal, capped) == pytest.approx([100 / 3100, 1000 / 3100, 2000 / 3100])
    warm = _data(rates="proportional", rate_cap=2000, temperature=2)
    roots = np.sqrt([100, 1000, 2000])
    assert mixing_rates(sizes, equal, warm) == pytest.approx(roots / roots.sum())
    weighted = mixing_rates(sizes, [2, 1, 1], warm)
    assert weighted == pytest.approx(roots * [2, 1, 1] / (roots * [2, 1, 1]).sum())


@given(sizes=SIZES, cap=st.integers(1, 100_000), temperature=st.floats(0.5, 1000))
def test_rates_sum_to_one_and_a_high_temperature_makes_them_alike(sizes, cap, temperature):
    data = _data(rates="proportional", rate_cap=cap, temperature=temperature)
    rates = mixing_rates(sizes, [1.0] * len(sizes), data)
    assert rates.sum() == pytest.approx(1) and (rates > 0).all()
    counted = np.minimum(sizes, cap)
    assert rates[0] / rates[-1] == pytest.approx((counted[0] / counted[-1]) ** (1 / temperature))
    hot = mixing_rates(sizes, [1.0] * len(sizes), _data(rates="proportional", rate_cap=cap, temperature=1e9))
    assert hot == pytest.approx([1 / len(sizes)] * len(sizes))


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({}, [0.5, 0.5]),
        ({"rates": "proportional"}, [200 / 1200, 1000 / 1200]),
        ({"rates": "proportional", "rate_cap": 400}, [1 / 3, 2 / 3]),
        ({"rates": "proportional", "rate_cap": 400, "temperature": 2}, [1 / (1 + 2**0.5), 2**0.5 / (1 + 2**0.5)]),
    ],
)
def test_batches_draw_each_set_at_its_rate(write_text, tokenizer, options, shares):
    sets = [write_text(f"{n}.tsv", "source\ttarget\n" + "a cat\t1\n" * n) for n in (200, 1000)]
    data = _data(train=[{"pairs": str(path)} for path in sets], **options)
    encoded = encode_training(open_sets(data, "train"), tokenizer, data)

    def drawn(seed, epoch):
        found = training_batches(
            encoded.source_lengths,
            encoded.target_lengths,
            Budget(500),
            seed=seed,
            epoch=epoch,
            weights=encoded.weights,
        )
        return np.concatenate(found)

    chosen = np.concatenate([drawn(0, epoch) for epoch in range(10)])
    assert len(chosen) == 12_000
    assert (chosen < 200).mean() == pytest.approx(shares[0], abs=0.02)
    assert drawn(3, 4).tolist() == drawn(3, 4).tolist() != drawn(3, 5).tolist()


def test_rates_as_the_examples_show_each_example_once_an_epoch(two, tokenizer):
    data = _data(train=two, rates="proportional")
    encoded = encode_training(open_sets(data, "train"), tokenizer, data)
    assert encoded.weights is None
    assert encode_training(open_sets(_data(train=two), "train"), tokenizer, _data(train=two)).weights is not None


def test_a_mixture_is_its_parts_one_after_the_other(two, tokenizer):
    data = _data(train=two)
    sets = open_sets(data, "train")
    whole, alone = encode_sets(sets, tokenizer, data), [encode_sets([each], tokenizer, data) for each in sets]
    assert isinstance(whole, EncodedMixture) and len(whole) == 12 == len(whole.dataset)
    assert [e.id for e in whole.dataset][:3] == ["de:1", "de:2", "count:1"]
    assert whole.source_lengths.max() <= 12 and whole.source_lengths[:2].tolist() == [5, 5]  # its own max_source
    assert whole.target_lengths[2:].tolist() == [3] * 10  # its own max_target
    for place, (part, index) in enumerate([*((0, i) for i in range(2)), *((1, i) for i in range(10))]):
        mine, theirs = whole.batch([place]), alone[part].batch([index])
        assert mine.source.tokens.equal(theirs.source.tokens) and mine.labels.equal(theirs.labels)
    batch = whole.batch([11, 0, 5])
    assert batch.indices == [11, 0, 5] and batch.labels[0, :3].equal(alone[1].batch([9]).labels[0])
    assert batch.source.tokens[1, :5].equal(alone[0].batch([0]).source.tokens[0])


def test_chosen_examples_stay_in_their_sets(two, tokenizer):
    data = _data(train=two)
    whole = encode_sets(open_sets(data, "train"), tokenizer, data)
    chosen = whole.select([11, 3, 1])
    assert [e.id for e in chosen.dataset] == ["de:2", "count:10", "count:2"]
    assert [len(part) for part in chosen.parts] == [1, 2]
    assert chosen.parts[1].dataset.task.metric == "exact_match_pct"
    assert whole.at(3) is whole


def test_evaluation_sees_as_many_of_each_set(two, tokenizer):
    data = _data(valid=two)
    whole = encode_sets(open_sets(data, "valid"), tokenizer, data)
    some = spread(whole, 4)
    assert [e.id for e in some.dataset] == ["de:1", "de:2", "count:1", "count:10"]
    assert spread(whole, 24) is whole and spread(whole.parts[1], 99) is whole.parts[1]
    assert [e.id for e in spread(whole.parts[1], 3).dataset] == ["1", "5", "10"]


def test_features_are_read_from_their_own_set(write_features, tokenizer):
    manifests = [write_features((2, 3), name="a"), write_features((4, 5), name="b")]
    data = _data(train=[{"manifest": str(path)} for path in manifests])
    sets = open_sets(data, "train")
    joined = join(sets)
    assert [len(joined.features(i)) for i in range(4)] == [2, 3, 4, 5] == [e.frames for e in joined]
    assert joined.select([3, 0]).features(0).shape == (5, 4)
    batch = encode_sets(sets, tokenizer, data).batch([3, 0])
    assert batch.source.frames.tolist() == [5, 2] and batch.source.tokens is None
    assert np.array_equal(batch.source.features[0].numpy(), sets[1].features(1))


def test_prompts_for_all_sets_or_for_none(write_features, tokenizer):
    manifests = [write_features((2, 3), name="a"), write_features((4, 5), name="b")]
    data = _data(train=[{"manifest": str(manifests[0]), "prefix": "a:"}, {"manifest": str(manifests[1])}])
    with pytest.raises(RequestError, match=r"b\.tsv: has no prompts, .*a\.tsv has; give each set a prefix, or none"):
        encode_sets(open_sets(data, "train"), tokenizer, data)


def test_plain_text_is_spoiled_beside_other_sets(two, write_text, tokenizer):
    text = write_text("plain.txt", "a cat sat on the mat and the mat sat on a cat 1 2 3\n" * 40)
    data = _data(train=[*two, {"text": str(text), "weight": 2}], max_source=32, max_target=32)
    encoded = encode_training(open_sets(data, "train"), tokenizer, data, seed=1)
    assert isinstance(encoded, EncodedMixture) and encoded.weights is not None
    first, later = encoded.batch([12, 0]), encoded.at(1).batch([12, 0])
    assert first.source.tokens[1].equal(later.source.tokens[1]) and not first.labels[0].equal(later.labels[0])
    assert encoded.weights[12:].sum() == pytest.approx(0.5) and encoded.weights.sum() == pytest.approx(1)
    assert tokenizer.sentinels[0] in first.source.tokens[0].tolist()
    assert encoded.at(1).weights.tolist() == encoded.weights.tolist()
