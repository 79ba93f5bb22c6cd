"""The figures of /metrics, in Prometheus's format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from sourcewise.serving.batching import Batcher

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128)
# All other paths share one label.
PATHS = ("/generate", "/trace", "/health", "/metrics", "/examples", "/openapi.json", "/docs", "/")


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = own = CollectorRegistry()
        names = ["path", "status"]
        self.requests = Counter("sourcewise_requests", "Requests answered", names, registry=own)
        asked = "sourcewise_request_seconds", "Seconds per request", ["path"]
        self.seconds = Histogram(*asked, buckets=SECONDS, registry=own)
        self.batch = Histogram("sourcewise_batch_requests", "Requests per batch", buckets=REQUESTS, registry=own)
        self.sources = Counter("sourcewise_sources", "Sources that the model read", registry=own)
        self.dropped = Counter("sourcewise_dropped", "Requests dropped after their client hung up", registry=own)
        self.waiting = Gauge("sourcewise_waiting", "Waiting requests", registry=own)

    def watch(self, batcher: Batcher) -> None:
        """Report the number of waiting requests of this queue."""
        self.waiting.set_function(lambda: batcher.waiting)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count an answered request and its seconds."""
        label = path if path in PATHS else "other"
        self.requests.labels(label, str(status)).inc()
        self.seconds.labels(label).observe(seconds)

    def text(self) -> bytes:
        """All figures in Prometheus's text format."""
        return generate_latest(self._registry)
