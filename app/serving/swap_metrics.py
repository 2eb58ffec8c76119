"""What Prometheus scrapes about swaps."""

from prometheus_client import Counter, Gauge, Histogram

from app.metrics import SECONDS, Metrics


class SwapMetrics:
    """Swaps and failed loads by alias, how long making ready took, and whether the aliases can be read."""

    def __init__(self, metrics: Metrics) -> None:
        registry = metrics.registry
        self._swaps = Counter(
            "sds_clip_swaps", "Versions put in place, or that failed.", ["model", "result"], registry=registry
        )
        self._seconds = Histogram(
            "sds_clip_swap_seconds",
            "Time to load a version and make it ready.",
            buckets=SECONDS,
            registry=registry,
        )
        self._source_up = Gauge(
            "sds_clip_alias_source_up", "1 while the aliases can be read.", registry=registry
        )

    def swapped(self, model: str, seconds: float) -> None:
        """Count a version that was put in place."""
        self._swaps.labels(model, "swapped").inc()
        self._seconds.observe(seconds)

    def failed(self, model: str) -> None:
        """Count a load that failed."""
        self._swaps.labels(model, "failed").inc()

    def source_up(self, up: bool) -> None:
        """Note whether the aliases could be read."""
        self._source_up.set(up)
