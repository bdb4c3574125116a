"""The SDK: a server's sessions, for programs.

    from cellgate.client import Client

    with Client() as client, client.session() as session:
        print(session.run("1 + 1").result)

`Client` and `AsyncClient` are the same, but for `await`. What may go wrong is in `errors`, what happens in a session in
`events`; how a cell ended is a `Result`. Knows the wire, and nothing else of the server.
"""

from cellgate.client.blocking import Cell, Client, Files, Scripts, Session
from cellgate.client.client import AsyncClient
from cellgate.client.errors import (
    CellFailed,
    CellgateError,
    ConnectionLost,
    InvalidRequest,
    NoServer,
    NotFound,
    OutcomeLost,
    Replaced,
    ServerFault,
    SessionOver,
    Unauthorized,
    Unavailable,
)
from cellgate.client.runs import Run
from cellgate.client.session import AsyncCell, AsyncSession
from cellgate.wire.result import Result

__all__ = [
    "AsyncCell",
    "AsyncClient",
    "AsyncSession",
    "Cell",
    "CellFailed",
    "CellgateError",
    "Client",
    "ConnectionLost",
    "Files",
    "InvalidRequest",
    "NoServer",
    "NotFound",
    "OutcomeLost",
    "Replaced",
    "Result",
    "Run",
    "Scripts",
    "ServerFault",
    "Session",
    "SessionOver",
    "Unauthorized",
    "Unavailable",
]
