"""Middleware before the routes: checks of the token and of the size and pace of bodies, and the metrics."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Mapping

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sourcewise.serving.asked import Limits, Refusal
from sourcewise.serving.metrics import Metrics

OPEN = ("/health", "/docs", "/openapi.json", "/")  # need no token
PATIENCE = 4  # bodies up to this multiple of the limit are read before they are refused, so that the client hears why


def refused(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The response for a refused request, with its reason in one line."""
    return JSONResponse({"error": " ".join(message.split())}, status, dict(headers or {}))


class Guard:
    """ASGI middleware that reads complete bodies, refuses wrong requests, and counts answers."""

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics, token: str | None) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self.token = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request: refuse it, or pass it on with its complete body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            try:
                self._check_token(scope)
                body = await self._read(scope, receive)
            except Refusal as refusal:
                answer = refused(refusal.status, refusal.message, refusal.headers)
                await answer(scope, receive, noting)
                return
            await self.app(scope, _replayed(body, receive), noting)
        finally:
            self.metrics.answered(scope["path"], status, time.perf_counter() - begun)

    def _check_token(self, scope: Scope) -> None:
        if self.token is None or scope["path"] in OPEN:
            return
        scheme, _, given = _header(scope, b"authorization").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self.token):
            raise Refusal(401, "Authorization: should be Bearer and the server's token", {"WWW-Authenticate": "Bearer"})

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """The complete body. Raises Refusal if it is too large or too slow, or if the client hangs up."""
        most = self.limits.body
        large = Refusal(413, f"body: should be at most {most:,} bytes", {"Connection": "close"})
        declared = _header(scope, b"content-length")
        if declared.isdigit() and int(declared[:20]) > PATIENCE * most:
            raise large
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.limits.seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal(499, "the client has gone")
                    size += len(message.get("body", b""))
                    if size <= most:
                        parts.append(message.get("body", b""))
                    if size > PATIENCE * most:
                        raise large
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            late = f"body: did not arrive within {self.limits.seconds:g} s"
            raise Refusal(408, late, {"Connection": "close"}) from None
        if size > most:
            raise large
        return b"".join(parts)


def _header(scope: Scope, name: bytes) -> bytes:
    return next((bytes(value) for key, value in scope["headers"] if key == name), b"")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that returns the body first, then later messages."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
