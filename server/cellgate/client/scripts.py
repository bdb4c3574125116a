"""Scripts that a server keeps: code under a name, every version of it, run as often as it is wanted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cellgate.client.http import Http

if TYPE_CHECKING:
    from cellgate.client.runs import Run

__all__ = ["AsyncScripts"]

Rows = list[dict[str, Any]]


class AsyncScripts:
    """Of one principal: `client.scripts`. Everything here may raise CellgateError."""

    def __init__(self, find: Callable[[], Awaitable[Http]]) -> None:
        self._find = find

    async def list(self) -> Rows:
        """The newest version of each, without its code."""
        rows: Rows = (await self._ask("GET", "/v1/scripts"))["scripts"]
        return rows

    async def save(self, name: str, code: str, *, language: str | None = None) -> dict[str, Any]:
        """Keep code under a name; a new version, if it is new. Its docstring describes it."""
        wish = {"name": name, "code": code, **({"language": language} if language else {})}
        return dict(await self._ask("POST", "/v1/scripts", wish))

    async def get(self, name: str, *, version: int | None = None) -> dict[str, Any]:
        """Its newest version, or another, with the code."""
        return dict(await self._ask("GET", _path(name), query={"version": version}))

    async def versions(self, name: str) -> Rows:
        """Those that are kept, newest first."""
        rows: Rows = (await self._ask("GET", f"{_path(name)}/versions"))["versions"]
        return rows

    async def diff(self, name: str, *, old: int | None = None, new: int | None = None) -> str:
        """How two versions differ; the newest from the one before."""
        return str((await self._ask("GET", f"{_path(name)}/diff", query={"from": old, "to": new}))["diff"])

    async def delete(self, name: str) -> None:
        """With all its versions."""
        await self._ask("DELETE", _path(name))

    async def run(
        self,
        name: str,
        *,
        version: int | None = None,
        inputs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Run:
        """Once, in a session that is made for it."""
        from cellgate.client.runs import patience_of, read_run, run_wish

        wish = run_wish(None, version=version, inputs=inputs, timeout=timeout)
        http = await self._find()
        return read_run(await http.json("POST", f"{_path(name)}/run", wish, timeout=patience_of(timeout)))

    async def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, query: Mapping[str, object] = {}
    ) -> Any:
        return await (await self._find()).json(method, path, body, query=query)


def _path(name: str) -> str:
    return f"/v1/scripts/{quote(name, safe='')}"
