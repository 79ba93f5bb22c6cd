"""Training models that transformers computes: options, a bridge before them, languages, what is told and refused."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sourcewise
from sourcewise.config import Recipe
from sourcewise.errors import RequestError
from sourcewise.generation.model import Model, load
from sourcewise.model.families.huggingface import HuggingFaceNetwork
from sourcewise.model.weights.checkpoint import save_network
from sourcewise.training.learner import Learner
from sourcewise.training.setup import TrainingSetup, set_up
from tests.data.tokenizers.tokenizer_classes import ENGLISH
from tests.model.families.zoo import KINDS, task, tokenizer
from tests.training.test_languages import model_folder

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")
TRAIN = {"steps": 150, "learning_rate": 1e-2, "warmup_steps": 20, "precision": "fp32", "batch_tokens": 100_000}


def recipe(folder: Path, data: dict[str, Any], train: dict[str, Any] | None = None, **model: Any) -> Recipe:
    """A training of the model in `folder/model` on these data options."""
    sets = {"max_source": 60, "max_target": 60, **data}
    generation = {"beams": 2, "max_new_tokens": 30}
    weights = {"weights": str(folder / "model"), **model}
    return Recipe.model_validate(
        {"model": weights, "data": sets, "train": {**TRAIN, **(train or {})}, "generation": generation}
    )


def learned(setup: TrainingSetup, steps: int = 150) -> Model:
    """The model after so many steps on all examples at once."""
    learner = Learner(setup)
    for _ in range(steps):
        learner.learn([np.arange(len(setup.train))])
    return Model(setup.network.eval(), setup.tokenizer, data=setup.recipe.data, generation=setup.recipe.generation)


def right(model: Model, setup: TrainingSetup) -> float:
    """Share of the training examples that are answered exactly."""
    outputs = model.generate(setup.train.dataset)
    return float(np.mean([out == each.target for out, each in zip(outputs, setup.train.dataset, strict=True)]))


def folder_of(name: str, folder: Path) -> Path:
    """A random model of a type, with a tokenizer."""
    torch.manual_seed(0)
    KINDS[name].make().save_pretrained(folder / "model")
    tokenizer(folder / "model")
    return folder


OPTIONS = {
    "all losses": {
        "ctc_weight": 0.1,
        "guided_attention": 0.1,
        "attention_mass": 0.1,
        "contrastive": 0.1,
        "label_smoothing": 0.05,
        "focal": 0.5,
        "token_weights": "inverse_frequency",
    },
    "own predictions": {"scheduled_sampling": "linear", "word_dropout": 0.1},
    "frozen": {"freeze": ["embedding", "encoder"]},
    "bf16": {"precision": "bf16"},
}


@pytest.mark.parametrize("options", OPTIONS)
def test_options_of_the_training_work_as_on_ours(options: str, tmp_path: Path) -> None:
    folder = folder_of("m2m_100", tmp_path)
    data = task(folder, "text")
    setup = set_up(recipe(folder, {"train": data}, OPTIONS[options]))
    before = {name: p.detach().clone() for name, p in setup.network.named_parameters()}
    learner = Learner(setup)
    losses = []
    for _ in range(12):
        taken = learner.learn([np.arange(len(setup.train))])
        losses.append(float(sum(sum(float(n) for n in nats) for nats in taken.nats)))
    assert losses[-1] < losses[0]
    part_of = {info.name: info.part for info in setup.network.parts()}
    frozen = OPTIONS[options].get("freeze", [])
    for name, parameter in setup.network.named_parameters():
        assert torch.equal(parameter.float(), before[name].float()) == (part_of[name] in frozen), name


@pytest.mark.parametrize("route", ["encoder", "bypass"])
def test_features_enter_through_a_bridge_and_come_back_from_the_folder(route: str, tmp_path: Path) -> None:
    folder = folder_of("m2m_100", tmp_path)
    data = {"train": task(folder, "sounds")}
    setup = set_up(recipe(folder, data, route=route))
    assert isinstance(setup.network, HuggingFaceNetwork) and setup.network.bridge is not None
    model = learned(setup)
    assert right(model, setup) >= 0.9
    save_network(setup.network, tmp_path / "out", setup.tokenizer, setup.recipe.generation)
    again = load(tmp_path / "out")
    assert again.network.route == route and right(again, setup) >= 0.9
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out")  # without the bridge
    named = dict(theirs.named_parameters())
    for name, parameter in setup.network.model.named_parameters():
        assert torch.equal(parameter, named[name])


@pytest.mark.parametrize(
    ("kind", "tokens", "first", "second"),
    [
        ("M2M100", "nllb unset", "deu_Latn", "fra_Latn"),
        ("M2M100", "m2m100 unset", "de", "fr"),
        ("MBart", "mbart50 unset", "de_DE", "fr_XX"),
    ],
)
def test_two_languages_of_one_mixture_are_answered_as_asked(
    kind: str, tokens: str, first: str, second: str, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    shape = {"decoder_start_token_id": "</s>", "init_std": 0.2, "dropout": 0.0}
    model_folder(tmp_path / "model", kind, tokens, **shape)
    sources = ["the cat", "a dog", "two mats", "the dog", "a mat", "two cats"]
    german = ["die Katze", "ein Hund", "zwei Matten", "der Hund", "eine Matte", "zwei Katzen"]
    other = ["le sat", "un rat", "ein mat", "le run", "die rund", "zwei hat"]
    rows = [(s, t, first) for s, t in zip(sources, german, strict=True)]
    rows += [(s, t, second) for s, t in zip(sources, other, strict=True)]
    (tmp_path / "p.tsv").write_text("source\ttarget\tto\n" + "".join(f"{s}\t{t}\t{to}\n" for s, t, to in rows))
    data = {"train": {"pairs": str(tmp_path / "p.tsv")}, "target_language": "column:to"}
    setup = set_up(recipe(tmp_path, data, {"steps": 500}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    for row, (_, target, to) in enumerate(rows):
        theirs.tgt_lang = to
        assert setup.train.targets[row] == theirs(text_target=target)["input_ids"]
    model = learned(setup, 500)
    assert right(model, setup) >= 0.9
    save_network(setup.network, tmp_path / "out", setup.tokenizer, setup.recipe.generation)
    assert "forced_bos_token_id" not in json.loads((tmp_path / "out" / "generation_config.json").read_text())
    for to, expected in ((first, german), (second, other)):
        outputs = load(tmp_path / "out", target_language=to).generate(sources)
        assert sum(a == b for a, b in zip(outputs, expected, strict=True)) >= 5
    for wrong in ({"target_language": "xx_YY"}, {"source_language": "klingon"}):
        with pytest.raises(RequestError, match=r"is no language of the tokenizer; it has \w+"):
            load(tmp_path / "out", **wrong).generate(sources)


def test_one_language_is_forced_and_kept_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    model_folder(tmp_path / "model", "M2M100", "nllb unset", decoder_start_token_id="</s>")
    (tmp_path / "p.tsv").write_text("source\ttarget\n" + "".join(f"{s}\tdie Katze\n" for s in ENGLISH))
    pairs = {"train": {"pairs": str(tmp_path / "p.tsv"), "source_language": "fra_Latn"}}
    setup = set_up(recipe(tmp_path, {**pairs, "target_language": "deu_Latn"}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "model", src_lang="fra_Latn", tgt_lang="deu_Latn")
    code = theirs.convert_tokens_to_ids("deu_Latn")
    assert setup.network.defaults.forced_bos == (code,)
    assert setup.train.sources is not None
    assert [list(ids) for ids in setup.train.sources] == theirs(ENGLISH)["input_ids"]
    save_network(setup.network, tmp_path / "out", setup.tokenizer, setup.recipe.generation)
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["forced_bos_token_id"] == code
    kept = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (kept.src_lang, kept.tgt_lang) == ("fra_Latn", "deu_Latn")
    assert kept(ENGLISH[0], text_target="die Katze")["labels"][0] == code


def test_a_language_that_the_decoder_starts_with_is_one_for_all(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    model_folder(tmp_path / "model", "MBart", "mbart unset", decoder_start_token_id="</s>")
    lines = ["source\ttarget\tto", "the cat\tdie Katze\tde_DE", "a dog\tun rat\tfr_XX"]
    (tmp_path / "p.tsv").write_text("\n".join(lines) + "\n")
    pairs = {"train": {"pairs": str(tmp_path / "p.tsv")}}
    with pytest.raises(RequestError, match=r"2 languages \(de_DE, fr_XX\), but .* decoder starts with one"):
        set_up(recipe(tmp_path, {**pairs, "target_language": "column:to"}))
    setup = set_up(recipe(tmp_path, {**pairs, "target_language": "fr_XX"}))
    code = transformers.AutoTokenizer.from_pretrained(tmp_path / "model").convert_tokens_to_ids("fr_XX")
    assert setup.network.start_id == code == setup.train.targets[0][-1]
    save_network(setup.network, tmp_path / "out", setup.tokenizer)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["decoder_start_token_id"] == code


def test_columns_and_tokenizers_without_languages_are_refused_in_a_line(tmp_path: Path) -> None:
    folder = folder_of("m2m_100", tmp_path)
    data = task(folder, "text")
    for more, problem in (
        ({"target_language": "de"}, "de is no language of the tokenizer; it has none"),
        ({"target_language": "column:to"}, "no column 'to'"),
    ):
        with pytest.raises(RequestError) as refused:
            set_up(recipe(folder, {"train": data, **more}))
        assert problem in str(refused.value) and "\n" not in str(refused.value)
    with pytest.raises(RequestError, match="column:to should name a language"):
        model = load(folder / "model", target_language="column:to")
        model.generate(["s1 s2"])


def test_what_is_slower_and_what_is_not_trained_is_told(tmp_path: Path) -> None:
    folder = folder_of("nllb-moe", tmp_path)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        set_up(recipe(folder, {"train": task(folder, "text")}))
    said = " ".join(str(each.message) for each in told)
    assert "nllb-moe" in said and "transformers" in said and "slower" in said
    assert "the losses that balance its experts" in said


def test_sounds_of_another_width_and_texts_are_refused_by_a_model_that_reads_sounds(tmp_path: Path) -> None:
    folder = folder_of("whisper", tmp_path)
    with pytest.raises(RequestError, match=r"it reads 8 dims, .* is text"):
        set_up(recipe(folder, {"train": task(folder, "text")}))
    with pytest.raises(RequestError, match=r"it reads 8 dims, .* has 5"):
        set_up(recipe(folder, {"train": task(folder, "sounds", 5)}))


def test_a_source_of_more_frames_than_the_model_reads_is_refused(tmp_path: Path) -> None:
    folder = folder_of("whisper", tmp_path)  # it reads 40 frames
    with pytest.raises(RequestError, match=r"a source has 50 frames, a whisper reads 40; set data.max_frames"):
        sourcewise.load(folder / "model").generate([np.zeros((50, 8), np.float32)])  # type: ignore[arg-type]


def test_what_its_classes_draw_is_of_the_recipe_s_seed(tmp_path: Path) -> None:
    """SpecAugment's masks are of NumPy's stream, layers that are left out of torch's or NumPy's."""
    folder = folder_of("speecht5", tmp_path)
    file = folder / "model" / "config.json"
    drawn = {"apply_spec_augment": True, "mask_time_prob": 0.3, "mask_time_length": 4, "encoder_layerdrop": 0.4}
    file.write_text(json.dumps({**json.loads(file.read_text()), **drawn, "hidden_dropout": 0.1}))
    model = transformers.SpeechT5ForSpeechToText(transformers.SpeechT5Config.from_pretrained(folder / "model"))
    model.save_pretrained(folder / "model")
    asked = recipe(folder, {"train": task(folder, "sounds", 1)})
    found = []
    for stray in range(2):
        setup = set_up(asked)
        learner = Learner(setup)
        for _ in range(3):
            np.random.seed(stray)  # noqa: NPY002 - what another part of a program does
            learner.learn([np.arange(6)])
        found.append({name: weight.clone() for name, weight in learner.optimizer.weights().items()})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    plain = set_up(asked)
    plain.network.model.config.apply_spec_augment = False  # type: ignore[union-attr]
    learner = Learner(plain)
    for _ in range(3):
        learner.learn([np.arange(6)])
    assert any(not torch.equal(found[0][name], weight) for name, weight in learner.optimizer.weights().items())
