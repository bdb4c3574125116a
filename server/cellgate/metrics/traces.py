"""Traces for OpenTelemetry: a span for each request, each kernel's start and each cell, told where the operator says.

    POST /v1/sessions/{session_id}/execute      a request, in the trace that its client began (`traceparent`) if it did
    └── cell                                    from when it was accepted until it ended; `cellgate.reason` says how
    kernel start                                a trace of its own: whoever asked for it has been answered by then

Off unless the environment names an endpoint, and then it needs the extra `otel`; without it nothing is imported, and
nobody listens. Where spans go, how many are kept and what is sent along is for the library's own variables. Spans
tell ids and reasons, never code or output.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from cellgate.errors import UsageError
from cellgate.live import trail
from cellgate.live.happenings import CellAccepted, CellFinished, Happening, KernelStarted, SessionEnded, Who

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Status

__all__ = ["ENDPOINTS", "Traces", "prepare_traces"]

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
CLOSE_SECONDS = 1.0  # for the last spans, when a gateway ends and nobody is served any more


class Traces:
    """Also a listener. Whoever made it owes a `close`."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import propagate
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        self._provider = provider
        self._tracer = provider.get_tracer("cellgate")
        self._extract, self._within = propagate.extract, set_span_in_context
        self._nowhere = Context()  # of what belongs to no request, whatever the library thinks is current
        self._server = SpanKind.SERVER
        self._failed: Callable[[str], Status] = partial(Status, StatusCode.ERROR)
        # Of cells that have not ended, by session and key: when each was accepted, and for what.
        self._cells: dict[str, dict[int, tuple[int, Context | None]]] = {}

    def begin(self, request: trail.Request, headers: Mapping[str, str], method: str, route: str) -> None:
        """What is done for this request belongs to it from now on."""
        parent = self._extract({name.lower(): value for name, value in headers.items()})
        told = {"http.request.method": method, "http.route": route, "cellgate.request": request.id}
        request.span = self._tracer.start_span(f"{method} {route}", parent, self._server, told)

    def end(self, request: trail.Request, status: int, principal: str) -> None:
        if (span := request.span) is None:
            return
        span.set_attribute("http.response.status_code", status)
        span.set_attribute("cellgate.principal", principal)
        if status >= 500:
            span.set_status(self._failed(str(status)))
        span.end()

    def hear(self, happening: Happening) -> None:
        now = time.time_ns()
        match happening:
            case CellAccepted(who, cell, _):
                self._cells.setdefault(who.session, {})[cell] = now, self._context()
            case CellFinished(who, cell, reason, wall_seconds, _, output_bytes):
                unknown = now - _nanoseconds(wall_seconds), None  # a former gateway accepted it
                began, parent = self._cells.get(who.session, {}).pop(cell, unknown)
                told: dict[str, str | int] = {"cellgate.reason": reason, "cellgate.cell": cell}
                told["cellgate.output_bytes"] = output_bytes
                self._tell("cell", who, parent, began, now, told, "" if reason == "ok" else reason)
            case KernelStarted(who, incarnation, driver, template, seconds):
                told = {"cellgate.incarnation": incarnation, "cellgate.driver": driver, "cellgate.template": template}
                self._tell("kernel start", who, None, now - _nanoseconds(seconds), now, told)
            case SessionEnded(who, _):
                self._cells.pop(who.session, None)

    def close(self) -> None:
        """Tell what is left. Waits for it, and not for a collector that takes nothing."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)

    def _context(self) -> Context | None:
        """Of the request that this is done for."""
        request = trail.current()
        return None if request is None or request.span is None else self._within(request.span)

    def _tell(
        self,
        name: str,
        who: Who,
        parent: Context | None,
        began: int,
        ended: int,
        told: Mapping[str, str | int],
        failed: str = "",
    ) -> None:
        about = {**told, "cellgate.session": who.session, "cellgate.principal": who.principal}
        span = self._tracer.start_span(name, parent or self._nowhere, attributes=about, start_time=began)
        if failed:
            span.set_status(self._failed(failed))
        span.end(ended)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def prepare_traces(environ: Mapping[str, str]) -> Callable[[], Traces] | None:
    """What makes them in the process that tells them, which need not be able to read the installation; None when the
    environment names nowhere to tell them. Raises UsageError."""
    if not any(environ.get(name) for name in ENDPOINTS) or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise UsageError(
            f"{' or '.join(ENDPOINTS)} is set, and OpenTelemetry is not installed; `pip install 'cellgate[otel]'` "
            "would pass, or OTEL_SDK_DISABLED=true"
        ) from error
    exporter = OTLPSpanExporter()  # it imports more
    resource = Resource.create({"service.name": environ.get("OTEL_SERVICE_NAME") or "cellgate"})

    def make() -> Traces:
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter))  # a thread, which no fork would keep
        return Traces(provider)

    return make
