"""`inputs_embeds=` runs T5's encoder: what docs/inputs_embeds.md says, held to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
measured = pytest.importorskip("benchmarks.inputs_embeds", reason="needs the benchmarks of a checkout")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    folder = measured.random_t5(tmp_path_factory.mktemp("t5"))
    return {(row["engine"], row["way"]): row for row in measured.ways(folder)}


@pytest.mark.parametrize("engine", ["transformers", "sourcewise"])
def test_vectors_go_through_the_encoder_whoever_calls_it(engine: str, rows: Any) -> None:
    given, by_hand, bypass = (rows[engine, way] for way in ("inputs_embeds", "encoder by hand", "bypass"))
    assert given["logits"] == by_hand["logits"]  # bit for bit the same thing
    assert given["logits"] < 1e-4
    assert given["same_pct"] == by_hand["same_pct"] == 100
    assert bypass["logits"] > 0.1  # and going past it is another


def test_without_a_mask_padding_is_read(rows: Any) -> None:
    assert rows["transformers", "no mask"]["logits"] > 0.1


def test_noise_in_the_encoder_moves_what_inputs_embeds_gives(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.T5ForConditionalGeneration.from_pretrained(measured.random_t5(tmp_path)).eval()
    vectors, tokens = torch.randn(2, 7, model.config.d_model), torch.zeros(2, 3, dtype=torch.long)
    with torch.inference_mode():
        before = model(inputs_embeds=vectors, decoder_input_ids=tokens).logits
        model.encoder.block[0].layer[1].DenseReluDense.wo.weight.mul_(2)
        assert not torch.allclose(before, model(inputs_embeds=vectors, decoder_input_ids=tokens).logits, atol=1e-3)
