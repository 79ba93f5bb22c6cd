"""N-best lists and scores over HTTP, and the routes for clients of OpenAI's API."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from sourcewise.config import GenerationConfig
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.generation.model import Model
from sourcewise.serving.app import create_app
from sourcewise.serving.asked import Limits
from tests.model.networks import DIMS, VOCABULARY, network
from tests.serving.served import TEXTS, made, matrix

LIMITS = Limits(sources=6, beams=8, new_tokens=40)


@pytest.fixture(scope="module")
def model() -> Model:
    return made()


@pytest.fixture(scope="module")
def client(model: Model) -> Iterator[TestClient]:
    with TestClient(create_app(model, LIMITS)) as client:
        yield client


@pytest.mark.parametrize(
    "options", [{}, {"beams": 6}, {"sample": True, "seed": 2}, {"mbr": "chrf"}, {"stop": ["lu"]}], ids=str
)
def test_n_best_and_scores_are_those_of_the_library(client: TestClient, model: Model, options: dict[str, Any]) -> None:
    answer = client.post("/generate", json={"sources": TEXTS, "n_best": 3, "scores": True, **options})
    assert answer.status_code == 200, answer.text
    found = model.generate(TEXTS, n_best=3, scores=True, alone=True, **options)
    assert answer.json()["outputs"] == list(found)
    assert answer.json()["results"] == json.loads(json.dumps([each.to_dict() for each in found.of]))
    alone = client.post("/generate", json={"source": TEXTS[0], "n_best": 3, "scores": True, **options}).json()
    if not options.get("sample"):
        best = answer.json()["results"][0]["outputs"][0]
        assert alone["results"][0]["outputs"][0]["source_bits"] == pytest.approx(best["source_bits"], abs=1e-3)


def test_features_have_scores_too() -> None:
    with TestClient(create_app(made("projection"), LIMITS)) as seeing:
        answer = seeing.post("/generate", json={"features": matrix(9).tolist(), "scores": True}).json()
    (result,) = answer["results"]
    assert result["against"] == "a still source: its own mean frame throughout"
    assert all(slot["kind"] == "frames" for slot in result["slots"])
    assert {token["slot"] for token in result["outputs"][0]["tokens"]} <= set(range(len(result["slots"])))


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ({"source": "ba", "n_best": 9, "beams": 8}, "n_best should be at most 8 here, not 9"),
        ({"source": "ba", "n_best": 3, "beams": 2}, "n_best 3 is above beams 2"),
        ({"source": "ba", "n_best": 2, "stream": True}, "n_best: goes with /generate, without stream"),
        ({"source": "ba", "mbr": "comet"}, "mbr: comet is no score of this server"),
        ({"source": "ba", "mbr": "chrf", "sample": True, "mbr_candidates": 900}, "mbr_candidates should be at most 8"),
        ({"source": "ba", "suppress": [""]}, "suppress has an empty text"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(client: TestClient, body: dict[str, Any], line: str) -> None:
    answer = client.post("/generate", json=body)
    assert answer.status_code in (400, 422)
    assert line in answer.json()["error"]


def test_a_completion_is_the_models_output(client: TestClient, model: Model) -> None:
    body = {"model": "any", "prompt": TEXTS[:2], "max_tokens": 6, "logprobs": 1, "n": 2, "user": "somebody"}
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    told, found = answer.json(), model.generate(TEXTS[:2], n_best=2, scores=True, max_new_tokens=6, alone=True)
    outputs = [output for each in found.of for output in each.best_first]
    assert told["object"] == "text_completion"
    assert [choice["text"] for choice in told["choices"]] == [output.text for output in outputs]
    assert [choice["index"] for choice in told["choices"]] == [0, 1, 2, 3]
    for choice, output in zip(told["choices"], outputs, strict=True):
        assert choice["finish_reason"] == ("stop" if output.finished else "length")
        expected = [token.log_probability for token in output.tokens]
        assert choice["logprobs"]["token_logprobs"] == pytest.approx(expected, abs=1e-4)
    read = sum(len(model.tokenizer.encode(text)) for text in TEXTS[:2])
    said = sum(len(output.ids) for output in outputs)
    assert told["usage"] == {"prompt_tokens": read, "completion_tokens": said, "total_tokens": read + said}


def test_temperature_0_is_greedy_and_others_are_sampled(client: TestClient, model: Model) -> None:
    def complete(**options: Any) -> str:
        return str(client.post("/v1/completions", json={"prompt": TEXTS[0], **options}).json()["choices"][0]["text"])

    assert complete(temperature=0) == model.generate(TEXTS[0], beams=1)[0]
    drawn = model.generate(TEXTS[0], sample=True, temperature=1.3, top_p=0.9, seed=5)[0]
    assert complete(temperature=1.3, top_p=0.9, seed=5) == drawn
    assert complete() == model.generate(TEXTS[0])[0]
    assert complete(best_of=6) == model.generate(TEXTS[0], beams=6)[0]


def test_a_stop_text_is_no_part_of_a_completion(client: TestClient, model: Model) -> None:
    drawn = {"temperature": 2.0, "seed": 1}
    whole = model.generate(TEXTS[0], sample=True, **drawn)[0]
    stop = whole[1:3]
    body = {"prompt": TEXTS[0], "stop": stop, **drawn}
    choice = client.post("/v1/completions", json=body).json()["choices"][0]
    assert choice["text"] == whole[: whole.index(stop)]
    assert choice["finish_reason"] == "stop"
    lines = client.post("/v1/completions", json={**body, "stream": True}).text.split("\n\n")[:-1]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines[:-1]]
    assert "".join(chunk["text"] for chunk in chunks) == choice["text"]
    assert [chunk["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ({}, "prompt"),
        ({"prompt": []}, "prompt: should have at least one entry"),
        ({"prompt": "ba", "presence_penalty": 0.5}, "presence_penalty: is not among what this server can do"),
        ({"prompt": "ba", "echo": True}, "echo: is not among"),
        ({"prompt": "ba", "n": 3, "best_of": 2}, "best_of: should be at least n"),
        ({"prompt": "ba", "n": 2, "stream": True}, "n: does not go with stream"),
        ({"prompt": "ba", "max_tokens": 4000}, "max_new_tokens should be at most 40"),
    ],
)
def test_what_a_completion_cannot_have_is_refused(client: TestClient, body: dict[str, Any], line: str) -> None:
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 422
    assert line in answer.json()["error"]
    assert client.post("/v1/completions", content=b"{").status_code == 400


def test_the_model_is_listed(client: TestClient) -> None:
    (one,) = client.get("/v1/models").json()["data"]
    assert (one["id"], one["object"]) == ("tiny", "model")


def test_a_recording_is_transcribed(monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile = pytest.importorskip("soundfile")
    pytest.importorskip("python_multipart")
    monkeypatch.setattr("tests.model.networks.DIMS", 80)
    from sourcewise.data.open import open_sources

    tokenizer = Tokenizer.train(["ba dó ki lu me no one two"] * 3, VOCABULARY)
    hearing = Model(network("projection"), tokenizer, "ears", generation=GenerationConfig(beams=2, max_new_tokens=6))
    assert hearing.network.dims == 80
    sound = np.sin(np.arange(8000) / 20).astype("float32")
    file = io.BytesIO()
    soundfile.write(file, sound, 16_000, format="WAV")
    with TestClient(create_app(hearing, LIMITS)) as client:
        data = {"file": ("a.wav", file.getvalue(), "audio/wav")}
        answer = client.post("/v1/audio/transcriptions", files=data, data={"model": "any"})
        assert answer.status_code == 200, answer.text
        plain = client.post("/v1/audio/transcriptions", files=data, data={"response_format": "text"})
        wrong = client.post("/v1/audio/transcriptions", files={"file": ("a.wav", b"RIFFnothing", "audio/wav")})
        other = client.post("/v1/audio/transcriptions", files={"file": ("a.txt", b"words", "text/plain")})
        none = client.post("/v1/audio/transcriptions", json={})
    assert plain.text == answer.json()["text"] + "\n"
    assert (wrong.status_code, other.status_code, none.status_code) == (422, 422, 415)
    assert "is no readable recording" in wrong.json()["error"] and "/tmp" not in wrong.json()["error"]
    with TestClient(create_app(made(), LIMITS)) as reading:
        deaf = reading.post("/v1/audio/transcriptions", files=data)
    assert deaf.status_code == 400 and "reads text; it hears nothing" in deaf.json()["error"]
    assert open_sources is not None and DIMS


def test_options_of_the_command_are_the_defaults_of_requests(model: Model) -> None:
    changed = replace(model, generation=model.options(beams=1, target_prefix="lu"))
    with TestClient(create_app(changed, LIMITS)) as client:
        assert client.post("/generate", json={"source": TEXTS[0]}).json()["outputs"][0].startswith("lu")
