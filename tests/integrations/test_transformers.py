"""The callback in real trainings of `Seq2SeqTrainer`: silent on healthy ones; what is wrong with others is found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("accelerate", reason="transformers' Trainer needs it")
transformers = pytest.importorskip("transformers")

from sourcewise.data.batches import IGNORED  # noqa: E402
from sourcewise.errors import RequestError  # noqa: E402
from sourcewise.integrations.collated import Collated, CollatedNetwork, Speaker  # noqa: E402
from sourcewise.integrations.transformers import SourcewiseCallback  # noqa: E402
from tests.integrations.trainings import EOS, PAD, Row, bart, collate, rows, shuffled, t5, tokenizer, trainer  # noqa: E402


class Stop(transformers.TrainerCallback):
    """Ends a training after its first step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        control.should_training_stop = True


class StopAt(transformers.TrainerCallback):
    """Interrupts a training at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        control.should_evaluate = state.global_step == self.step
        control.should_training_stop = state.global_step >= self.step


def watched(made: Any, **options: Any) -> SourcewiseCallback:
    """The callback of a trainer, added."""
    callback = SourcewiseCallback(made, **options)
    made.add_callback(callback)
    return callback


def codes(callback: SourcewiseCallback, level: str = "error") -> list[str]:
    return [finding.code for finding in callback.diagnosis.findings if finding.level == level]


def logged(made: Any, key: str) -> list[Any]:
    return [line[key] for line in made.state.log_history if key in line]


@pytest.mark.parametrize(("model", "rate"), [(t5, 8e-3), (bart, 4e-3)])
def test_a_healthy_training_has_its_source_bits_in_the_trainers_logs(
    model: Callable[[], Any], rate: float, tmp_path: Path
) -> None:
    made = trainer(tmp_path, model(), steps=100, learning_rate=rate)
    callback = watched(made)
    made.train()
    assert codes(callback) == codes(callback, "warning") == []
    (bits,) = logged(made, "sourcewise_source_bits")
    (low,), (high,) = logged(made, "sourcewise_source_bits_low"), logged(made, "sourcewise_source_bits_high")
    assert 1 < low < bits < high
    assert logged(made, "sourcewise_errors") == [0, 0]  # before training, and at the evaluation
    assert any("DAT006" in words for words in callback.diagnosis.not_checked)
    metrics = made.evaluate()
    assert metrics["eval_sourcewise_source_bits"] == pytest.approx(bits)


@pytest.mark.parametrize("make", [t5, bart])
def test_the_collator_and_tokenizer_of_transformers(make: Callable[[], Any], tmp_path: Path) -> None:
    """DataCollatorForSeq2Seq gives the decoder's inputs beside the labels; the tokenizer makes texts of ids."""
    model, words = make(), tokenizer()
    collator = transformers.DataCollatorForSeq2Seq(words, model=model)
    assert "decoder_input_ids" in collator(rows(4))
    made = trainer(tmp_path, model, steps=2, collator=collator, processing=words)
    callback = watched(made)
    made.train()
    assert not [code for code in codes(callback) + codes(callback, "warning") if code.startswith("WIR")]
    assert len(logged(made, "sourcewise_source_bits")) == 1
    encoded = Collated([collator(rows(4))], Speaker(words, CollatedNetwork(model)))
    assert encoded.dataset[0].source == " ".join(chr(93 + i) for i in rows(4)[0]["input_ids"][:-1])


def test_trackers_see_the_figures(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    class Tracker(transformers.TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:
            seen.update(logs)

    made = trainer(tmp_path, steps=20, train=shuffled(), logging_steps=1)
    made.add_callback(Tracker())
    watched(made)
    made.train()
    assert {"sourcewise_source_bits", "sourcewise_DAT003", "loss", "eval_loss"} <= set(seen)


def test_without_the_trainer_its_history_has_them(tmp_path: Path) -> None:
    made = trainer(tmp_path, steps=5)
    made.add_callback(SourcewiseCallback(outputs=False))
    made.train()
    assert len(logged(made, "sourcewise_source_bits")) == 1
    assert logged(made, "sourcewise_findings")


def test_measuring_leaves_the_training_as_it_was(tmp_path: Path) -> None:
    weights = []
    for callback in (False, True):
        model = t5()
        model.config.dropout_rate = 0.1
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.1
        made = trainer(tmp_path, model, steps=6, eval_steps=2)
        if callback:
            watched(made)
        made.train()
        weights.append(torch.cat([p.detach().flatten() for p in made.model.parameters()]))
    assert torch.equal(*weights)


@pytest.mark.parametrize("make", [t5, bart])
@pytest.mark.parametrize("batch", [2, 64])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_autocast_of_the_trainer_is_no_fault(
    make: Callable[[], Any], batch: int, precision: str, tmp_path: Path
) -> None:
    """accelerate puts autocast around the model's forward; what calls the encoder alone is outside of it."""
    size = {"per_device_train_batch_size": batch, "per_device_eval_batch_size": batch}
    made = trainer(tmp_path, make(), steps=1, eval_strategy="no", **{precision: True}, **size)
    callback = watched(made)
    made.train()
    assert hasattr(made.model, "_original_forward") or precision == "fp16"  # which it has on GPUs alone
    assert codes(callback) == codes(callback, "warning") == []


def test_a_fault_under_autocast_is_found(tmp_path: Path) -> None:
    made = trainer(tmp_path, of_kind(Unshifted), steps=1, eval_strategy="no", bf16=True)
    callback = watched(made)
    made.train()
    assert codes(callback)[0] == "WIR007"


def test_a_training_that_has_just_begun_is_no_error(tmp_path: Path) -> None:
    """Half way through sixty steps: what is not learned yet is a note that says why."""
    made = trainer(tmp_path, bart(), steps=60, eval_steps=30, learning_rate=1e-3)
    made.add_callback(StopAt(30))
    callback = watched(made)
    made.train()
    assert codes(callback) == codes(callback, "warning") == []
    early = [f for f in callback.diagnosis.findings if f.code.startswith(("OUT", "SRC", "ATT", "MEM"))]
    assert early and all("step 30 of 60" in f.evidence for f in early)


def noisy(model: Any) -> Any:
    """Its embeddings are dropped at evaluation, too."""
    for name, module in model.named_modules():
        if name.endswith(("shared", "embed_tokens")):
            module.register_forward_hook(lambda module, given, out: torch.nn.functional.dropout(out, 0.2))
    return model


# ── faults ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def deaf(model: Any) -> Any:
    """Whose cross-attention gives nothing."""
    for name, parameter in model.named_parameters():
        if "EncDecAttention.o" in name:
            parameter.data.zero_()
    return model


def frozen(model: Any, part: str) -> Any:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(part))
    return model


def with_nan(model: Any) -> Any:
    model.decoder.final_layer_norm.weight.data[0] = float("nan")
    return model


class Unshifted(transformers.T5ForConditionalGeneration):
    """Reads the very tokens it is to say."""

    def _shift_right(self, input_ids: Tensor) -> Tensor:
        return input_ids.masked_fill(input_ids == IGNORED, PAD)


class PaddingLoss(transformers.T5ForConditionalGeneration):
    """Its loss is the mean over padding as well."""

    def forward(self, labels: Any = None, **given: Any) -> Any:
        out = super().forward(labels=labels, **given)
        if labels is not None:
            everywhere = labels.masked_fill(labels == IGNORED, PAD).flatten()
            out.loss = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), everywhere)
        return out


def of_kind(kind: Any) -> Any:
    return kind(t5().config)


def changed(**changes: Callable[[dict[str, Tensor]], Tensor]) -> Callable[[list[Row]], dict[str, Tensor]]:
    """A collator that spoils some of what `collate` gives."""

    def collator(chosen: list[Row]) -> dict[str, Tensor]:
        batch = collate(chosen)
        return batch | {name: change(batch) for name, change in changes.items()}

    return collator


def begun(batch: dict[str, Tensor]) -> Tensor:
    labels = batch["labels"]
    return torch.cat((torch.full_like(labels[:, :1], PAD), labels), dim=1)


def unmasked(chosen: list[Row]) -> dict[str, Tensor]:
    batch = collate(chosen)
    del batch["attention_mask"]
    return batch


def unmasked_vectors(chosen: list[Row]) -> dict[str, Tensor]:
    batch = collate(chosen)
    drawn = torch.randn(16, 48, generator=torch.Generator().manual_seed(1))[batch["input_ids"]]
    return {"inputs_embeds": drawn * batch["attention_mask"][..., None], "labels": batch["labels"]}


FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "no path from the source": ("WIR011", {"model": lambda: deaf(t5())}),
    "noise at evaluation": ("WIR021", {"model": lambda: noisy(t5())}),
    "NaN in a weight": ("WIR001", {"model": lambda: with_nan(t5())}),
    "labels not shifted": ("WIR007", {"model": lambda: of_kind(Unshifted)}),
    "labels begin with the start token": ("WIR007", {"collator": lambda: changed(labels=begun)}),
    "padding in the loss": ("WIR008", {"model": lambda: of_kind(PaddingLoss)}),
    "padding in the labels": (
        "WIR008",
        {"collator": lambda: changed(labels=lambda b: b["labels"].masked_fill(b["labels"] == IGNORED, PAD))},
    ),
    "no end of text": (
        "WIR009",
        {"collator": lambda: changed(labels=lambda b: b["labels"].masked_fill(b["labels"] == EOS, IGNORED))},
    ),
    "no mask": ("WIR005", {"collator": lambda: unmasked}),
    "no mask beside vectors": ("WIR005", {"collator": lambda: unmasked_vectors}),
    "mask inverted": ("WIR005", {"collator": lambda: changed(attention_mask=lambda b: 1 - b["attention_mask"])}),
    "learning rate 0": ("WIR014", {"options": lambda: {"learning_rate": 0.0}}),
    "weight decay 100": ("WIR014", {"options": lambda: {"weight_decay": 100.0}}),
    "no label counts": (
        "WIR009",
        {"collator": lambda: changed(labels=lambda b: torch.full_like(b["labels"], IGNORED))},
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_before_the_first_step(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, fault = FAULTS[name]
    given = {key: make() for key, make in fault.items()}
    made = trainer(tmp_path, steps=1, eval_strategy="no", **given.pop("options", {}), **given)
    callback = watched(made)
    made.train()
    assert codes(callback)[0] == code
    assert logged(made, f"sourcewise_{code}")[0] == 1
    assert code in [each["code"] for each in logged(made, "sourcewise_findings")[0]]
    assert capsys.readouterr().err.count(f"error {code}") == 1


def test_arguments_far_from_use_are_a_warning(tmp_path: Path) -> None:
    model = t5()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.9
    made = trainer(tmp_path, model, steps=200, eval_strategy="no", adam_beta1=0.9999)
    made.add_callback(Stop())
    callback = watched(made)
    made.train()
    (finding,) = [f for f in callback.diagnosis.findings if f.code == "WIR020"]
    assert finding.level == "warning"
    assert finding.evidence == "dropout 0.9, adam_beta1 0.9999 (remembers 10,000 steps of 200)"


def test_an_evaluation_that_cannot_be_measured_ends_no_training(tmp_path: Path) -> None:
    blank = changed(labels=lambda b: torch.full_like(b["labels"], IGNORED))
    made = trainer(tmp_path, steps=4, collator=blank)
    callback = watched(made, wiring=False)
    made.train()
    assert made.state.global_step == 4
    assert any("no label of the batch counts" in words for words in callback.diagnosis.not_checked)


def test_what_no_optimizer_has_is_found(tmp_path: Path) -> None:
    made = trainer(tmp_path, steps=1, eval_strategy="no")
    chosen = [p for name, p in made.model.named_parameters() if not name.startswith("decoder")]
    made.optimizer = torch.optim.AdamW(chosen, lr=1e-3)
    callback = watched(made)
    made.train()
    assert codes(callback) == ["WIR003"]
    assert "decoder" in callback.diagnosis.findings[0].evidence


def test_a_part_frozen_at_random_is_a_warning_and_a_pretrained_one_is_not(tmp_path: Path) -> None:
    made = trainer(tmp_path, frozen(t5(), "encoder"), steps=1, eval_strategy="no")
    callback = watched(made)
    made.train()
    assert codes(callback, "warning")[0] == "WIR003"
    t5().save_pretrained(tmp_path / "weights")
    model = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "weights")
    made = trainer(tmp_path, frozen(model, "encoder"), steps=1, eval_strategy="no")
    callback = watched(made)
    made.train()
    assert "WIR003" not in [finding.code for finding in callback.diagnosis.findings]


def test_a_collapse_is_found_at_the_evaluations(tmp_path: Path) -> None:
    """Sources that say nothing: the language model of the targets is learned, and so the log says."""
    alike = [row | {"input_ids": [5, 6, 7, 8, EOS]} for row in rows(300)]
    made = trainer(tmp_path, steps=60, train=alike, valid=rows(64, seed=1), eval_steps=30, learning_rate=8e-3)
    callback = watched(made, wiring=False)
    made.train()
    assert {"SRC001", "DAT002"} <= set(codes(callback))
    assert logged(made, "sourcewise_SRC001")[-1] == 1
    assert logged(made, "sourcewise_source_bits")[-1] < 0.1


def ending() -> Any:
    """A tokenizer of letters that ends each text."""
    from tokenizers.processors import TemplateProcessing

    words = tokenizer()
    words.backend_tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", EOS)])
    return words


def watched_data(folder: Path, train: list[Row], processing: Any, **given: Any) -> SourcewiseCallback:
    made = trainer(folder, steps=19, train=train, eval_strategy="no", processing=processing, **given)
    callback = watched(made, wiring=False)
    made.train()
    return callback


def test_sources_cut_to_almost_nothing(tmp_path: Path) -> None:
    cut = [
        row | {"input_ids": row["input_ids"][:1], "labels": [*row["labels"][:-1], *row["labels"]]} for row in rows(600)
    ]
    callback = watched_data(tmp_path, cut, ending())
    assert codes(callback) == ["DAT007"] and codes(callback, "warning") == []
    evidence = callback.diagnosis.findings[0].evidence
    assert "100 % of 600 sources have 1 tokens" in evidence and "not the end of text" in evidence
    assert any("DAT002, DAT003" in words for words in callback.diagnosis.not_checked)
    assert "DAT007" not in codes(watched_data(tmp_path, cut, tokenizer()))  # which ends no text itself


def test_sources_as_long_as_the_tokenizer_lets_them(tmp_path: Path) -> None:
    words = ending()
    words.model_max_length = 5
    callback = watched_data(tmp_path, rows(600), words)
    assert codes(callback, "warning") == ["DAT007"] and "model_max_length" in callback.diagnosis.findings[0].evidence
    assert codes(watched_data(tmp_path, rows(600), ending()), "warning") == []
    assert codes(watched_data(tmp_path, rows(600), ending(), collator=unmasked), "warning") == []


def test_prompts_in_the_labels(tmp_path: Path) -> None:
    def joined(row: Row) -> Row:
        return row | {"labels": [*row["input_ids"][:-1], *row["labels"]]}

    callback = watched_data(tmp_path, [joined(row) for row in rows(600)], ending())
    assert codes(callback, "warning")[0] == "DAT017" and codes(callback) == []


def test_a_start_token_that_is_a_piece_of_text(tmp_path: Path) -> None:
    model = t5()
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = 7
    made = trainer(tmp_path, model, steps=1, eval_strategy="no", processing=tokenizer())
    callback = watched(made)
    made.train()
    finding = next(finding for finding in callback.diagnosis.findings if finding.code == "WIR010")
    assert finding.level == "warning" and "(id 7) is a piece of text" in finding.evidence


# ── what it reads ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_vectors_are_read_as_sources(tmp_path: Path) -> None:
    table = torch.randn(16, 48, generator=torch.Generator().manual_seed(1))

    def collator(chosen: list[Row]) -> dict[str, Tensor]:
        batch = collate(chosen)
        return {"inputs_embeds": table[batch.pop("input_ids")], **batch}

    made = trainer(tmp_path, steps=60, learning_rate=8e-3, collator=collator)
    callback = watched(made)
    made.train()
    assert codes(callback) == []
    assert logged(made, "sourcewise_source_bits")[-1] > 0.5


def test_sources_that_only_the_model_can_read_still_have_source_bits(tmp_path: Path) -> None:
    class Own(transformers.T5ForConditionalGeneration):
        def forward(self, sounds: Any = None, **given: Any) -> Any:
            if sounds is not None:
                given["inputs_embeds"] = self.shared(sounds)
            return super().forward(**given)

    def collator(chosen: list[Row]) -> dict[str, Tensor]:
        batch = collate(chosen)
        return {"sounds": batch.pop("input_ids"), **batch}

    made = trainer(tmp_path, of_kind(Own), steps=2, collator=collator)
    callback = watched(made)
    made.train()
    assert len(logged(made, "sourcewise_source_bits")) == 1
    assert any("no token ids" in words for words in callback.diagnosis.not_checked)
    assert any("wiring" in words for words in callback.diagnosis.not_checked)


def test_what_cannot_be_watched_is_said(tmp_path: Path) -> None:
    gpt = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=1))
    made = trainer(tmp_path, gpt, steps=1, eval_strategy="no")
    callback = watched(made)
    made.train()
    assert callback.diagnosis.not_checked == ["everything: GPT2LMHeadModel is no encoder-decoder model"]
    assert logged(made, "sourcewise_not_checked") == [callback.diagnosis.not_checked]
    with pytest.raises(RequestError, match="examples is 1"):
        SourcewiseCallback(examples=1)


def test_importing_sourcewise_imports_no_transformers() -> None:
    program = "import sourcewise, sys; sourcewise.source_bits; print('transformers' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_a_poor_verdict_stands_last_and_is_a_note_while_the_loss_falls(tmp_path: Path) -> None:
    """What its outputs come to at the end of a training that learned nothing, and at that of one that still learns."""
    made = trainer(tmp_path, steps=60, learning_rate=1e-9)
    still = watched(made)
    made.train()
    assert still.diagnosis.findings[-1].code == "OUT009" and "OUT009" in codes(still)
    made = trainer(tmp_path, steps=60, eval_steps=60, learning_rate=8e-3)
    learning = watched(made)
    made.train()
    assert codes(learning) == [] and "OUT009" not in codes(learning, "note")  # it is above copying already


def test_the_last_step_is_logged_before_it_is_evaluated_and_judged_after(tmp_path: Path) -> None:
    """What the evaluation before it showed is no verdict on a training that is not over."""
    made = trainer(tmp_path, steps=60, eval_steps=30)
    callback = watched(made)
    made.train()
    told = [(f["code"], f["level"]) for line in made.state.log_history for f in line.get("sourcewise_findings", ())]
    assert ("OUT009", "note") in told and ("OUT009", "error") not in told
    assert not callback.doctor.recorder.under_way and callback.doctor.recorder.course.finished


def test_clipping_is_judged_by_the_norm_that_the_trainer_clips_to(tmp_path: Path) -> None:
    made = trainer(tmp_path, steps=60, max_grad_norm=0.01)
    callback = watched(made, outputs=False)
    made.train()
    (found,) = [each for each in callback.diagnosis.findings if each.code == "TRN008"]
    assert "clipped to 0.01" in found.evidence
    assert found.cure.splitlines()[-1] == "  Seq2SeqTrainingArguments(max_grad_norm=10)"


def test_no_cure_names_what_a_trainer_does_not_have(tmp_path: Path) -> None:
    made = trainer(tmp_path, steps=20, train=shuffled())
    callback = watched(made)
    made.train()
    found = callback.diagnosis.findings
    told = [finding["cure"] for line in logged(made, "sourcewise_findings") for finding in line]
    assert "DAT003" in {each.code for each in found} and len(told) >= len(found)
    assert not [cure for cure in (*(each.cure for each in found), *told) if "--" in cure or "sourcewise train" in cure]
