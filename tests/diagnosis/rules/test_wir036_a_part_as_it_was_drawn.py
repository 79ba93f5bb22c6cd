"""Parts of loaded models that no checkpoint reached, by their singular values; and tokenizers that pad on the left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sourcewise.diagnosis.asked import pads_on_the_left
from sourcewise.diagnosis.measures.freshness import drawn_by_part, is_drawn
from sourcewise.diagnosis.measures.laid import Laid
from sourcewise.diagnosis.plan import Plan
from sourcewise.diagnosis.rules import look
from sourcewise.diagnosis.wiring import Wiring
from sourcewise.model.families.huggingface import HuggingFaceNetwork
from tests.integrations import trainings


def moved(model: Any, *, part: str = "", rank: int = 2) -> Any:
    """As a training moves weights: each matrix but those of one part gets what is alike in many rows."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1 and not (part and f"{part}." in name):
                wide = torch.randn(len(p), rank, generator=draw) @ torch.randn(rank, p[0].numel(), generator=draw)
                p.add_(p.std() * wide.view_as(p))
    return model


@pytest.mark.parametrize("shape", [(16, 16), (64, 48), (300, 40), (96, 64, 3)])
@pytest.mark.parametrize(
    "draw", [nn.init.xavier_uniform_, nn.init.xavier_normal_, nn.init.kaiming_uniform_, nn.init.orthogonal_]
)
def test_a_matrix_as_it_was_drawn(shape: tuple[int, ...], draw: Any) -> None:
    torch.manual_seed(0)
    table = draw(torch.empty(shape))
    assert is_drawn(table) and is_drawn(0.02 * table)
    trained = moved(nn.ParameterList([nn.Parameter(table)]))[0]
    assert not is_drawn(trained)


@pytest.mark.parametrize("table", [torch.zeros(32, 32), torch.randn(4, 4), torch.ones(40, 40), torch.randn(9)])
def test_tables_that_do_not_tell(table: torch.Tensor) -> None:
    assert not is_drawn(table)


def found(model: Any, plan: Plan | None = None) -> list[tuple[str, str]]:
    wiring = Wiring(HuggingFaceNetwork(model), plan=plan)
    return [(each.code, each.level) for each in look(wiring, codes="WIR036").findings]


@pytest.mark.parametrize("model", [trainings.t5, trainings.bart])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_part_that_was_not_loaded(model: Any, part: str) -> None:
    assert found(moved(model(), part=part)) == [("WIR036", "warning")]
    assert found(moved(model(), part=part), Plan(fresh=False)) == [("WIR036", "warning")]
    assert found(moved(model(), part=part), Plan(fresh=True)) == []  # it says so itself


def test_a_run_that_began_with_a_network_as_drawn_is_not_held_to_a_file() -> None:
    network = HuggingFaceNetwork(moved(trainings.t5(), part="encoder"))
    assert not look(Wiring(network, from_scratch=True), codes="WIR036").findings
    assert look(Wiring(network, from_scratch=False), codes="WIR036").findings


@pytest.mark.parametrize("model", [trainings.t5, trainings.bart])
@pytest.mark.parametrize(("own", "others", "said"), [(0.04, 0.5, ["WIR036"]), (0.3, 0.5, []), (0.04, 0.06, [])])
def test_norms_tell_whether_narrow_matrices_were_trained(
    model: Any, own: float, others: float, said: list[str]
) -> None:
    """A part that was not loaded and then tuned a little is as drawn; one that was trained with the others is not."""
    network = moved(model(), part="encoder")
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, each in network.named_parameters():
            if "norm" in name and name.endswith("weight"):
                each.add_((own if "encoder." in name else others) * torch.randn(len(each), generator=draw))
    assert [code for code, _ in found(network)] == said


@pytest.mark.parametrize("model", [trainings.t5, trainings.bart])
def test_models_that_were_loaded_or_drawn_as_a_whole(model: Any) -> None:
    assert found(moved(model())) == [] and found(model()) == []
    counts = drawn_by_part(HuggingFaceNetwork(model()).parts())
    assert counts["encoder"][0] == counts["encoder"][1] > 1


def test_a_tokenizer_that_pads_on_the_left(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for side, left in (("left", True), ("right", False)):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"padding_side": side}))
        assert pads_on_the_left(str(tmp_path)) is left
    (tmp_path / "tokenizer_config.json").write_text("[]")
    assert not pads_on_the_left(str(tmp_path)) and not pads_on_the_left("") and not pads_on_the_left("no/such")
    (said,) = look(Wiring(laid=Laid("tokenizer_config.json", "left", "right")), codes="WIR033").findings
    assert said.level == "warning" and "tokenizer_config.json pads sources on the left" in said.evidence
