"""Spans: parents, stored traces, failures, and what happens when nobody collects them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from support.rawserver import RawServer, answering, reply
from talon.domain.errors import Invalid
from talon.observe import setup, tracing

STORED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    yield exporter
    tracing.use(None)
    provider.shutdown()


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


def test_a_span_is_the_child_of_the_one_around_it(spans: InMemorySpanExporter) -> None:
    with tracing.span("turn", {"talon.turn": "t1"}) as turn, tracing.span("model") as model:
        model.set_attribute("tokens", 7)
        assert tracing.traceparent().split("-")[1:3] == [
            f"{turn.get_span_context().trace_id:032x}",
            f"{model.get_span_context().span_id:016x}",
        ]
    inner, outer = spans.get_finished_spans()
    assert (inner.name, outer.name) == ("model", "turn")
    assert parent_of(inner) == id_of(outer)
    assert dict(inner.attributes or {}) == {"tokens": 7}
    assert dict(outer.attributes or {}) == {"talon.turn": "t1"}
    assert tracing.traceparent() == ""


def test_a_stored_trace_goes_on_in_another_process(spans: InMemorySpanExporter) -> None:
    with tracing.span("turn", parent=STORED):
        first = tracing.traceparent()
    with tracing.span("turn", parent=first):
        second = tracing.traceparent()
    assert {one.split("-")[1] for one in (first, second)} == {STORED.split("-")[1]}
    before, after = spans.get_finished_spans()
    assert parent_of(before) == int(STORED.split("-")[2], 16)
    assert parent_of(after) == id_of(before)


def test_a_given_parent_wins_over_the_span_around_it(spans: InMemorySpanExporter) -> None:
    with tracing.span("worker"), tracing.span("turn", parent=STORED):
        assert tracing.traceparent().split("-")[1] == STORED.split("-")[1]
    assert spans.get_finished_spans()[1].parent is None


@pytest.mark.parametrize("parent", ["garbage", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "00-zz-zz-01", STORED[:-3]])
def test_a_parent_that_cannot_be_read_begins_a_new_trace(spans: InMemorySpanExporter, parent: str) -> None:
    with tracing.span("turn", parent=parent):
        assert tracing.traceparent() != ""
    assert spans.get_finished_spans()[0].parent is None


def test_a_failure_is_marked_by_its_class_and_its_words_stay_inside(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="secret"), tracing.span("tool"):
        raise ValueError("a secret value")
    (failed,) = spans.get_finished_spans()
    assert failed.status.status_code is StatusCode.ERROR
    assert dict(failed.attributes or {}) == {"error.type": "ValueError"}
    assert "secret" not in failed.to_json()


async def test_a_cancelled_step_is_ended_and_is_no_failure(spans: InMemorySpanExporter) -> None:
    began = asyncio.Event()

    async def step() -> None:
        with tracing.span("tool"):
            began.set()
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(step())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (ended,) = spans.get_finished_spans()
    assert ended.status.status_code is StatusCode.UNSET
    assert dict(ended.attributes or {}) == {"error.type": "CancelledError"}


async def test_turns_that_run_at_once_keep_their_traces_apart(spans: InMemorySpanExporter) -> None:
    async def turn(number: int) -> None:
        with tracing.span(f"turn {number}"):
            await asyncio.sleep(0)
            with tracing.span(f"step {number}"):
                await asyncio.sleep(0)

    await asyncio.gather(*(turn(n) for n in range(20)))
    by_name = {span.name: span for span in spans.get_finished_spans()}
    for number in range(20):
        assert parent_of(by_name[f"step {number}"]) == id_of(by_name[f"turn {number}"])


def test_without_a_collector_a_stored_trace_is_handed_on_and_nothing_else() -> None:
    with tracing.span("turn"):
        assert tracing.traceparent() == ""
    with tracing.span("turn", parent=STORED), tracing.span("model"):
        assert tracing.traceparent() == STORED
    assert tracing.traceparent() == ""


def test_without_a_collector_a_span_costs_next_to_nothing() -> None:
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(2000):
            with tracing.span("step"):
                pass
        best = min(best, (time.perf_counter() - start) / 2000)
    assert best < 20e-6, f"{best * 1e6:.1f} µs a span"  # about 1.5 µs on a quiet machine


def test_the_console_exporter_writes_json_lines_to_stderr_only(capsys: pytest.CaptureFixture[str]) -> None:
    shutdown = setup.configure("console")
    with tracing.span("turn"):
        pass
    shutdown()
    shutdown()
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["name"] == "turn"


@pytest.mark.parametrize("suffix", ["", "/", "/v1/traces"])
async def test_spans_reach_a_collector_over_http_before_the_end(suffix: str) -> None:
    async with RawServer(answering(reply("200 OK", b""))) as collector:
        shutdown = setup.configure("otlp", f"http://127.0.0.1:{collector.port}{suffix}")
        with tracing.span("turn-that-is-collected"):
            pass
        await asyncio.wait_for(asyncio.to_thread(shutdown), 10)
    assert collector.requests[0].startswith(b"POST /v1/traces HTTP/1.1\r\n")
    assert b"turn-that-is-collected" in collector.requests[0]


async def test_a_dead_collector_holds_nobody_up() -> None:
    async with RawServer(answering()) as collector:
        port = collector.port
    shutdown = setup.configure("otlp", f"http://127.0.0.1:{port}")
    with tracing.span("turn"):
        pass
    start = time.monotonic()
    await asyncio.to_thread(shutdown)
    assert time.monotonic() - start < setup.SHUTDOWN_S + 2


def test_no_exporter_changes_nothing() -> None:
    setup.configure("none")()
    with tracing.span("turn"):
        assert tracing.traceparent() == ""


@pytest.mark.parametrize(("exporter", "endpoint", "words"), [("jaeger", "", "'jaeger'"), ("otlp", "", "needs an endpoint")])
def test_a_wrong_configuration_is_refused(exporter: str, endpoint: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        setup.configure(exporter, endpoint)


@pytest.mark.parametrize("exporter", ["console", "otlp"])
def test_a_missing_sdk_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch, exporter: str) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)  # as if it were not installed
    with pytest.raises(Invalid, match=r"pip install 'talon-runtime\[otel\]'"):
        setup.configure(exporter, "http://127.0.0.1:4318")
