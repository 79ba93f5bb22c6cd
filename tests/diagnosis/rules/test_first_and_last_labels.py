"""WIR024 and WIR025: labels behind the end of text, and outputs that are forced to begin otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sourcewise.data.batches import IGNORED, Batch
from sourcewise.diagnosis.wiring import one_batch
from sourcewise.model.generation_defaults import GenerationDefaults
from tests.diagnosis.test_wiring import check_network, prepared


def ends(labels: torch.Tensor, eos: int) -> torch.Tensor:
    return (labels == eos).int().argmax(1)


def with_code_behind(batch: Batch, eos: int, code: int, share: float = 1.0) -> Batch:
    """text, end, code – as old tokenizers of NLLB have it."""
    labels = torch.cat([batch.labels, torch.full_like(batch.labels[:, :1], IGNORED)], 1)
    for row in range(int(share * len(labels))):
        labels[row, ends(labels, eos)[row] + 1] = code
    return Batch(batch.source, labels, batch.indices)


def with_code_before(batch: Batch, *codes: int) -> Batch:
    first = torch.tensor([codes[row % len(codes)] for row in range(len(batch.labels))])
    return Batch(batch.source, torch.cat([first[:, None], batch.labels], 1), batch.indices)


def forced(network: object, *ids: int) -> None:
    network.defaults = replace(getattr(network, "defaults", GenerationDefaults()), forced_bos=ids)  # type: ignore[attr-defined]


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_code_behind_the_end(family: str) -> None:
    training = prepared(model__family=family)
    network, batch = training.network, one_batch(training.train)
    assert check_network(network, batch) == []
    found = {each.code: each for each in check_network(network, with_code_behind(batch, network.eos_id, 20))}
    assert found["WIR024"].level == "error" and "12 of 12 rows" in found["WIR024"].evidence
    few = check_network(network, with_code_behind(batch, network.eos_id, 20, share=0.2))
    assert "WIR024" not in [each.code for each in few]


@pytest.mark.parametrize(
    ("codes", "forces", "level"),
    [
        ((30,), (31,), "error"),  # another language
        ((), (31,), "error"),  # labels have no code
        ((30, 31), (31,), "warning"),  # two languages, one of them forced for both
        ((30,), (30,), None),
        ((30, 31), (30, 31), None),
        ((30,), (), None),
    ],
)
def test_the_first_token(codes: tuple[int, ...], forces: tuple[int, ...], level: str | None) -> None:
    training = prepared()
    network, batch = training.network, one_batch(training.train)
    forced(network, *forces)
    found = {
        each.code: each.level for each in check_network(network, with_code_before(batch, *codes) if codes else batch)
    }
    assert found.get("WIR025") == level
