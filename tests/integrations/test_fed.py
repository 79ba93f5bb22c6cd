"""Labels that do not reach the model: what its decoder is then fed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("accelerate", reason="transformers' Trainer needs it")
transformers = pytest.importorskip("transformers")

from sourcewise.integrations.transformers import SourcewiseCallback  # noqa: E402
from tests.integrations.odd import IGNORED, bert2bert, made, with_inputs  # noqa: E402
from tests.integrations.trainings import EOS, PAD, SIZE, Row, bart, collate, t5, tokenizer  # noqa: E402

TAKEN = "label_smoothing_factor 0.1 takes the labels out of the batch before the model is called"


def mbart() -> Any:
    """Another of BART's kin, which shift their source."""
    torch.manual_seed(0)
    stack = {f"{side}_{name}": 1 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    sizes = {"d_model": 48, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64}
    ids = {"pad_token_id": PAD, "bos_token_id": PAD, "eos_token_id": EOS, "decoder_start_token_id": EOS}
    return transformers.MBartForConditionalGeneration(
        transformers.MBartConfig(vocab_size=SIZE, **sizes, **stack, **ids)
    )


class Popping(transformers.Seq2SeqTrainer):
    """A weighted loss as many write it."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        labels = inputs.pop("labels")
        out = model(**inputs)
        logits = out.logits[:, : labels.shape[1]]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        return (loss, out) if return_outputs else loss


def watched(folder: Path, *given: Any, ends: bool = True, **options: Any) -> list[Any]:
    """The findings about labels, of a training that may end by an error of its own."""
    built, _ = made(folder, *given, eval_strategy="no", **options)
    callback = SourcewiseCallback(built)
    built.add_callback(callback)
    if ends:
        built.train()
    else:
        with pytest.raises((ValueError, RuntimeError)):
            built.train()
    assert not callback.told.problems
    return [finding for finding in callback.diagnosis.findings if finding.code == "WIR007"]


@pytest.mark.parametrize("model", [bart, mbart])
def test_smoothing_leaves_bart_with_its_shifted_source(model: Any, tmp_path: Path) -> None:
    (found,) = watched(tmp_path, model(), label_smoothing_factor=0.1)
    assert found.level == "error" and found.evidence.startswith(f"{TAKEN}, and the batch has no decoder_input_ids")
    assert "the decoder is fed its own shifted source (input_ids), not the targets" in found.evidence
    assert "DataCollatorForSeq2Seq(tokenizer, model=model)" in found.cure


def test_it_is_said_before_the_training_ends_by_it(tmp_path: Path) -> None:
    """Sources shorter than targets: the smoother's shapes do not fit. T5 and EncoderDecoderModel refuse the call."""

    def short(chosen: list[Row]) -> dict[str, Any]:
        return collate([row | {"input_ids": [*row["input_ids"][:1], EOS]} for row in chosen])

    (found,) = watched(tmp_path, bart(), collator=short, label_smoothing_factor=0.1, ends=False)
    assert "it gives 2 positions for 5 labels" in found.evidence
    for model in (t5(), bert2bert()):
        (found,) = watched(tmp_path, model, label_smoothing_factor=0.1, ends=False)
        assert f"; {type(model).__name__} refuses it: " in found.evidence


def test_a_loss_of_ones_own_that_pops_the_labels(tmp_path: Path) -> None:
    (found,) = watched(tmp_path, bart(), kind=Popping)
    assert found.evidence.startswith("compute_loss calls the model without the labels, and the batch has no")
    assert "its own shifted source (input_ids)" in found.evidence
    assert watched(tmp_path, bart(), kind=Popping, collator=lambda c: bart_inputs(collate(c))) == []


def bart_inputs(batch: dict[str, Any]) -> dict[str, Any]:
    return batch | {"decoder_input_ids": bart().prepare_decoder_input_ids_from_labels(batch["labels"])}


@pytest.mark.parametrize("make", [t5, bart])
def test_the_collator_that_is_given_the_model_is_right(make: Any, tmp_path: Path) -> None:
    model = make()
    collator = transformers.DataCollatorForSeq2Seq(tokenizer(), model=model)
    assert watched(tmp_path, model, collator=collator, label_smoothing_factor=0.1) == []


def test_smoothing_is_the_reason_why_its_loss_is_not_judged(tmp_path: Path) -> None:
    built, _ = made(tmp_path, collator=with_inputs, label_smoothing_factor=0.1)
    callback = SourcewiseCallback(built)
    built.add_callback(callback)
    built.train()
    reasons = [line for line in callback.diagnosis.not_checked if "label_smoothing_factor" in line]
    assert len(reasons) == 1 and "label_smoothing_factor is 0.1, so what is logged is no cross-entropy" in reasons[0]
    assert not any("metrics.jsonl" in line for line in callback.diagnosis.not_checked)
    assert callback.doctor.recorder.course.parts("update_ratios")  # what its steps do is judged all the same
