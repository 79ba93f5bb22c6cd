"""Runs the server: binds a port, loads a model, and starts uvicorn."""

from __future__ import annotations

import errno
import ipaddress
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import uvicorn

from sourcewise.errors import RequestError
from sourcewise.generation.model import Model, load
from sourcewise.runtime.allocator import keep_few
from sourcewise.serving.app import create_app
from sourcewise.serving.asked import Limits

CONNECTIONS = 64  # beside those of waiting requests
# Precision of all that int8 leaves to torch: in bf16 oneDNN keeps compiled code per shape, and clients send any shape.
BESIDE = "fp32"


class Server(uvicorn.Server):
    """uvicorn's server, which ignores Ctrl-C if SIGINT was ignored at start (`nohup`, `command &` in a script)."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Within: SIGTERM ends the server, and SIGINT unless it was ignored before."""
        ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        with super().capture_signals():
            if ignored:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            yield


def serve(
    name: str | list[str],
    host: str,
    port: int,
    token: str | None,
    precision: str,
    queue: int,
    search: dict[str, Any] | None = None,
    **read: int,
) -> None:
    """Serve a model, or an ensemble, until a signal ends the server, which finishes running requests.

    `search` are options of generation for requests that do not name them; `read` are the limits of `load`: max_source,
    max_frames. Raises RequestError.
    """
    if queue < 1:
        raise RequestError(f"--queue should be greater than 0, not {queue}")
    keep_few()
    limits = Limits(queue=queue)
    shown_name = name if isinstance(name, str) else " + ".join(name)
    with bind(host, port) as bound:  # before the slow loading of the model
        config = uvicorn.Config(
            create_app(_opened(name, precision, search or {}, read), limits, token),
            log_config=None,  # uvicorn's own would close every handler of logging that the process has
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=queue + limits.streams + CONNECTIONS,
            timeout_graceful_shutdown=int(limits.seconds),
        )
        address, port = bound.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        bound.listen(config.backlog)  # clients may connect once they read the next line
        print(f"sourcewise: serving {shown_name} at http://{shown}:{port} (Ctrl-C ends)", file=sys.stderr, flush=True)
        if token is None and not ipaddress.ip_address(address).is_loopback:
            print("sourcewise: whoever reaches that address may use it; --token asks for one", file=sys.stderr)
        with suppress(KeyboardInterrupt):  # uvicorn raises it again after it has finished
            Server(config).run(sockets=[bound])


def _opened(name: str | list[str], precision: str, search: dict[str, Any], read: dict[str, int]) -> Model:
    """The model, with the options of generation that were given."""
    model = load(name, precision=precision, beside=BESIDE).limited(**read)
    return replace(model, generation=model.options(**search)) if search else model


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to an address, not yet listening. Raises RequestError if that fails."""
    if not 0 <= port < 65536:
        raise RequestError(f"--port should be between 0 and 65535, not {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError):
        raise RequestError(f"--host {host}: no such address; 127.0.0.1 is this machine alone, 0.0.0.0 all") from None
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        made.close()
        problem = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
        raise RequestError(f"--port {port}: {problem} on {host}; choose another, or 0 for any that is free") from None
    return made
