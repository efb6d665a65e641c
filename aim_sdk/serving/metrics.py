"""What a service counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counts requests, tokens and errors of one service.

    Args:
        waiting: says how many requests wait.
        prefixes: says how often a computed prefix was used, and how often not.
    """

    def __init__(self, waiting: Callable[[], int], prefixes: Callable[[], tuple[int, int]] | None) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "aim_requests",
            "Requests by route, method and status.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "aim_request_seconds",
            "From a request to the end of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.first_piece = Histogram(
            "aim_first_piece_seconds",
            "From a request to the first piece of its streamed answer.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.errors = Counter("aim_errors", "Errors by kind.", ("code",), registry=self.registry)
        self.tokens = Counter("aim_tokens", "Tokens of prompts and answers.", ("kind",), registry=self.registry)
        self.reads = Counter("aim_reads", "Demonstrations that were read.", registry=self.registry)
        self.batches = Histogram(
            "aim_batch_size",
            "Conversations answered together.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=self.registry,
        )
        queue = Gauge("aim_queue", "Requests that wait.", registry=self.registry)
        queue.set_function(lambda: float(waiting()))
        if prefixes is not None:
            hits = Gauge("aim_prefix_hits", "Prompts whose prefix was computed before.", registry=self.registry)
            hits.set_function(lambda: float(prefixes()[0]))
            misses = Gauge("aim_prefix_misses", "Prompts whose prefix was not.", registry=self.registry)
            misses.set_function(lambda: float(prefixes()[1]))

    def text(self) -> bytes:
        """All of it, in Prometheus' form."""
        return generate_latest(self.registry)
