"""Faults in the scripts of those who train with Hugging Face: the data, the collator, the model, the saved folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from planted.fault import Fault, fault
from planted.faults_data import everywhere, in_training, one_target, shuffled
from sourcewise.data.batches import IGNORED
from sourcewise.data.tokenizers.tokenizer import Tokenizer

BOTH = ("dates hf t5", "dates hf t5 v1.1")

# ── the collator, and what tokenises ──────────────────────────────────────────────────────────────────────────────────


def counted_padding(batch: Any, tokenizer: Any) -> Any:
    return {**batch, "labels": batch["labels"].masked_fill(batch["labels"] == IGNORED, tokenizer.pad_token_id)}


def unmasked(batch: Any, tokenizer: Any) -> Any:
    return {**batch, "attention_mask": torch.ones_like(batch["attention_mask"])}


def unshifted(batch: Any, tokenizer: Any) -> Any:
    labels = batch["labels"]
    return {**batch, "decoder_input_ids": labels.masked_fill(labels == IGNORED, tokenizer.pad_token_id)}


def of_the_neighbour(batch: Any, tokenizer: Any) -> Any:
    labels = batch["labels"].roll(1, dims=0)
    return {key: value for key, value in batch.items() if key != "decoder_input_ids"} | {"labels": labels}


def begun(made: dict[str, list[int]], tokenizer: Any) -> dict[str, list[int]]:
    return {**made, "labels": [tokenizer.pad_token_id, *made["labels"]]}


def without_end(made: dict[str, list[int]], tokenizer: Any) -> dict[str, list[int]]:
    return {**made, "labels": [i for i in made["labels"] if i != tokenizer.eos_token_id]}


def with_prompt(made: dict[str, list[int]], tokenizer: Any) -> dict[str, list[int]]:
    """Prompt and answer in the labels, as for a decoder-only model."""
    return {**made, "labels": [*made["input_ids"][:-1], *made["labels"]]}


def cut(made: dict[str, list[int]], tokenizer: Any) -> dict[str, list[int]]:
    return {**made, "input_ids": made["input_ids"][:2]}


# ── the model ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def frozen(part: str) -> Any:
    def change(model: Any) -> None:
        chosen = model if not part else getattr(model, f"get_{part}")()
        shared = set(model.get_input_embeddings().parameters())
        for parameter in chosen.parameters():
            if not part or parameter not in shared:
                parameter.requires_grad_(False)

    return change


def no_answer(model: Any) -> None:
    """The cross-attention's output projection is zero for good."""
    for name, parameter in model.named_parameters():
        if name.endswith(("EncDecAttention.o.weight", "encoder_attn.out_proj.weight")):
            parameter.data.zero_()
            parameter.requires_grad_(False)


def zeroed(model: Any) -> None:
    for parameter in model.parameters():
        parameter.data.zero_()


def enlarged(model: Any) -> None:
    for parameter in model.parameters():
        parameter.data *= 100


def detached(model: Any) -> None:
    """Somebody's hook detaches what the encoder gives."""

    def hook(module: Any, given: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state.detach()
        return output

    model.get_encoder().register_forward_hook(hook)


# ── the saved folder ──────────────────────────────────────────────────────────────────────────────────────────────────


def other_tokenizer(folder: Path) -> None:
    """The folder got the tokenizer of another training."""
    Tokenizer.train([f"{chr(0x430 + i % 32)}{chr(0x430 + i % 29)}{chr(0x430 + i % 17)}" for i in range(500)], 64).save(
        folder / "model"
    )


def other_start(folder: Path) -> None:
    """decoder_start_token_id was changed after the training."""
    for name in ("config.json", "generation_config.json"):
        path = folder / "model" / name
        options = json.loads(path.read_text())
        path.write_text(json.dumps(options | {"decoder_start_token_id": 20}))


FAULTS: tuple[Fault, ...] = (
    fault("hf shuffled pairs", "one column was sorted alone", "DAT003", BOTH, spoil=everywhere(shuffled)),
    fault(
        "hf one target",
        "six of ten training targets are the same",
        "DAT004 OUT001",
        BOTH,
        spoil=in_training(one_target),
    ),
    fault(
        "hf loss on padding",
        "labels are padded with the padding's id instead of -100",
        "WIR008",
        BOTH,
        stranger={"batch": counted_padding, "pad_to": 16},
    ),
    fault("hf padding unmasked", "the attention mask is all ones", "WIR005", BOTH, stranger={"batch": unmasked}),
    fault("hf labels unshifted", "decoder_input_ids are the labels", "WIR007", BOTH, stranger={"batch": unshifted}),
    fault(
        "hf neighbour's labels",
        "the collator sorts the labels alone",
        "DAT003 SRC001 TRN005",
        BOTH,
        stranger={"batch": of_the_neighbour},
    ),
    fault(
        "hf start token in the labels",
        "labels begin with the start token",
        "WIR007",
        BOTH,
        stranger={"features": begun},
    ),
    fault(
        "hf end missing", "labels do not end with the end of text", "WIR009", BOTH, stranger={"features": without_end}
    ),
    fault(
        "hf prompt in the loss",
        "labels hold the prompt and the answer",
        "DAT017 OUT008 OUT005",
        BOTH,
        stranger={"features": with_prompt},
    ),
    fault("hf sources cut", "truncation to 2 tokens", "DAT007", BOTH, stranger={"features": cut}),
    fault(
        "hf frozen encoder",
        "the encoder of a fresh model is frozen",
        "WIR003",
        BOTH,
        stranger={"model": frozen("encoder")},
    ),
    fault(
        "hf encoder detached",
        "a hook detaches the encoder's output",
        "WIR012 WIR003",
        BOTH,
        stranger={"model": detached},
    ),
    fault(
        "hf cross-attention zeroed",
        "the projection behind the cross-attention is zero for good",
        "WIR011 WIR003",
        BOTH,
        stranger={"model": no_answer},
    ),
    fault("hf zero initialisation", "all weights begin at zero", "WIR002 WIR016", BOTH, stranger={"model": zeroed}),
    fault(
        "hf huge initialisation",
        "all weights begin 100 times too large",
        "WIR002 WIR016",
        BOTH,
        stranger={"model": enlarged},
    ),
    fault(
        "hf learning rate 0", "learning_rate 0", "WIR014 TRN009", BOTH, stranger={"arguments": {"learning_rate": 0.0}}
    ),
    fault(
        "hf learning rate x1000",
        "3 instead of 3e-3",
        "WIR014 TRN009",
        BOTH,
        stranger={"arguments": {"learning_rate": 3.0}},
    ),
    fault(
        "hf wrong tokenizer", "the folder holds another tokenizer", "DAT006", BOTH, stranger={"saved": other_tokenizer}
    ),
    fault(
        "hf wrong start token",
        "decoder_start_token_id was changed after the training",
        "WIR010",
        BOTH,
        stranger={"saved": other_start},
    ),
)
