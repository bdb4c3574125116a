"""Keeps one client attached to one session for as long as it is wanted: connects, reads, and connects again with what
the ledger has seen, without anybody noticing; until the session is over, the server is gone for longer than the
client's patience, or the client lets go."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cellgate.client.errors import CellgateError, ConnectionLost, InvalidRequest, Replaced, SessionOver, error_of
from cellgate.client.http import Server
from cellgate.client.ledger import Ledger

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

__all__ = ["Connection", "pack"]

SUBPROTOCOL = "cellgate.v1.msgpack"
OPEN_SECONDS = 10.0  # for a handshake
CLOSE_SECONDS = 2.0  # for the last frames of a connection that we let go of
FIRST_PAUSE_SECONDS = 0.05  # a gateway has a successor within a second
LONGEST_PAUSE_SECONDS = 2.0
MAX_QUEUED_FRAMES = 1024  # read ahead, while what came before is told; then the server waits

# What a close code of the server's means for us; any other one, and none, means: connect again.
_FINAL: dict[int, type[CellgateError]] = {
    1003: InvalidRequest,
    1007: InvalidRequest,
    1008: InvalidRequest,
    1009: InvalidRequest,
    4001: SessionOver,
    4002: Replaced,
    4009: InvalidRequest,
}
_TRY_AGAIN = frozenset({429, 502, 503, 504})  # of HTTP, instead of a websocket


class Connection:
    def __init__(self, server: Server, path: str, query: Mapping[str, object], ledger: Ledger, patience: float) -> None:
        """`patience`: seconds without a server, after which all that waits fails with ConnectionLost."""
        self._server = server
        self._path = path
        self._query = query
        self._ledger = ledger
        self._patience = patience
        self._websocket: ClientConnection | None = None
        self._caught_up = asyncio.Event()
        self._error: CellgateError | None = None
        self._why = ""  # the last attempt failed
        self._task = asyncio.create_task(self._run(), name="cellgate attachment")

    async def ready(self) -> None:
        """Returns once the session has said all that it had to say. Raises CellgateError."""
        await self.until(self._caught_up)

    async def over(self) -> None:
        """Waits until there is no connection, and will be none. Raises the CellgateError that says why."""
        await self.until(asyncio.Event())

    async def until(self, event: asyncio.Event) -> None:
        """Returns when it has come. Raises CellgateError when there is no connection, and will be none."""
        coming = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait((coming, self._task), return_when=asyncio.FIRST_COMPLETED)
        finally:
            coming.cancel()
        if not event.is_set():
            self.check()

    def check(self) -> None:
        """Raises CellgateError when there is no connection, and will be none."""
        if self._error is not None:
            raise self._error

    async def send(self, messages: Iterable[Mapping[str, Any]]) -> None:
        """What cannot be sent now, as the connection breaks, the ledger says again on the next."""
        for message in messages:
            if self._websocket is not None:
                with suppress(OSError, _closed()):
                    await self._websocket.send(pack(message))

    async def drop(self) -> None:
        """The connection, as a network does; the next one is made at once. For tests of whoever builds on this."""
        if self._websocket is not None:
            self._websocket.transport.abort()

    async def close(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    # -- within ------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._stay()
        except CellgateError as error:
            self._error = error
        except asyncio.CancelledError:
            self._error = ConnectionLost("this client has let go of the session")
            raise
        except Exception as error:
            self._error = CellgateError(f"what the server said makes no sense here: {error!r}")
            self._error.__cause__ = error
        finally:
            if self._error is not None:
                self._ledger.fail(self._error)

    async def _stay(self) -> None:
        clock = asyncio.get_running_loop().time
        pause, here_at = 0.0, clock()
        while True:
            self._why = ""
            if await self._attach():
                pause, here_at = 0.0, clock()
            elif clock() - here_at > self._patience:
                where = f"{self._server.authority} did not take us back for {self._patience:g} s"
                raise ConnectionLost(f"{where} ({self._why}); a new attachment reads on when it does")
            await asyncio.sleep(pause * (1 + os.urandom(1)[0] / 255) / 2)  # so that not all clients come at once
            pause = min(max(2 * pause, FIRST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)

    async def _attach(self) -> bool:
        """One connection, from its handshake to its end; whether we were in on it. Raises CellgateError when there is
        to be no other."""
        from msgpack import unpackb
        from websockets.asyncio.client import connect
        from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
        from websockets.typing import Subprotocol

        query = {**self._query, "since": self._ledger.seen}
        try:
            websocket = await connect(
                self._server.websocket_url(self._path, query),
                additional_headers=self._server.headers,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,  # it would cost more than it saves on most networks of servers
                max_size=None,  # the server bounds what it says
                max_queue=MAX_QUEUED_FRAMES,
                open_timeout=OPEN_SECONDS,
                close_timeout=CLOSE_SECONDS,
                proxy=None,
                user_agent_header=None,
            )
        except InvalidStatus as error:
            refusal = _refusal(error.response.status_code, error.response.body)
            if refusal.status not in _TRY_AGAIN:
                raise refusal from error
            self._why = str(refusal)
            return False
        except (OSError, EOFError, asyncio.TimeoutError, InvalidHandshake, InvalidMessage) as error:
            self._why = str(error) or type(error).__name__  # the server is away, or was killed over its answer
            return False
        is_in = False
        self._ledger.connected()
        self._websocket = websocket
        try:
            while True:
                data = await websocket.recv()
                event = unpackb(data, unicode_errors="replace", strict_map_key=False)
                again = self._ledger.take(event)
                if event.get("event") == "caught_up":
                    is_in = True
                    self._caught_up.set()
                if again:
                    await self.send(again)
        except ConnectionClosed as closed:
            code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (0, "")
            if kind := _FINAL.get(code):
                name, _, told = reason.partition(": ")
                raise kind(told or reason, code=name) from None
            self._why = reason or "the connection broke"
            return is_in
        finally:
            self._websocket = None
            await websocket.close()


def pack(message: Mapping[str, Any]) -> bytes:
    """As it is sent. Raises InvalidRequest for what cannot be said."""
    from msgpack import packb

    try:
        return bytes(packb(message))
    except (ValueError, TypeError, OverflowError) as error:  # ValueError: text with half a character, too
        raise InvalidRequest(f"this cannot be sent: {error}; text, numbers, lists and maps would pass") from error


def _refusal(status: int, body: bytes | bytearray) -> CellgateError:
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    return error_of(said if isinstance(said, dict) else {}, status=status)


def _closed() -> type[Exception]:
    from websockets.exceptions import ConnectionClosed

    return ConnectionClosed
