"""A folder's settings of generation: outputs are those of transformers' `generate`, or a line says what is not."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers

import sourcewise
from sourcewise.cli.parser import main
from sourcewise.errors import DataWarning, RequestError
from sourcewise.generation.model import load
from tests.generation.folders import KINDS, SOURCES, TOKENIZER, change, expected, found, write_folder

BEAMS: dict[str, Any] = {"num_beams": 3, "max_length": 12}
TABLE: dict[str, dict[str, Any]] = {
    "greedy": {"num_beams": 1, "max_new_tokens": 9},
    "max_length": {"num_beams": 1, "max_length": 7},
    "beams": BEAMS,
    "more beams": {"num_beams": 6, "max_new_tokens": 9},
    "several ends": {**BEAMS, "eos_token_id": [1, 9, 12, 17]},
    "several ends, greedy": {"num_beams": 1, "max_length": 12, "eos_token_id": [20, 1, 14]},
    "min_length": {**BEAMS, "min_length": 9, "eos_token_id": [1, 9, 12, 17]},
    "min_new_tokens": {**BEAMS, "min_new_tokens": 6, "min_length": 2, "eos_token_id": [1, 9]},
    "length_penalty 2": {**BEAMS, "length_penalty": 2.0, "eos_token_id": [1, 9, 12]},
    "length_penalty -1": {**BEAMS, "length_penalty": -1.0, "eos_token_id": [1, 9, 12]},
    "stops early": {**BEAMS, "early_stopping": True, "eos_token_id": [1, 9, 12, 17]},
    "never stops early": {**BEAMS, "early_stopping": "never", "eos_token_id": [1, 9, 12, 17]},
    "never, shorter is better": {**BEAMS, "early_stopping": "never", "length_penalty": -0.5, "eos_token_id": [1, 9]},
    "no_repeat_ngram_size 1": {**BEAMS, "no_repeat_ngram_size": 1},
    "no_repeat_ngram_size 3": {**BEAMS, "no_repeat_ngram_size": 3},
    "encoder_no_repeat_ngram_size 1": {**BEAMS, "encoder_no_repeat_ngram_size": 1},
    "encoder_no_repeat_ngram_size 2": {"num_beams": 1, "max_length": 12, "encoder_no_repeat_ngram_size": 2},
    "repetition_penalty": {**BEAMS, "repetition_penalty": 1.7},
    "repetition_penalty, greedy": {"num_beams": 1, "max_length": 12, "repetition_penalty": 1.3},
    "repetition is liked": {"num_beams": 1, "max_length": 12, "repetition_penalty": 0.6},
    "encoder_repetition_penalty": {**BEAMS, "encoder_repetition_penalty": 2.5},
    "encoder_repetition_penalty, greedy": {"num_beams": 1, "max_length": 12, "encoder_repetition_penalty": 0.4},
    "both penalties and n-grams": {
        **BEAMS,
        "repetition_penalty": 1.2,
        "encoder_repetition_penalty": 1.5,
        "no_repeat_ngram_size": 2,
        "encoder_no_repeat_ngram_size": 3,
        "length_penalty": 0.65,
        "min_length": 5,
    },
    "suppress_tokens": {**BEAMS, "suppress_tokens": [5, 6, 9, 11, 20, 27]},
    "suppress_tokens, the end among them": {**BEAMS, "suppress_tokens": [1, 9], "forced_eos_token_id": None},
    "begin_suppress_tokens": {**BEAMS, "begin_suppress_tokens": [*range(1, 40, 2)]},
    "begin_suppress_tokens after a forced one": {
        "num_beams": 1,
        "max_length": 12,
        "begin_suppress_tokens": [*range(1, 40, 2)],
        "forced_bos_token_id": 7,
    },
    "bad words, the end among them": {**BEAMS, "bad_words_ids": [[0], [1], [9], [5, 6], [20, 20], [9, 11, 12]]},
    "bad words of all lengths": {
        "num_beams": 1,
        "max_length": 12,
        "bad_words_ids": [[0], *([a, b] for a in range(3, 40) for b in (9, 14, 20))],
    },
    "forced_bos_token_id": {**BEAMS, "forced_bos_token_id": 11},
    "forced_eos_token_id": {**BEAMS, "forced_eos_token_id": [1, 9], "eos_token_id": [1, 9]},
    "nothing forced": {**BEAMS, "forced_eos_token_id": None},
    "decay": {**BEAMS, "exponential_decay_length_penalty": [3, 1.6]},
    "decay, greedy": {"num_beams": 1, "max_length": 12, "exponential_decay_length_penalty": [2, 1.2]},
    "sequence_bias": {**BEAMS, "sequence_bias": [[[9], 4.0], [[20], -6.0], [[9, 11], 9.0], [[9, 11, 12], 9.0]]},
    "renormalised": {**BEAMS, "renormalize_logits": True, "suppress_tokens": [5, 9, 11], "repetition_penalty": 1.4},
    "drawn among one": {"do_sample": True, "top_k": 1, "max_length": 12},
    "drawn, nearly the likeliest": {"do_sample": True, "top_p": 1e-6, "top_k": 0, "max_length": 12},
    "drawn from what is typical": {"do_sample": True, "typical_p": 1e-6, "top_k": 0, "max_length": 12},
    "drawn by a share": {"do_sample": True, "min_p": 1.0, "max_length": 12},
    "drawn above a bound": {"do_sample": True, "epsilon_cutoff": 0.999, "max_length": 12},
    "a start of its own": {**BEAMS, "decoder_start_token_id": 6},
    "a start in a list": {**BEAMS, "decoder_start_token_id": [6]},
}


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, bytes]:
    path = tmp_path_factory.mktemp(request.param)
    model = write_folder(request.param, path)
    return model, path, (path / "generation_config.json").read_bytes()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    path = tmp_path_factory.mktemp("small")
    return write_folder("bart", path), path


@pytest.fixture
def at_hand(small: tuple[Any, Path]) -> Iterator[tuple[Any, Path]]:
    """A BART and its folder, whose JSON files are as before afterwards."""
    files = {path: path.read_bytes() for path in small[1].glob("*.json")}
    yield small
    for path, content in files.items():
        path.write_bytes(content)


@pytest.mark.parametrize("settings", TABLE.values(), ids=TABLE)
def test_outputs_are_those_of_generate(folder: tuple[Any, Path, bytes], settings: dict[str, Any]) -> None:
    model, path, plain = folder
    (path / "generation_config.json").write_bytes(plain)
    change(path, **settings)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        opened = load(path)
    assert found(opened) == expected(model, path)
    assert not [each for each in told if "generation_config.json: " in str(each.message)]


@pytest.mark.parametrize("several", [False, True])
def test_stop_strings_of_a_folder_end_outputs(at_hand: tuple[Any, Path], several: bool) -> None:
    """They are the option stop, whose outputs test_stop.py compares with those of transformers."""
    _, path = at_hand
    change(path, num_beams=1, max_length=30)
    free = [each.best.text for each in load(path).generate(SOURCES).of]
    stop = max((text[i : i + 2] for text in free for i in range(1, len(text) // 2)), key=lambda part: part.isalpha())
    change(path, stop_strings=[stop, "no such text"] if several else stop)
    opened = load(path)
    assert opened.generation.stop == ([stop, "no such text"] if several else [stop])
    assert "stop_strings = " in opened.held()
    outputs = [each.best.text for each in opened.generate(SOURCES).of]
    assert outputs != free
    assert all(stop not in text[: -len(stop)] for text in outputs)
    assert [each.best.text for each in opened.generate(SOURCES, stop=[]).of] == free


def test_what_is_asked_for_goes_before_what_the_folder_says(at_hand: tuple[Any, Path]) -> None:
    model, path = at_hand
    change(path, num_beams=3, max_length=12, min_length=9, repetition_penalty=1.5)
    opened = load(path)
    asked = found(opened, beams=2, max_new_tokens=5)
    assert asked == expected(model, path, num_beams=2, max_new_tokens=5)  # no end before the fifth
    assert opened.options(beams=1).repetition_penalty == 1.5
    assert found(opened, beams=1, repetition_penalty=1.0, min_new_tokens=0) == expected(
        model, path, num_beams=1, repetition_penalty=1.0, min_length=0
    )
    with pytest.raises(RequestError, match="min_new_tokens 7 is above max_new_tokens 5"):
        opened.options(min_new_tokens=7, max_new_tokens=5)


def test_where_a_folder_says_nothing_it_is_our_defaults(at_hand: tuple[Any, Path]) -> None:
    model, path = at_hand
    opened = load(path)
    assert (opened.generation.beams, opened.generation.max_new_tokens) == (4, 64)  # as many positions as it has
    outputs = found(opened)
    assert max(map(len, outputs)) > 20
    assert outputs == expected(model, path, num_beams=4, max_new_tokens=64)


def test_who_names_beams_searches_where_the_folder_draws(at_hand: tuple[Any, Path]) -> None:
    model, path = at_hand
    change(path, do_sample=True, temperature=0.7, max_length=12)
    opened = load(path)
    assert (opened.options().sample, opened.options().top_k, opened.options().temperature) == (True, 50, 0.7)
    assert found(opened, beams=3) == expected(model, path, do_sample=False, num_beams=3)
    assert opened.options(beams=3, sample=True).sample


def test_settings_in_an_old_config_json(at_hand: tuple[Any, Path]) -> None:
    """Without a generation_config.json its settings hold; what is there only as a default does not."""
    _, path = at_hand
    (path / "generation_config.json").unlink()
    settings = {"num_beams": 3, "no_repeat_ngram_size": 2, "min_length": 6, "suppress_tokens": [9, 20]}
    change(path, "config.json", **settings, max_length=11, top_k=50, temperature=1.0)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(path).eval()
    (generation := model.generation_config).save_pretrained(path / "read")
    assert generation.num_beams == 3
    assert found(path) == expected(model, path / "read")
    change(path, "config.json", max_length=20)  # what the old files held where nobody had set anything
    assert load(path).generation.max_new_tokens == 64


def test_settings_in_config_json_beside_the_file_are_told(at_hand: tuple[Any, Path]) -> None:
    _, path = at_hand
    change(path, "config.json", num_beams=6, length_penalty=2.0, max_length=20, task_specific_params={"sum": {}})
    change(path, length_penalty=2.0)
    with pytest.warns(DataWarning) as told:
        opened = load(path)
    lines = [str(each.message) for each in told]
    assert any(
        line.endswith("config.json: num_beams = 6 is not followed: generation_config.json is there") for line in lines
    )
    assert any("task_specific_params (sum) is not followed" in line for line in lines)
    assert len(lines) == 2
    assert (opened.generation.beams, opened.generation.length_penalty) == (4, 2.0)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"num_return_sequences": 3}, "num_return_sequences = 3 is not followed: one output per source"),
        ({"num_beam_groups": 2, "diversity_penalty": 0.5}, "diversity_penalty = 0.5 is not followed"),
        ({"num_beam_groups": 2}, "num_beam_groups = 2 is not followed"),
        ({"guidance_scale": 1.5}, "guidance_scale = 1.5 is not followed"),
        ({"force_words_ids": [[5]]}, r"force_words_ids = \[\[5\]\] is not followed"),
        ({"penalty_alpha": 0.6}, "penalty_alpha = 0.6 is not followed"),
        ({"top_h": 0.4}, "top_h = 0.4 is not followed"),
        ({"remove_invalid_values": True}, "remove_invalid_values = true is not followed: what is not finite"),
        ({"stop_strings": [3]}, "stop_strings = .* is not followed: it should be a valid string"),
        ({"max_time": 2.0}, "max_time = 2.0 is not followed"),
        ({"token_healing": True}, "token_healing = true is not followed"),
        ({"forced_decoder_ids": [[1, 5]]}, "forced_decoder_ids = .* is not followed: it is not among our settings"),
        ({"lang_to_id": {"de": 4}}, "lang_to_id = .* is not followed"),
        ({"num_beams": 4, "do_sample": True}, "num_beams = 4 is not followed: do_sample is set"),
        ({"num_beams": "four"}, 'num_beams = "four" is not followed: it should be a valid integer'),
        ({"length_penalty": 9.0}, "length_penalty = 9.0 is not followed: it should be less than or equal to 5"),
        ({"early_stopping": "soon"}, 'early_stopping = "soon" is not followed'),
        ({"max_length": 0}, "max_length = 0 is not followed"),
    ],
    ids=str,
)
def test_what_is_not_followed_is_told_in_a_line(at_hand: tuple[Any, Path], settings: dict[str, Any], line: str) -> None:
    _, path = at_hand
    before = load(path).generation
    change(path, **settings)
    with pytest.warns(DataWarning, match=f"generation_config.json: {line}"):
        opened = load(path)
    if "do_sample" not in settings:
        assert opened.generation == before


def test_what_changes_no_output_is_not_told(at_hand: tuple[Any, Path]) -> None:
    _, path = at_hand
    change(path, use_cache=False, output_scores=True, return_dict_in_generate=True, num_assistant_tokens=5)
    change(path, num_return_sequences=1, guidance_scale=None, top_p=0.9, transformers_version="4.2", max_time=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        load(path)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"suppress_tokens": "all"}, "suppress_tokens should hold ids, not 'all'"),
        ({"bad_words_ids": [5, 6]}, "bad_words_ids should hold ids, not 5"),
        ({"forced_bos_token_id": 4000}, "forced_bos_token_id has the id 4000; the network embeds"),
        ({"sequence_bias": {"(5,)": 2.0}}, "sequence_bias should be a list"),
        ({"sequence_bias": [[[5], "much"]]}, "sequence_bias should hold pairs"),
        ({"exponential_decay_length_penalty": 3}, "exponential_decay_length_penalty should be a count"),
        ({"eos_token_id": "</s>"}, "eos_token_id should be an id"),
        ({"decoder_start_token_id": [4, 5]}, "a target starts with one token"),
    ],
    ids=str,
)
def test_ids_that_are_none_are_refused(at_hand: tuple[Any, Path], settings: dict[str, Any], line: str) -> None:
    change(at_hand[1], **settings)
    with pytest.raises(RequestError, match=line):
        load(at_hand[1])


@pytest.mark.parametrize("kind", ["t5", "bert2bert"])
def test_an_end_that_is_a_word_stays_in_the_text(kind: str, tmp_path: Path) -> None:
    model = write_folder(kind, tmp_path)
    change(tmp_path, num_beams=1, max_length=14)
    word = next(i for row in expected(model, tmp_path) for i in row[1:3] if i > 2 and TOKENIZER.decode([i]).strip())
    change(tmp_path, eos_token_id=[1, word])
    rows = expected(model, tmp_path)
    assert any(row[-1] == word for row in rows)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [theirs.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False) for row in rows]
    opened = load(tmp_path)
    assert opened.generate(SOURCES) == texts
    assert ["".join(opened.stream(source)) for source in SOURCES] == texts


def test_outputs_that_end_at_the_limit_are_counted(at_hand: tuple[Any, Path]) -> None:
    model, path = at_hand
    for last in ({"forced_eos_token_id": 1}, {"forced_eos_token_id": None, "eos_token_id": [1, 12, 14]}):
        change(path, num_beams=1, max_length=7, **last)
        rows = expected(model, path)
        cut = sum(not each.best.finished for each in load(path).generate(SOURCES).of)
        assert cut == sum(len(row) == 6 and row[-1] not in (12, 14) for row in rows) > 0


def test_a_stream_is_no_beam_search(at_hand: tuple[Any, Path]) -> None:
    opened = load(at_hand[1])
    with pytest.raises(RequestError, match="beams should be 1 to stream, not 4"):
        opened.stream(SOURCES[0], beams=4)
    assert "".join(opened.stream(SOURCES[0], beams=1, max_new_tokens=5)) == opened.generate(
        SOURCES[0], beams=1, max_new_tokens=5
    )[0]  # fmt: skip
    drawn = {"beams": 4, "sample": True, "seed": 3, "max_new_tokens": 5}
    assert "".join(opened.stream(SOURCES[0], **drawn)) == opened.generate(SOURCES[0], **drawn)[0]


def test_sources_are_cut_on_the_side_of_the_folder(at_hand: tuple[Any, Path]) -> None:
    path = at_hand[1]
    text = " ".join(SOURCES)
    ids = TOKENIZER.encode(text)
    for side, kept, told in (("left", ids[-6:], " from the left"), ("right", [*ids[:5], ids[-1]], "")):
        change(path, "tokenizer_config.json", truncation_side=side)
        opened = load(path, max_source=6)
        with pytest.warns(
            DataWarning, match=f"1 of 1 sources is cut{told} to max_source 6; the longest has {len(ids)}"
        ):
            encoded = opened._encoded(text)
        assert list(encoded.sources[0]) == kept


SOME = {
    "num_beams": 3,
    "max_length": 11,
    "repetition_penalty": 1.3,
    "encoder_no_repeat_ngram_size": 2,
    "suppress_tokens": [9, 20],
    "eos_token_id": [1, 12, 14],
    "early_stopping": True,
    "length_penalty": 0.5,
}


def test_every_door_obeys_the_settings(at_hand: tuple[Any, Path], tmp_path: Path) -> None:
    """Texts, a memory that is used again, the stream, the trace and the evaluation."""
    model, path = at_hand
    change(path, **SOME)
    opened = load(path)
    texts = TOKENIZER.decode_batch(expected(model, path))
    greedy = TOKENIZER.decode_batch(expected(model, path, num_beams=1))
    assert opened.generate(SOURCES) == opened.generate(opened.encode(SOURCES)) == texts != greedy
    assert ["".join(opened.stream(source)) for source in SOURCES] == greedy
    traced = sourcewise.trace(opened, SOURCES, 1)
    assert (traced.output, traced.search) == (texts[1], "beam search, 3 beams, length penalty 0.5")
    assert sourcewise.trace(opened, SOURCES, 1, beams=1).output == greedy[1]
    data = tmp_path / "set.tsv"
    data.write_text("source\ttarget\n" + "".join(f"{source}\t{source}\n" for source in SOURCES))
    evaluated = sourcewise.evaluate(opened, data, generation={"max_new_tokens": 10})
    assert evaluated.outputs == texts
    assert evaluated.metrics["folder_settings"].items() >= {"num_beams": 3, "repetition_penalty": 1.3}.items()
    other = sourcewise.evaluate(opened, data, generation={"beams": 1})
    assert other.outputs == greedy and "num_beams" not in other.metrics["folder_settings"]


def test_the_server_obeys_the_settings(at_hand: tuple[Any, Path]) -> None:
    from fastapi.testclient import TestClient

    from sourcewise.serving.app import create_app
    from sourcewise.serving.asked import Limits

    model, path = at_hand
    change(path, **SOME)
    with TestClient(create_app(load(path), Limits())) as client:
        answer = client.post("/generate", json={"sources": SOURCES}).json()
        assert answer["outputs"] == TOKENIZER.decode_batch(expected(model, path))
        answer = client.post("/generate", json={"sources": SOURCES, "beams": 1, "max_new_tokens": 6}).json()
        assert answer["outputs"] == TOKENIZER.decode_batch(expected(model, path, num_beams=1, max_new_tokens=6))


def test_commands_tell_of_the_settings(
    at_hand: tuple[Any, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, path = at_hand
    change(path, **SOME, num_return_sequences=2)
    (tmp_path / "in.txt").write_text("".join(f"{source}\n" for source in SOURCES))
    assert main(["generate", str(path), str(tmp_path / "in.txt")]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == TOKENIZER.decode_batch(expected(model, path))
    line = f"sourcewise: {path}/generation_config.json: num_return_sequences = 2 is not followed: one output per source"
    assert said.err.count(line) == 1
    (tmp_path / "set.tsv").write_text("source\ttarget\n" + "".join(f"{source}\tx\n" for source in SOURCES))
    assert main(["evaluate", str(path), str(tmp_path / "set.tsv"), "-o", str(tmp_path / "out"), "--beams", "1"]) == 0
    err = capsys.readouterr().err
    assert f"sourcewise: {path}/generation_config.json: its " in err and line in err
    assert "max_length = 11" in err and "num_beams" not in err
    main(["diagnose", str(path), str(tmp_path / "set.tsv"), "--beams", "1"])
    held = [line for line in capsys.readouterr().err.splitlines() if line.endswith(" held")]
    assert len(held) == 1 and held[0] in err.splitlines()  # the very line of `evaluate`
    kept = json.loads((tmp_path / "out" / "metrics.json").read_text())["folder_settings"]
    assert kept["suppress_tokens"] == [9, 20] and "num_beams" not in kept


def test_sources_without_tokens_have_none_to_repeat(at_hand: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    opened = load(at_hand[1])
    monkeypatch.setattr(type(opened.network), "dims", 4)
    for option in ({"encoder_no_repeat_ngram": 2}, {"encoder_repetition_penalty": 1.2}):
        with pytest.raises(RequestError, match="are for text sources"):
            opened.options(**option)
