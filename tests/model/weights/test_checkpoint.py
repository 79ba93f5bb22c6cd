"""Checkpoint folders: what a kill leaves, and configurations that say little or much."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sourcewise.errors import RequestError
from sourcewise.model.weights import checkpoint
from sourcewise.model.weights.checkpoint import find_folder, load_network, save_network
from tests.model.networks import network


class Killed(BaseException):
    """A kill, for the test."""


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_kill_between_the_two_renames_loses_nothing(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run" / "checkpoints" / name
    save_network(network(), folder)
    weights = (folder / "model.safetensors").read_bytes()

    def killed(fresh: Path, target: Path) -> None:
        aside = checkpoint._aside(target)
        target.rename(aside)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint, "_replace_folder", killed)
        save_network(network(), folder)
    found = find_folder(tmp_path / "run")  # the one before still answers
    assert (found / "model.safetensors").read_bytes() == weights
    load_network(found)
    save_network(network(), folder)
    assert find_folder(tmp_path / "run") == folder
    assert [p.name for p in folder.parent.iterdir()] == [name]


@pytest.mark.parametrize(
    ("ids", "start", "end", "pad"),
    [
        ({"pad_token_id": 5, "decoder_start_token_id": 0, "eos_token_id": 1}, 0, 1, 5),
        ({"pad_token_id": 5, "decoder_start_token_id": None, "eos_token_id": [7, 8]}, 5, 7, 5),
        ({}, 0, 1, 0),
    ],
)
def test_the_ids_of_a_configuration_are_kept(
    tmp_path: Path, ids: dict[str, object], start: int, end: int, pad: int
) -> None:
    save_network(network(), tmp_path / "net")
    config = tmp_path / "net" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **ids}))
    (tmp_path / "net" / "generation_config.json").unlink()
    found = load_network(tmp_path / "net")
    assert (found.start_id, found.eos_id, found.pad_id) == (start, end, pad)


def test_ids_that_are_nowhere_are_not_guessed(tmp_path: Path) -> None:
    save_network(network(), tmp_path / "net")
    config = tmp_path / "net" / "config.json"
    none = dict.fromkeys(("pad_token_id", "decoder_start_token_id", "eos_token_id"))
    config.write_text(json.dumps({**json.loads(config.read_text()), **none}))
    (tmp_path / "net" / "generation_config.json").unlink()
    with pytest.raises(RequestError, match=r"config\.json: eos_token_id is missing"):
        load_network(tmp_path / "net")
