"""Figures of a service for Prometheus, summed over its workers."""

from __future__ import annotations

import os
from collections.abc import Mapping

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

from pairmatch.core.types import Side

#: Folder in which workers share their figures, by a convention of prometheus_client.
SHARED = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Requests by method, route and status, their time, and the number of people.

    No figure has an id, a text or a rule.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self._requests = Counter("pairmatch_requests", "Requests", labels, registry=self._registry)
        self._seconds = Histogram(
            "pairmatch_request_seconds",
            "Time to answer",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.in_work = Gauge(
            "pairmatch_requests_in_work",
            "Requests in work",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self._people = Gauge(
            "pairmatch_gallery_people",
            "People in a gallery",
            ("side",),
            registry=self._registry,
            multiprocess_mode="livemostrecent",
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def text(self, people: Mapping[Side, int]) -> bytes:
        """All figures as Prometheus reads them."""
        for side, count in people.items():
            self._people.labels(side).set(count)
        registry = self._registry
        if os.environ.get(SHARED):
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)
        return generate_latest(registry)
