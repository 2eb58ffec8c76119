"""Traces by OpenTelemetry: a request, and the attempts, processes and stages of the job that it submitted.

FastAPI makes the spans of requests (`TELEMETRY` in app/main.py), and this module those of jobs. Query strings may hold
names, so they are left out, as in the log.

They are off unless one of OpenTelemetry's variables names where to send them. Until then, spans cost next to nothing
and lead nowhere.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sds_clip.app.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

Carrier = Mapping[str, str]
"""What W3C's Trace Context puts into headers: `traceparent`, and perhaps `tracestate`."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
"""The first one that is set holds. An empty variable is not set."""
_UNNAMED = "unknown_service"
_QUERY = "url.query"
_W3C = TraceContextTextMapPropagator()


def is_on(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the standard variables ask for traces."""
    is_off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    exporters = (environment.get("OTEL_TRACES_EXPORTER") or "otlp").split(",")
    return "otlp" in exporters and not is_off and any(environment.get(name) for name in _ENDPOINTS)


def configure(service: str) -> None:
    """Send traces if the variables ask for them. They may also name the service differently.

    Raises: ConfigurationError if the packages are missing, or the variables ask for another protocol or are wrong.
    """
    if not is_on():
        return
    protocol = next(filter(None, map(os.environ.get, _PROTOCOLS)), "http/protobuf")
    if protocol != "http/protobuf":
        raise ConfigurationError(f"Traces are sent by http/protobuf alone; set {_PROTOCOLS[0]} to it.")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigurationError(
            "The variables of OpenTelemetry ask for traces, but its packages are missing; run "
            "pip install 'sds-clip[tracing]', or unset OTEL_EXPORTER_OTLP_ENDPOINT."
        ) from error
    try:
        resource = Resource.create()
        if str(resource.attributes["service.name"]).startswith(_UNNAMED):
            resource = resource.merge(Resource({"service.name": service}))
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(_without_queries())
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as error:
        raise ConfigurationError(f"A variable of OpenTelemetry has a wrong value: {error}.") from error
    trace.set_tracer_provider(provider)


def _without_queries() -> "SpanProcessor":
    """What replaces the query string of a request's span at its start."""
    from opentelemetry.sdk.trace import SpanProcessor

    class WithoutQueries(SpanProcessor):  # type: ignore[misc]  # mypy does not see the optional package
        def on_start(self, span: Span, parent_context: Context | None = None) -> None:
            if _QUERY in (getattr(span, "attributes", None) or ()):
                span.set_attribute(_QUERY, "REDACTED")

    return WithoutQueries()


def flush() -> None:
    """Send what has ended. Only a process that exits without cleanup needs it."""
    flush_all = getattr(trace.get_tracer_provider(), "force_flush", None)
    if flush_all is not None:
        flush_all()


def carrier() -> dict[str, str]:
    """The current span, for another process. Empty outside of any trace."""
    found: dict[str, str] = {}
    _W3C.inject(found)
    return found


@contextmanager
def span(name: str, parent: Carrier, **attributes: str | int) -> Iterator[Span]:
    """Make a span current for the block: a child of `parent`, or the root of a new trace if `parent` is empty."""
    named = {f"sds_clip.{key}": value for key, value in attributes.items()}
    tracer = trace.get_tracer("sds_clip")
    with tracer.start_as_current_span(name, _W3C.extract(parent), attributes=named) as current:
        yield current


class Stages:
    """Spans of a job's stages, one after another, as children of the span that is current at each start."""

    def __init__(self) -> None:
        self._name: str | None = None
        self._span: Span | None = None

    def enter(self, name: str | None) -> None:
        """End the stage before, and begin this one unless it is the same. None begins none."""
        if name == self._name:
            return
        if self._span is not None:
            self._span.end()
        self._name = name
        self._span = None if name is None else trace.get_tracer("sds_clip").start_span(name)
