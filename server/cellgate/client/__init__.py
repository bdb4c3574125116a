"""The SDK: a server's sessions, for programs.

    from cellgate.client import Client

    with Client() as client, client.session() as session:
        print(session.run("1 + 1").result)

`Client` and `AsyncClient` are the same, but for `await`. What may go wrong is in `errors`, what happens in a session in
`events`; how a cell ended is a `Result`. Knows the wire, and nothing else of the server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {  # of these names: only what is asked for is imported, as an event loop alone takes 40 ms
    "cellgate.client.blocking": ("Cell", "Client", "Files", "Scripts", "Session"),
    "cellgate.client.client": ("AsyncClient",),
    "cellgate.client.runs": ("Run",),
    "cellgate.client.session": ("AsyncCell", "AsyncSession"),
    "cellgate.wire.result": ("Result",),
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((home for home, names in _HOMES.items() if name in names), "cellgate.client.errors")
    return getattr(import_module(home), name)
