"""Good and bad requests, thousands of them mixed, at one `sourcewise serve`: is every answer right, and does it last?

    python benchmarks/serve_soak.py RUN [--requests 10000] [--precision int8] [--seed 0] [--json FILE]

Good ones are searches, samples, streams and traces; their answers must be those that each got alone before. Bad ones
are fuzzed bodies, fields that are wrong, features of another width, bodies too large, wrong tokens, heads that are no
HTTP, connections cut in the middle of a body or before the answer, clients that dawdle, and streams hung up. Nothing
may be answered with a status that docs/serving.md does not promise; afterwards nothing may wait or run, memory may
not have grown, and the places of streams must be free. Ends with 1 where any of it fails.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from serve_load import Answer, Client, Server, connected, head, own_sources, serving

TOKEN = "soak"
CLIENTS = 32
POOL = 60  # good requests, asked again and again
WARM = 0.2  # share of the requests after which memory counts
GROWTH = 32.0  # MB that it may grow by from there
STREAMS = 8  # that run at once
PATIENCE = 600.0  # seconds for any answer


@dataclass
class Good:
    """A request whose answer is known."""

    path: str
    body: bytes
    answer: bytes = b""


@dataclass
class Soak:
    """What is sent, and what came of it."""

    port: int
    pool: list[Good]
    draw: random.Random
    kinds: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def fail(self, told: str) -> None:
        """Note what should not have happened."""
        self.failures.append(told)

    def expect(self, answer: Answer, kind: str, *statuses: int) -> None:
        """An answer of one of these, with a line that says why where it refuses."""
        self.statuses[answer.status] += 1
        if answer.status not in statuses:
            self.fail(f"{kind}: {answer.status} {answer.body[:200]!r}")
        elif answer.status >= 400 and answer.head and b'{"error":' not in answer.body:
            self.fail(f"{kind}: {answer.status} without its line: {answer.body[:200]!r}")

    # What follows is one request each.

    async def good(self, client: Client) -> None:
        """A search, a sample, a stream or a trace."""
        one = self.draw.choice(self.pool)
        answer = await client.post(one.path, one.body)
        self.expect(answer, "good", 200)
        if answer.body != one.answer:
            self.fail(f"another answer than alone: {one.path} {one.body!r}: {answer.body[:300]!r}")

    async def fuzzed(self, client: Client) -> None:
        """A good body with bytes changed, cut out or repeated; it may still be good."""
        body = bytearray(self.draw.choice(self.pool).body)
        for _ in range(self.draw.randint(1, 8)):
            place = self.draw.randrange(len(body))
            match self.draw.randrange(3):
                case 0:
                    body[place] = self.draw.randrange(256)
                case 1:
                    del body[place : place + self.draw.randint(1, 6)]
                case _:
                    body[place:place] = body[place : place + 9] * self.draw.randint(1, 20)
            body = body or bytearray(b"{")
        path = self.draw.choice(["/generate", "/trace"])
        self.expect(await client.post(path, bytes(body)), f"fuzzed {bytes(body)!r}", 200, 400, 422)

    async def wrong(self, client: Client) -> None:
        """A field that is wrong."""
        bodies: list[Any] = [
            {"source": 5},
            {"source": "a", "beams": 0},
            {"source": "a", "beams": 10**9},
            {"source": "a", "beam": 4},
            {"source": "a", "temperature": -1},
            {"source": "a", "max_new_tokens": 10**6},
            {"source": "a", "task": "no such"},
            {"sources": ["a"] * 65},
            {"source": "a " * 20_000},
            {"features": [[0.0] * 3] * 4},
            {"features": [[0.0], [0.0, 1.0]]},
            [],
            "a",
            None,
        ]
        answer = await client.post(
            self.draw.choice(["/generate", "/trace"]), json.dumps(self.draw.choice(bodies)).encode()
        )
        self.expect(answer, "wrong", 400, 422)

    async def matrix(self, client: Client) -> None:
        """A .npy of a width that the model does not read, or a broken one, or bytes."""
        file = io.BytesIO()
        np.save(file, np.zeros((self.draw.randint(1, 50), self.draw.randint(1, 9)), np.float32))
        whole = file.getvalue()
        body = self.draw.choice([whole, whole[: self.draw.randrange(len(whole))], self.draw.randbytes(200)])
        self.expect(await client.post("/generate", body, "application/octet-stream"), "matrix", 400)

    async def kind(self, client: Client) -> None:
        """A content type, a path or a method that is not served."""
        self.expect(await client.post("/generate", b"source=a", "application/x-www-form-urlencoded"), "kind", 415)
        self.expect(await client.post("/nowhere", b"{}"), "path", 404)
        self.expect(await client.post("/health", b"{}"), "method", 405)

    async def huge(self, client: Client) -> None:
        """A body above the limit, declared or sent."""
        if self.draw.random() < 0.8:
            reader, writer = await client.opened()
            writer.write(head("/generate", 10**12, token=TOKEN))
            self.expect(await client.answer(reader), "huge", 413)
            await client.close()
        else:
            self.expect(await client.post("/generate", b" " * ((16 << 20) + 1)), "huge", 413)

    async def token(self, client: Client) -> None:
        """Another token, or none."""
        stranger = Client(self.port, self.draw.choice(["", "wrong", "Soak", "x" * 4000]))
        self.expect(await stranger.post("/generate", self.pool[0].body), "token", 401)
        await stranger.close()

    async def no_http(self, client: Client) -> None:
        """Bytes that are no request."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(self.draw.randbytes(300) + b"\r\n\r\n")
        line = await reader.read(12)
        self.statuses[int(line.split()[1]) if line else 0] += 1
        if line and not line.startswith(b"HTTP/1.1 400"):
            self.fail(f"no HTTP: {line!r}")
        writer.close()

    async def cut(self, client: Client) -> None:
        """A connection that ends in the middle of a body, or before the answer."""
        one = self.draw.choice(self.pool)
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        sent = one.body if self.draw.random() < 0.5 else one.body[: len(one.body) // 2]
        writer.write(head(one.path, len(one.body), token=TOKEN) + sent)
        await writer.drain()
        await asyncio.sleep(self.draw.choice([0, 0.01, 0.05]))
        writer.transport.abort() if self.draw.random() < 0.5 else writer.close()

    async def slow(self, client: Client) -> None:
        """A body that comes in pieces, and an answer that is read late."""
        one = self.draw.choice(self.pool)
        reader, writer = await client.opened()
        request = head(one.path, len(one.body), token=TOKEN) + one.body
        for start in range(0, len(request), 60):
            writer.write(request[start : start + 60])
            await writer.drain()
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        answer = await client.answer(reader)
        self.expect(answer, "slow", 200)
        if answer.body != one.answer:
            self.fail(f"slow: another answer than alone: {one.body!r}")

    async def hung_up(self, client: Client) -> None:
        """A stream that is left after its first events, or at once."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        streams = [one.body for one in self.pool if b'"stream": true' in one.body]
        body = self.draw.choice(streams)
        writer.write(head("/generate", len(body), token=TOKEN) + body)
        await writer.drain()
        if self.draw.random() < 0.7:
            await reader.readuntil(b"data: ")
        writer.transport.abort()


# How many of a hundred requests are of each kind.
MIX: dict[str, int] = {"good": 40, "fuzzed": 18, "wrong": 10, "matrix": 6, "kind": 3, "huge": 2, "token": 4}
MIX |= {"no_http": 3, "cut": 6, "slow": 3, "hung_up": 5}


def pool(texts: list[str], draw: random.Random) -> list[Good]:
    """Good requests of all kinds."""
    made = []
    for place in range(POOL):
        text = draw.choice(texts)
        path, body = "/generate", {"source": text, "prefix": ""}
        match place % 6:
            case 0:
                body |= {"beams": 1}
            case 1:
                body |= {"beams": 4}
            case 2:
                body = {"sources": draw.sample(texts, 5), "prefix": "", "beams": draw.choice([1, 2])}
            case 3:
                body |= {"stream": True}
            case 4:
                body |= {"sample": True, "seed": place, "max_new_tokens": 30}
            case _:
                path, body = "/trace", body | {"beams": draw.choice([1, 3])}
        made.append(Good(path, json.dumps(body).encode()))
    return made


async def soak(server: Server, texts: list[str], requests: int, seed: int) -> dict[str, Any]:
    """Send them all; the figures of it."""
    draw = random.Random(seed)
    state = Soak(server.port, pool(texts, draw), draw)
    async with connected(server.port, 1, TOKEN) as (client,):
        for one in state.pool:  # each alone
            one.answer = (await client.post(one.path, one.body)).body
    memory: list[float] = []
    left = iter(range(requests))

    async def work(client: Client) -> None:
        for i in left:
            if i % (requests // 10 or 1) == 0:
                memory.append(server.resident())
                print(f"{i:>7,} requests  {memory[-1]:7,.0f} MB  {len(state.failures)} failures", flush=True)
            kind = draw.choices(list(MIX), list(MIX.values()))[0]
            state.kinds[kind] += 1
            send: Callable[[Client], Awaitable[None]] = getattr(state, kind)
            try:
                await asyncio.wait_for(send(client), PATIENCE)
            except (OSError, EOFError, asyncio.LimitOverrunError, TimeoutError, ValueError) as error:
                state.fail(f"{kind}: {type(error).__name__} {error}")
                await client.close()

    async with connected(server.port, CLIENTS, TOKEN) as clients:
        await asyncio.gather(*map(work, clients))
        await settled(state, clients)
    memory.append(server.resident())
    grown = memory[-1] - memory[int(len(memory) * WARM)]
    if grown > GROWTH:
        state.fail(f"memory grew by {grown:.0f} MB")
    report = {"requests": requests, "kinds": dict(state.kinds), "memory_mb": [round(mb, 1) for mb in memory]}
    return report | {"grown_mb": round(grown, 1), "statuses": dict(state.statuses), "failures": state.failures}


async def settled(state: Soak, clients: list[Client]) -> None:
    """Nothing waits, every place of a stream is free, and answers are as before."""
    long = json.dumps({"source": "a", "stream": True, "min_new_tokens": 60, "max_new_tokens": 64}).encode()
    answers = await asyncio.wait_for(asyncio.gather(*(c.post("/generate", long) for c in clients[:STREAMS])), PATIENCE)
    for answer in answers:
        state.expect(answer, "streams after it all", 200)
    for one in state.pool:
        if (await clients[0].post(one.path, one.body)).body != one.answer:
            state.fail(f"after it all another answer: {one.body!r}")
    reader, writer = await clients[0].opened()
    writer.write(f"GET /metrics HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
    told = (await clients[0].answer(reader)).body.decode()
    if "sourcewise_waiting 0.0" not in told:
        state.fail("requests still wait")
    for line in told.splitlines():
        if line.startswith("sourcewise_requests_total") and 'status="5' in line:
            state.fail(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run of texts")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--precision", choices=("fp32", "bf16", "int8"), default="fp32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the report there")
    arguments = parser.parse_args()
    with serving(arguments.run, arguments.precision, TOKEN) as server:
        report = asyncio.run(soak(server, own_sources(arguments.run), arguments.requests, arguments.seed))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    failures = report.pop("failures")
    print(json.dumps(report))
    for told in failures[:20]:
        print("FAILED", told)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
