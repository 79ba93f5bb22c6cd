"""How many requests a second `sourcewise serve` answers, and how long each takes, for one client and for many.

    python benchmarks/serve_load.py RUN [--clients 32] [--precision int8] [--json FILE] [--quick]

A server is started on a free port, and asked over HTTP by clients that keep their connection and send their next
request when they have the answer of the last. Each asks for one source, in the order of the run's own test set, by
greedy search and by beams of 4. Answers of many clients are held against those of one.
`python benchmarks/serve_soak.py RUN` sends it what it should refuse.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sourcewise.config.files import load_recipe
from sourcewise.data.open import USES, open_sets

SEARCHES: dict[str, dict[str, Any]] = {"greedy": {"beams": 1}, "beam 4": {"beams": 4}}
ROUNDS = 5  # the median one counts
KEPT = 2.0  # seconds that an idle connection is trusted; the server keeps it for 5


@dataclass
class Server:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    port: int

    def resident(self) -> float:
        """Its memory, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))) / 1024


@contextlib.contextmanager
def serving(run: Path, precision: str, token: str = "") -> Iterator[Server]:
    """`sourcewise serve` of a run, until the block ends."""
    command = [sys.executable, "-m", "sourcewise", "serve", str(run), "--port", "0", "--precision", precision]
    environment = {**os.environ, "SOURCEWISE_TOKEN": token}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            if " at http://" not in line:
                sys.exit(line)
            yield Server(process, int(line.split(" at ")[1].split()[0].rsplit(":")[-1]))
        finally:
            process.terminate()
            process.wait(60)


@dataclass
class Answer:
    """What came back."""

    status: int
    head: str
    body: bytes


class Client:
    """One connection that is kept, and opened again where the server closed it."""

    def __init__(self, port: int, token: str = "") -> None:
        self.port, self.token = port, token
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.used = 0.0

    async def post(self, path: str, body: bytes, kind: str = "application/json") -> Answer:
        """The answer to a POST."""
        reader, writer = await self.opened()
        writer.write(head(path, len(body), kind, self.token) + body)
        await writer.drain()
        return await self.answer(reader)

    async def opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The connection; a new one where the server may be about to close it."""
        if time.monotonic() - self.used > KEPT:
            await self.close()
        self.used = time.monotonic()
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        return self.streams

    async def answer(self, reader: asyncio.StreamReader) -> Answer:
        """Read one answer, whole."""
        told = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = dict(line.lower().split(": ", 1) for line in told.split("\r\n")[1:] if line)
        body = b""
        if "content-length" in fields:
            body = await reader.readexactly(int(fields["content-length"]))
        else:
            while size := int((await reader.readline()).strip(), 16):
                body += await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readexactly(2)
        self.used = time.monotonic()
        if fields.get("connection") == "close":
            await self.close()
        return Answer(int(told.split()[1]), told, body)

    async def close(self) -> None:
        """Hang up."""
        if self.streams is not None:
            self.streams[1].close()
            with contextlib.suppress(OSError):
                await self.streams[1].wait_closed()
            self.streams = None


def head(path: str, length: int, kind: str = "application/json", token: str = "") -> bytes:
    """The head of a POST."""
    bearer = f"Authorization: Bearer {token}\r\n" if token else ""
    fields = f"Host: here\r\n{bearer}Content-Type: {kind}\r\nContent-Length: {length}"
    return f"POST {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode()


@contextlib.asynccontextmanager
async def connected(port: int, count: int, token: str = "") -> AsyncIterator[list[Client]]:
    """So many clients, until the block ends."""
    clients = [Client(port, token) for _ in range(count)]
    try:
        yield clients
    finally:
        for client in clients:
            await client.close()


async def ask_all(port: int, count: int, bodies: list[bytes]) -> tuple[list[bytes], list[float], float]:
    """Answers, seconds each took, and seconds in all, of so many clients that share the requests."""
    answers, seconds = [b""] * len(bodies), [0.0] * len(bodies)
    left = iter(range(len(bodies)))

    async def work(client: Client) -> None:
        for i in left:
            begun = time.perf_counter()
            answer = await client.post("/generate", bodies[i])
            seconds[i] = time.perf_counter() - begun
            assert answer.status == 200, answer
            answers[i] = answer.body

    async with connected(port, count) as clients:
        begun = time.perf_counter()
        await asyncio.gather(*map(work, clients))
        return answers, seconds, time.perf_counter() - begun


def own_sources(run: Path) -> list[str]:
    """Texts of the run's test set, else of its validation or training set."""
    data = load_recipe(run / "recipe.yaml").data
    named = next(use for use in USES if data.sets(use))
    return [example.source for example in open_sets(data, named)[0]]


def measure(run: Path, precision: str, clients: int, requests: int) -> list[dict[str, Any]]:
    """A row for each search and number of clients: of several rounds the median one."""
    texts, rows = own_sources(run), []
    with serving(run, precision) as server:
        for search, options in SEARCHES.items():
            # The prefix is on them already.
            bodies = [json.dumps({"source": text, "prefix": "", **options}).encode() for text in texts]
            bodies = (bodies * (requests // len(bodies) + 1))[:requests]
            asyncio.run(ask_all(server.port, clients, bodies[: 2 * clients]))  # warm-up
            few = bodies[: max(1, requests // 4)]
            rounds: list[list[dict[str, Any]]] = [[], []]
            for _ in range(ROUNDS):  # in turn, so that what else the machine does falls on both
                alone, single, took_one = asyncio.run(ask_all(server.port, 1, few))
                crowd, many, took_many = asyncio.run(ask_all(server.port, clients, bodies))
                different = sum(a != b for a, b in zip(alone, crowd, strict=False))
                if different:
                    sys.exit(f"{search}: {different} of {len(few)} answers differ from those given alone")
                rounds[0].append(row(search, 1, single, took_one))
                rounds[1].append(row(search, clients, many, took_many))
            pair = [sorted(each, key=lambda one: one["per_second"])[ROUNDS // 2] for each in rounds]
            for each in pair:
                each["times"] = round(each["per_second"] / pair[0]["per_second"], 2)
                print(told(each), flush=True)
            rows += pair
    return rows


def row(search: str, clients: int, seconds: list[float], took: float) -> dict[str, Any]:
    """The figures of one measurement."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {
        "work": f"serve {search}, {clients} client{'s' if clients > 1 else ''}",
        "requests": len(seconds),
        "per_second": round(len(seconds) / took, 1),
        "p50_ms": round(1000 * cuts[49], 1),
        "p99_ms": round(1000 * cuts[98], 1),
    }


def told(row: dict[str, Any]) -> str:
    """A row as a line."""
    return (
        f"{row['work']:28} {row['per_second']:7,.1f} requests/s  ×{row['times']:5.2f}  "
        f"p50 {row['p50_ms']:7.1f} ms  p99 {row['p99_ms']:7.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run of texts")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument(
        "--requests", type=int, default=1000, help="of many clients a round; one client sends a quarter"
    )
    parser.add_argument("--precision", action="append", choices=("fp32", "bf16", "int8"), help="default: fp32, int8")
    parser.add_argument("--quick", action="store_true", help="200 requests a round: a look, not a measurement")
    parser.add_argument("--json", type=Path, help="write rows and machine there")
    arguments = parser.parse_args()
    requests = 200 if arguments.quick else arguments.requests
    report: dict[str, Any] = {"rows": {}}
    for precision in arguments.precision or ["fp32", "int8"]:
        print(precision)
        report["rows"][precision] = measure(arguments.run, precision, arguments.clients, requests)
    report["machine"] = {"cpu": platform.processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
