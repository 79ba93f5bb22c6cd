"""The bridge of units: which units are found, what a slot is, and how the tables are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import sourcewise
from sourcewise.config import BridgeConfig, FeatureEncoderConfig
from sourcewise.data.examples import Dataset, Example
from sourcewise.data.layout import Layout
from sourcewise.errors import RequestError
from sourcewise.model.inputs.bridges import Units
from sourcewise.model.inputs.registry import build_bridge
from sourcewise.model.inputs.units import find_units, link_units
from sourcewise.model.weights.checkpoint import find_folder, load_network
from tests.training.recipes import feature_recipe, recipe

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
DRAW = np.random.default_rng(3)
SIGNS = DRAW.standard_normal((30, 4)).astype(np.float32)  # three states of each of ten signs
SHAPES = DRAW.standard_normal((5, 2)).astype(np.float32)


def clip(signs: list[int], held: int = 2) -> np.ndarray:
    """Each state of each sign for `held` frames, beside a shape that does not depend on it."""
    states = np.repeat([3 * sign + state for sign in signs for state in range(3)], held)
    return np.concatenate((SIGNS[states], SHAPES[np.arange(len(states)) % 5]), axis=1)


def dataset(clips: list[np.ndarray]) -> Dataset:
    return Dataset([Example(f"c{i}", "x") for i in range(len(clips))], dims=6, read=clips.__getitem__)


def all_signs() -> Dataset:
    draw = np.random.default_rng(0)
    return dataset([clip(list(draw.integers(0, 10, 6))) for _ in range(40)])


def bridge(link: float = 0.0, units: int = 4096, clips: Dataset | None = None) -> Units:
    torch.manual_seed(0)
    config = BridgeConfig(kind="units", streams=[4, 2], link=link, units=units)
    built = build_bridge(config, 6, 16, 0.1)
    built.prepare(clips or all_signs())
    assert isinstance(built, Units)
    return built.eval()


def read(built: Units, *clips: np.ndarray) -> tuple[torch.Tensor, list[int]]:
    lengths = [len(each) for each in clips]
    features = torch.zeros(len(clips), max(lengths) + 3, 6)
    for i, each in enumerate(clips):
        features[i, : len(each)] = torch.from_numpy(each)
    slots, layout = built(features, Layout(lengths, features.shape[1]))
    return slots, layout.lengths.tolist()


def test_distinct_frames_are_units_and_runs_of_one_are_slots() -> None:
    built = bridge()
    assert [len(built.centres0), len(built.centres1)] == [31, 6]  # and the mean of all frames
    _, lengths = read(built, clip([1, 4]), clip([7], held=5), clip([7]))
    assert lengths == [6, 3, 3]
    spans = built.spans(torch.from_numpy(clip([7], held=5)))
    assert spans == [(0, 5), (5, 10), (10, 15)]


def test_linked_states_are_one_slot_and_a_sign_that_is_repeated_two() -> None:
    built = bridge(link=0.9)
    slots, lengths = read(built, clip([1, 4, 4, 1]), clip([7], held=5))
    assert lengths == [4, 1]
    assert len(built.vectors[0].weight) == 11
    assert built.spans(torch.from_numpy(clip([4, 4]))) == [(0, 6), (6, 12)]
    assert not torch.allclose(slots[0, 0], slots[0, 1])


def test_slots_do_not_depend_on_neighbours_padding_or_duration() -> None:
    built = bridge()
    together, lengths = read(built, clip([1, 4, 2]), clip([7, 3]))
    alone, _ = read(built, clip([7, 3]))
    torch.testing.assert_close(together[1, : lengths[1]], alone[0, : lengths[1]])
    assert not together[1, lengths[1] :].any()
    built.config = built.config.model_copy(update={"positions": False})
    slow = np.concatenate((SIGNS[[3] * 10], SHAPES[[0, 1, 2, 3, 4] * 2]), axis=1)
    torch.testing.assert_close(read(built, slow)[0][0, 0], read(built, slow[:5])[0][0, 0])


def test_noise_does_not_change_units_and_masked_frames_have_their_own() -> None:
    built = bridge()
    noisy = clip([1, 4]) + np.random.default_rng(1).normal(0, 0.01, (12, 6)).astype(np.float32)
    torch.testing.assert_close(read(built, noisy)[0], read(built, clip([1, 4]))[0])
    masked = clip([1, 4])
    masked[2:4] = built.mean.numpy()
    assert built.nearest(0, ((torch.from_numpy(masked) - built.mean) / built.deviation)[:, :4])[2:4].tolist() == [0, 0]


def test_more_vectors_than_units_are_clustered() -> None:
    draw = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    rows = centres[torch.randint(4, (600,), generator=draw)] + torch.randn(600, 2, generator=draw) * 0.1
    torch.manual_seed(1)
    (found,) = find_units(lambda: np.split(rows.numpy(), 30), [2], 8)
    assert found.shape == (8, 2)
    assert torch.cdist(centres, found).min(1).values.max() < 0.3
    torch.manual_seed(1)
    (same,) = find_units(lambda: np.split(rows.numpy(), 30), [2], 8)
    assert torch.equal(found, same)
    (exact,) = find_units(lambda: np.split(rows[:8].repeat(9, 1).numpy(), 4), [2], 8)
    assert torch.equal(exact, rows[:8])


def test_units_are_linked_if_they_rarely_stand_alone() -> None:
    clips = [[1, 2, 3, 4], [4, 1, 2], [3, 4, 5], [5, 3], [1, 2, 5]]
    chains, places = link_units(clips, 7, 0.9)
    assert chains[1] == chains[2] and places[[1, 2]].tolist() == [0, 1]
    assert len(set(chains.tolist())) == 6  # 3 and 4 are apart in a third of the cases; 0 and 6 never occur
    chains, _ = link_units(clips, 7, 0.6)
    assert chains[3] == chains[4]


def test_a_ring_of_units_is_cut_once() -> None:
    chains, places = link_units([[0, 1, 2] * 50], 3, 0.9)
    assert chains.tolist() == [0, 0, 0] and places.tolist() == [0, 1, 2]


def test_features_of_another_width_and_a_feature_encoder_are_refused() -> None:
    config = BridgeConfig(kind="units", streams=[4, 4])
    with pytest.raises(RequestError, match=r"model.bridge.streams: 4 \+ 4 dims, but the features have 6"):
        build_bridge(config, 6, 16, 0.1)
    with pytest.raises(ValueError, match=r"link\n.*0.4: a unit may be followed so often by two others"):
        BridgeConfig(kind="units", link=0.4)
    with pytest.raises(RequestError, match=r"model.feature_encoder.layers: 2, but a bridge of kind units"):
        build_bridge(BridgeConfig(kind="units"), 6, 16, 0.1, FeatureEncoderConfig(layers=2))


def write_signs(folder: Path, size: int = 400) -> str:
    """A manifest of clips in which each sign is a word."""
    draw, rows = np.random.default_rng(0), ["id\ttext"]
    (folder / "features").mkdir()
    for i in range(size):
        signs = list(draw.integers(0, 10, draw.integers(2, 5)))
        np.save(folder / "features" / f"c{i}.npy", clip(signs, held=int(draw.integers(1, 4))))
        rows.append(f"c{i}\t{' '.join(WORDS[s] for s in signs)}")
    (folder / "m.tsv").write_text("\n".join(rows) + "\n")
    return str(folder / "m.tsv")


def test_it_is_trained_checked_kept_and_traced(tmp_path: Path) -> None:
    signs = {"manifest": write_signs(tmp_path)}
    data = {"train": signs, "valid": {**signs, "limit": 20}, "vocabulary": 64}
    options = {"kind": "units", "streams": [4, 2], "link": 0.9}
    training = {"train__steps": 100, "train__evaluate_every": 100, "train__learning_rate": 1e-2}
    made = recipe(
        tmp_path, data=data, model__bridge=options, train__preflight=True, train__batch_tokens=1024, **training
    )
    run = sourcewise.train(made)
    network = load_network(find_folder(run.folder))
    assert len(network.bridge.vectors[0].weight) == 11  # type: ignore[attr-defined]
    assert run.metrics()[-1]["source_bits"] > 1.5
    frames = np.load(tmp_path / "features" / "c1.npy")
    traced = sourcewise.trace(run.folder, [frames])
    assert [slot.frames for slot in traced.slots] == network.bridge.spans(torch.from_numpy(frames))  # type: ignore


@pytest.mark.parametrize("broken", ["width", "chains", "missing"])
def test_tables_that_do_not_fit_are_refused(broken: str) -> None:
    state = bridge(link=0.9).state_dict()
    if broken == "missing":
        del state["places"]
    elif broken == "width":
        state["centres0"] = state["centres0"][:, :3]
    else:
        state["chains"] = state["chains"] + 1
    with pytest.raises(RuntimeError, match=r"centres0|chains|places"):
        build_bridge(BridgeConfig(kind="units", streams=[4, 2]), 6, 16, 0.1).load_state_dict(state)


def test_dense_features_are_rounded_to_units(tmp_path: Path) -> None:
    run = sourcewise.train(feature_recipe(tmp_path, model__bridge={"kind": "units", "units": 40}))
    network = load_network(find_folder(run.folder))
    assert len(network.bridge.centres0) == 41  # type: ignore[attr-defined]
