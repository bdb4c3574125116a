"""Serve the tools of a Cellgate server to a program that starts its MCP servers itself, over standard input and output:
each line that comes is passed on to the server's /mcp, each message that it answers is a line here. Without a server on
this host one is started, and ends with this command."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from typing import IO, Any

from cellgate.client.http import Server
from cellgate.commands.exits import ExitStatus
from cellgate.commands.remote import add_server_flag, reached

__all__ = ["EXITS", "HELP", "Bridge", "add_arguments", "execute"]

HELP = "serve tools for language models over standard input and output (MCP)"
EXITS = """\
exit status:
  0  standard input has ended, and with it the client's own session
  2  usage: there is no such server
  4  the server could not be started"""

PATH = "/mcp"
SESSION_HEADER = "Mcp-Session-Id"
SILENCE_SECONDS = 60.0  # of a server that runs something: it sends a comment each 15 s
FAILED = -32000  # JSON-RPC leaves this code to servers
Write = Callable[[bytes], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_server_flag(parser)


def execute(args: argparse.Namespace) -> ExitStatus:
    """Carry out `cellgate mcp`. Raises the SDK's errors."""
    asyncio.run(_execute(args))
    return ExitStatus.OK


async def _execute(args: argparse.Namespace) -> None:
    async with reached(args, starts=True) as client:
        out = threading.Lock()

        def write(message: bytes) -> None:
            with out, suppress(BrokenPipeError, ValueError):  # whoever asked has gone: standard input ends too
                sys.stdout.buffer.write(message + b"\n")
                sys.stdout.buffer.flush()

        bridge = Bridge(client.server, write)
        await asyncio.to_thread(bridge.serve, sys.stdin.buffer)


class Bridge:
    """Between one client and a server. Each message has a thread while it is answered: a call may take long, and what
    cancels it comes meanwhile."""

    def __init__(self, server: Server, write: Write) -> None:
        self._server = server
        self._write = write
        self._session = ""
        self._threads: set[threading.Thread] = set()

    def serve(self, source: IO[bytes]) -> None:
        """Until it ends."""
        for line in source:
            if not line.strip():
                continue
            if not self._session:  # what comes behind `initialize` shall be of the session that it begins
                self._pass_on(line)
            else:
                thread = threading.Thread(target=self._pass_on, args=(line,), daemon=True)
                self._threads = {one for one in self._threads if one.is_alive()} | {thread}
                thread.start()
        self._say_goodbye()

    def _pass_on(self, line: bytes) -> None:
        try:
            with self._request("POST", line) as response:
                self._session = response.headers.get(SESSION_HEADER) or self._session
                for message in _messages(response):
                    self._write(message)
        except (OSError, HTTPException, ValueError) as error:
            self._fail(line, f"the server did not answer ({error or type(error).__name__}); asking again may help")
        except _NoAnswer as refused:
            self._fail(line, str(refused))

    def _say_goodbye(self) -> None:
        if self._session:
            with suppress(OSError, HTTPException), self._request("DELETE") as response:
                response.read()
        for thread in self._threads:
            thread.join(1.0)  # what it ran has ended with its session

    def _request(self, method: str, body: bytes | None = None) -> HTTPResponse:
        connection = self._server.connect(SILENCE_SECONDS)
        headers = {**self._server.headers, "Accept": "application/json, text/event-stream", "Connection": "close"}
        if self._session:
            headers[SESSION_HEADER] = self._session
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.request(method, self._server.prefix + PATH, body, headers)
        return connection.getresponse()

    def _fail(self, line: bytes, sentence: str) -> None:
        """A request is owed an answer; anything else is not."""
        with suppress(ValueError):
            said = json.loads(line)
            if isinstance(said, dict) and "id" in said and "method" in said:
                error = {"code": FAILED, "message": sentence}
                self._write(json.dumps({"jsonrpc": "2.0", "id": said["id"], "error": error}).encode())


class _NoAnswer(Exception):
    """Of the protocol: the server refused what carried the message."""


def _messages(response: HTTPResponse) -> Iterator[bytes]:
    """What is answered, a line each. Raises _NoAnswer."""
    if response.headers.get_content_type() == "text/event-stream":
        for line in response:
            if line.startswith(b"data: "):
                yield line[len(b"data: ") :].rstrip(b"\r\n")
        return
    body = response.read().strip()
    if not body:
        return
    said: Any = json.loads(body)
    if not isinstance(said, Mapping) or "jsonrpc" not in said:
        raise _NoAnswer(said.get("message", "") if isinstance(said, Mapping) else "no JSON-RPC")
    yield json.dumps(said).encode()
