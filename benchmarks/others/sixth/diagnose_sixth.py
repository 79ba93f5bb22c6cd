"""Models that are trained and done: what goes wrong when they are loaded, or measured."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from others import adapters, tasks, trainers
from others.case import Cases
from others.hosts import Judged
from others.tasks import ENGLISH, Pair

CASES = Cases()


def table(file: Path, rows: list[Pair], head: tuple[str, str] = ("source", "target")) -> Path:
    """A .tsv of pairs."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join("\t".join(row) for row in [head, *rows]) + "\n", encoding="utf-8")
    return file


def share(model: Any, tokenizer: Any, rows: list[Pair]) -> float:
    """The share of sources whose output is exactly the target."""
    right = 0
    for i in range(0, len(rows), 32):
        batch = tokenizer([source for source, _ in rows[i : i + 32]], padding=True, return_tensors="pt")
        batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
        for said, (_, target) in zip(trainers.said(model, batch), rows[i : i + 32], strict=True):
            right += tokenizer.decode(said) == target
    return right / len(rows)


def said_by(folder: Path, file: Path) -> float:
    """What transformers makes of a folder, and of the columns source and target of a file."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    lines = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()]
    rows = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    pairs = [(row["source"], row["target"]) for row in rows]
    return share(AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), pairs)


@CASES.fault(
    "test-set-of-the-other-direction",
    "diagnose",
    origin="github.com/facebookresearch/fairseq, issues 359 and 360: without --source-lang and --target-lang the "
    "direction is "
    "the other one than one thinks",
    what="the columns of the evaluation file are the other way round: its sources are English, the model reads German",
    expected="what is evaluated on is not what the model was trained on: source and target are swapped",
    accepts="new:columns-swapped",
    also="OUT011 OUT013",
)
def swapped(broken: bool, seed: int, folder: Path) -> Judged:
    """A BART that reads German."""
    model, tokenizer, valid = adapters.bart_checkpoint(seed)
    place = folder / "model"
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    file = table(folder / "test.tsv", valid, ("target", "source") if broken else ("source", "target"))
    return Judged(place, file, lambda: said_by(place, file))


@CASES.fault(
    "encoder-never-loaded",
    "diagnose",
    origin="github.com/torchgeo/torchgeo, issue 4036 (strict=False ignores that every tensor was dropped); "
    "github.com/yangyiliu21/ntire2023_ITBdehaze, issue 8 (module. of DataParallel)",
    what="the encoder was trained in DataParallel; the export loads the state with strict=False, and the keys "
    "encoder.module.* are dropped without a word: the encoder that is saved is as it was drawn",
    expected="the encoder's weights are not trained ones: they were not loaded",
    accepts="new:encoder-untrained",
)
def unloaded(broken: bool, seed: int, folder: Path) -> Judged:
    """A BART exported from another trainer's checkpoint."""
    from transformers import BartForConditionalGeneration

    model, tokenizer, valid = adapters.bart_checkpoint(seed)
    prefix = "model.encoder."
    state = {
        (f"{prefix}module.{name.removeprefix(prefix)}" if name.startswith(prefix) else name): tensor
        for name, tensor in model.state_dict().items()
    }
    if not broken:
        state = {name.replace("encoder.module.", "encoder."): tensor for name, tensor in state.items()}
    torch.manual_seed(seed + 7)
    exported = BartForConditionalGeneration(model.config)
    exported.load_state_dict(state, strict=False)
    place = folder / "model"
    exported.save_pretrained(place)
    tokenizer.save_pretrained(place)
    file = table(folder / "valid.tsv", valid)
    return Judged(place, file, lambda: said_by(place, file))


@CASES.fault(
    "adapter-under-other-names",
    "diagnose",
    origin="github.com/vllm-project/vllm, issue 34186; github.com/alvdansen/signet-trainer, issue 105: adapters "
    "whose names "
    "do not fit are left out without an error, and the base answers",
    what="the adapter's tensors were saved under other names (a prefix is missing): none is loaded, and what "
    "answers is "
    "the base alone",
    expected="the adapter's tensors do not fit the base's modules: nothing of it is loaded",
    accepts="new:adapter-names",
)
def names(broken: bool, seed: int, folder: Path) -> Judged:
    """LoRA by peft on a BART, measured from its folder."""
    from peft import LoraConfig, PeftModel, TaskType, get_peft_model
    from safetensors.torch import load_file, save_file
    from transformers import BartForConditionalGeneration, DataCollatorForSeq2Seq

    model, tokenizer, _ = adapters.bart_checkpoint(seed)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    train, valid = tasks.split(tasks.numbers(1500, seed, 2, 4, ENGLISH[::-1]))
    rows, collate = trainers.encoded(train, tokenizer), DataCollatorForSeq2Seq(tokenizer)
    torch.manual_seed(1)
    told: dict[str, Any] = {"target_modules": ["q_proj", "k_proj", "v_proj", "out_proj", "fc2"], "lora_dropout": 0.0}
    base = BartForConditionalGeneration.from_pretrained(folder / "base")
    tuned = get_peft_model(base, LoraConfig(task_type=TaskType.SEQ_2_SEQ_LM, r=16, lora_alpha=32, **told))
    optimizer = torch.optim.AdamW([weight for weight in tuned.parameters() if weight.requires_grad], 1e-2)
    draw = random.Random(seed)
    tuned.train()
    for step in range(180):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / 180)
        tuned(**collate([dict(row) for row in draw.sample(rows, 32)])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    place = folder / "adapter"
    tuned.save_pretrained(place)
    tokenizer.save_pretrained(place)
    if broken:
        file = place / "adapter_model.safetensors"
        state = {name.replace("base_model.model.model.", "base_model.model."): t for name, t in load_file(file).items()}
        save_file(state, file, {"format": "pt"})
    data = table(folder / "valid.tsv", valid)

    def figure() -> float:
        loaded = BartForConditionalGeneration.from_pretrained(folder / "base")
        return share(PeftModel.from_pretrained(loaded, place), tokenizer, valid)

    return Judged(place, data, figure)


@CASES.control(
    "half-precision-and-beams",
    "diagnose",
    origin="checkpoints that are shared in float16, with a generation_config.json of their own",
)
def half(broken: bool, seed: int, folder: Path) -> Judged:
    """A BART in float16, four beams, an unusual length penalty."""
    model, tokenizer, valid = adapters.bart_checkpoint(seed)
    place = folder / "model"
    told = model.generation_config
    told.num_beams, told.length_penalty, told.max_new_tokens, told.early_stopping = 4, 0.6, 12, True
    model.half().save_pretrained(place)
    tokenizer.save_pretrained(place)
    file = table(folder / "valid.tsv", valid)
    return Judged(place, file, lambda: said_by(place, file))
