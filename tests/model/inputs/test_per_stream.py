"""A bridge for each stream: a slot is the sum of theirs, and a run of it opens again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sourcewise
from sourcewise.config import BridgeConfig
from sourcewise.data.layout import Layout
from sourcewise.errors import RequestError
from sourcewise.model.inputs.registry import build_bridge
from tests.training.recipes import recipe

KINDS = ["projection", "attention", "convolution", "perceiver"]


def made(kind: str, streams: list[int], dims: int) -> Any:
    torch.manual_seed(0)
    config = BridgeConfig(kind=kind, streams=streams, per_stream=True, stride=2, latents=3)
    return build_bridge(config, dims, 16, 0.0).eval()


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_a_slot_is_the_sum_of_those_of_single_bridges(kind: str) -> None:
    both, x = made(kind, [3, 5], 8), torch.randn(2, 7, 8)
    layout = Layout(np.array([7, 4]), 7)
    x[1, 4:] = 0
    slots, out = both.slots(x, layout)
    alone = [each.norm(each.slots(part, layout)[0]) for each, part in zip(both.of, x.split([3, 5], 2), strict=True)]
    torch.testing.assert_close(slots, alone[0] + alone[1])
    assert out.lengths.tolist() == both.of[0].slots(x[..., :3], layout)[1].lengths.tolist()
    spans = both.spans(x[0])
    assert spans is None if kind == "perceiver" else spans == [(0, 2), (2, 4), (4, 6), (6, 7)]


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_what_other_examples_are_does_not_matter(kind: str) -> None:
    bridge, x = made(kind, [3, 5], 8), torch.randn(2, 9, 8)
    padded, layout = bridge(x, Layout(np.array([9, 5]), 9))
    single, _ = bridge(x[1:, :5].clone(), Layout(np.array([5]), 5))
    torch.testing.assert_close(padded[1, : single.shape[1]], single[0], atol=1e-5, rtol=1e-5)
    assert layout.lengths[1] == single.shape[1]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"streams": [3, 4]}, "model.bridge.per_stream: 3 + 4 dims, but the features have 8"),
        ({}, "model.bridge.per_stream: no dims, but the features have 8; name two streams or more in the set"),
        ({"streams": [8]}, "model.bridge.per_stream: 8 dims, but the features have 8; name two streams or more"),
        ({"kind": "units", "streams": [3, 5]}, "units reads the features as they are and has streams of its own"),
    ],
)
def test_what_does_not_go_together(options: dict[str, Any], line: str) -> None:
    with pytest.raises(RequestError) as refused:
        build_bridge(BridgeConfig(per_stream=True, **options), 8, 16, 0.0)
    assert line in str(refused.value)


def test_trained_by_the_names_of_a_set_and_opened_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, dims in (("rgb", 4), ("pose", 3)):
        (tmp_path / name).mkdir()
        for i in range(3):
            np.save(tmp_path / name / f"c{i}.npy", rng.standard_normal((6 + i, dims)).astype("float32"))
    (tmp_path / "m.tsv").write_text("id\ttext\n" + "".join(f"c{i}\tword {i}\n" for i in range(3)))
    manifest = {"manifest": str(tmp_path / "m.tsv")}
    manifest["features"] = {name: str(tmp_path / name) for name in ("rgb", "pose")}  # type: ignore[assignment]
    data = {"train": manifest, "valid": manifest, "vocabulary": 64}
    run = sourcewise.train(recipe(tmp_path, name="r", data=data, model__bridge__per_stream=True, train__steps=2))
    bridge = sourcewise.load(run.folder, "cpu").network.bridge  # type: ignore[attr-defined]
    assert bridge.config.streams == [3, 4]  # pose, rgb: in order of name
    assert [each.dims for each in bridge.of] == [3, 4]
    features = f"pose={tmp_path / 'pose'},rgb={tmp_path / 'rgb'}"
    first = sourcewise.evaluate(run.folder, manifest["manifest"], features=features)
    assert first.metrics["examples"] == 3
