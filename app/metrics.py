"""The Prometheus metrics: requests, queue, batches, stages, caches, generations, and the process itself."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
FRESH_S = 1.0
"""How long rendered metrics are sent again. To make them takes 17 ms of the event loop."""
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The metrics of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._rendered = b""
        self._rendered_at = float("-inf")
        ProcessCollector(registry=self.registry)
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self._requests = counter("sds_clip_requests", "The number of answers.", ["route", "status"])
        self._request_seconds = histogram(
            "sds_clip_request_seconds",
            "The time to answer a request, in seconds.",
            ["route"],
            buckets=SECONDS,
        )
        self._stage_seconds = histogram(
            "sds_clip_stage_seconds",
            "The time in a stage of a request or batch, in seconds: decode, queue, forward_image or forward_text.",
            ["stage"],
            buckets=SECONDS,
        )
        self._batch_items = histogram(
            "sds_clip_batch_items", "The number of items in a batch.", ["kind"], buckets=ITEMS
        )
        self._throttled = counter("sds_clip_throttled", "The number of answers with status 429.", ["limit"])
        self._text_cache = counter(
            "sds_clip_text_cache", "The number of texts looked up in the cache.", ["result"]
        )

    def request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def throttled(self, limit: str) -> None:
        """Count a 429, by the limit that refused it."""
        self._throttled.labels(limit).inc()

    def stage(self, stage: str, seconds: float) -> None:
        self._stage_seconds.labels(stage).observe(seconds)

    def batch(self, *, images: int, texts: int) -> None:
        if images:
            self._batch_items.labels("image").observe(images)
        if texts:
            self._batch_items.labels("text").observe(texts)

    def texts_looked_up(self, *, hits: int, misses: int) -> None:
        """Count texts found in the cache (hits) and texts that had to be encoded (misses)."""
        self._text_cache.labels("hit").inc(hits)
        self._text_cache.labels("miss").inc(misses)

    def watch(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Call `read` at each scrape and export the gauges that it returns."""
        self.registry.register(_Watcher(read))

    def render(self) -> bytes:
        """The metrics as Prometheus reads them. They are made at most once in `FRESH_S`."""
        now = time.monotonic()
        if now - self._rendered_at >= FRESH_S:
            self._rendered, self._rendered_at = generate_latest(self.registry), now
        return self._rendered


class _Watcher(Collector):
    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        yield from self._read()


Values = Mapping[Any, float] | float
"""By the values of the labels, which are a tuple if there are several, or without labels a number alone."""


def gauge(name: str, help: str, values: Values, labels: tuple[str, ...] = ()) -> Metric:
    return _filled(GaugeMetricFamily(f"sds_clip_{name}", help, labels=labels), values)


def counter(name: str, help: str, values: Values, labels: tuple[str, ...] = ()) -> Metric:
    """Values that only grow. Prometheus sees the name with `_total` at its end."""
    return _filled(CounterMetricFamily(f"sds_clip_{name}", help, labels=labels), values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: Values) -> Metric:
    for named, value in (values if isinstance(values, Mapping) else {(): values}).items():
        family.add_metric(named if isinstance(named, tuple) else (named,), value)
    return family


def clock_skew(skew_s: float) -> Metric:
    """The same of every process, service or worker."""
    return gauge("clock_skew_seconds", "How far the clock of this host is ahead of the database's.", skew_s)
