"""Languages that a training or a command asks for, set on a tokenizer as its class wants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError
from tests.data.tokenizers.tokenizer_classes import ENGLISH, GERMAN, LANGUAGES, OTHERS, UNSET

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore:Recommended", "ignore::sourcewise.errors.DataWarning")
PAIRS = {
    "nllb": ("fra_Latn", "zul_Latn"),
    "mbart": ("fr_XX", "ro_RO"),
    "mbart50": ("fr_XX", "af_ZA"),
    "m2m100": ("fr", "zu"),
}


def whisper(folder: Path) -> None:
    """A Whisper tokenizer with all of its languages."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers.models.whisper.tokenization_whisper import LANGUAGES as KNOWN

    engine = ByteLevelBPETokenizer()
    texts = [*ENGLISH, *GERMAN] * 5
    engine.train_from_iterator(texts, 300, special_tokens=["<|endoftext|>"], show_progress=False)
    engine.save_model(str(folder))
    made = transformers.WhisperTokenizer.from_pretrained(str(folder))
    names = ("startoftranscript", *KNOWN, "translate", "transcribe", "startofprev", "nospeech", "notimestamps")
    made.add_special_tokens({"additional_special_tokens": [f"<|{name}|>" for name in names]})
    made.save_pretrained(str(folder))


def opened(folder: Path, **languages: str) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder, **languages)


@pytest.mark.parametrize("form", ["set", "unset"])
@pytest.mark.parametrize("name", PAIRS)
def test_ids_are_those_of_the_class_in_these_languages(name: str, form: str, tmp_path: Path) -> None:
    (LANGUAGES[name] if form == "set" else UNSET[f"{name} unset"])(tmp_path)
    ours, (source, target) = Tokenizer.load(tmp_path), PAIRS[name]
    before = [ours.encode(text, target=side) for text in ENGLISH for side in (False, True)]
    for pair in ((source, target), (target, source), ("", target), (source, "")):
        if form == "unset" and not pair[1]:
            continue  # M2M-100 has no target language then
        named = {key: language for key, language in zip(("src_lang", "tgt_lang"), pair, strict=True) if language}
        theirs, spoken = opened(tmp_path, **named), ours.in_languages(*pair)
        for text in (*ENGLISH, *GERMAN):
            assert spoken.encode(text) == theirs(text)["input_ids"]
            assert spoken.encode(text, target=True) == theirs(text_target=text)["input_ids"]
            assert spoken.decode(spoken.encode(text, target=True)) == ours.decode(ours.encode(text))
        spoken.save(tmp_path / "saved")
        kept = opened(tmp_path / "saved")
        assert kept(GERMAN[0], text_target=GERMAN[1]) == theirs(GERMAN[0], text_target=GERMAN[1])
    assert before == [ours.encode(text, target=side) for text in ENGLISH for side in (False, True)]


@pytest.mark.parametrize("name", ["nllb", "mbart50"])
def test_new_entries_keep_the_languages(name: str, tmp_path: Path) -> None:
    LANGUAGES[name](tmp_path)
    spoken = Tokenizer.load(tmp_path).in_languages(*PAIRS[name])
    larger = spoken.add(["{"])
    assert larger.encode("ein Hund", target=True) == spoken.encode("ein Hund", target=True)
    assert larger.opening == spoken.opening != []


def test_whisper_begins_with_language_and_task_but_not_with_the_start_token(tmp_path: Path) -> None:
    whisper(tmp_path)
    ours, theirs = Tokenizer.load(tmp_path), opened(tmp_path)
    for language in ("de", "german", "German"):
        spoken = ours.in_languages("", language)
        theirs.set_prefix_tokens(language="de", task="transcribe", predict_timestamps=False)
        for text in GERMAN:
            start, *rest = theirs(text)["input_ids"]
            assert spoken.encode(text, target=True) == rest and theirs.convert_ids_to_tokens(start) not in rest
            assert spoken.decode(rest) == text
        assert theirs.convert_ids_to_tokens(spoken.opening) == ["<|de|>", "<|transcribe|>", "<|notimestamps|>"]
    spoken.save(tmp_path / "saved")
    assert opened(tmp_path / "saved")(GERMAN[0])["input_ids"][1:] == spoken.encode(GERMAN[0], target=True)


@pytest.mark.parametrize("name", ["nllb", "m2m100", "t5", "byt5", "bert"])
def test_a_language_that_a_tokenizer_lacks_is_refused(name: str, tmp_path: Path) -> None:
    {**LANGUAGES, **OTHERS}[name](tmp_path)
    ours = Tokenizer.load(tmp_path)
    for side, pair in (("target", ("", "klingon")), ("source", ("klingon", ""))):
        with pytest.raises(RequestError) as refused:
            ours.in_languages(*pair)
        said = str(refused.value)
        assert f"data.{side}_language: klingon is no language" in said and "\n" not in said
