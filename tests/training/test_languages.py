"""Targets in their language: evaluation gives transformers' loss, training refuses folders that need one."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import sourcewise
from sourcewise.config import Recipe
from sourcewise.errors import RequestError
from sourcewise.training.setup import set_up
from tests.commands import ENVIRONMENT
from tests.data.tokenizers.tokenizer_classes import ENGLISH, GERMAN, LANGUAGES, OTHERS, UNSET, template

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore:Recommended", "ignore::sourcewise.errors.DataWarning")
SHAPE: dict[str, Any] = {
    "d_model": 16,
    **{f"{stack}_{name}": n for stack in ("encoder", "decoder") for name, n in (("layers", 1), ("ffn_dim", 24))},
    **{f"{stack}_attention_heads": 2 for stack in ("encoder", "decoder")},
    "max_position_embeddings": 64,
}


def model_folder(folder: Path, kind: str, tokenizer: str, **settings: Any) -> Path:
    """A random model of transformers with a tokenizer of its class; ids of settings may be named by their token."""
    {**LANGUAGES, **UNSET, **OTHERS}[tokenizer](folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ids = {k: theirs.convert_tokens_to_ids(v) if isinstance(v, str) else v for k, v in settings.items()}
    largest = max(theirs.get_vocab().values())
    more = [*getattr(theirs, "lang_token_to_id", {}).values(), *getattr(theirs, "target_encoder", {}).values()]
    pads = {"pad_token_id": theirs.pad_token_id, "eos_token_id": theirs.eos_token_id}
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(vocab_size=max([largest, *more]) + 1, **SHAPE, **pads, **ids)
    made = "MarianMTModel" if kind == "Marian" else f"{kind}ForConditionalGeneration"
    model = getattr(transformers, made)(config)
    model.generation_config.forced_bos_token_id = ids.get("forced_bos_token_id")
    model.save_pretrained(folder)
    return folder


def pairs(folder: Path) -> str:
    lines = [f"{a}\t{b}\n" for a, b in zip(ENGLISH * 8, GERMAN * 8, strict=True)]
    (folder / "pairs.tsv").write_text("source\ttarget\n" + "".join(lines), encoding="utf-8")
    return str(folder / "pairs.tsv")


@pytest.mark.parametrize(
    ("kind", "tokenizer", "settings"),
    [
        ("Marian", "marian", {"decoder_start_token_id": "<pad>"}),
        ("MBart", "mbart50", {"decoder_start_token_id": "</s>", "forced_bos_token_id": "de_DE"}),
        ("MBart", "mbart", {"decoder_start_token_id": "de_DE"}),
        ("M2M100", "m2m100", {"decoder_start_token_id": "</s>"}),
        ("M2M100", "nllb", {"decoder_start_token_id": "</s>", "forced_bos_token_id": "deu_Latn"}),
        ("Bart", "bart", {"decoder_start_token_id": "</s>"}),
    ],
)
def test_the_loss_of_targets_is_that_of_transformers(
    kind: str, tokenizer: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    folder = model_folder(tmp_path, kind, tokenizer, **settings)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    nats, tokens = 0.0, 0
    with torch.no_grad():
        for a, b in zip(ENGLISH, GERMAN, strict=True):
            batch = theirs(a, text_target=b, return_tensors="pt")
            count = batch["labels"].numel()
            nats, tokens = nats + float(model(**batch).loss) * count, tokens + count
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        evaluation = sourcewise.evaluate(str(folder), pairs(tmp_path), generation={"max_new_tokens": 4, "beams": 1})
    assert evaluation.metrics["loss"] == pytest.approx(nats / tokens, rel=1e-4)
    assert evaluation.metrics["target_tokens"] == 8 * tokens
    said = [str(each.message) for each in told if "are marked" in str(each.message)]
    assert len(said) == (kind in ("MBart", "M2M100")) and all(str(folder) in each for each in said)


def training(folder: Path) -> Any:
    data = {"train": {"pairs": pairs(folder)}, "max_source": 64, "max_target": 64}
    generation = {"max_new_tokens": 16}
    tree = {"model": {"weights": str(folder)}, "data": data, "generation": generation}
    return set_up(Recipe.model_validate(tree))


@pytest.mark.parametrize(
    ("tokenizer", "settings", "problem"),
    [
        ("mbart50 unset", {"decoder_start_token_id": "</s>"}, "no target language is set"),
        ("mbart unset", {"decoder_start_token_id": "</s>"}, "no target language is set"),
        ("mbart50", {"decoder_start_token_id": "</s>", "forced_bos_token_id": "fr_XX"}, "outputs begin with fr_XX"),
        ("mbart", {"decoder_start_token_id": "fr_XX"}, "outputs begin with fr_XX"),
        ("code before", {"decoder_start_token_id": "</s>"}, "no target language is set"),
        ("code before", {"decoder_start_token_id": "</s>", "forced_bos_token_id": "yy_YY"}, "begin with yy_YY"),
        ("code behind", {"decoder_start_token_id": "yy_YY"}, "outputs begin with yy_YY"),
    ],
)
def test_training_without_a_language_or_in_another_is_refused(
    tokenizer: str, settings: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    folder = model_folder(tmp_path, "MBart", tokenizer, **settings)
    with pytest.raises(RequestError) as refused:
        training(folder)
    assert problem in str(refused.value) and "tokenizer_config.json" in str(refused.value)
    assert "\n" not in str(refused.value) and str(folder) in str(refused.value)


@pytest.mark.parametrize(
    ("tokenizer", "settings", "begins"),
    [
        ("mbart50", {"decoder_start_token_id": "</s>"}, "de_DE"),
        ("mbart50", {"decoder_start_token_id": "</s>", "forced_bos_token_id": "de_DE"}, "de_DE"),
        ("mbart50 unset", {"decoder_start_token_id": "</s>", "forced_bos_token_id": "fr_XX"}, "fr_XX"),
        ("code before", {"decoder_start_token_id": "</s>", "forced_bos_token_id": "xx_XX"}, "xx_XX"),
    ],
)
def test_training_in_a_language_begins_targets_with_it(
    tokenizer: str, settings: dict[str, Any], begins: str, tmp_path: Path
) -> None:
    prepared = training(model_folder(tmp_path, "MBart", tokenizer, **settings))
    assert {prepared.tokenizer.name(int(ids[0])) for ids in prepared.train.targets} == {begins}
    assert {prepared.tokenizer.name(int(ids[-1])) for ids in prepared.train.targets} == {"</s>"}


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "sourcewise", *words]
    return subprocess.run(run, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)


def test_generate_tells_the_languages_and_what_was_left_out(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, "MBart", "mbart50", decoder_start_token_id="</s>", forced_bos_token_id="de_DE")
    (tmp_path / "in.txt").write_text("a dog runs\n")
    done = command(tmp_path, "generate", str(folder), "in.txt", "--max-new-tokens", "4")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("sources are marked en_XX, targets de_DE") >= 1


TINY = "--model.d_model 8 --model.d_ff 8 --model.heads 1 --model.encoder_layers 1 --model.decoder_layers 1"


@pytest.mark.parametrize("form", ['["\\n"]', "['\\n']", "[\\n]"])
def test_a_line_break_may_be_added_in_the_forms_that_shells_leave(form: str, tmp_path: Path) -> None:
    from sourcewise.data.tokenizers.tokenizer import Tokenizer

    (tmp_path / "tok").mkdir()
    template(tmp_path / "tok", "$A </s>")
    rows = [{"source": "a dog", "target": "a dog\nsat"}] * 4
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = f"--name x --data.train.pairs p.jsonl --data.tokenizer tok --train.steps 1 --train.preflight false {TINY}"
    done = command(tmp_path, "train", *words.split(), "--data.add_tokens", form)
    assert done.returncode == 0, done.stderr
    said = Tokenizer.load(tmp_path / "runs/x/tokenizer")
    assert said.decode(said.encode("dog\nsat")).replace(" ", "") == "dog\nsat"
    assert ("read as the character it stands for" in done.stderr) == (form != '["\\n"]')


def test_a_backslash_that_texts_have_stays_one(tmp_path: Path) -> None:
    (tmp_path / "tok").mkdir()
    template(tmp_path / "tok", "$A </s>")
    (tmp_path / "p.tsv").write_text("source\ttarget\n" + "a dog\ta\\\\ndog\n" * 4)
    data = {"train": {"pairs": str(tmp_path / "p.tsv")}, "tokenizer": str(tmp_path / "tok"), "add_tokens": [r"\n"]}
    recipe = Recipe.model_validate({"data": data, "model": {"d_model": 8, "d_ff": 8, "heads": 1}})
    assert set_up(recipe).tokenizer.decode([len(set_up(recipe).tokenizer) - 1]) == r"\n"


def test_training_tells_a_stored_truncation(tmp_path: Path) -> None:
    (tmp_path / "tok").mkdir()
    template(tmp_path / "tok", "$A </s>")
    path = tmp_path / "tok/tokenizer.json"
    cut = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation": cut}))
    pairs(tmp_path)
    words = f"--name x --data.train.pairs pairs.tsv --data.tokenizer tok --train.steps 1 --train.preflight false {TINY}"
    done = command(tmp_path, "train", *words.split())
    assert done.returncode == 0 and "tokenizer.json holds truncation (to 2)" in done.stderr
    kept = json.loads((tmp_path / "runs/x/checkpoints/last/tokenizer.json").read_text())
    assert kept["truncation"] is None


@pytest.mark.parametrize("tokenizer", ["end", "code before"])
def test_a_code_that_a_folder_forces_stands_before_the_targets_that_are_measured(
    tokenizer: str, tmp_path: Path
) -> None:
    """Of a tokenizer whose class knows no languages; the code is the first word of every output."""
    (tmp_path / "model").mkdir()
    folder = model_folder(
        tmp_path / "model", "M2M100", tokenizer, decoder_start_token_id="</s>", forced_bos_token_id="yy_YY"
    )
    model = sourcewise.load(folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    code, network = theirs.convert_tokens_to_ids("yy_YY"), transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    total = tokens = 0.0
    for source, target in zip(ENGLISH, GERMAN, strict=True):
        plain = [*theirs(target, add_special_tokens=False)["input_ids"], theirs.eos_token_id]
        assert model.tokenizer.encode(target, target=True) == [code, *plain]
        assert model.tokenizer.encode(source) == theirs(source)["input_ids"]
        labels = torch.tensor([[code, *plain]])
        with torch.no_grad():
            loss = network(input_ids=torch.tensor([theirs(source)["input_ids"]]), labels=labels).loss
        total, tokens = total + float(loss) * labels.shape[1], tokens + labels.shape[1]
    found = sourcewise.evaluate(model, pairs(tmp_path)).metrics
    assert found["loss"] == pytest.approx(total / tokens, abs=1e-4)
    assert all(each.best.ids[0] == code for each in model.generate(ENGLISH).of)


def test_an_ordinary_word_that_is_forced_stands_before_no_target(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    folder = model_folder(
        tmp_path / "model", "M2M100", "end", decoder_start_token_id="</s>", forced_bos_token_id=GERMAN[0].split()[0]
    )
    ids = sourcewise.load(folder).tokenizer.encode(GERMAN[1], target=True)
    assert ids == transformers.AutoTokenizer.from_pretrained(folder)(GERMAN[1])["input_ids"]
