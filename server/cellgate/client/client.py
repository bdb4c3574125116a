"""A server, as its users meet it: sessions to make, find and end; code to run once; scripts.

    async with AsyncClient(url, token) as client, client.session() as session:
        result = await session.run("1+1")

Without a URL it takes the one in CELLGATE_URL, else the server of this host, else one that it starts and that ends
with it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cellgate.client.errors import NoServer, NotFound
from cellgate.client.http import Http, Server
from cellgate.client.scripts import AsyncScripts
from cellgate.client.session import AsyncSession

if TYPE_CHECKING:
    from cellgate.client.local import StartedServer
    from cellgate.client.runs import Run

__all__ = ["AsyncClient"]

HTTP_SECONDS = 60.0  # that a server may be silent over a request: a kernel may take some seconds to start
PATIENCE_SECONDS = 120.0  # without a server: one that is replaced is back within a second, a host within a minute


class AsyncClient:
    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        patience: float = PATIENCE_SECONDS,
        starts: bool = True,
    ) -> None:
        """`patience`: seconds that calls go on without a server, before they raise ConnectionLost. `starts`: whether to
        start a server where there is none."""
        self._url = url or os.environ.get("CELLGATE_URL")
        self._token = token or os.environ.get("CELLGATE_TOKEN")
        self._patience = patience
        self._starts = starts
        self._started: StartedServer | None = None
        self._http: Http | None = None
        self._sessions: set[AsyncSession] = set()  # those that are attached
        self.scripts = AsyncScripts(self._found)

    async def __aenter__(self) -> AsyncClient:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Find the server; without it the first call does. Raises NoServer, InvalidRequest."""
        if self._http is not None:
            return
        if self._url is not None:
            server = Server.at(self._url, self._token)
        else:
            from cellgate.wire.local import LocalServer, local_state_dir

            local = LocalServer.read(local_state_dir())
            if local is None and not self._starts:
                raise NoServer("there is no server on this host; `cellgate serve` starts one, CELLGATE_URL names one")
            if local is None:
                from cellgate.client.local import start_server

                self._started = await asyncio.to_thread(start_server)
                local = self._started.server
            server = Server.at(local.url, local.token)
        self._http = Http(server, HTTP_SECONDS, self._patience)

    async def close(self) -> None:
        """Let go of all sessions; they live on, unless the server was started by this client."""
        for session in list(self._sessions):
            await session.close()
        if self._started is not None:
            started, self._started = self._started, None
            await asyncio.to_thread(started.end)

    @property
    def url(self) -> str:
        """Of the server, without its token. "" before it is found."""
        if self._http is None:
            return ""
        server = self._http.server
        return f"http{'s' if server.is_secure else ''}://{server.authority}{server.prefix}"

    @property
    def server(self) -> Server:
        """Where it is, and how to be let in: for who speaks to it in another way. Once it was found."""
        assert self._http is not None
        return self._http.server

    # -- sessions ----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def session(self, /, session_id: str | None = None, **wish: Any) -> AsyncIterator[AsyncSession]:
        """A session for a block of code: a new one, which ends with the block, and is made as `create` makes it; or one
        that exists, which is let go of. Raises CellgateError."""
        session = await (self.create(**wish) if session_id is None else self.attach(session_id, **wish))
        try:
            yield session
        finally:
            try:
                if session_id is None:
                    try:
                        await session.delete()
                    except NotFound:  # it has ended already
                        pass
            finally:
                await session.close()

    async def create(
        self,
        /,
        *,
        name: str | None = None,
        kernel: str | None = None,
        language: str | None = None,
        profile: str | None = None,
        limits: Mapping[str, float] | None = None,
        env: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        client: str | None = None,
        **others: Any,
    ) -> AsyncSession:
        """A new session. Asked for again with the same key it is the same one. `client` is the name under which this
        program speaks in it. Raises CellgateError."""
        said = {
            "name": name,
            "kernel": kernel,
            "language": language,
            "profile": profile,
            "limits": dict(limits) if limits else None,
            "env": dict(env) if env else None,
            "metadata": dict(metadata) if metadata else None,
            "idempotency_key": idempotency_key or os.urandom(12).hex(),  # so that asking again makes no other one
            **others,
        }
        wish = {field: value for field, value in said.items() if value is not None}
        made = await (await self._found()).json("POST", "/v1/sessions", wish, may_repeat=True)
        return await self._join(made["id"], client, "driver", None)

    async def attach(
        self, session_id: str, *, client: str | None = None, role: str = "driver", since: int | None = None
    ) -> AsyncSession:
        """One that exists. `client`: who this is, in every event it causes, and whose place it reads on from; somebody
        new without it. `since`: the last event that is known, 0 for all that is kept. An `observer` can ask nothing.
        Raises nothing yet: the first call tells that there is no such session."""
        return await self._join(session_id, client, role, since)

    async def sessions(self, /, **filters: object) -> list[dict[str, Any]]:
        """All of yours. Raises CellgateError."""
        said = await (await self._found()).json("GET", "/v1/sessions", query=filters)
        return list(said["sessions"] if isinstance(said, dict) else said)

    async def delete(self, session_id: str) -> None:
        """End a session. Raises CellgateError."""
        await self._ask("DELETE", f"/v1/sessions/{_part(session_id)}")

    # -- code that needs no session ----------------------------------------------------------------------

    async def run(
        self,
        /,
        code: str,
        *,
        inputs: Any = None,
        files: Mapping[str, bytes] | None = None,
        fetch: Sequence[str] | None = None,
        timeout: float | None = None,
        **wish: Any,
    ) -> Run:
        """Once, in a session that is made for it as `create` makes one. With `inputs` the code defines `calculate`,
        which gets them; what it returns is the `value`. `files` go in before, those named by `fetch` come out
        afterwards. Raises CellgateError; that the code failed is in the result."""
        from cellgate.client.runs import patience_of, read_run, run_wish

        said = run_wish(files, code=code, inputs=inputs, fetch=fetch, timeout=timeout, **wish)
        http = await self._found()
        return read_run(await http.json("POST", "/v1/run", said, timeout=patience_of(timeout)))

    async def batch(
        self,
        /,
        *,
        runs: Sequence[Mapping[str, Any]] | None = None,
        cells: Sequence[Mapping[str, Any]] | None = None,
        session: str | None = None,
        on_error: str | None = None,
        timeout: float = HTTP_SECONDS,
        **wish: Any,
    ) -> dict[str, Any]:
        """Many runs, or many cells of one session: {"items", "done", "failed", "is_complete"}. `on_error`: stop or
        continue; `timeout`: seconds for all of it. Raises CellgateError."""
        from cellgate.client.runs import run_wish

        said = run_wish(None, runs=runs, cells=cells, session=session, on_error=on_error, **wish)
        return dict(await (await self._found()).json("POST", "/v1/batch", said, timeout=timeout))

    async def validate(self, code: str, *, language: str = "python", policy: str | None = None) -> dict[str, Any]:
        """What a policy says of code. Raises CellgateError."""
        body = {"code": code, "language": language, **({"policy": policy} if policy else {})}
        return dict(await self._ask("POST", "/v1/validate", body))

    async def ask(self, /, method: str, path: str, body: Mapping[str, Any] | None = None, **query: object) -> Any:
        """Whatever else the server answers; `/v1/openapi.json` lists it. Raises CellgateError."""
        return await (await self._found()).json(method, path, body, query=query)

    # -- within ------------------------------------------------------------------------------------------

    async def _found(self) -> Http:
        await self.open()
        assert self._http is not None
        return self._http

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return await (await self._found()).json(method, path, body)

    async def _join(self, session_id: str, client: str | None, role: str, since: int | None) -> AsyncSession:
        return AsyncSession(
            await self._found(),
            session_id,
            client=client or os.urandom(8).hex(),
            role=role,
            since=since,
            patience=self._patience,
            attached=self._sessions,
        )


def _part(name: str) -> str:
    return quote(name, safe="")
