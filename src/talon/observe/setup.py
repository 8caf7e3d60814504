"""Where spans go, by configuration. The SDK is the optional extra `otel` and is imported only when spans go anywhere."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING

from talon.domain.errors import FieldError, Invalid
from talon.observe import tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

EXPORTERS = ("none", "console", "otlp")
#: A burst of turns must not drop spans (the SDK's own 2048 did), nor may an unreachable collector hold much memory.
QUEUE_MAX = 16_384
_BATCH_MAX = 1024
_DELAY_MS = 1000
_EXPORT_TIMEOUT_S = 5.0
#: How long the end of the process waits for the last spans.
SHUTDOWN_S = 5.0


def configure(exporter: str, otlp_endpoint: str = "") -> Callable[[], None]:
    """Send spans to `exporter` from now on: none | console (JSON on stderr) | otlp (OTLP over HTTP to `otlp_endpoint`, for example
    `http://127.0.0.1:4318`; `/v1/traces` is added where it is missing).

    -> a function that delivers what is left, within 5 s, and stops; calling it twice does nothing more. An unreachable collector
    loses spans and says so in the log, and nothing waits for it. Raises `Invalid` for an unknown exporter, an endpoint that is
    missing, or an SDK that is not installed.
    """
    if exporter == "none":
        return lambda: None
    if exporter not in EXPORTERS:
        raise _invalid("exporter", f"unknown exporter {exporter!r}; there are {', '.join(EXPORTERS)}", exporter)
    if exporter == "otlp" and not otlp_endpoint:
        raise _invalid("otlp_endpoint", "the exporter otlp needs an endpoint, for example http://127.0.0.1:4318", otlp_endpoint)
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        target = _target(exporter, otlp_endpoint)
    except ImportError as error:
        hint = f"the exporter {exporter} needs the extra otel: pip install 'talon-runtime[otel]' ({error.name} is missing)"
        raise _invalid("exporter", hint, exporter) from None
    provider = TracerProvider(
        resource=Resource.create({"service.name": "talon", "service.version": version("talon-runtime")}), shutdown_on_exit=False
    )
    provider.add_span_processor(
        BatchSpanProcessor(target, QUEUE_MAX, schedule_delay_millis=_DELAY_MS, max_export_batch_size=_BATCH_MAX)
    )
    tracing.use(provider)
    return lambda: _stop(provider.shutdown)


def _target(exporter: str, endpoint: str) -> SpanExporter:
    if exporter == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stderr, formatter=lambda span: span.to_json(indent=None) + "\n")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    url = endpoint.rstrip("/")
    return OTLPSpanExporter(url if url.endswith("/v1/traces") else f"{url}/v1/traces", timeout=_EXPORT_TIMEOUT_S)


def _stop(shutdown: Callable[[], None]) -> None:
    """The SDK's own shutdown may take half a minute over a dead collector: in a thread, it gets `SHUTDOWN_S`."""
    tracing.use(None)
    last = threading.Thread(target=shutdown, name="talon-traces-shutdown", daemon=True)
    last.start()
    last.join(SHUTDOWN_S)


def _invalid(field: str, message: str, value: str) -> Invalid:
    return Invalid("invalid", f"observe.{field}: {message}", (FieldError(f"observe.{field}", message, value),))
