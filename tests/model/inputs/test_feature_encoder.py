"""The encoder of features before the bridge: what it may see, and how it is kept, lent, frozen and freed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import sourcewise
from sourcewise.config import BridgeConfig, FeatureEncoderConfig
from sourcewise.data.layout import Layout
from sourcewise.errors import RequestError
from sourcewise.model.inputs.registry import build_bridge
from sourcewise.model.weights.checkpoint import find_folder, load_network
from tests.commands import write_features
from tests.model.networks import DIMS, feature_source
from tests.training.recipes import feature_recipe, recipe

ENCODER = {"layers": 2, "width": 16, "kernel": 3}


@pytest.mark.parametrize("kind", ["projection", "attention", "perceiver", "convolution"])
def test_padding_and_neighbours_change_no_slot(kind: str) -> None:
    torch.manual_seed(0)
    config = BridgeConfig.model_validate({"kind": kind, "stride": 3, "latents": 5})
    bridge = build_bridge(config, DIMS, 24, 0.1, FeatureEncoderConfig(layers=3, width=16)).eval()
    assert bridge.dims == DIMS
    lengths = [9, 4, 7]
    together = feature_source(lengths, width=20)
    slots, layout = bridge(together.features, together.frame_layout)
    for row, length in enumerate(lengths):
        alone = feature_source(lengths)
        mine, own = bridge(alone.features[row : row + 1, :length], Layout([length], length))
        assert own.longest == layout.lengths[row]
        torch.testing.assert_close(slots[row : row + 1, : own.longest], mine, atol=1e-5, rtol=1e-4)


def test_it_learns_is_kept_and_is_lent(tmp_path: Path) -> None:
    first = sourcewise.train(feature_recipe(tmp_path, name="first", model__feature_encoder=ENCODER))
    network = load_network(find_folder(first.folder))
    assert network.bridge.encoder.config.layers == 2 and network.dims == 8  # type: ignore[attr-defined]
    assert sourcewise.evaluate(first.folder, "digits").metrics["loss"] > 0
    lent = {"model__feature_encoder": {"weights": str(first.folder)}, "train__freeze": ["features"]}
    second = sourcewise.train(feature_recipe(tmp_path, name="second", seed=5, **lent))
    before, after = (load_file(run.best / "bridge.safetensors") for run in (first, second))
    kept = [name for name in before if name.startswith("encoder.") or name in ("mean", "deviation")]
    assert len(kept) > 8
    for name in kept:
        assert torch.equal(before[name], after[name]), name
    assert not torch.equal(before["last.weight"], after["last.weight"])


def test_it_is_frozen_and_freed_apart_from_the_bridge(tmp_path: Path) -> None:
    from sourcewise.api import prepare
    from sourcewise.training.run import Run

    options = {"model__feature_encoder": ENCODER, "train__unfreeze": {"features": 1.0}}
    learner = prepare(feature_recipe(tmp_path, **options), Run(tmp_path / "r")).learner
    waits = dict(zip(learner.optimizer.names, learner.unfreezing.factors(0.9) or [], strict=True))
    assert waits["network.bridge.encoder.enter.weight"] == 0 and waits["network.bridge.last.weight"] == 1
    frozen = prepare(
        feature_recipe(tmp_path, **options | {"train__unfreeze": {}, "train__freeze": ["bridge"]}), Run(tmp_path / "f")
    )
    assert "network.bridge.encoder.enter.weight" in frozen.learner.optimizer.names
    assert "network.bridge.last.weight" not in frozen.learner.optimizer.names


def test_what_lends_nothing_is_refused(tmp_path: Path) -> None:
    plain = sourcewise.train(feature_recipe(tmp_path, name="plain", train__steps=2, train__evaluate_every=2))
    with pytest.raises(RequestError, match="holds no feature encoder"):
        sourcewise.train(feature_recipe(tmp_path, name="x", model__feature_encoder={"weights": str(plain.folder)}))
    with pytest.raises(RequestError, match="this network has no features"):
        sourcewise.train(feature_recipe(tmp_path, name="x", train__freeze=["features"]))
    lender = feature_recipe(tmp_path, name="l", model__feature_encoder=ENCODER, train__steps=2, train__evaluate_every=2)
    folder = sourcewise.train(lender).folder
    write_features(tmp_path)
    manifest = {"manifest": str(tmp_path / "m.tsv"), "features": str(tmp_path / "features")}
    data = {"train": manifest, "vocabulary": 64}
    with pytest.raises(RequestError, match=r"model\.feature_encoder\.weights: .* reads 8 dims, .* has 4"):
        sourcewise.train(recipe(tmp_path, name="x", data=data, model__feature_encoder={"weights": str(folder)}))
