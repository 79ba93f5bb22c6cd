"""Sources, targets and outputs as transformers' own tokenizer classes have them: the same ids, the same texts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.errors import RequestError
from tests.data.tokenizers.tokenizer_classes import ENGLISH, GERMAN, LANGUAGES, OTHERS, TEXTS, UNSET, template

transformers = pytest.importorskip("transformers")
ALL = {**LANGUAGES, **UNSET, **OTHERS}
pytestmark = pytest.mark.filterwarnings("ignore:Recommended", "ignore::sourcewise.errors.DataWarning")


def opened(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("class")
            ALL[name](made[name])
        return made[name]

    return folder


def as_target(theirs: Any, text: str, **options: Any) -> list[int]:
    try:
        return list(theirs(text_target=text, **options)["input_ids"])
    except KeyError:  # M2M-100 without a target language; others take the source's
        return list(theirs(text, **options)["input_ids"])


@pytest.mark.parametrize("name", ALL)
def test_ids_and_texts_are_those_of_the_class(folders: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    ours = Tokenizer.load(folders(name))
    ours.save(tmp_path / "ours")
    opened(folders(name)).save_pretrained(tmp_path / "theirs")
    for folder in (folders(name), tmp_path / "ours", tmp_path / "theirs"):
        theirs, ours = opened(folder), Tokenizer.load(folder)
        for text in TEXTS:
            said = as_target(theirs, text)
            assert ours.encode(text) == theirs(text)["input_ids"]
            assert ours.encode(text, target=True) == said
            for longest in (3, 4, 6):
                cut = as_target(theirs, text, truncation=True, max_length=longest)
                assert ours.encode(text, longest, target=True) == cut
            assert said.count(ours.eos_id) == 1 + text.count("</s>") * ("bert" not in name)
            if "</s>" not in text:
                plain = [i for i in said if i not in ours.around]
                assert ours.decode(said) == theirs.decode(plain, skip_special_tokens=True)
        assert ours.encode_batch(TEXTS, 5, target=True) == [ours.encode(text, 5, target=True) for text in TEXTS]


@pytest.mark.parametrize("name", LANGUAGES)
def test_targets_carry_their_language_sources_theirs(folders: Callable[[str], Path], name: str) -> None:
    ours = Tokenizer.load(folders(name))
    languages = ours.languages
    assert languages is not None and languages.chosen and languages.source != languages.target
    source, target = (ours._backend.find(code) for code in (languages.source, languages.target))
    assert source in ours.encode("a dog") and target not in ours.encode("a dog")
    for cut in (None, 2, 3):
        said = ours.encode("ein Hund läuft", cut, target=True)
        assert target in said and source not in said and said.count(ours.eos_id) == 1
    assert languages.target in ours.notes[0]


@pytest.mark.parametrize("name", ["mbart", "mbart50", "nllb", "marian"])
def test_new_entries_keep_the_target_side(folders: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    ours = Tokenizer.load(folders(name))
    larger = ours.add(["{", "\n"])
    assert larger.size == ours.size + 2 and list(larger.fresh) == [ours.size, ours.size + 1]
    for target in (False, True):
        before, after = ours._backend.frame(target)
        ids = larger.encode("{", target=target)
        assert ids[: len(before)] == before and ids[-len(after) :] == after and ours.size in ids
        assert larger.decode(ids) == "{"
        assert larger.encode("ein Hund", target=target) == ours.encode("ein Hund", target=target)
    larger.save(tmp_path)
    kept = Tokenizer.load(tmp_path)
    assert kept.encode("a {", target=True) == larger.encode("a {", target=True)


def test_new_entries_that_would_take_the_place_of_others_are_refused(folders: Callable[[str], Path]) -> None:
    with pytest.raises(RequestError, match=r"add_tokens: .*M2M100Tokenizer"):
        Tokenizer.load(folders("m2m100")).add(["{"])


def test_the_second_model_of_a_marian_says_what_the_first_cannot(folders: Callable[[str], Path]) -> None:
    for name in ("marian", "marian of two vocabularies"):
        ours = Tokenizer.load(folders(name))
        for text in GERMAN:
            said = ours.encode(text, target=True)
            assert ours.unk_id not in said and ours.decode(said) == text
        assert all(ours.encode(text) != ours.encode(text, target=True) for text in GERMAN)
        assert all(ours.unk_id not in ours.encode(text) for text in ENGLISH)


@pytest.mark.parametrize(
    ("name", "settings", "file"),
    [
        ("mbart50 unset", {"forced_bos_token_id": "de_DE"}, "generation_config.json"),
        ("nllb unset", {"forced_bos_token_id": "deu_Latn"}, "config.json"),
        ("mbart unset", {"decoder_start_token_id": "de_DE"}, "config.json"),
        ("m2m100 unset", {"forced_bos_token_id": "__de__"}, "generation_config.json"),
    ],
)
def test_the_language_that_a_model_is_forced_to_is_that_of_targets(
    folders: Callable[[str], Path], name: str, settings: dict[str, str], file: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders(name), folder)
    theirs = opened(folder)
    ((setting, code),) = settings.items()
    (folder / file).write_text(json.dumps({setting: theirs.convert_tokens_to_ids(code)}))
    ours, language = Tokenizer.load(folder), code.strip("_")
    theirs.tgt_lang = language
    assert ours.encode("ein Hund", target=True) == theirs(text_target="ein Hund")["input_ids"]
    assert ours.languages is not None and ours.languages.target == code and setting in ours.languages.chosen
    ours.save(tmp_path / "saved")
    kept = Tokenizer.load(tmp_path / "saved")
    assert kept.encode("ein Hund", target=True) == ours.encode("ein Hund", target=True)


@pytest.mark.parametrize("name", UNSET)
def test_no_language_is_none_again_when_saved(folders: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    ours = Tokenizer.load(folders(name))
    assert "no target language is set" in ours.notes[0]
    ours.save(tmp_path)
    kept = Tokenizer.load(tmp_path).languages
    assert kept is not None and not kept.chosen


def test_a_tokenizer_json_beside_its_class_is_opened_as_that(folders: Callable[[str], Path], tmp_path: Path) -> None:
    Tokenizer.load(folders("nllb")).save(tmp_path)
    alone = Tokenizer.load(tmp_path / "tokenizer.json")
    assert alone.encode("ein Hund", target=True) == Tokenizer.load(tmp_path).encode("ein Hund", target=True)


def test_a_class_that_transformers_cannot_make_is_read_from_its_tokenizer_json(tmp_path: Path) -> None:
    template(tmp_path, "$A </s>")
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "NobodysTokenizer"}))
    ours = Tokenizer.load(tmp_path)
    assert ours.decode(ours.encode("a dog")) == "a dog"


def test_cut_on_the_left_keeps_what_stands_around(folders: Callable[[str], Path]) -> None:
    for name in ("mbart50", "bart", "m2m100", "t5"):
        ours = Tokenizer.load(folders(name))
        whole = ours.encode("a dog runs, and a cat sits")
        before = len(ours._backend.frame().before)
        cut = ours.encode("a dog runs, and a cat sits", 6, from_left=True)
        assert len(cut) == 6 and cut[:before] == whole[:before] and cut[before:] == whole[-6 + before :]


@pytest.mark.parametrize("name", ["end", "bert", "nllb", "m2m100", "t5", "byt5", "marian"])
def test_long_texts_are_cut_on_the_side_of_the_folder(
    folders: Callable[[str], Path], name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(folders(name), folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"truncation_side": "left"}))
    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), Tokenizer.load(folder)
    text = "a dog runs, and a cat sits on the mat"
    assert ours.cuts_left and not Tokenizer.load(folders(name)).cuts_left
    assert ours.encode(text, 6) == theirs(text, truncation=True, max_length=6)["input_ids"] != ours.encode(text)[:6]
    ours.save(tmp_path / "saved")
    assert Tokenizer.load(tmp_path / "saved").encode(text, 6) == ours.encode(text, 6)
    if name != "m2m100":  # which takes none
        assert ours.add(["qq"]).cuts_left


def test_a_marian_of_several_languages_asks_for_their_code(folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(folders("marian"), folder)
    assert not any("language" in note for note in Tokenizer.load(folder).notes)
    vocabulary = json.loads((folder / "vocab.json").read_text())
    codes = {f">>{code}<<": len(vocabulary) + i for i, code in enumerate(("fra", "deu", "spa", "ita"))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary | codes))
    opened = Tokenizer.load(folder)
    said = [note for note in opened.notes if "begins with the code of its target's language" in note]
    assert len(said) == 1 and "(>>deu<<, >>fra<<, >>ita<<, …)" in said[0] and "--prefix" in said[0]
    assert opened.encode(">>fra<< a dog")[0] == codes[">>fra<<"]


@pytest.mark.parametrize("stored", ["truncation", "padding", "both"])
@pytest.mark.parametrize("name", ["end", "bert", "nllb", "t5"])
def test_stored_truncation_and_padding_are_left_out_and_told(
    folders: Callable[[str], Path], name: str, stored: str, tmp_path: Path
) -> None:
    Tokenizer.load(folders(name)).save(tmp_path)
    path = tmp_path / "tokenizer.json"
    clean, tree = Tokenizer.load(tmp_path), json.loads(path.read_text())
    assert not any("tokenizer.json holds" in note for note in clean.notes)
    cut = {"direction": "Left", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    fill = {"strategy": {"Fixed": 16}, "direction": "Left", "pad_to_multiple_of": None, "pad_type_id": 0}
    fill |= {"pad_id": clean.pad_id, "pad_token": clean.name(clean.pad_id)}
    wanted = {"truncation": cut, "padding": fill}
    path.write_text(json.dumps(tree | {k: v for k, v in wanted.items() if stored in (k, "both")}))
    for place in (tmp_path, path):
        ours = Tokenizer.load(place)
        (said,) = [note for note in ours.notes if "tokenizer.json holds" in note]
        assert ("to 8" in said) == (stored != "padding") and ("to 16" in said) == (stored != "truncation")
        for text in (" ".join(ENGLISH), "a"):
            assert ours.encode(text) == clean.encode(text)
        ours.save(tmp_path / "saved")
        kept = json.loads((tmp_path / "saved/tokenizer.json").read_text())
        assert kept["truncation"] is None and kept["padding"] is None
        assert opened(tmp_path / "saved")(" ".join(ENGLISH))["input_ids"] == clean.encode(" ".join(ENGLISH))


def test_a_folder_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(RequestError, match="tokenizer"):
        Tokenizer.load(tmp_path)
