"""LoRA: trained on any body, saved as peft saves it, opened by peft and by us, merged when it is saved whole."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import sourcewise
from sourcewise.cli import main
from sourcewise.config import Recipe
from sourcewise.data.batches import Source
from sourcewise.errors import RequestError
from sourcewise.generation.model import load
from sourcewise.model.weights.checkpoint import save_network
from sourcewise.training.learner import Learner
from sourcewise.training.setup import TrainingSetup, set_up
from tests.model.families.zoo import task
from tests.training.test_huggingface import folder_of, recipe

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")
IDS = torch.tensor([[5, 9, 3, 1, 0], [7, 7, 2, 8, 1]])
USES = ("train", "valid", "test")
TARGETS = torch.tensor([[0, 4, 11], [0, 6, 2]])


def trained(folder: Path, steps: int = 6, reads: str = "text", **lora: Any) -> TrainingSetup:
    """The setup of a short training with adapters of the model in `folder/model`; `model__…` are its options."""
    model = {key.removeprefix("model__"): lora.pop(key) for key in [*lora] if key.startswith("model__")}
    options = {"lora": {"rank": 3, **lora}, "learning_rate": 3e-2, "warmup_steps": 1}
    setup = set_up(recipe(folder, {"train": task(folder, reads)}, options, **model))
    learner = Learner(setup)
    for _ in range(steps):
        learner.learn([np.arange(len(setup.train))])
    with learner.optimizer.in_full():
        save_network(setup.network.eval(), folder / "out", setup.tokenizer, setup.recipe.generation)
    return setup


def logits(network: Any) -> Tensor:
    with torch.no_grad():
        return network.decode(TARGETS, network.encode(Source(IDS, torch.tensor([4, 5]))))


def theirs(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, attention_mask=(IDS != 0).long(), decoder_input_ids=TARGETS).logits


def opened_by_peft(folder: Path) -> Any:
    base = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder / "model")
    return peft.PeftModel.from_pretrained(base, folder / "out").eval()


CASES = [
    ("t5", ["all-linear"]),
    ("t5", ["q", "v"]),
    ("mt5", [r".*decoder.*\.(k|wi_1|o)"]),
    ("bart", ["all-linear"]),
    ("mbart", ["k_proj", "fc2"]),
    ("marian", [r".*decoder.*\.k_proj"]),
    ("m2m_100", ["all-linear"]),
    ("umt5", ["q", "v"]),
]


@pytest.mark.parametrize(("kind", "targets"), CASES)
def test_a_trained_adapter_has_the_same_logits_in_peft_and_merged(
    kind: str, targets: list[str], tmp_path: Path
) -> None:
    folder = folder_of(kind, tmp_path)
    before = load_file(folder / "model" / "model.safetensors")
    setup = trained(folder, targets=targets)
    assert not (folder / "out" / "model.safetensors").exists()
    wrapped = opened_by_peft(folder)
    ours = logits(setup.network)
    plain = theirs(transformers.AutoModelForSeq2SeqLM.from_pretrained(folder / "model").eval())
    assert (ours - plain).abs().max() > 1e-3  # it has learnt something
    assert torch.allclose(theirs(wrapped), ours, atol=2e-5, rtol=1e-4)
    model = load(folder / "out")
    assert torch.allclose(logits(model.network), ours, atol=2e-5, rtol=1e-4)
    save_network(model.network, folder / "whole", model.tokenizer)  # type: ignore[arg-type]
    merged = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder / "whole").eval()
    assert torch.allclose(theirs(merged), ours, atol=2e-5, rtol=1e-4)
    after = load_file(folder / "model" / "model.safetensors")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert json.loads((folder / "out" / "adapter_config.json").read_text())["peft_type"] == "LORA"


MADE = {
    "LoRA": lambda targets: peft.LoraConfig(r=4, target_modules=targets),
    "rsLoRA, on patterns of ranks": lambda targets: peft.LoraConfig(
        r=4, use_rslora=True, rank_pattern={targets[0]: 2}, alpha_pattern={targets[0]: 3}, target_modules=targets
    ),
    "DoRA": lambda targets: peft.LoraConfig(r=4, use_dora=True, target_modules=targets),
    "LoHa": lambda targets: peft.LoHaConfig(r=4, target_modules=targets),
    "IA3": lambda targets: peft.IA3Config(target_modules=targets, feedforward_modules=[]),
    "a head saved whole": lambda targets: peft.LoraConfig(
        r=4, target_modules=targets, modules_to_save=["layer_norm"], task_type="SEQ_2_SEQ_LM"
    ),
}


def made_by_peft(folder: Path, kind: str, case: str) -> Any:
    """An adapter with random values, as peft itself saves it in `folder/out`; gives peft's model."""
    folder_of(kind, folder)
    base = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder / "model")
    wrapped = peft.get_peft_model(base, MADE[case](["q", "v"] if "t5" in kind else ["q_proj", "v_proj"]))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    wrapped.save_pretrained(folder / "out")
    return wrapped.eval()


@pytest.mark.parametrize("case", MADE)
@pytest.mark.parametrize("kind", ["t5", "bart", "m2m_100"])
def test_adapters_that_peft_made_open_with_its_logits(kind: str, case: str, tmp_path: Path) -> None:
    expected = theirs(made_by_peft(tmp_path, kind, case))
    plain = theirs(transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model").eval())
    assert (expected - plain).abs().max() > 1e-3
    model = load(tmp_path / "out")  # the tokenizer is the base's
    assert torch.allclose(logits(model.network), expected, atol=2e-5, rtol=1e-4)


def test_a_base_is_found_beside_its_adapter_and_named_where_it_is_not(tmp_path: Path) -> None:
    expected = theirs(made_by_peft(tmp_path, "t5", "LoRA"))
    file = tmp_path / "out" / "adapter_config.json"
    said = json.loads(file.read_text())
    for name in ("model", "../model", str(tmp_path / "model")):
        file.write_text(json.dumps({**said, "base_model_name_or_path": name}))
        assert torch.allclose(logits(load(tmp_path / "out").network), expected, atol=2e-5)
    for name, line in (
        ("/gone/base", r"out: an adapter \(LORA\) whose base is not found \(/gone/base: no such folder"),
        ("no-such/base", r"whose base is not found \(no-such/base: .*base_model_name_or_path of adapter_config"),
    ):
        file.write_text(json.dumps({**said, "base_model_name_or_path": name}))
        with pytest.raises(RequestError, match=line) as refused:
            load(tmp_path / "out")
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["t5", "m2m_100"])
def test_a_base_that_is_not_the_one_of_the_training_is_told(kind: str, tmp_path: Path) -> None:
    folder = folder_of(kind, tmp_path)
    trained(folder, steps=2)

    def told() -> list[str]:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            load(folder / "out")
        return [str(each.message) for each in found if "is not the base" in str(each.message)]

    assert not told()
    file = folder / "model" / "model.safetensors"
    weights = load_file(file)
    halves = {name: tensor.double().float().clone() for name, tensor in weights.items()}  # the same, written anew
    save_file(halves, file, metadata={"format": "pt"})
    assert not told()
    save_file({name: tensor + 1e-3 for name, tensor in weights.items()}, file, metadata={"format": "pt"})
    assert len(told()) == 1 and "\n" not in told()[0] and str(folder / "model") in told()[0]


def test_an_adapter_of_another_model_is_refused_in_a_line(tmp_path: Path) -> None:
    made_by_peft(tmp_path, "t5", "LoRA")
    file, held = tmp_path / "out" / "adapter_config.json", tmp_path / "out" / "adapter_model.safetensors"
    said, weights = json.loads(file.read_text()), load_file(held)
    folder_of("bart", tmp_path / "other")
    first = next(iter(sorted(weights)))
    deeper = {name.replace("block.1", "block.7"): tensor for name, tensor in weights.items()}
    without = {name: tensor for name, tensor in weights.items() if name != first}
    wide = {name: torch.zeros(4, 40) if name == first else tensor for name, tensor in weights.items()}
    nan = {name: tensor * float("nan") if name == first else tensor for name, tensor in weights.items()}
    for state, line in (
        (deeper, r"adapter_model\.safetensors: .*block\.7.* of no module of the base; is its base another model\?"),
        (without, r"adapter_model\.safetensors: .*lora_A.* missing; is its base another model\?"),
        (wide, r"adapter_model\.safetensors: does not fit its base"),
        (nan, r"adapter_model\.safetensors: .*lora_A.* is not finite"),
    ):
        save_file(state, held)
        with pytest.raises(RequestError, match=line) as refused:
            load(tmp_path / "out")
        assert "\n" not in str(refused.value)
    save_file(weights, held)
    file.write_text(json.dumps({**said, "base_model_name_or_path": str(tmp_path / "other" / "model")}))
    with pytest.raises(RequestError, match=r"adapter_model\.safetensors: does not fit its base .*not found"):
        load(tmp_path / "out")


def test_a_model_that_reads_sounds_is_adapted(tmp_path: Path) -> None:
    folder = folder_of("whisper", tmp_path)
    setup = trained(folder, reads="sounds", targets=["q_proj", "v_proj"])
    source = setup.train.batch([0, 3]).source
    with torch.no_grad():
        expected = setup.network.decode(TARGETS, setup.network.encode(source))
        again: Any = load(folder / "out").network
        assert torch.allclose(again.decode(TARGETS, again.encode(source)), expected, atol=2e-5, rtol=1e-4)
    base = transformers.WhisperForConditionalGeneration.from_pretrained(folder / "model")
    peft.PeftModel.from_pretrained(base, folder / "out")


@pytest.mark.parametrize("family", ["decoder", "rnn", "features"])
def test_our_own_architectures_are_adapted_and_merged(family: str, tmp_path: Path) -> None:
    from tests.training.recipes import feature_recipe
    from tests.training.recipes import recipe as text_recipe

    of_family = {} if family == "features" else {"model__family": family}
    make = feature_recipe if family == "features" else text_recipe
    first = sourcewise.train(make(tmp_path, train__steps=2, **of_family))
    more = {"model__weights": str(first.folder), "name": "adapted", "train__lora": {"rank": 2}, "train__steps": 4}
    if family == "features":  # its bridge is the base's, and learns all the same
        more["model__route"] = "encoder"
    run = sourcewise.train(make(tmp_path, **more, train__learning_rate=3e-2))
    base, model = load(first.folder), load(run.folder)
    assert (run.best / "adapter_config.json").is_file() and not (run.best / "model.safetensors").exists()
    pairs = zip(base.network.parts(), model.network.parts(), strict=True)
    changed = {a.name for a, b in pairs if not torch.equal(a.parameter, b.parameter)}
    kept = ("norm", "embedding", "positions")
    assert changed and not [n for n in changed if "bridge" not in n and any(part in n for part in kept)]
    merged = load(model.save(tmp_path / "whole"))
    for a, b in zip(model.network.parts(), merged.network.parts(), strict=True):
        assert torch.equal(a.parameter, b.parameter), a.name


def test_a_resumed_training_of_adapters_is_the_same_to_the_bit(tmp_path: Path) -> None:
    folder = folder_of("t5", tmp_path)
    data = {"train": task(folder, "text"), "valid": task(folder, "text")}
    lora = {"rank": 2, "dropout": 0.1}
    options = {"lora": lora, "steps": 8, "evaluate_every": 4, "schedule": "constant", "warmup_steps": 1, "threads": 1}
    options["preflight"] = False
    asked = recipe(folder, data, options).model_copy(update={"output": str(tmp_path / "runs")})
    whole = sourcewise.train(asked.model_copy(update={"name": "whole"}))
    half = asked.model_copy(update={"name": "half", "train": asked.train.model_copy(update={"steps": 4})})
    run = sourcewise.train(half)
    run = sourcewise.train(half, {"train.steps": 8}, resume=True)
    first, second = (load_file(each.last / "adapter_model.safetensors") for each in (whole, run))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    start = whole.metrics()[0]
    assert 0 < start["trainable"] < start["parameters"]
    assert all(line["peak_mb"] > 0 for line in whole.metrics() if line["kind"] == "train")


def test_what_adapters_cannot_do_is_refused_in_a_line(tmp_path: Path) -> None:
    folder = folder_of("t5", tmp_path)
    text, sounds = {"train": task(folder, "text")}, {"train": task(folder, "sounds")}
    lora = {"rank": 2}
    for data, train, model, line in (
        (text, {"lora": lora}, {"weights": None}, r"train\.lora\.rank: adapters are trained beside pretrained weights"),
        ({**text, "add_tokens": ["t1x"]}, {"lora": lora}, {}, r"data\.add_tokens: 1 new tokens have rows"),
        (sounds, {"lora": {**lora, "save": []}}, {}, r"train\.lora\.save: bridge is new.*; add bridge to it"),
        (text, {"lora": {**lora, "targets": ["query"]}}, {}, r"targets: query: no module .* it has k, o, q, v, wi"),
    ):
        with pytest.raises(RequestError, match=line) as refused:
            set_up(recipe(folder, data, train, **model))
        assert "\n" not in str(refused.value)
    trained(folder, steps=1)
    with pytest.raises(RequestError, match=r"train\.lora\.rank: .*out is an adapter itself; merge it first"):
        set_up(recipe(folder, text, {"lora": lora}, weights=str(folder / "out")))


def test_the_commands_take_a_folder_of_an_adapter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of("t5", tmp_path)
    setup = trained(folder, 60, rank=8)
    pairs, out = str(folder / "pairs.tsv"), str(folder / "out")
    outputs = load(out).generate(setup.train.dataset)
    assert main(["generate", out, pairs, "-o", str(tmp_path / "o.txt")]) == 0
    assert (tmp_path / "o.txt").read_text().splitlines() == outputs
    assert main(["evaluate", out, pairs, "-o", str(tmp_path / "e")]) == 0
    assert main(["trace", out, "s1 s1"]) == 0
    assert main(["diagnose", out, pairs]) in (0, 1)
    assert main(["export", out, "-o", str(tmp_path / "whole")]) == 0
    assert load(tmp_path / "whole").generate(setup.train.dataset) == outputs
    assert main(["export", out, "-o", str(tmp_path / "whole")]) == 2
    assert "whole: something is there" in capsys.readouterr().err


@pytest.mark.slow
def test_a_t5_reads_digits_through_a_bridge_by_adapters_alone(tmp_path: Path) -> None:
    """Its base has read `d4 d0 d7` as text; now it reads scans, its weights untouched."""
    words, draw = (
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
        np.random.default_rng(1),
    )
    rows = [draw.integers(0, 10, draw.integers(3, 7)) for _ in range(6000)]
    lines = ("\t".join((" ".join(f"d{i}" for i in row), " ".join(words[i] for i in row))) for row in rows)
    (tmp_path / "text.tsv").write_text("source\ttarget\n" + "\n".join(lines) + "\n")
    shape = {"d_model": 96, "d_ff": 256, "heads": 3, "encoder_layers": 2, "decoder_layers": 2, "dropout": 0.0}
    train = {"steps": 1000, "learning_rate": 2e-3, "warmup_steps": 50, "batch_size": 64, "threads": 1}
    train |= {"preflight": False, "evaluate_every": 1000}
    data = {"train": {"pairs": str(tmp_path / "text.tsv")}, "vocabulary": 64}
    place = {"output": str(tmp_path / "runs")}
    text = {"name": "text", **place, "data": data, "model": shape, "train": train}
    base = sourcewise.train(Recipe.model_validate(text)).folder / "checkpoints" / "last"
    before = (base / "model.safetensors").read_bytes()
    digits = {use: {"builtin": "digits", "split": use, "limit": None if use == "train" else 200} for use in USES}
    adapted = {**train, "batch_size": 32, "steps": 1200, "evaluate_every": 1200, "lora": {"rank": 16}}
    scans = {"name": "scans", **place, "data": digits, "model": str(base), "train": adapted}
    run = sourcewise.train(Recipe.model_validate({**scans, "generation": {"beams": 1, "max_new_tokens": 32}}))
    assert run.evaluation is not None and run.evaluation.metrics["exact_match_pct"] >= 85
    assert (base / "model.safetensors").read_bytes() == before
