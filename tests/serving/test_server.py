"""A real server on a real port: clients that hang up or dawdle, a shutdown, and what the command line refuses."""

from __future__ import annotations

import asyncio
import ctypes
import io
import itertools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import httpx2
import pytest
import torch

from sourcewise import serving
from sourcewise.cli import main
from sourcewise.data.open import open_sources
from sourcewise.generation.engine.search import why_not
from sourcewise.generation.model import Model, load
from sourcewise.generation.tracing import trace
from sourcewise.serving.app import _events, create_app
from sourcewise.serving.asked import Limits
from sourcewise.serving.batching import Job
from sourcewise.serving.jobs import Stream
from tests.commands import ENVIRONMENT, Models
from tests.serving.served import TEXTS, Gate, listening, made, send, wait_for


@pytest.fixture
def model() -> Model:
    return made()


def asks(text: str, **more: object) -> bytes:
    return json.dumps({"source": text, **more}).encode()


def forever(*_: object, **__: object) -> Iterator[str]:
    for n in itertools.count():
        time.sleep(0.001)
        yield f"{n} "


def test_a_client_that_hangs_up_has_its_waiting_work_dropped(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(model)
    monkeypatch.setattr(model, "generate", gate)
    app = create_app(model)
    with listening(app) as (port, _), send(port, asks("ba")) as first:
        assert gate.entered.wait(20)
        with send(port, asks("lu")):
            wait_for(lambda: app.state.batcher.waiting == 1)
        wait_for(lambda: app.state.batcher.waiting == 0)
        gate.opened.set()
        assert first.recv(100).startswith(b"HTTP/1.1 200 OK")
    assert gate.calls == [["ba"]]


def test_a_stream_ends_when_its_client_hangs_up(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "stream", forever)
    app = create_app(model, Limits(streams=1))
    with listening(app) as (port, _):
        for _ in range(3):  # each has the only place
            with send(port, asks("ba", stream=True)) as client:
                read = bytearray()  # the first piece may come with the head, or after it

                def has_begun(client: socket.socket = client, read: bytearray = read) -> bool:
                    read.extend(client.recv(1000))
                    return b'{"text": "0 "}' in read

                wait_for(has_begun)
                assert read.startswith(b"HTTP/1.1 200 OK")
        answer = httpx2.post(f"http://127.0.0.1:{port}/generate", json={"source": "ba"}, timeout=20)
        assert answer.json()["outputs"] == model.generate("ba")


def test_a_stream_whose_client_left_before_it_began_is_dropped(model: Model) -> None:
    job = Job("stream", open_sources(["ba"]), 2, model.options(beams=1))

    async def gone() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        await asyncio.sleep(0)

    async def answer() -> None:
        await Stream(job, _events(job, asyncio.Queue()))({"type": "http", "asgi": {"spec_version": "2.3"}}, gone, send)

    asyncio.run(answer())
    assert job.gone and job.future.cancelled()


def test_a_stream_that_fails_says_so(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> object:
        yield "one"
        raise ZeroDivisionError

    monkeypatch.setattr(model, "stream", fail)
    with listening(create_app(model)) as (port, _):
        answer = httpx2.post(f"http://127.0.0.1:{port}/generate", json={"source": "ba", "stream": True}, timeout=20)
        lines = ['data: {"text": "one"}', "event: error", 'data: {"error": "ZeroDivisionError (a bug of sourcewise)"}']
        assert [line for line in answer.text.split("\n") if line] == lines
        assert httpx2.get(f"http://127.0.0.1:{port}/health").status_code == 200


def test_events_arrive_as_they_come(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(model)

    def stream(*_: object, **__: object) -> object:
        yield "one"
        assert gate.opened.wait(20)
        yield " two"

    monkeypatch.setattr(model, "stream", stream)
    with (
        listening(create_app(model)) as (port, _),
        httpx2.stream(
            "POST", f"http://127.0.0.1:{port}/generate", json={"source": "ba", "stream": True}, timeout=20
        ) as answer,
    ):
        lines = (line for line in answer.iter_lines() if line)
        assert next(lines) == 'data: {"text": "one"}'  # while the second is not yet there
        gate.opened.set()
        assert list(lines) == ['data: {"text": " two"}', "event: done", 'data: {"output": "one two"}']


def test_a_client_that_does_not_read_keeps_nobody_waiting(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    piece, count, ended = "Z" * 1_000_000, 12, Event()  # more than sockets hold

    def stream(*_: object, **__: object) -> object:
        yield from (piece for _ in range(count))
        ended.set()

    monkeypatch.setattr(model, "stream", stream)
    app = create_app(model, Limits(streams=1))
    with listening(app) as (port, _), send(port, asks("ba", stream=True)) as slow:
        assert ended.wait(20)
        wait_for(lambda: not app.state.batcher._streams)  # its place is free
        for more in ({}, {"stream": True}):
            answer = httpx2.post(f"http://127.0.0.1:{port}/generate", json={"source": "lu", **more}, timeout=20)
            assert answer.status_code == 200
        said = bytearray()
        while not said.endswith(b"0\r\n\r\n"):  # the end of a body in chunks
            said += slow.recv(1 << 20)
    assert said.count(b"Z") == 2 * count * len(piece)  # piece by piece, and the whole at the end


def test_a_body_in_chunks_is_read_to_its_limit(model: Model) -> None:
    with listening(create_app(model, Limits(body=20_000))) as (port, _):
        for spaces, status in ((19_000, 200), (30_000, 413)):
            parts = itertools.chain(itertools.repeat(b" " * 1000, spaces // 1000), [asks("ba")])
            headers = {"Content-Type": "application/json"}
            answer = httpx2.post(f"http://127.0.0.1:{port}/generate", content=parts, headers=headers, timeout=20)
            assert answer.request.headers["transfer-encoding"] == "chunked" and answer.status_code == status


def test_a_body_that_dawdles_is_refused(model: Model) -> None:
    with listening(create_app(model, Limits(seconds=0.2))) as (port, _):
        with send(port, b'{"sou', declared=100) as client:
            answer = b"".join(iter(lambda: client.recv(4000), b""))  # to the end: it may come in pieces
        assert b" 408 " in answer and b"body: did not arrive within 0.2 s" in answer
        assert httpx2.get(f"http://127.0.0.1:{port}/health").json()["status"] == "ok"


def test_a_shutdown_finishes_what_is_in_flight(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(model)
    wanted, greedy = [model.generate(text) for text in TEXTS], model.generate(TEXTS[0], beams=1)[0]
    monkeypatch.setattr(model, "generate", gate)
    app = create_app(model)
    with ThreadPoolExecutor(len(TEXTS) + 1) as pool, listening(app) as (port, server):
        url = f"http://127.0.0.1:{port}/generate"
        asked = [pool.submit(httpx2.post, url, json={"source": text}, timeout=20) for text in TEXTS]
        assert gate.entered.wait(20)
        streamed = pool.submit(httpx2.post, url, json={"source": TEXTS[0], "stream": True}, timeout=20)
        wait_for(lambda: app.state.batcher.waiting + len(gate.calls[0]) == len(TEXTS) + 1)
        server.should_exit = True
        wait_for(lambda: _refuses(port))
        gate.opened.set()
        assert [each.result().json()["outputs"] for each in asked] == wanted
        event, data = streamed.result().text.strip().split("\n")[-2:]
        assert (event, json.loads(data.removeprefix("data: "))) == ("event: done", {"output": greedy})
    assert not app.state.batcher.running


def test_a_shutdown_does_not_wait_for_ever(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "stream", forever)
    app = create_app(model)
    with listening(app, grace=1) as (port, server), send(port, asks("ba", stream=True)) as client:
        wait_for(lambda: b'{"text": "0 "}' in client.recv(1000))
        server.should_exit = True
        wait_for(lambda: not app.state.batcher.running)


def _refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return True
    return False


def test_the_command_serves_a_run_until_it_is_ended_and_finishes_a_stream(models: Models) -> None:
    command = [sys.executable, "-m", "sourcewise", "serve", str(models.text), "--port", "0"]
    environment = {**ENVIRONMENT, "SOURCEWISE_TOKEN": "secret"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith(f"sourcewise: serving {models.text} at http://127.0.0.1:"), line
            url = line.split(" at ")[1].split()[0]
            wait_for(lambda: _refuses(int(url.rsplit(":")[-1])) is False, 60)
            headers = {"Authorization": "Bearer secret"}
            answer = httpx2.post(f"{url}/generate", json={"source": "ba do"}, headers=headers, timeout=60)
            assert answer.status_code == 200, answer.text
            assert httpx2.post(f"{url}/generate", json={"source": "ba do"}, timeout=60).status_code == 401
            long = {"source": "ba do", "stream": True, "min_new_tokens": 400, "max_new_tokens": 420, "sample": True}
            with httpx2.stream("POST", f"{url}/generate", json=long, headers=headers, timeout=60) as stream:
                lines = stream.iter_lines()
                assert next(lines).startswith("data: ")
                process.send_signal(signal.SIGINT)  # while it speaks
                *_, event, data = (line for line in lines if line)
            assert event == "event: done" and len(data) > 200
            rest = process.communicate(timeout=60)[1]
        except BaseException:
            process.kill()
            raise
    assert "Traceback" not in rest, rest
    assert process.returncode == 0


def test_what_is_wrong_at_the_start_is_told_in_a_line(
    models: Models, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    def told(*words: str) -> str:
        assert main(["serve", *words]) == 2
        said = capsys.readouterr().err
        assert said.startswith("sourcewise: error: ") and said.count("\n") == 1
        return said.removeprefix("sourcewise: error: ")

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert told(str(models.text), "--port", port).startswith(f"--port {port}: is in use on 127.0.0.1; choose")
    assert told("./missing", "--port", "0").startswith("missing: no such folder; give a run")
    assert told("m", "--port", "70000") == "--port should be between 0 and 65535, not 70000\n"
    assert told("m", "--host", "no such host").startswith("--host no such host: no such address")
    assert told("m", "--queue", "0") == "--queue should be greater than 0, not 0\n"
    monkeypatch.delitem(sys.modules, "sourcewise.serving.server", raising=False)
    monkeypatch.delattr(serving, "server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert told("m") == "serve needs uvicorn: pip install 'sourcewise[serve]'\n"


def test_the_token_of_the_command_line_is_before_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from argparse import Namespace

    from sourcewise.serving import server

    seen: list[object] = []
    monkeypatch.setattr(server, "serve", lambda *given: seen.append(given[3]))
    arguments = {"model": "m", "host": "h", "port": 0, "precision": "fp32", "queue": 1}
    for given, environment in (("mine", "theirs"), (None, "theirs"), (None, "")):
        monkeypatch.setitem(os.environ, "SOURCEWISE_TOKEN", environment)
        serving.serve(Namespace(**arguments, token=given))
    assert seen == ["mine", "theirs", None]


def test_what_others_log_to_stays_open(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    from sourcewise.serving import server

    monkeypatch.setattr(server, "Server", lambda _: SimpleNamespace(run=lambda **_: None))
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    monkeypatch.setattr(handler, "close", written.close)
    server.serve(str(models.text), "127.0.0.1", 0, None, "fp32", 8)
    handler.emit(logging.LogRecord("a", logging.WARNING, "a.py", 1, "still here", None, None))
    assert written.getvalue() == "still here\n"


def machine_code(capfd: pytest.CaptureFixture[str], work: Callable[[], object]) -> int:
    """How many pieces of machine code oneDNN writes and keeps for the shapes that it meets in some work."""
    capfd.readouterr()
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON_CREATION):
        work()
    ctypes.CDLL(None).fflush(None)
    return capfd.readouterr().out.count("create:cache_miss")


def test_what_int8_leaves_to_torch_needs_no_machine_code_a_shape(
    models: Models, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from sourcewise.serving import server

    exact = load(models.text)
    if (reason := why_not(exact.network, torch.device("cpu"))) is not None:
        pytest.skip(f"int8 {reason}")
    served: list[Model] = []
    monkeypatch.setattr(server, "create_app", lambda model, *_: served.append(model))
    monkeypatch.setattr(server, "Server", lambda _: SimpleNamespace(run=lambda **_: None))
    server.serve(str(models.text), "127.0.0.1", 0, None, "int8", 8)
    texts = [" ".join(["ba", "do", "ki", "lu", "me"] * 4)[:length] for length in range(2, 60, 8)]

    def said(model: Model) -> list[object]:
        """What is asked for in many shapes, but searches."""
        streams = ["".join(model.stream(text)) for text in texts]
        samples = [model.generate([text], sample=True, seed=1, max_new_tokens=n) for n, text in enumerate(texts, 1)]
        return [streams, samples, [trace(model, text).to_json() for text in texts]]

    (model,) = served
    assert model.engine is not None and said(model) == said(exact)  # as of a server in fp32
    assert machine_code(capfd, lambda: said(model)) == 0
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        rounded = load(models.text, precision="int8")
        assert machine_code(capfd, lambda: said(rounded)) > len(texts)
