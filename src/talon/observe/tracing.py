"""A step is a span. A thin wrapper on the OpenTelemetry API: without a tracer provider it costs about a microsecond.

Spans go to the provider given to `use` (`setup.configure` does it), else to one that an embedding program has set globally,
else nowhere; then the trace of a caller is still handed on: inside `span(…, parent=P)` the current `traceparent()` is P's.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Token
from types import TracebackType

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Attributes = Mapping[str, str | int | float | bool]

_NAME = "talon"
_HEADER = "traceparent"
_NOWHERE = Context()
_propagator = TraceContextTextMapPropagator()
_tracer = trace.get_tracer(_NAME)


def use(provider: TracerProvider | None) -> None:
    """Send the spans that begin from now on to `provider`; None: to the global one."""
    global _tracer
    _tracer = trace.get_tracer(_NAME) if provider is None else provider.get_tracer(_NAME)


class span:  # noqa: N801 - used as a function: `with span("model", {…}) as current:`
    """Run the body as a span named `name`, child of `parent` (W3C text; what cannot be read begins a new trace) or, without
    `parent`, of the current span.

    -> the span, for `set_attribute`. An exception marks it as failed by its class name; the message is left out, because spans
    leave the house. Enter and leave it in one task, and never across the `yield` of a generator.
    """

    __slots__ = ("_attributes", "_name", "_parent", "_span", "_token")

    def __init__(self, name: str, attributes: Attributes | None = None, *, parent: str = "") -> None:
        self._name = name
        self._attributes = attributes
        self._parent = parent
        self._token: Token[Context] | None = None

    def __enter__(self) -> Span:
        context = _propagator.extract({_HEADER: self._parent}, _NOWHERE) if self._parent else None
        self._span = current = _tracer.start_span(self._name, context, attributes=self._attributes)
        if current.get_span_context().is_valid:
            self._token = otel_context.attach(trace.set_span_in_context(current, context))
        return current

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace_: TracebackType | None) -> None:
        if self._token is None:
            return
        if kind is not None and self._span.is_recording():
            self._span.set_attribute("error.type", kind.__qualname__)
            if issubclass(kind, Exception):  # a cancellation is no failure
                self._span.set_status(Status(StatusCode.ERROR, kind.__qualname__))
        self._span.end()
        otel_context.detach(self._token)


def traceparent() -> str:
    """The current span as W3C text (`00-…-…-01`), "" outside of any trace. This is what an entry stores."""
    current = trace.get_current_span().get_span_context()
    if not current.is_valid:
        return ""
    return f"00-{current.trace_id:032x}-{current.span_id:016x}-{current.trace_flags:02x}"
