"""Runs code once in a sandbox that this command makes itself, without any server."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from cellgate.commands.exits import ExitStatus, status_of_run
from cellgate.commands.output import Event, Printer, as_error, as_event
from cellgate.commands.signals import Signals
from cellgate.commands.typed import Answers
from cellgate.sandbox.base import SandboxSpec
from cellgate.sandbox.certificate import Reason
from cellgate.sandbox.client import ExecuteResult, KernelClient
from cellgate.sandbox.drivers import open_driver
from cellgate.wire.jupyter import JupyterMessage
from cellgate.wire.result import Result, fold

__all__ = ["Outcome", "run_in_sandbox"]

NOTICE_AFTER_SECONDS = 1.0  # a start takes milliseconds; who waits longer wants to know for what


@dataclass(frozen=True)
class Outcome:
    came: ExecuteResult
    driver: str
    spec: SandboxSpec
    timings: dict[str, float]
    timeout: float | None

    @property
    def status(self) -> ExitStatus:
        return status_of_run(self.came.reply, self.came.certificate, timed_out=self.came.timed_out)

    @property
    def sentence(self) -> str:
        """How it ended, when that was not by itself; else ""."""
        if certificate := self.came.certificate:
            return certificate.sentence()
        return f"the code ran longer than {self.timeout} s and was interrupted" if self.came.timed_out else ""

    @property
    def reason(self) -> str:
        if certificate := self.came.certificate:
            return certificate.reason.value
        if self.came.timed_out:
            return Reason.TIMEOUT_WALL.value
        return {"ok": "ok", "aborted": "cancelled"}.get(self.came.status, "error")

    @property
    def result(self) -> Result:
        """As a server would tell it."""
        came = self.came
        finished = {
            "event": "finished",
            "status": came.status if came.status in ("ok", "aborted") else "error",
            "reason": self.reason,
            "sentence": self.sentence,
            "count": came.reply.get("execution_count"),
            "expressions": came.reply.get("user_expressions"),
            "metrics": {"wall": round(self.timings["run_seconds"], 6)},
            "truncated": {"messages": came.dropped_messages, "bytes": came.dropped_bytes} if came.dropped_bytes else {},
        }
        events: list[Event] = [event for out in came.outputs if (event := as_event(out))]
        if came.reply.get("status") == "error" and not any(event["event"] == "error" for event in events):
            events.append(as_error(came.reply))
        return fold([*events, finished])

    def to_json(self) -> dict[str, Any]:
        """The result, and what only we know. Names are a promise to programs."""
        return {
            "exit_status": int(self.status),
            **self.result.to_json(),
            "certificate": self.came.certificate.to_json() if self.came.certificate else None,
            "sandbox": {
                "driver": self.driver,
                "template": self.spec.template,
                "limits": self.spec.limits.to_mapping(),
            },
            "timings": {name: round(seconds, 6) for name, seconds in self.timings.items()},
        }


async def run_in_sandbox(
    code: str,
    spec: SandboxSpec,
    *,
    driver_name: str,
    runtime: str,
    timeout: float | None,
    printer: Printer,
    signals: Signals,
    shows: bool,
    answers: Answers | None,
) -> Outcome:
    """`shows`: print what the code prints as it comes, and keep none of it. Raises CellgateError."""
    clock = time.monotonic
    show = _shower(printer)
    async with AsyncExitStack() as stack:
        with _notice("cellgate: starting a sandbox"):
            began = clock()
            driver = await open_driver(driver_name, runtime=runtime)
            stack.push_async_callback(driver.close)
            opened = clock()
            sandbox = await driver.create(spec)
            stack.push_async_callback(sandbox.destroy)
            kernel = await stack.enter_async_context(KernelClient(sandbox, on_other=show))
            await kernel.request("kernel_info_request")  # a time limit is the code's, not that of a cold start
        started = clock()
        end = partial(sandbox.kill, Reason.SESSION_DELETED, "a second Ctrl-C")
        with signals.given_to(sandbox.interrupt, end):
            came = await kernel.execute(
                code, timeout=timeout, on_output=show if shows else None, on_input=answers.answer if answers else None
            )
        timings = {
            "driver_seconds": opened - began,
            "start_seconds": started - opened,
            "run_seconds": clock() - started,
        }
        return Outcome(came, sandbox.driver, spec, timings, timeout)


def _shower(printer: Printer) -> Callable[[JupyterMessage], None]:
    def show(message: JupyterMessage) -> None:
        if event := as_event(message):
            printer.show(event)

    return show


@contextmanager
def _notice(text: str) -> Iterator[None]:
    """Tells a person who has waited a while what for."""
    loop = asyncio.get_running_loop()
    later = loop.call_later(NOTICE_AFTER_SECONDS, lambda: print(text, file=sys.stderr, flush=True))
    if not sys.stderr.isatty():
        later.cancel()
    try:
        yield
    finally:
        later.cancel()
