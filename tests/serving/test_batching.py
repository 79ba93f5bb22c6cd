"""The queue: what waits is run together, answers are as if each had been alone, what nobody wants is not run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
import torch
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from sourcewise.data.open import open_sources
from sourcewise.generation.engine.search import Engine, why_not
from sourcewise.generation.model import Model
from sourcewise.generation.outputs import Generated
from sourcewise.model.network import Seq2Seq
from sourcewise.serving.app import create_app
from sourcewise.serving.asked import Limits, Refusal
from sourcewise.serving.batching import Batcher, Job, joined
from sourcewise.serving.metrics import Metrics
from tests.serving.served import TEXTS, Gate, made, matrix, wait_for

OPTIONS: list[dict[str, Any]] = [{"beams": 1}, {"beams": 2}, {"beams": 2, "sample": True, "seed": 3}]


@pytest.fixture
def model() -> Model:
    return made()


@pytest.fixture(scope="module")
def shared() -> Model:
    return made()


def job(model: Model, *texts: str, kind: Any = "generate", **options: Any) -> Job:
    sources = open_sources(list(texts))
    return Job(kind, sources, int(model.lay_out(sources).source_lengths.sum()), model.options(**options))


def done(model: Model, jobs: list[Job], limits: Limits | None = None) -> list[Any]:
    """What becomes of jobs that all wait when the work begins."""
    batcher = Batcher(model, limits or Limits(), Metrics())
    for each in jobs:
        batcher.submit(each)
    batcher.start()
    batcher.close()
    found = [each.future.result(0) for each in jobs]
    return [None if each is None else Generated(each) for each in found]


def test_requests_that_wait_are_generated_together(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(model)
    wanted = {text: model.generate(text) for text in TEXTS}
    monkeypatch.setattr(model, "generate", gate)
    app = create_app(model)
    with TestClient(app) as client, ThreadPoolExecutor(16) as pool:
        first = pool.submit(client.post, "/generate", json={"source": "ba"})
        assert gate.entered.wait(20)
        others = [pool.submit(client.post, "/generate", json={"source": text}) for text in TEXTS * 3]
        wait_for(lambda: app.state.batcher.waiting == 15)
        gate.opened.set()
        assert first.result().json()["outputs"] == wanted["ba"]
        assert [each.result().json()["outputs"] for each in others] == [wanted[text] for text in TEXTS * 3]
    assert [len(call) for call in gate.calls] == [1, 15]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3), st.sampled_from(OPTIONS)), max_size=8),
    st.sampled_from([1, 30, 8192]),
)
def test_an_answer_does_not_depend_on_its_company(
    shared: Model, asked: list[tuple[list[str], dict[str, Any]]], slots: int
) -> None:
    jobs = [job(shared, *texts, **options) for texts, options in asked]
    assert done(shared, jobs, Limits(slots=slots)) == [shared.generate(texts, **options) for texts, options in asked]


def test_only_like_options_go_together_and_samples_alone(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(model)
    gate.opened.set()
    monkeypatch.setattr(model, "generate", gate)
    done(model, [job(model, text, **options) for text in ("ba", "lu") for options in OPTIONS])
    assert sorted(gate.calls) == sorted([["ba", "lu"], ["ba", "lu"], ["ba"], ["lu"]])
    gate.calls.clear()
    length = job(model, TEXTS[2]).slots
    done(model, [job(model, TEXTS[2]) for _ in range(5)], Limits(slots=2 * length))
    assert [len(call) for call in gate.calls] == [2, 2, 1]


def test_features_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("convolution")
    sets = [open_sources([matrix(frames, frames)]) for frames in (9, 4, 13)]
    wanted = [model.generate(each) for each in sets]
    jobs = [Job("generate", each, 9, model.options()) for each in sets]
    gate = Gate(model)
    gate.opened.set()
    monkeypatch.setattr(model, "generate", gate)
    assert done(model, jobs) == wanted and len(gate.calls) == 1
    assert (joined(sets).features(2) == matrix(13, 13)).all()


def test_the_compiled_search_serves_what_it_can(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = why_not(model.network, torch.device("cpu"))
    if reason is not None:
        pytest.skip(f"int8 {reason}")
    model.engine = Engine(cast(Seq2Seq, model.network))
    wanted = [model.generate([text]) for text in TEXTS]
    with monkeypatch.context() as patch:
        patch.setattr(model.network, "decode", lambda *_: pytest.fail("torch was asked"))
        assert done(model, [job(model, text) for text in TEXTS]) == wanted
    sampled = job(model, "ba", sample=True, seed=1)
    assert done(model, [sampled]) == [model.generate("ba", sample=True, seed=1)]


def test_one_request_that_fails_fails_alone(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = model.generate

    def fail(sources: Any, **options: Any) -> list[str]:
        if any(example.source == "lu" for example in sources):
            raise ZeroDivisionError
        return generate(sources, **options)

    monkeypatch.setattr(model, "generate", fail)
    jobs = [job(model, text) for text in ("ba", "lu", "no")]
    with pytest.raises(ZeroDivisionError):
        done(model, jobs)
    assert Generated(jobs[0].future.result(0)) == generate("ba")
    assert Generated(jobs[2].future.result(0)) == generate("no")
    with TestClient(create_app(model), raise_server_exceptions=False) as client:
        answer = client.post("/generate", json={"source": "lu"})
        assert answer.status_code == 500 and "a bug of sourcewise" in answer.json()["error"]
        assert client.post("/generate", json={"source": "ba"}).json()["outputs"] == generate("ba")


def test_a_full_queue_says_when_to_come_back(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(model)
    monkeypatch.setattr(model, "generate", gate)
    app = create_app(model, Limits(queue=2))
    with TestClient(app) as client, ThreadPoolExecutor(4) as pool:
        taken = [pool.submit(client.post, "/generate", json={"source": "ba"})]
        assert gate.entered.wait(20)
        taken += [pool.submit(client.post, "/generate", json={"source": "lu"}) for _ in range(2)]
        wait_for(lambda: app.state.batcher.waiting == 2)
        for body in ({"source": "no"}, {"source": "no", "stream": True}):
            answer = client.post("/generate", json=body)
            assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
            assert answer.json() == {"error": "2 requests are waiting; try again in 1 s"}
        gate.opened.set()
        assert [each.result().status_code for each in taken] == [200, 200, 200]
        assert client.post("/generate", json={"source": "no"}).status_code == 200


def test_what_was_dropped_is_not_run_and_frees_its_place(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(model)
    gate.opened.set()
    monkeypatch.setattr(model, "generate", gate)
    metrics = Metrics()
    batcher = Batcher(model, Limits(queue=2), metrics)
    jobs = [job(model, "ba"), job(model, "lu")]
    for each in jobs:
        batcher.submit(each)
    batcher._pace = 2.2  # seconds a request, of late
    with pytest.raises(Refusal) as refusal:
        batcher.submit(job(model, "no"))
    assert refusal.value.status == 429 and refusal.value.headers == {"Retry-After": "5"}
    jobs[0].drop()
    batcher.submit(job(model, "no"))
    assert batcher.waiting == 2
    batcher.start()
    batcher.close()
    assert gate.calls == [["lu", "no"]] and jobs[0].future.cancelled()
    assert b"sourcewise_dropped_total 1.0" in metrics.text()
    with pytest.raises(Refusal, match="shutting down"):
        batcher.submit(job(model, "ba"))


def test_streams_and_batches_take_turns(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "stream", lambda *_, **__: (str(n) for n in itertools.count()))
    batcher = Batcher(model, Limits(streams=2), Metrics())
    heard: list[Iterator[str]] = []
    streams = [job(model, "ba", kind="stream", beams=1) for _ in range(3)]
    for i, each in enumerate(streams):
        each.tell = lambda piece, i=i: heard.append((i, piece))  # type: ignore[misc]
        batcher.submit(each)
    batcher.start()
    wait_for(lambda: len(heard) > 20)  # two go on for ever, the third waits for room
    asked = job(model, *TEXTS)
    batcher.submit(asked)
    assert Generated(asked.future.result(20)) == model.generate(TEXTS)
    assert {i for i, _ in heard} == {0, 1} and batcher.waiting == 1
    streams[0].drop()
    wait_for(lambda: any(i == 2 for i, _ in heard))
    for each in streams:
        each.drop()
    batcher.close()
    assert [piece for i, piece in heard if i == 1][:3] == ["0", "1", "2"]


def test_real_streams_take_turns_and_say_what_they_would_alone(shared: Model) -> None:
    said: list[list[str]] = [[] for _ in TEXTS]
    jobs = [job(shared, text, kind="stream", beams=1) for text in TEXTS]
    for each, pieces in zip(jobs, said, strict=True):
        each.tell = pieces.append
    done(shared, jobs, Limits(streams=3))
    assert ["".join(pieces) for pieces in said] == shared.generate(TEXTS, beams=1)
