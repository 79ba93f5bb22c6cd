"""What tests of the server share: tiny models, and a real server to hang up on."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI

from sourcewise.config import GenerationConfig
from sourcewise.data.tokenizers.tokenizer import Tokenizer
from sourcewise.generation.model import Model
from sourcewise.serving.server import bind
from tests.model.networks import DIMS, VOCABULARY, network

TEXTS = ["ba dó ki", "lu", "me no ba dó ki lu me", "ba", "no no no"]


def made(bridge: str | None = None) -> Model:
    tokenizer = Tokenizer.train(["ba dó ki lu me no one two"] * 3, VOCABULARY)
    assert tokenizer.size <= VOCABULARY
    return Model(network(bridge), tokenizer, "tiny", generation=GenerationConfig(beams=2, max_new_tokens=10))


def matrix(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((frames, DIMS)).astype(np.float32)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


class Gate:
    """Holds the model before each call of generate, and counts the calls and their sources."""

    def __init__(self, model: Model) -> None:
        self.opened = threading.Event()
        self.entered = threading.Event()
        self.calls: list[list[str]] = []
        self.generate = model.generate

    def __call__(self, sources: Any, **options: Any) -> list[str]:
        self.calls.append([example.source for example in sources])
        self.entered.set()
        assert self.opened.wait(20)
        return self.generate(sources, **options)


@contextmanager
def listening(app: FastAPI, grace: int = 10) -> Iterator[tuple[int, uvicorn.Server]]:
    """A real server in a thread: its port, and itself; `grace` seconds are given to what is in flight at its end."""
    with bind("127.0.0.1", 0) as bound:
        server = uvicorn.Server(
            uvicorn.Config(app, log_config=None, log_level="error", timeout_graceful_shutdown=grace)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            wait_for(lambda: server.started)
            yield bound.getsockname()[1], server
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def send(port: int, body: bytes, path: str = "/generate", declared: int | None = None) -> socket.socket:
    """A request sent by hand; the answer is the caller's to read, or not to."""
    made = socket.create_connection(("127.0.0.1", port), 20)
    length = len(body) if declared is None else declared
    head = f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    made.sendall(head.encode() + body)
    return made


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)
