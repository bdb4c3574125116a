"""One-shots: code that is run in a session of its own, of which nothing is left but what became of it.

    OneShot ── a turn ──▶ a fresh session ──▶ files in ──▶ inputs, code, calculate(inputs) ──▶ files out ──▶ Outcome
                 │                                                                              session gone
        fair between principals: those that find the server full wait, and are not refused

With inputs the code defines `calculate(inputs)`, and what that returns is the one-shot's value, as JSON. Knows nothing
of HTTP.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol
from uuid import uuid4

from cellgate.errors import (
    CellgateError,
    FileError,
    QuotaUsedUp,
    ServerFull,
    TooManySessions,
    TooManyWaiting,
    UsageError,
)
from cellgate.live.files import SessionFiles
from cellgate.live.follower import Follower
from cellgate.live.kernelspecs import Kernelspec
from cellgate.live.requirements import unmet
from cellgate.live.session import LiveSession
from cellgate.live.shares import Shares
from cellgate.live.wish import Wish
from cellgate.sessions.agents import Event
from cellgate.wire.agent import Execute
from cellgate.wire.result import Folding, Result
from cellgate.wire.strict import MAX_VALUES, count_values, load_plainly
from cellgate_kernel.message import MessageError

__all__ = ["Cache", "FileOut", "OneShot", "OneShots", "Outcome"]

PLACES = max(4, 2 * (os.cpu_count() or 1))  # one-shots at once: what computes gains nothing from more, what sleeps some
ROOM_SECONDS = 60.0  # to wait for another session to end, when there may be no more; then it is told
FREED_BY_ENDS = ("memory_bytes_per_principal", "stored_bytes_per_principal")  # quotas that a session's end gives back
LOOK_SECONDS = 0.05  # from one look for room to the next
CLIENT = "one-shot"
SHOW = "value"  # the id of the cell that tells what calculate returned
MAX_FILE_OUT_BYTES = 4 << 20  # of one file that is fetched: it is sent with the result
MAX_HELD_BYTES = 64 << 20  # of one principal's requests: eight of the largest, or thousands of the usual
CACHE_BYTES = 64 << 20  # of results, that are kept for the same to be asked again
CACHE_ENTRY_BYTES = 1 << 20  # of one: large results are rare, and would push many others out

# What inputs are called in the kernel: by names that no code uses by chance, as it may have `inputs` of its own.
_TAKE_INPUTS = "import json as _cellgate_json\n_cellgate_inputs = _cellgate_json.loads({!r})"
_CALCULATE = "_cellgate_value = _cellgate_json.dumps(calculate(_cellgate_inputs), allow_nan=False)"
_SHOW = "print(_cellgate_value)"


@dataclass(frozen=True)
class OneShot:
    """What is to be run, and how. Whoever made it has checked the types."""

    code: str
    wish: Wish = field(default_factory=Wish)
    inputs: str | None = None  # JSON, for calculate
    timeout: float | None = None  # seconds, for each of its cells
    output_bytes: int | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)  # put there before
    wanted: tuple[str, ...] = ()  # paths of files that are fetched after
    requirements: tuple[str, ...] = ()
    may_be_cached: bool = False

    def key(self, principal: str) -> str:
        """The same for what would be the same again. Nobody is told what was computed for others."""
        files = {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}
        said = json.dumps([principal, {**vars(self), "files": files}], default=vars, sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()


@dataclass(frozen=True)
class FileOut:
    """A file that was fetched, or why it was not."""

    data: bytes = b""
    error: CellgateError | None = None


@dataclass(frozen=True)
class Outcome:
    result: Result
    value: object = None  # what calculate returned
    files: Mapping[str, FileOut] = field(default_factory=dict)
    is_cached: bool = False

    @property
    def is_ok(self) -> bool:
        return self.result.is_ok

    @property
    def size(self) -> int:
        """In memory, about."""
        return len(json.dumps(self.result.to_json())) + sum(len(file.data) for file in self.files.values())


class Makes(Protocol):
    """What is needed of the manager."""

    @property
    def kernelspecs(self) -> Mapping[str, Kernelspec]: ...

    async def create(self, principal: str, wish: Wish) -> LiveSession: ...


class OneShots:
    """Those of one server. Belongs to one loop."""

    def __init__(self, manager: Makes, places: int = PLACES) -> None:
        self._manager = manager
        self._shares = Shares(places, asyncio.get_running_loop().time)
        self._cache = Cache(CACHE_BYTES)
        self._held: Counter[str] = Counter()  # bytes, by principal

    async def run(self, principal: str, shot: OneShot, tell: Callable[[Event], object] = lambda event: None) -> Outcome:
        """Returns when nothing is left of it but the outcome; `tell` is called with each event meanwhile. Whoever is
        cancelled ends it. Raises UsageError, TooManyWaiting, and what `Manager.create` and files may raise."""
        self._check(shot)
        key = shot.key(principal) if shot.may_be_cached else ""
        if key and (known := self._cache.get(key)):
            return replace(known, is_cached=True)
        async with self.session(principal, shot.wish) as live:
            outcome = await _run_in(live, shot, tell)
        if key and outcome.is_ok:
            self._cache.put(key, outcome)
        return outcome

    @contextmanager
    def holding(self, principal: str, size: int) -> Iterator[None]:
        """While a request of so many bytes is kept, be it in the queue or not. Raises TooManyWaiting when this
        principal's are too large together."""
        if self._held[principal] + size > MAX_HELD_BYTES:
            raise TooManyWaiting(self._shares.waiting.get(principal, 0))
        self._held[principal] += size
        try:
            yield
        finally:
            self._held[principal] -= size
            self._held += Counter()  # forgets those who hold nothing

    @asynccontextmanager
    async def session(self, principal: str, wish: Wish) -> AsyncIterator[LiveSession]:
        """One that is there in its turn, and gone after. Raises TooManyWaiting, what `Manager.create` may raise, and
        what keeps its kernel from starting."""
        async with self._shares.turn(principal):
            live = await self._make(principal, wish)
            try:
                await live.started()
                yield live
            finally:
                await live.delete()

    def _check(self, shot: OneShot) -> None:
        """Before it waits for anything."""
        spec = self._manager.kernelspecs[shot.wish.kernel]
        if shot.inputs is not None and spec.language != "python":
            raise UsageError(
                f"inputs are for calculate() of Python, and {spec.name} is {spec.language}; none would pass"
            )
        if not shot.requirements:
            return
        if spec.packages is None:
            raise UsageError(
                f"nobody knows what {spec.name} has installed; a kernel of Python, or no requirements pass"
            )
        if problems := unmet(shot.requirements, spec.packages):
            told = "; ".join(problems[:10])
            raise UsageError(f"{told}. Nothing is installed for you; what /v1/languages lists would pass")

    async def _make(self, principal: str, wish: Wish) -> LiveSession:
        """Waits for one to end when there may be no more."""
        wish = replace(wish, name=wish.name or CLIENT, is_fleeting=True)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ROOM_SECONDS
        while True:
            try:
                return await self._manager.create(principal, wish)
            except (ServerFull, TooManySessions, QuotaUsedUp) as error:
                is_passing = not isinstance(error, QuotaUsedUp) or error.quota in FREED_BY_ENDS
                if not is_passing or loop.time() >= deadline:
                    raise
            await asyncio.sleep(LOOK_SECONDS)


async def _run_in(live: LiveSession, shot: OneShot, tell: Callable[[Event], object]) -> Outcome:
    files = SessionFiles(live)
    for path, data in shot.files.items():
        await files.write_whole(path, data)
    folding = Folding()

    def take(event: Event) -> None:
        if event.get("cell") != SHOW:
            folding.take(event)
            tell(event)

    value = None
    with Follower(live, CLIENT, take) as follower:
        for cell in _cells(shot):
            result = await follower.run(cell)
            if not result.is_ok:
                break
        else:
            if shot.inputs is not None:
                value = await _shown_value(follower, shot, folding)
    return Outcome(folding.result(), value, {path: await _fetch(files, path) for path in shot.wanted})


def _cells(shot: OneShot) -> list[Execute]:
    limits = {} if shot.output_bytes is None else {"output_bytes_per_cell": shot.output_bytes}
    code = Execute(uuid4().hex, shot.code, timeout=shot.timeout, limits=limits)
    if shot.inputs is None:
        return [code]
    before = Execute(uuid4().hex, _TAKE_INPUTS.format(shot.inputs), silent=True, store_history=False)
    return [before, code, replace(code, id=uuid4().hex, code=_CALCULATE, store_history=False)]


async def _shown_value(follower: Follower, shot: OneShot, folding: Folding) -> object:
    """What calculate returned, as the kernel prints it: JSON, unless the code has seen to it that it is not."""
    limits = {} if shot.output_bytes is None else {"output_bytes_per_cell": shot.output_bytes}
    shown = await follower.run(Execute(SHOW, _SHOW, store_history=False, limits=limits))
    try:
        return _value_of(shown.stdout)
    except MessageError as error:
        text = f"the value of calculate() cannot be read: {error}"
        facts = {"truncated": shown.truncated, "bytes": len(shown.stdout)}
        folding.take({"event": "notice", "note": "no_value", "text": text, "facts": facts, "seq": shown.seq})
        return None


def _value_of(text: str) -> object:
    """Of JSON. Raises MessageError."""
    if count_values(text) > MAX_VALUES:
        raise MessageError("bad_json", f"it holds more than {MAX_VALUES} values")
    return load_plainly(memoryview(f'{{"value":{text}}}'.encode("utf-8", "replace")))["value"]


async def _fetch(files: SessionFiles, path: str) -> FileOut:
    try:
        return FileOut(await files.read_whole(path, MAX_FILE_OUT_BYTES))
    except FileError as error:
        return FileOut(error=error)


class Cache:
    """Outcomes by key, the least used of which go when they become too large."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._entries: OrderedDict[str, tuple[Outcome, int]] = OrderedDict()

    def get(self, key: str) -> Outcome | None:
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key][0]

    def put(self, key: str, outcome: Outcome) -> None:
        size = outcome.size
        if size > CACHE_ENTRY_BYTES or key in self._entries:
            return
        self._entries[key] = outcome, size
        self._bytes += size
        while self._bytes > self._most_bytes:
            _, (_, gone) = self._entries.popitem(last=False)
            self._bytes -= gone
