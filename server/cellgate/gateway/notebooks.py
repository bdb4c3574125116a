"""/api/sessions as Jupyter has it: which notebook uses which kernel.

A Jupyter "session" is a row of names beside a kernel: it keeps nothing alive, and is forgotten with its kernel. The
rows lie in one small file, as a frontend takes a kernel whose row is gone for dead, also after this gateway was
replaced by another.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from uuid import uuid4
from weakref import WeakValueDictionary

from cellgate.errors import StorageFull, UnknownSession, UsageError
from cellgate.gateway.base import RestHandler
from cellgate.gateway.bodies import table_of, text_of
from cellgate.gateway.kernels import MAX_PATH_CHARS, kernel_model, kernel_name_of
from cellgate.live.session import LiveSession
from cellgate.live.wish import Wish

__all__ = ["Notebook", "NotebookHandler", "Notebooks", "NotebooksHandler"]

log = logging.getLogger("cellgate.gateway")

MAX_PER_KERNEL = 64  # notebooks and consoles of one kernel: somebody has some open at once
MAX_FILE_BYTES = 64 << 20  # as many as a server with all its sessions could have, and more than it writes
MAX_ID_CHARS = 64


@dataclass(frozen=True)
class Notebook:
    """One row."""

    id: str
    principal: str
    kernel_id: str
    path: str
    name: str
    type: str


class Notebooks:
    """All rows of one server, in memory and in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = {row.id: row for row in _read(path)}
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    def of(self, principal: str) -> list[Notebook]:
        """In the order in which they came."""
        return [row for row in self._rows.values() if row.principal == principal]

    def using(self, kernel_id: str) -> list[Notebook]:
        return [row for row in self._rows.values() if row.kernel_id == kernel_id]

    def find(self, principal: str, notebook_id: str) -> Notebook:
        """Raises UnknownSession."""
        row = self._rows.get(notebook_id)
        if row is None or row.principal != principal:
            raise UnknownSession(notebook_id)
        return row

    def put(self, row: Notebook) -> None:
        """Raises StorageFull, and nothing has changed."""
        rows = self._rows | {row.id: row}
        self._write(rows)
        self._rows = rows

    def forget(self, ids: Iterable[str]) -> None:
        """Those that the file keeps because it cannot be written are found to have no kernel by whoever reads it."""
        gone = set(ids) & self._rows.keys()
        if gone:
            self._rows = {row.id: row for row in self._rows.values() if row.id not in gone}
            with suppress(StorageFull):
                self._write(self._rows)

    def lock(self, principal: str, path: str) -> asyncio.Lock:
        """Held while a row for this path is made: a frontend that asks twice gets one kernel."""
        return self._locks.setdefault((principal, path), asyncio.Lock())

    def _write(self, rows: Mapping[str, Notebook]) -> None:
        aside = self._path.with_suffix(".new")
        try:
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
                json.dump([asdict(row) for row in rows.values()], file)
            aside.replace(self._path)
        except OSError as error:
            raise StorageFull(error.strerror or "no reason given") from error


def _read(path: Path) -> list[Notebook]:
    """What an earlier gateway wrote. A file that makes no sense is put aside: it held names alone."""
    names = {field.name for field in fields(Notebook)}
    try:
        with path.open() as file:
            rows = json.loads(file.read(MAX_FILE_BYTES))
        if not all(row.keys() == names and all(isinstance(value, str) for value in row.values()) for row in rows):
            raise ValueError("rows of another kind")
        return [Notebook(**row) for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, AttributeError, TypeError) as error:
        log.error("%s could not be read (%s), and is put aside", path, error)
        path.replace(path.with_suffix(".corrupt"))
        return []


def notebook_model(row: Notebook, live: LiveSession) -> dict[str, object]:
    """As jupyter_server has it."""
    labels = {"path": row.path, "name": row.name, "type": row.type}
    model: dict[str, object] = {"id": row.id, **labels, "kernel": kernel_model(live)}
    if row.type == "notebook":  # deprecated there, and still sent
        model["notebook"] = {"path": row.path, "name": row.name}
    return model


class _Handler(RestHandler):
    @property
    def notebooks(self) -> Notebooks:
        return self.services.notebooks

    def living(self) -> dict[str, LiveSession]:
        """The kernels of whoever asks, by id."""
        return {live.id: live for live in self.manager.sessions(self.principal)}

    def find(self, notebook_id: str) -> tuple[Notebook, LiveSession]:
        """A row and its kernel. Raises UnknownSession, also when the kernel is gone; then the row is forgotten."""
        row = self.notebooks.find(self.principal, notebook_id)
        live = self.living().get(row.kernel_id)
        if live is None:
            self.notebooks.forget([row.id])
            raise UnknownSession(notebook_id)
        return row, live

    @asynccontextmanager
    async def kernel(self, asked: Mapping[str, object], labels: Mapping[str, str]) -> AsyncIterator[LiveSession]:
        """The one that `{"id": …}` names, or a new one of the kernelspec that `{"name": …}` does. A new one ends when
        no row for it can be made inside."""
        kernel_id = text_of(asked, "id", max_chars=MAX_ID_CHARS)
        if kernel_id:
            if len(self.notebooks.using(kernel_id)) >= MAX_PER_KERNEL:
                raise UsageError(f"{MAX_PER_KERNEL} notebooks use this kernel; one with a kernel of its own would pass")
            yield self.manager.find(self.principal, kernel_id)
            return
        wish = Wish(kernel_name_of(asked), labels={name: label for name, label in labels.items() if label})
        live = await self.manager.create(self.principal, wish)
        try:
            yield live
        except BaseException:
            await live.delete()
            raise


class NotebooksHandler(_Handler):
    def get(self) -> None:
        living = self.living()
        rows = self.notebooks.of(self.principal)
        self.notebooks.forget(row.id for row in rows if row.kernel_id not in living)
        self.answer([notebook_model(row, living[row.kernel_id]) for row in rows if row.kernel_id in living])

    async def post(self) -> None:
        """The row of this path, if there is one already."""
        fields = self.fields()
        labels = {
            "path": text_of(fields, "path", max_chars=MAX_PATH_CHARS),
            "name": text_of(fields, "name", max_chars=MAX_PATH_CHARS),
            "type": text_of(fields, "type", max_chars=MAX_ID_CHARS, default="notebook"),
        }
        if not labels["path"]:
            raise UsageError("path is missing; any text that names a notebook or a console would pass")
        asked = table_of(fields, "kernel")
        async with self.notebooks.lock(self.principal, labels["path"]):
            living = self.living()
            known = [row for row in self.notebooks.of(self.principal) if row.path == labels["path"]]
            found = next(((row, living[row.kernel_id]) for row in known if row.kernel_id in living), None)
            if found is None:
                async with self.kernel(asked, labels) as live:
                    found = Notebook(str(uuid4()), self.principal, live.id, **labels), live
                    self.notebooks.put(found[0])
        self.set_header("Location", f"/api/sessions/{found[0].id}")
        self.answer(notebook_model(*found), 201)


class NotebookHandler(_Handler):
    def get(self, notebook_id: str) -> None:
        self.answer(notebook_model(*self.find(notebook_id)))

    async def patch(self, notebook_id: str) -> None:
        """Another path, name or type; another kernel. One that no row names any more is deleted."""
        fields = self.fields()
        row, former = self.find(notebook_id)
        labels = {
            "path": text_of(fields, "path", max_chars=MAX_PATH_CHARS) or row.path,
            "name": text_of(fields, "name", max_chars=MAX_PATH_CHARS, default=row.name),
            "type": text_of(fields, "type", max_chars=MAX_ID_CHARS) or row.type,
        }
        asked = table_of(fields, "kernel")
        wanted = [text_of(asked, key, max_chars=MAX_ID_CHARS) for key in ("id", "name")]
        is_other = any(wanted) and wanted[0] != former.id
        async with self.kernel(asked, labels) if is_other else nullcontext(former) as live:
            self.notebooks.find(self.principal, notebook_id)  # it may have been deleted in the meantime
            row = replace(row, kernel_id=live.id, **labels)
            self.notebooks.put(row)
        if live is not former and not self.notebooks.using(former.id):
            await former.delete()
        self.answer(notebook_model(row, live))

    async def delete(self, notebook_id: str) -> None:
        row, live = self.find(notebook_id)
        await live.delete()
        self.notebooks.forget([row.id])
        self.answer_nothing()
