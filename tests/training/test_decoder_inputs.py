"""What the decoder is fed: the schedules of the paper, the two passes word by word, words withheld."""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import sourcewise
from sourcewise.config import ModelConfig, TrainConfig
from sourcewise.data.batches import IGNORED, Batch
from sourcewise.model.families.registry import FAMILIES
from sourcewise.model.generation_defaults import GenerationDefaults
from sourcewise.model.network import Seq2Seq
from sourcewise.model.place import place
from sourcewise.model.protocol import shift_right
from sourcewise.native.training.draws import dropout_seed
from sourcewise.training import decoder_inputs as module
from sourcewise.training.decoder_inputs import decoder_inputs, reference_share
from sourcewise.training.objective import Objective
from tests.model.networks import VOCABULARY, feature_source, network, text_source
from tests.training.recipes import pairs_file, recipe
from tests.training.stopping import Stops
from tests.training.test_gradients import found, nats, pairs

SCHEDULES = ("linear", "exponential", "inverse_sigmoid")
UNKNOWN = 2
LENGTHS = [6, 1, 4, 9]


def of_family(family: str, **options: object) -> Seq2Seq:
    """A small random network, as a recipe makes it."""
    sizes = {"d_model": 24, "d_ff": 32, "heads": 3, "encoder_layers": 2, "decoder_layers": 2, "positions": 64}
    model = ModelConfig.model_validate({"family": family, **sizes, **options})
    torch.manual_seed(5)
    tokens = SimpleNamespace(size=VOCABULARY, pad_id=0, eos_id=1, unk_id=UNKNOWN)
    return Seq2Seq(FAMILIES[family].make(model, tokens, False)).eval()  # type: ignore[arg-type]


NETWORK = network()
BODIES = {
    "t5": NETWORK,
    "bart": of_family("bart"),
    "lstm": of_family("rnn", cell="lstm", attention="none"),
    "gru": of_family("rnn"),
    "decoder": of_family("decoder"),
    "prefix": of_family("decoder", prefix="full"),
}


def labels_of(lengths: list[int], width: int | None = None) -> torch.Tensor:
    labels = torch.full((len(lengths), width or max(lengths)), IGNORED)
    for i, length in enumerate(lengths):
        draw = torch.Generator().manual_seed(i)
        labels[i, :length] = torch.randint(3, VOCABULARY, (length,), generator=draw)
    return labels


def fed(lengths: list[int], reference: float, word_dropout: float = 0.0, seed: int = 0) -> torch.Tensor:
    labels = labels_of(lengths)
    with dropout_seed(seed):
        memory = NETWORK.encode(text_source([5] * len(lengths)))
        return decoder_inputs(NETWORK, memory, labels, reference, word_dropout, UNKNOWN)


def shares(total: int, **options: object) -> list[float]:
    train = TrainConfig.model_validate(options)
    return [reference_share(step, total, train) for step in range(total + 1)]


@given(
    schedule=st.sampled_from(SCHEDULES),
    total=st.integers(1, 3000),
    half=st.floats(1e-4, 4),
    floor=st.floats(0, 1),
)
@settings(deadline=None)
def test_shares_fall_from_the_reference_to_the_floor(schedule: str, total: int, half: float, floor: float) -> None:
    found = shares(total, scheduled_sampling=schedule, sampling_half=half, sampling_floor=floor)
    assert all(floor <= share <= 1 for share in found)
    assert all(a >= b for a, b in pairwise(found))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_half_of_the_inputs_are_its_own_when_the_option_says_so(schedule: str) -> None:
    found = shares(1000, scheduled_sampling=schedule, sampling_half=0.3)
    assert found[300] == pytest.approx(0.5, abs=1e-9)
    assert found[0] > 0.97


def test_the_formulas_are_those_of_the_paper() -> None:
    linear = shares(1000, scheduled_sampling="linear", sampling_half=0.4, sampling_floor=0.25)
    assert linear == pytest.approx([max(0.25, 1 - i / 800) for i in range(1001)])
    exponential = shares(1000, scheduled_sampling="exponential", sampling_half=0.4)
    assert exponential == pytest.approx([(0.5 ** (1 / 400)) ** i for i in range(1001)])
    k = 100.0
    sigmoid = shares(1000, scheduled_sampling="inverse_sigmoid", sampling_half=k * math.log(k) / 1000)
    assert sigmoid == pytest.approx([k / (k + math.exp(i / k)) for i in range(1001)])
    assert shares(1000) == [1.0] * 1001


@pytest.mark.parametrize("body", BODIES)
def test_fed_nothing_but_its_own_it_is_fed_what_it_says_after_the_reference(body: str) -> None:
    net, labels, changed = BODIES[body], labels_of(LENGTHS), 0
    memory = net.encode(text_source([5] * len(LENGTHS)))
    reference = shift_right(labels, net.start_id, net.pad_id)
    said = net.decode(reference, memory).argmax(-1)
    tokens = decoder_inputs(net, memory, labels, 0.0, 0.0, UNKNOWN)
    for row, length in enumerate(LENGTHS):
        assert tokens[row, 0] == net.start_id
        for t in range(1, length):
            ends = said[row, t - 1] in (net.eos_id, net.pad_id)
            assert tokens[row, t] == (labels[row, t - 1] if ends else said[row, t - 1])
            changed += int(tokens[row, t] != reference[row, t])
        assert torch.equal(tokens[row, length:], reference[row, length:])
    assert changed > 10


def test_what_no_search_goes_on_from_is_never_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NETWORK, "defaults", GenerationDefaults((NETWORK.eos_id,), suppressed=tuple(range(3, 30))))
    for stubborn in (NETWORK.eos_id, NETWORK.pad_id, 17):
        monkeypatch.setattr(module, "_top_one", lambda n, s, places, say=stubborn: torch.full_like(places, say))
        assert torch.equal(fed(LENGTHS, 0.0), fed(LENGTHS, 1.0)), stubborn


@pytest.mark.parametrize("held", [64, 128, 10_000])
def test_the_logits_of_a_chunk_say_the_same_as_all_at_once(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    logits = NETWORK.logits
    monkeypatch.setattr(NETWORK, "logits", lambda s: sizes.append(len(s)) or logits(s))
    monkeypatch.setattr("sourcewise.model.loss.CHUNK_LOGITS", held * VOCABULARY)
    states = torch.randn(500, NETWORK.body.config.d_model, generator=torch.Generator().manual_seed(1))
    places = torch.arange(499, 0, -2)
    assert torch.equal(module._top_one(NETWORK, states, places), logits(states)[places].argmax(-1))
    assert max(sizes) <= held and all(size % 64 == 0 for size in sizes)


@pytest.mark.parametrize(("reference", "word_dropout"), [(0.7, 0.0), (0.3, 0.0), (1.0, 0.2), (0.5, 0.5)])
def test_as_many_words_change_as_asked_for(
    reference: float, word_dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = VOCABULARY - 1
    monkeypatch.setattr(module, "_top_one", lambda n, s, places: torch.full_like(places, own))
    tokens = fed([41] * 100, reference, word_dropout)[:, 1:]
    kept = 1 - word_dropout
    assert float((tokens == UNKNOWN).float().mean()) == pytest.approx(word_dropout, abs=0.03)
    plain = fed([41] * 100, 1.0)[:, 1:] == own  # those that were that word before
    assert float((tokens == own)[~plain].float().mean()) == pytest.approx(kept * (1 - reference), abs=0.03)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    reference=st.floats(0, 1),
    word_dropout=st.floats(0, 0.99),
    seed=st.integers(0, 2**32),
)
def test_start_and_padding_stay_and_the_seed_decides(
    lengths: list[int], reference: float, word_dropout: float, seed: int
) -> None:
    tokens = fed(lengths, reference, word_dropout, seed)
    assert (tokens[:, 0] == NETWORK.start_id).all()
    for row, length in enumerate(lengths):
        assert not (tokens[row, 1:length] == NETWORK.pad_id).any()
        assert torch.equal(tokens[row, length:], fed(lengths, 1.0)[row, length:])
    assert torch.equal(tokens, fed(lengths, reference, word_dropout, seed))


def test_a_first_token_that_is_forced_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        NETWORK, "defaults", GenerationDefaults((NETWORK.eos_id,), forced_bos=(int(labels_of([40])[0, 0]),))
    )
    tokens, plain = fed([40] * 3, 0.0, 0.99), fed([40] * 3, 1.0)
    stays = plain[:, 1] == NETWORK.defaults.forced_bos[0]
    assert stays.tolist() == [True, False, False]
    assert (tokens[:, 1] == plain[:, 1]).tolist() == stays.tolist()


def test_neighbours_and_padding_change_nothing_of_what_it_says() -> None:
    source, labels = text_source(LENGTHS), labels_of(LENGTHS, 12)
    together = decoder_inputs(NETWORK, NETWORK.encode(source), labels, 0.0, 0.0, UNKNOWN)
    for row, length in enumerate(LENGTHS):
        alone = NETWORK.encode(text_source(LENGTHS)).select(torch.tensor([row]))
        tokens = decoder_inputs(NETWORK, alone, labels[[row], :length], 0.0, 0.0, UNKNOWN)
        assert torch.equal(tokens[0], together[row, :length])


@pytest.mark.parametrize("body", BODIES)
def test_the_first_pass_has_no_gradient_and_the_second_one_learns_from_what_was_fed(body: str) -> None:
    net = copy.deepcopy(BODIES[body])
    batch = Batch(text_source(LENGTHS), labels_of(LENGTHS), [0, 1, 2, 3])
    objective = Objective(net, TrainConfig(), UNKNOWN)
    with dropout_seed(3):
        minimised, nats = objective(batch, 0.4)
    minimised.backward()
    mine = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    with dropout_seed(3):
        tokens = decoder_inputs(net, net.encode(batch.source), batch.labels, 0.4, 0.0, UNKNOWN)
    logits = net.decode(tokens, net.encode(batch.source)).flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, batch.labels.flatten(), reduction="sum")
    expected.backward()
    assert float(nats) == pytest.approx(float(expected.detach()), rel=1e-5)
    for name, parameter in net.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(mine[name], parameter.grad, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("route", ["encoder", "bypass"])
def test_features_with_a_prompt_are_fed_the_same_way(route: str) -> None:
    net = network("convolution", route)
    batch = Batch(feature_source([9, 4, 7], [2, 3, 1]), labels_of([5, 2, 4]), [0, 1, 2])
    objective = Objective(net, TrainConfig(word_dropout=0.3), UNKNOWN)
    with dropout_seed(0):
        changed, plain = objective(batch, 0.2)[1], Objective(net, TrainConfig())(batch)[1]
    assert torch.isfinite(changed) and changed != plain


def test_without_an_unknown_word_padding_stands_for_it() -> None:
    train = TrainConfig(word_dropout=0.5)
    assert Objective(NETWORK, train, NETWORK.eos_id).unknown == Objective(NETWORK, train).unknown == NETWORK.pad_id
    assert Objective(NETWORK, train, UNKNOWN).unknown == UNKNOWN


def test_worker_threads_change_nothing_of_what_is_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = place(Objective(network(dropout=0.3).train(), TrainConfig(word_dropout=0.2), UNKNOWN), "cpu")
    whole = objective.forward
    monkeypatch.setattr(objective, "forward", lambda batch: whole(batch, 0.5))
    first, second, third = (found(objective, [[3, 1], [0, 2, 4]], seed) for seed in (1, 1, 2))
    assert nats(first) == nats(second) != nats(third)
    assert all(torch.equal(a, b) for a, b in pairs(first, second))


CHANGES = [
    {"train__scheduled_sampling": "linear", "train__word_dropout": 0.3, "model__dropout": 0.2},
    {"train__scheduled_sampling": "exponential", "train__accumulate": 2},
    {"train__scheduled_sampling": "inverse_sigmoid", "model__family": "rnn", "model__dropout": 0.2},
    {"train__word_dropout": 0.3},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_ten_steps_stopped_and_resumed_give_the_same_weights(tmp_path: Path, changes: dict[str, object]) -> None:
    data = {"train": {"pairs": str(pairs_file(tmp_path, size=200))}, "vocabulary": 64}
    options = {"data": data, "train__steps": 10, "train__save_every": 3, "train__evaluate_every": 10, **changes}
    options["train__log_every"] = 1
    whole = sourcewise.train(recipe(tmp_path, name="whole", **options))
    with pytest.raises(MemoryError):
        sourcewise.train(recipe(tmp_path, name="parts", **options), listeners=[Stops(7)])
    parts = sourcewise.train(tmp_path / "runs" / "parts", resume=True)
    first, second = (load_file(run.last / "model.safetensors") for run in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)
    lines = [[line for line in run.metrics() if line["kind"] == "train"] for run in (whole, parts)]
    assert [line["loss"] for line in lines[0]] == [line["loss"] for line in lines[1]]
    if "train__scheduled_sampling" in changes:
        logged = [line["reference_share"] for line in lines[0]]
        assert logged == [reference_share(step, 10, whole.recipe.train) for step in range(10)]
    else:
        assert "reference_share" not in lines[0][0]
