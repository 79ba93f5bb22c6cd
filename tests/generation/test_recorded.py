"""Steps of decoding that are recorded once and repeated find what steps one by one find."""

from __future__ import annotations

from typing import Any

import pytest

from sourcewise.config import GenerationConfig
from sourcewise.errors import Notice
from sourcewise.generation import flow, recorded
from sourcewise.model.families.decoder_only import DecoderOnly
from sourcewise.model.families.huggingface import HuggingFaceBody
from sourcewise.model.families.recurrent import Recurrent
from tests.generation.recording import Counted
from tests.generation.test_looks import NETWORKS, SEARCHES, lively, searched, told
from tests.model.networks import network

SHAPES = {**NETWORKS, "positions": {"decoder_positions": True}}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """A device that records, as a GPU does."""
    made = Counted()
    monkeypatch.setattr(recorded, "can_record", lambda network: network.body.records)
    monkeypatch.setattr(recorded, "record", made)
    return made


@pytest.mark.parametrize("window", [64, 9])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("search", SEARCHES)
def test_outputs_are_those_of_single_steps(
    shape: str, search: str, window: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    made = lively(**SHAPES[shape])
    options = GenerationConfig.model_validate({"beams": 1, "max_new_tokens": 40, **SEARCHES[search]})
    single = told(searched(made, options))
    counted: Counted = request.getfixturevalue("counted")
    monkeypatch.setattr(recorded, "WINDOW", window)
    monkeypatch.setattr(flow, "is_host", lambda device: False)
    assert told(searched(made, options)) == single
    assert counted.recordings >= 3, "nothing was recorded"
    if options.max_new_tokens == 40 and window == 64:
        assert counted.steps > 5 * counted.recordings, "recorded anew for nearly every step"


def test_a_change_of_sources_is_recorded_anew(counted: Counted) -> None:
    """On the host, where sources leave as they finish."""
    made = lively()
    options = GenerationConfig(beams=3, max_new_tokens=40)
    found = told(searched(made, options))
    assert sorted(found) == list(range(15)) and counted.recordings > 3


def test_what_cannot_be_recorded_is_told_once_and_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    made = lively()
    options = GenerationConfig(beams=2, max_new_tokens=30)
    single = told(searched(made, options))

    def refused(*_: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might")

    monkeypatch.setattr(recorded, "can_record", lambda network: True)
    monkeypatch.setattr(recorded, "record", refused)
    with pytest.warns(Notice, match=r"^generation: its steps cannot be recorded .*is capturing\); one by one") as said:
        assert told(searched(made, options)) == single
    assert len(said) == 1


def test_few_steps_are_not_recorded(counted: Counted) -> None:
    made, counted.recordings = lively(), 0
    searched(made, GenerationConfig(beams=1, max_new_tokens=recorded.FEWEST - 1))
    assert not counted.recordings


@pytest.mark.parametrize("body", [DecoderOnly, Recurrent, HuggingFaceBody])
def test_other_families_are_decoded_step_by_step(body: Any) -> None:
    assert not body.records


def test_the_host_records_nothing() -> None:
    assert not recorded.can_record(network())
