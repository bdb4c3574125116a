"""Traces: one of a request holds its cell, which says how it ended; nothing is imported where none are asked for."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextvars import copy_context
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cellgate.errors import UsageError
from cellgate.live import trail
from cellgate.live.happenings import CellAccepted, CellFinished, KernelStarted, SessionEnded, Who
from cellgate.metrics.traces import ENDPOINTS, Traces, prepare_traces
from tests.support.server import served, until

ADA = Who("ada", "s1")
TRACE = "0af7651916cd43dd8448eb211c80319c"
SECOND = 10**9


class Told:
    """What a `Traces` has told, kept in memory."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.traces = Traces(provider)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def request(self, status: int = 200, **headers: str) -> None:
        """One that has a cell accepted, which ends later."""

        def ask() -> None:
            request = trail.begin("mine-1")
            self.traces.begin(request, headers, "POST", "/v1/x")
            self.traces.hear(CellAccepted(ADA, 7, "secret"))
            self.traces.end(request, status, "ada")
            request.is_over = True

        copy_context().run(ask)


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_cell_belongs_to_the_request_that_asked_for_it_and_says_how_it_ended(told: Told):
    told.request()
    told.traces.hear(CellFinished(ADA, 7, "timeout_wall", 1.5, 3, 100))
    (request,), (cell,) = told.named("POST /v1/x"), told.named("cell")
    assert request.context and cell.context and cell.parent and cell.attributes and request.attributes
    assert (cell.parent.span_id, cell.context.trace_id) == (request.context.span_id, request.context.trace_id)
    assert (cell.attributes["cellgate.reason"], cell.attributes["cellgate.session"]) == ("timeout_wall", "s1")
    assert (cell.status.is_ok, request.status.is_ok) == (False, True)
    assert (request.attributes["cellgate.request"], request.attributes["http.response.status_code"]) == ("mine-1", 200)
    assert "secret" not in str([span.to_json() for span in told.exporter.get_finished_spans()])


def test_a_trace_that_the_client_began_goes_on_here(told: Told):
    told.request(status=503, Traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
    (request,) = told.named("POST /v1/x")
    assert request.context and f"{request.context.trace_id:032x}" == TRACE
    assert not request.status.is_ok


def test_a_start_takes_its_time_and_a_cell_of_a_former_gateway_too(told: Told):
    told.traces.hear(KernelStarted(ADA, 1, "native", "python", 2.0))
    told.traces.hear(CellFinished(ADA, 9, "ok", 3.0, 0, 0))
    for name, seconds in (("kernel start", 2), ("cell", 3)):
        (span,) = told.named(name)
        assert span.start_time is not None and span.end_time == span.start_time + seconds * SECOND
        assert span.parent is None


def test_nothing_is_kept_of_a_session_that_has_ended(told: Told):
    told.request()
    told.traces.hear(SessionEnded(ADA, "session_deleted"))
    assert not told.traces._cells


@pytest.mark.parametrize("environ", [{}, {ENDPOINTS[0]: ""}, {ENDPOINTS[1]: "http://x", "OTEL_SDK_DISABLED": "true"}])
def test_there_are_none_unless_they_are_asked_for(environ: dict[str, str]):
    assert prepare_traces(environ) is None


def test_what_asks_for_them_without_the_library_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(UsageError, match=r"pip install 'cellgate\[otel\]'"):
        prepare_traces({ENDPOINTS[0]: "http://127.0.0.1:4318"})


def test_a_server_without_them_imports_nothing_of_the_library():
    code = "import cellgate.gateway.server, cellgate.serve.child, sys; print('opentelemetry' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "False"


class Collector(ThreadingHTTPServer):
    """Takes what a server tells, as Jaeger or Tempo would."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        super().__init__(("127.0.0.1", 0), Receiver)


class Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.server.spans.extend(scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.native
async def test_a_real_server_tells_them_to_the_endpoint_of_its_environment(collector: Collector):
    address = f"http://127.0.0.1:{collector.server_address[1]}"
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_BSP_SCHEDULE_DELAY": "100"}  # milliseconds
    async with served("--profile", "testing", env=env) as server:
        session_id = (await server.fetch("POST", "/v1/sessions", {})).json()["id"]
        await server.fetch("POST", f"/v1/sessions/{session_id}/execute", {"code": "1/0"})
        await until(lambda: {"cell", "kernel start"} <= {span.name for span in collector.spans})
        await server.fetch("GET", "/v1/sessions")
        assert await server.end() == 0  # and what waits is told before that
    spans = {span.name: span for span in collector.spans}
    asked = spans["POST /v1/sessions/{session_id}/execute"]
    assert spans["cell"].parent_span_id == asked.span_id
    assert {"POST /v1/sessions", "GET /v1/sessions", "kernel start"} <= set(spans)
