"""The same client for programs without an event loop: each call is carried out on a loop in a thread of the client's
own, and waited for. Who is interrupted while it waits, say by Ctrl-C, cancels the call, and with it the cell.

    with Client(url, token) as client, client.session() as session:
        print(session.run("1+1").result)

Names, arguments and errors are those of the asynchronous classes; a call inside a callback of the same client would
wait for itself.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent import futures
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, cast

from cellgate.client.client import PATIENCE_SECONDS, AsyncClient
from cellgate.client.files import AsyncFiles
from cellgate.client.http import Server
from cellgate.client.scripts import AsyncScripts
from cellgate.client.session import AsyncCell, AsyncSession

if TYPE_CHECKING:
    from cellgate.client.events import Event

__all__ = ["Cell", "Client", "Files", "Scripts", "Session"]

END_SECONDS = 5.0  # for a call that is cancelled to end; it hangs up, and tells the server
P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
T = TypeVar("T")


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="cellgate client", daemon=True)
        self._thread.start()

    def call(self, awaitable: Awaitable[R]) -> R:
        """Its outcome. Whatever takes us out of waiting cancels it, and waits until that is done, for a while."""
        task: asyncio.Task[Any] | None = None

        async def run() -> R:
            nonlocal task
            task = asyncio.current_task()
            return await awaitable

        async def end() -> None:
            if task is not None:  # it had begun
                await asyncio.wait([task])

        future = asyncio.run_coroutine_threadsafe(run(), self._loop)
        try:
            return future.result()
        except BaseException:
            if future.cancel():  # what comes next may need what it holds: an iterator that runs cannot be closed
                with suppress(futures.TimeoutError):
                    asyncio.run_coroutine_threadsafe(end(), self._loop).result(END_SECONDS)
            raise

    def close(self) -> None:
        self.call(_end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Blocking(Generic[A]):
    """What stands before an asynchronous object."""

    def __init__(self, loop: Loop, inner: A) -> None:
        self._loop = loop
        self._inner = inner


def blocking(method: Callable[Concatenate[A, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[Any, P], R]:
    """The same method, for one that stands before such an object."""

    @functools.wraps(method)
    def call(self: _Blocking[A], *args: P.args, **kwargs: P.kwargs) -> R:
        return self._loop.call(method(self._inner, *args, **kwargs))

    return cast("Callable[Concatenate[Any, P], R]", call)


def iterating(method: Callable[Concatenate[A, P], AsyncIterator[R]]) -> Callable[Concatenate[Any, P], Iterator[R]]:
    """The same for what is iterated over. An iterator that is let go of ends the asynchronous one."""

    @functools.wraps(method)
    def call(self: _Blocking[A], *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        inner = method(self._inner, *args, **kwargs)
        try:
            with suppress(StopAsyncIteration):
                while True:
                    yield self._loop.call(inner.__anext__())
        finally:
            if (close := getattr(inner, "aclose", None)) is not None:
                self._loop.call(close())

    return cast("Callable[Concatenate[Any, P], Iterator[R]]", call)


def making(
    method: Callable[Concatenate[A, P], Coroutine[Any, Any, R]], kind: Callable[[Loop, R], T]
) -> Callable[Concatenate[Any, P], T]:
    """The same for what returns another of our objects."""

    @functools.wraps(method)
    def call(self: _Blocking[A], *args: P.args, **kwargs: P.kwargs) -> T:
        return kind(self._loop, self._loop.call(method(self._inner, *args, **kwargs)))

    return cast("Callable[Concatenate[Any, P], T]", call)


def entering(
    method: Callable[Concatenate[A, P], AbstractAsyncContextManager[R]], kind: Callable[[Loop, R], T]
) -> Callable[Concatenate[Any, P], AbstractContextManager[T]]:
    """The same for one that lasts as long as a block of code."""

    @functools.wraps(method)
    def call(self: _Blocking[A], *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        inside = method(self._inner, *args, **kwargs)
        entered = self._loop.call(inside.__aenter__())
        try:
            yield kind(self._loop, entered)
        finally:
            self._loop.call(inside.__aexit__(None, None, None))

    return cast("Callable[Concatenate[Any, P], AbstractContextManager[T]]", contextmanager(call))


def shown(name: str, kind: type[T]) -> T:
    """A property of the object behind."""
    return cast(T, property(lambda self: getattr(self._inner, name)))


class Cell(_Blocking[AsyncCell]):
    __doc__ = AsyncCell.__doc__

    id = shown("id", str)
    code = shown("code", str)
    is_done = shown("is_done", bool)
    events = iterating(AsyncCell.events)
    messages = iterating(AsyncCell.messages)
    result = blocking(AsyncCell.result)
    cancel = blocking(AsyncCell.cancel)
    answer = blocking(AsyncCell.answer)

    def __iter__(self) -> Iterator[Event]:
        return self.events()


class Files(_Blocking[AsyncFiles]):
    __doc__ = AsyncFiles.__doc__

    list = blocking(AsyncFiles.list)
    read = blocking(AsyncFiles.read)
    write = blocking(AsyncFiles.write)
    put = blocking(AsyncFiles.put)
    get = blocking(AsyncFiles.get)
    pack = blocking(AsyncFiles.pack)
    unpack = blocking(AsyncFiles.unpack)
    make_directory = blocking(AsyncFiles.make_directory)
    rename = blocking(AsyncFiles.rename)
    delete = blocking(AsyncFiles.delete)


class Scripts(_Blocking[AsyncScripts]):
    __doc__ = AsyncScripts.__doc__

    list = blocking(AsyncScripts.list)
    save = blocking(AsyncScripts.save)
    get = blocking(AsyncScripts.get)
    versions = blocking(AsyncScripts.versions)
    diff = blocking(AsyncScripts.diff)
    delete = blocking(AsyncScripts.delete)
    run = blocking(AsyncScripts.run)


class Session(_Blocking[AsyncSession]):
    """Made by `Client.session`, `create` or `attach`. Also a context manager, which lets go at its end."""

    id = shown("id", str)
    client = shown("client", str)
    state = shown("state", str)
    running = cast("str | None", shown("running", object))
    incarnation = shown("incarnation", int)
    seen = shown("seen", int)
    submit = making(AsyncSession.submit, Cell)
    run = blocking(AsyncSession.run)
    stream = iterating(AsyncSession.stream)
    events = iterating(AsyncSession.events)
    answer = blocking(AsyncSession.answer)
    cancel = blocking(AsyncSession.cancel)
    interrupt = blocking(AsyncSession.interrupt)
    restart = blocking(AsyncSession.restart)
    touch = blocking(AsyncSession.touch)
    complete = blocking(AsyncSession.complete)
    inspect = blocking(AsyncSession.inspect)
    is_complete = blocking(AsyncSession.is_complete)
    variables = blocking(AsyncSession.variables)
    open = blocking(AsyncSession.open)
    idle = blocking(AsyncSession.idle)
    info = blocking(AsyncSession.info)
    update = blocking(AsyncSession.update)
    close = blocking(AsyncSession.close)
    delete = blocking(AsyncSession.delete)

    @property
    def files(self) -> Files:
        return Files(self._loop, self._inner.files)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Client(_Blocking[AsyncClient]):
    __doc__ = AsyncClient.__doc__

    url = shown("url", str)
    server = shown("server", Server)
    session = entering(AsyncClient.session, Session)
    create = making(AsyncClient.create, Session)
    attach = making(AsyncClient.attach, Session)
    open = blocking(AsyncClient.open)
    sessions = blocking(AsyncClient.sessions)
    delete = blocking(AsyncClient.delete)
    run = blocking(AsyncClient.run)
    batch = blocking(AsyncClient.batch)
    validate = blocking(AsyncClient.validate)
    ask = blocking(AsyncClient.ask)

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        patience: float = PATIENCE_SECONDS,
        starts: bool = True,
    ) -> None:
        super().__init__(Loop(), AsyncClient(url, token, patience=patience, starts=starts))

    @property
    def scripts(self) -> Scripts:
        return Scripts(self._loop, self._inner.scripts)

    def close(self) -> None:
        """Let go of everything; no call is possible any more."""
        self._loop.call(self._inner.close())
        self._loop.close()

    def __enter__(self) -> Client:
        try:
            self.open()
        except BaseException:  # nobody else will
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _end_all() -> None:
    """Of what still runs on this loop: nothing does in order."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
