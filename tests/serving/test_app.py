"""The routes: what they answer is what the model says, and what they refuse is told in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sourcewise
from sourcewise.generation.model import Model
from sourcewise.serving.app import create_app
from sourcewise.serving.asked import Limits
from tests.model.networks import DIMS
from tests.serving.served import TEXTS, made, matrix, npy

LIMITS = Limits(body=20_000, sources=6, beams=8, new_tokens=40)


@pytest.fixture(scope="module")
def model() -> Model:
    return made()


@pytest.fixture(scope="module")
def features() -> Model:
    return made("convolution")


@pytest.fixture(scope="module")
def client(model: Model) -> Iterator[TestClient]:
    with TestClient(create_app(model, LIMITS)) as client:
        yield client


@pytest.fixture(scope="module")
def seeing(features: Model) -> Iterator[TestClient]:
    with TestClient(create_app(features, LIMITS)) as client:
        yield client


def events(text: str) -> list[tuple[str, dict[str, str]]]:
    """(name, data) of server-sent events."""
    found = []
    for block in text.split("\n\n")[:-1]:
        *names, data = block.split("\n")
        found.append((names[0].removeprefix("event: ") if names else "", json.loads(data.removeprefix("data: "))))
    return found


OPTIONS: list[dict[str, Any]] = [
    {},
    {"beams": 1},
    {"beams": 3, "length_penalty": 0.5, "max_new_tokens": 5},
    {"sample": True, "seed": 4, "temperature": 1.5},
    {"beams": 1, "no_repeat_ngram": 2, "min_new_tokens": 3},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_outputs_are_those_of_generate(client: TestClient, model: Model, options: dict[str, Any]) -> None:
    answer = client.post("/generate", json={"sources": TEXTS, **options})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"model": "tiny", "outputs": model.generate(TEXTS, **options)}
    alone = client.post("/generate", json={"source": TEXTS[0], "prefix": "lu ", **options})
    assert alone.json()["outputs"] == model.generate("lu " + TEXTS[0], **options)


def test_features_come_as_json_or_as_npy(seeing: TestClient, features: Model) -> None:
    from sourcewise.data.open import open_sources

    wanted = features.generate(open_sources([matrix(9)]), beams=3)
    as_json = seeing.post("/generate", json={"features": matrix(9).tolist(), "beams": 3})
    assert as_json.json()["outputs"] == wanted
    for array in (matrix(9), np.asfortranarray(matrix(9))):
        headers = {"Content-Type": "application/octet-stream"}
        as_npy = seeing.post("/generate?beams=3", content=npy(array), headers=headers)
        assert as_npy.json()["outputs"] == wanted
    assert seeing.get("/health").json()["reads"] == f"features {DIMS} wide"


@pytest.mark.parametrize("options", [{}, {"sample": True, "seed": 2}, {"max_new_tokens": 3}], ids=str)
@pytest.mark.parametrize("text", TEXTS)
def test_a_stream_joined_is_the_greedy_output(
    client: TestClient, model: Model, text: str, options: dict[str, Any]
) -> None:
    answer = client.post("/generate", json={"source": text, "stream": True, **options})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *pieces, (name, last) = events(answer.text)
    assert name == "done" and last["output"] == "".join(data["text"] for _, data in pieces)
    assert last["output"] == model.generate(text, **{"beams": 1, **options})[0]
    assert all(not name and data["text"] for name, data in pieces)


def test_a_trace_is_that_of_the_library(client: TestClient, seeing: TestClient, model: Model, features: Model) -> None:
    wanted = sourcewise.trace(model, TEXTS[0], beams=3).to_dict()
    assert client.post("/trace", json={"source": TEXTS[0], "beams": 3}).json() == json.loads(json.dumps(wanted))
    traced = seeing.post("/trace", json={"features": matrix(9).tolist()}).json()
    assert traced["steps"] == json.loads(sourcewise.trace(features, [matrix(9)]).to_json())["steps"]


def test_a_trace_with_more_weights_than_are_given_has_averages(model: Model) -> None:
    wanted = sourcewise.trace(model, TEXTS[0])
    with TestClient(create_app(model, Limits(weights=1))) as client:
        attention = client.post("/trace", json={"source": TEXTS[0]}).json()["attention"]
    assert attention["averaged"] == {"layers": 2, "heads": 3}
    assert np.abs(np.array(attention["weights"][0][0]) * attention["unit"] - wanted.weights()).max() <= 1e-5


# (body, status, what the line says)
REFUSED: list[tuple[bytes | dict[str, Any] | list[Any], int, str]] = [
    (b"", 400, "body: is not JSON"),
    (b'{"source": "ba"', 400, "body: is not JSON"),
    (b'{"source": "\xff"}', 400, "body: is not JSON"),
    (b'{"source": "\\ud800"}', 400, "body: is not JSON"),
    (b"[" * 9000, 400, "body: is not JSON"),
    (b'{"source": "ba", "beams": 1' + b"0" * 9000 + b"}", 400, "body: is not JSON (number out of range"),
    ([], 422, "body: should be a JSON object"),
    ({}, 422, "give one of source, sources and features, not none"),
    ({"source": "ba", "sources": ["ba"]}, 422, "give one of source, sources and features, not source and sources"),
    ({"source": 5}, 422, "source should be text, not 5"),
    ({"sources": ["ba", 5]}, 422, "sources.1 should be text, not 5"),
    ({"sources": []}, 400, "no sources"),
    ({"sources": ["ba"] * 7}, 422, "sources: should be at most 6, not 7"),
    ({"source": "ba", "beam": 3}, 422, "beam: unknown key; did you mean beams?"),
    ({"source": "ba", "beams": 0}, 422, "beams should be greater than 0, not 0"),
    ({"source": "ba", "beams": 9}, 422, "beams should be at most 8 here, not 9"),
    ({"source": "ba", "beams": True}, 422, "beams should be a number, not True"),
    ({"source": "ba", "max_new_tokens": 41}, 422, "max_new_tokens should be at most 40 here, not 41"),
    ({"source": "ba", "min_new_tokens": 11}, 422, "min_new_tokens 11 is above max_new_tokens 10"),
    ({"source": "ba", "top_p": 1.5}, 422, "top_p should be less than or equal to 1, not 1.5"),
    ({"source": "ba", "batch_tokens": 5}, 422, "batch_tokens: is the server's to choose"),
    ({"source": "ba", "task": "none"}, 422, "task none: the model has no such task"),
    ({"source": "ba " * 600}, 422, "tokens long; this model reads 512"),
    ({"source": "ba", "stream": True, "beams": 2}, 422, "beams should be 1 to stream, not 2"),
    ({"sources": ["ba", "lu"], "stream": True}, 422, "sources: give one source to stream, not 2"),
    ({"features": [[0.0] * DIMS]}, 400, f"features: its sources are features {DIMS} wide; tiny reads text"),
]


@pytest.mark.parametrize(("body", "status", "told"), REFUSED)
def test_a_wrong_request_is_told_in_one_line(client: TestClient, body: Any, status: int, told: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post("/generate", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert told in answer.json()["error"] and "\n" not in answer.json()["error"]


def test_what_only_generate_takes_is_refused_to_trace(client: TestClient) -> None:
    assert "give one source to trace" in client.post("/trace", json={"sources": ["ba", "lu"]}).json()["error"]
    assert "goes with /generate" in client.post("/trace", json={"source": "ba", "stream": True}).json()["error"]
    answer = client.post("/generate", json={"source": "ba", "what_if": True})
    assert (answer.status_code, answer.json()["error"]) == (422, "what_if: goes with /trace")


WRONG_FEATURES: list[tuple[Any, int, str]] = [
    ([[0.0] * (DIMS + 1)], 400, f"features {DIMS + 1} wide; tiny reads features {DIMS} wide"),
    ([[0.0] * DIMS, [0.0]], 422, "features: should be a list of frames"),
    ([0.0] * DIMS, 422, "features: should be a list of frames"),
    ([["a"] * DIMS], 422, "features: should be a list of frames"),
    ([[10**400] * DIMS], 422, "features: should be a list of frames"),
    ([[1e300] * DIMS], 400, "NaN or infinity"),
    ([], 422, "features: should be a list of frames"),
    ({"a": 1}, 422, "features: should be a list of frames"),
]


@pytest.mark.parametrize(("given", "status", "told"), WRONG_FEATURES, ids=range(len(WRONG_FEATURES)))
def test_wrong_features_are_refused(seeing: TestClient, given: Any, status: int, told: str) -> None:
    answer = seeing.post("/generate", json={"features": given})
    assert (answer.status_code, told in answer.json()["error"]) == (status, True), answer.text


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("unpickled",)


def test_an_npy_is_checked_before_it_is_read(seeing: TestClient) -> None:
    whole = npy(matrix(9))
    huge = whole.replace(b"(9, 6)", b"(9999999999999, 6)").ljust(len(whole))
    holed = matrix(9)
    holed[3, 1] = np.nan
    for body, told in [
        (b"", "is empty"),
        (b"nothing", "is not an .npy file"),
        (whole[:-5], "is cut off"),
        (huge, "features"),
        (whole.replace(b"(9, 6)", b"(-9,-6)"), "features"),
        (npy(np.array([[Bomb()]], dtype=object)), "pickled objects, which are never loaded"),
        (npy(np.zeros((2, 3, 5))), "has shape (2, 3, 5)"),
        (npy(np.zeros(5)), "its sources are features 5 wide"),  # a vector is one frame
        (npy(holed), "has NaN or infinity, first in frame 3"),
        (npy(np.zeros((4, DIMS + 1))), f"features {DIMS + 1} wide"),
    ]:
        answer = seeing.post("/generate", content=body, headers={"Content-Type": "application/octet-stream"})
        assert answer.status_code == 400 and told in answer.json()["error"], answer.text


def test_a_source_longer_than_the_model_reads_is_refused(seeing: TestClient, features: Model) -> None:
    features.data = features.data.model_copy(update={"max_frames": 12})
    answer = seeing.post("/generate", json={"features": matrix(13).tolist()})
    assert answer.json() == {
        "error": "features: is 13 frames long; this model reads 12 (as the server was started: --max-frames)"
    }
    assert seeing.post("/generate", json={"features": matrix(12).tolist()}).status_code == 200


def test_a_body_too_large_or_of_another_type_is_refused(client: TestClient) -> None:
    for size in (20_001, 200_000):  # one is read to its end, the other not
        answer = client.post("/generate", content=b" " * size, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()) == (413, {"error": "body: should be at most 20,000 bytes"})
    answer = client.post("/generate", data={"source": "ba"})
    assert answer.status_code == 415 and "should be application/json" in answer.json()["error"]
    assert client.get("/nowhere").json() == {"error": "/nowhere: Not Found; see /docs"}
    assert client.get("/generate").status_code == 405


def test_a_token_is_asked_for_where_there_is_one(model: Model) -> None:
    with TestClient(create_app(model, LIMITS, "sécret")) as client:
        for given in ("", "Bearer wrong", "sécret", "Bearer ", "Basic sécret"):
            headers = {"Authorization": given.encode()} if given else {}
            answer = client.post("/generate", json={"source": "ba"}, headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert client.get("/metrics", headers=headers).status_code == 401
        for right in ("Bearer sécret", "bearer  sécret"):  # RFC 9110: the scheme in any case
            headers = {"Authorization": right.encode()}
            assert client.post("/generate", json={"source": "ba"}, headers=headers).status_code == 200
        assert client.get("/health").status_code == 200


def test_it_says_when_the_model_can_be_asked_no_more(model: Model) -> None:
    app = create_app(model, LIMITS)
    with TestClient(app) as client:
        app.state.batcher.close()
        health, answer = client.get("/health"), client.post("/generate", json={"source": "ba"})
    assert health.status_code == 503 and health.json()["status"] == "the model's thread has stopped"
    assert (answer.status_code, answer.json()) == (503, {"error": "the server is shutting down"})


def test_the_documentation_asks_for_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "POST /generate" in page and "length_penalty" in page and "batch_tokens" not in page
    assert "<script" not in page and "http" not in page.replace("http-equiv", "").replace("over HTTP", "")
    paths = client.get("/openapi.json").json()["paths"]
    own = {"/generate", "/trace", "/health", "/metrics", "/examples", "/examples/{number}"}
    assert set(paths) == own | {"/v1/models", "/v1/completions", "/v1/audio/transcriptions"}
    body = paths["/generate"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert body["beams"]["description"] == "hypotheses kept per source; 1 is greedy"


def test_metrics_count_what_was_answered(model: Model) -> None:
    with TestClient(create_app(model, LIMITS)) as client:
        client.post("/generate", json={"sources": ["ba", "lu"]})
        client.post("/generate", json={"source": "ba", "beams": 0})
        client.get("/secret-1")
        told = client.get("/metrics").text
    for line in (
        'sourcewise_requests_total{path="/generate",status="200"} 1.0',
        'sourcewise_requests_total{path="/generate",status="422"} 1.0',
        'sourcewise_requests_total{path="other",status="404"} 1.0',
        "sourcewise_sources_total 2.0",
        "sourcewise_batch_requests_count 1.0",
        "sourcewise_waiting 0.0",
    ):
        assert line in told.split("\n")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("ba"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["source", "sources", "features", "beams", "stream", "task", "sample", "seed", "max_new_tokens", "what_if"]
)
BODIES = st.binary(max_size=40) | st.dictionaries(NAMES, ANYTHING, max_size=4).map(
    lambda tree: json.dumps(tree).encode()
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES, path=st.sampled_from(["/generate", "/trace"]), kind=st.sampled_from(["json", "octet-stream"]))
def test_whatever_comes_is_answered(client: TestClient, body: bytes, path: str, kind: str) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": f"application/{kind}"})
    assert answer.status_code in (200, 400, 422), answer.text
    if answer.status_code != 200:
        assert answer.json()["error"] and "\n" not in answer.json()["error"]


def test_after_all_that_it_still_says_what_generate_says(client: TestClient, model: Model) -> None:
    assert client.post("/generate", json={"sources": TEXTS}).json()["outputs"] == model.generate(TEXTS)
